"""Post-hoc detectors: `create` one, `fit` it to training statistics, `score` outputs; `register` your own.

`NAMES` are the study's 21, `names()` all that are registered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from oodjax.arrays import describe
from oodjax.detectors import classification, feature, gradient, hybrid, intermediate  # noqa: F401 - they register
from oodjax.detectors.base import METHODS, Detector, Method, names, register, score_all
from oodjax.detectors.calibration import Calibration
from oodjax.detectors.names import NAMES, closest

__all__ = [
    "NAMES",
    "Calibration",
    "Detector",
    "Method",
    "Note",
    "create",
    "families",
    "grid",
    "names",
    "reads",
    "register",
    "score_all",
    "search_space",
]


def create(name: str, **hyperparameters: Any) -> Detector:
    """An unfitted detector.

    Args:
      name: one of `names()`.
      **hyperparameters: the method's options, Python's or NumPy's numbers; those left out take its defaults.

    Raises:
      ValueError: an unknown name or hyper-parameter (the message lists what exists), or a value out of range.
    """
    method = _method(name)
    unknown = sorted(set(hyperparameters) - set(method.options))
    if unknown:
        known = ", ".join(method.options) or "none"
        raise ValueError(f"{name} has no hyper-parameter {', '.join(unknown)}; it takes: {known}")
    options = {key: _plain(value) for key, value in {**method.options, **hyperparameters}.items()}
    if method.check is not None:
        method.check(**options)
    return Detector(name, tuple(options.items()), None if method.fit else ())


def grid(name: str) -> list[dict[str, Any]]:
    """A detector's search space, the study's for its own: keyword dicts for `create`, [{}] when there is none."""
    return [dict(point) for point in _method(name).grid]


def reads(chosen: Iterable[str]) -> frozenset[str]:
    """The training statistics that these detectors' fits read: the `needs` of `TrainStatistics.collect`."""
    return frozenset(read for name in chosen for read in _method(name).reads)


def families() -> dict[str, str]:
    """Detector name -> family, in the order of `names`."""
    return {name: METHODS[name].family for name in names()}


class Note(NamedTuple):
    """Why a grid point of a detector is left out of the search, or what is searched in another's place."""

    detector: str
    text: str
    left_out: bool = False


def search_space(name: str, stats: Any) -> tuple[list[Detector], list[Note]]:
    """The grid points that a problem can carry, and a note for each that it cannot.

    Where the problem carries none, a method that can be capped (gen's top_m at the number of classes) is, and any
    other is searched at its defaults.

    Args:
      name: one of `names()`.
      stats: the training statistics that the points will be fitted to.

    Returns:
      points: unfitted detectors, in the grid's order.
      notes: why each missing point was left out, and what a default became that the problem cannot carry.
    """
    method = _method(name)
    points: list[Detector] = []
    notes: list[Note] = []
    candidates = [create(name, **point) for point in method.grid]
    for det in candidates:
        options = method.resolve(stats, det.options) if method.resolve else det.options
        reason = method.limit(stats, options) if method.limit else None
        if reason is not None:
            notes.append(Note(name, reason, left_out=True))
            continue
        points.append(det)
        note = method.note(stats, det.options) if method.note else None
        if note is not None:
            notes.append(Note(name, note))
    if points:
        return points, notes
    if method.cap is not None:
        capped = {tuple(method.cap(stats, det.options).items()): None for det in candidates}
        return [create(name, **dict(options)) for options in capped], [*notes, Note(name, "searched capped instead")]
    return [create(name)], [*notes, Note(name, "searched at its defaults instead")]


def _method(name: str) -> Method:
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    near = closest(name, METHODS) if isinstance(name, str) else None
    hint = "" if near is None else f". Did you mean {near!r}?"
    given = repr(name) if isinstance(name, str) and len(name) <= 40 else describe(name)
    raise ValueError(f"unknown detector {given}; there are: {', '.join(names())}{hint}")


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's and sequences as tuples, so that equal settings compare and hash as equal."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) > 0:
        return tuple(_plain(v) for v in value)
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
