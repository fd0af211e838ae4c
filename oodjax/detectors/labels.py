"""Detectors with options as text, `vim:dim=512`: a label can stand wherever a detector's name can."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oodjax.arrays import describe
from oodjax.detectors.base import METHODS, Method, names

SHAPE = "NAME, NAME:OPTION=VALUE or NAME:OPTION=VALUE+OPTION=VALUE, for example vim:dim=512"
_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Label:
    """A detector, and the hyper-parameters that are given with it and not searched.

    Attributes:
      name: one of `detectors.names()`.
      options: the given ones by name; Python's numbers, texts, True, False, None, and tuples of them.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The one text of all that say the same: options in the method's order, numbers at their shortest."""
        given = (f"{key}={_text(self.options[key])}" for key in self.method.options if key in self.options)
        return f"{self.name}:{'+'.join(given)}" if self.options else self.name

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def points(self) -> list[dict[str, Any]]:
        """The method's grid with the given options in place of what would be searched: keyword dicts for `create`."""
        found: list[dict[str, Any]] = []
        for point in self.method.grid:
            pinned = {**point, **self.options}
            if pinned not in found:
                found.append(pinned)
        return found


def parse(text: str) -> Label:
    """What a label says.

    A value is a number, true, false, none, a tuple such as (1,2), or else a text.

    Args:
      text: NAME, NAME:OPTION=VALUE or NAME:OPTION=VALUE+OPTION=VALUE.

    Raises:
      ValueError: another shape; an unknown name (with what it may mean) or option; a value that the method refuses.
    """
    method, rest = _method(text)
    if rest is None:
        return Label(method.name)
    options: dict[str, Any] = {}
    for part in re.split(r"\+(?=[^+=]*=)", rest):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ValueError(f"{_short(text)} is no detector with options: write {SHAPE}")
        if key in options:
            raise ValueError(f"{_short(text)} gives {key} twice")
        options[key] = _value(value, text)
    complete(method, options)
    return Label(method.name, options)


def among(text: str, known: Sequence[str]) -> str | None:
    """Which of the labels that are there a text says; None where it says none of them."""
    if text in known:
        return text
    try:
        said = parse(text).label
    except ValueError:
        return None
    return said if said in known else None


def complete(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a method: those given, checked, and the defaults of the others.

    Raises:
      ValueError: an option that it does not have (the message lists those it has), or a value that it refuses.
    """
    unknown = sorted(set(options) - set(method.options))
    if unknown:
        known = ", ".join(method.options) or "none"
        raise ValueError(f"{method.name} has no hyper-parameter {', '.join(unknown)}; it takes: {known}")
    whole = {key: plain(value) for key, value in {**method.options, **options}.items()}
    if method.check is not None:
        method.check(**whole)
    return whole


def plain(value: Any) -> Any:
    """NumPy's scalars as Python's and sequences as tuples, so that equal settings compare and hash as equal."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) > 0:
        return tuple(plain(v) for v in value)
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def closest(name: str, known: Iterable[str]) -> str | None:
    """The label that `name` most likely means: in another case or spelling, by another name, or misspelt."""
    bare = {_bare(label): label for label in known}
    bare |= {_bare(alias): n for n in bare.values() if n in METHODS for alias in METHODS[n].aliases}
    found = difflib.get_close_matches(_bare(name), bare, n=1, cutoff=0.7)
    return bare[found[0]] if found else None


def _bare(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower().replace("+", "plus"))


def _method(text: Any) -> tuple[Method, str | None]:
    """The method that a label names, and the text of its options, None where it has none."""
    name, colon, rest = text.partition(":") if isinstance(text, str) else (text, "", "")
    if isinstance(name, str) and name in METHODS:
        return METHODS[name], rest if colon else None
    near = closest(name, METHODS) if isinstance(name, str) else None
    hint = "" if near is None else f". Did you mean {near + colon + rest!r}?"
    raise ValueError(f"unknown detector {_short(name)}; there are: {', '.join(names())}{hint}")


def _value(text: str, label: str) -> Any:
    if text.startswith("(") and text.endswith(")"):
        return tuple(_scalar(part.strip(), label) for part in text[1:-1].split(",") if part.strip())
    return _scalar(text, label)


def _scalar(text: str, label: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise ValueError(f"{_short(label)}: {_short(text)} is no number that an option can have")
    return int(number) if number.is_integer() else number


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(_text, value))})"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _short(text: Any) -> str:
    return repr(text) if isinstance(text, str) and len(text) <= 40 else describe(text)
