"""The run-time check of array shapes that tests/conftest.py puts on the package's functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])

MODULES = ("outputs", "statistics", "detectors", "neighbors", "odin", "taps", "accumulate", "linalg")


def check(function: F) -> F:
    """Beartype on the annotations that hold a shape; what is no array is the static checkers' business.

    Public functions say in a sentence of their own what is no array, and tests read it.
    """
    hints = function.__annotations__
    for name in [name for name, hint in hints.items() if not _has_shape(hint)]:
        hints[name] = Any
    return beartype(function)


def _has_shape(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))
