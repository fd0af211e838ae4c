"""Post-hoc detectors: `create` one, `fit` it to training statistics, `score` outputs; `register` your own.

`NAMES` are the study's 21, `names()` all that are registered: those, the later ones (`detectors.later`) and your own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from oodjax.detectors import classification, feature, gradient, hybrid, intermediate, later  # noqa: F401 - they register
from oodjax.detectors.base import METHODS, Detector, Method, names, register, score_all
from oodjax.detectors.calibration import Calibration
from oodjax.detectors.labels import complete, parse
from oodjax.detectors.names import NAMES

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
      name: one of `names()`, or a label such as "vim:dim=512", a name with options.
      **hyperparameters: the method's options, Python's or NumPy's numbers; those left out take its defaults.

    Raises:
      ValueError: an unknown name or hyper-parameter (the message lists what exists), a value out of range, or an option
        that both the label and a keyword give.
    """
    label = parse(name)
    twice = [key for key in label.options if key in hyperparameters]
    if twice:
        raise ValueError(f"{name!r} gives {', '.join(twice)} already: leave out the keyword, or name {label.name!r}")
    options = complete(label.method, {**label.options, **hyperparameters})
    return Detector(label.name, tuple(options.items()), None if label.method.fit else ())


def grid(name: str) -> list[dict[str, Any]]:
    """A detector's search space, the study's for its own: keyword dicts for `create`, [{}] when there is none.

    What a label gives is not searched: it stands in every point.
    """
    return parse(name).points


def reads(chosen: Iterable[str]) -> frozenset[str]:
    """The training statistics that these detectors' fits read: the `needs` of `TrainStatistics.collect`."""
    return frozenset(read for name in chosen for read in parse(name).method.reads)


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
    other is searched at its defaults. What a label gives stays as it is.

    Args:
      name: one of `names()`, or a label.
      stats: the training statistics that the points will be fitted to.

    Returns:
      points: unfitted detectors, in the grid's order.
      notes: why each missing point was left out, and what a default became that the problem cannot carry.

    Raises:
      ValueError: the problem cannot carry what the label gives; the message says why.
    """
    label = parse(name)
    method = label.method
    points: list[Detector] = []
    notes: list[Note] = []
    candidates = [create(label.name, **point) for point in label.points]
    for det in candidates:
        reason = _objection(det, stats)
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
        return [create(label.name, **dict(options)) for options in capped], [
            *notes,
            Note(name, "searched capped instead"),
        ]
    default = create(name)
    reason = _objection(default, stats) if label.options else None
    if reason is not None:
        raise ValueError(f"{name}: {reason}")
    return [default], [*notes, Note(name, "searched at its defaults instead")]


def _objection(det: Detector, stats: Any) -> str | None:
    """Why the problem cannot carry a detector's options, or None."""
    method = det.method
    options = method.resolve(stats, det.options) if method.resolve else det.options
    return method.limit(stats, options) if method.limit else None
