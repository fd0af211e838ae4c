"""Numbers of a frozen record: checked, and kept as Python's own, which JSON takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oodjax.arrays import describe, is_number, is_whole


def set_whole(record: Any, field: str, least: int) -> None:
    """Makes a field an int; a ValueError names it unless it is a whole number from `least` on."""
    value = getattr(record, field)
    if not is_whole(value) or value < least:
        raise ValueError(f"{field} must be a whole number, at least {least}, got {describe(value)}")
    object.__setattr__(record, field, int(value))


def set_number(record: Any, field: str, words: str, holds: Callable[[float], bool]) -> None:
    """Makes a field a float; a ValueError names it unless it is a number for which `holds`, said in `words`."""
    value = getattr(record, field)
    if not is_number(value) or not holds(float(value)):
        raise ValueError(f"{field} must be a number, {words}, got {describe(value)}")
    object.__setattr__(record, field, float(value))
