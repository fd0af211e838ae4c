"""From what a pass left of one model to a choice of hyper-parameters and scores: no network, one detector at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from oodjax import detectors
from oodjax.accumulate import from_arrays
from oodjax.bank import Bank, kept_rows
from oodjax.data.sets import ImageSet
from oodjax.detectors import Detector, Note, score_all
from oodjax.detectors.labels import parse
from oodjax.neighbors import replicate
from oodjax.outputs import Head, Outputs
from oodjax.selection import select
from oodjax.statistics import TrainStatistics
from oodjax.store import key_of
from oodjax.study import StudyError

BANK_ROWS = ("features", "energies", "labels", "keys")
BLOCK = 256
WHOLE_GRID = 20_000  # samples below which all points of a grid are scored: one program then serves every choice

score_points = jax.jit(score_all)


@dataclass(frozen=True)
class Kept:
    """What the store keeps of a model on one set: its rows that could be read.

    Attributes:
      image_set: the set.
      arrays: logits, features and what else was needed, as memory maps; scores of detectors scored in the pass.
      valid: (n,) which images could be read.
    """

    image_set: ImageSet
    arrays: Mapping[str, np.ndarray]
    valid: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        return np.flatnonzero(self.valid)

    @property
    def labels(self) -> np.ndarray:
        return self.image_set.labels[self.rows]

    def take(self, name: str) -> np.ndarray:
        """An array's readable rows."""
        array = self.arrays[name]
        return array if self.valid.all() else array[self.rows]


@dataclass(frozen=True)
class Chosen:
    """A detector's point and what the search left out.

    Attributes:
      options: the chosen hyper-parameters, JSON values.
      auroc: on the validation sets, None where none was searched.
      notes: grid points that the problem cannot carry, and what was searched instead.
    """

    options: dict[str, Any]
    auroc: float | None
    notes: tuple[Note, ...] = ()


def read_statistics(
    arrays: Mapping[str, np.ndarray],
    head: Head,
    labels: np.ndarray,
    fraction: float,
    seed: int,
    seen: np.ndarray | None,
) -> TrainStatistics:
    """The training statistics of what a train pass kept: sums whole, the bank as it lies on the disk.

    Args:
      arrays: sums by the name "sums.NAME", and the bank's rows.
      head: of the network.
      labels: (n,) of all training images.
      fraction, seed: of the bank.
      seen: (n,) which images could be read; the rows of others are left out. None for all.
    """
    if "features" in arrays:
        arrays = {**arrays, "labels": labels[kept_rows(len(labels), seed, fraction)]}
    if seen is not None and not np.all(seen):
        arrays = _without_unseen(arrays, np.asarray(seen), seed, fraction)
    sums = {name.removeprefix("sums."): np.asarray(a) for name, a in arrays.items() if name.startswith("sums.")}
    rows = {name: arrays.get(name) for name in (*BANK_ROWS, "layer_means", "histogram")}
    bank = Bank(**rows, bank_fraction=fraction, seed=seed)
    return TrainStatistics.finalize(from_arrays(sums), bank, head, mesh=local_mesh())


def local_mesh() -> Mesh | None:
    """This host's devices, over which a bank is shared out; None where there is one."""
    devices = jax.local_devices()
    return Mesh(np.array(devices), ("bank",)) if len(devices) > 1 else None


def _without_unseen(
    arrays: Mapping[str, np.ndarray], seen: np.ndarray, seed: int, fraction: float
) -> dict[str, np.ndarray]:
    banked = seen[kept_rows(len(seen), seed, fraction)]
    return {
        name: array[banked]
        if name in ("features", "energies", "keys")
        else array[seen]
        if name == "layer_means"
        else array
        for name, array in arrays.items()
    }


def in_pass(name: str) -> bool:
    """Whether a detector is scored inside the pass: its field is too large to be kept."""
    return "gram" in parse(name).method.needs


def array_of(name: str) -> str:
    """The array that holds what is kept for one label alone, as the store names arrays."""
    label = parse(name)
    return f"{label.name}.{key_of(options=label.label)[:16]}" if label.options else label.name


def searched(name: str) -> bool:
    """Whether a label leaves anything to choose."""
    return len(parse(name).points) > 1


def candidates(name: str, stats: Any, searching: bool) -> tuple[list[Detector], list[Note]]:
    """Unfitted points to choose among: the grid that the problem carries, or the defaults where nothing is searched.

    Raises:
      StudyError: the problem cannot carry what the label gives.
    """
    default: tuple[list[Detector], list[Note]] = [detectors.create(name)], []
    if not searching and not parse(name).options:
        return default
    try:
        found = detectors.search_space(name, stats)
    except ValueError as error:
        raise StudyError(f"{error}; give another value, or leave it out of --detectors") from error
    return found if searching else default


def fit(points: Sequence[Detector], stats: Any, validation: Outputs | None) -> tuple[Detector, ...]:
    if points and points[0].method.reads_validation:
        return tuple(point.fit(stats, validation) for point in points)
    fitted = tuple(point.fit(stats) for point in points)
    return replicate(fitted, NamedSharding(stats.mesh, PartitionSpec())) if stats.mesh is not None else fitted


def choose(
    points: Sequence[Detector], inside: np.ndarray, outside: np.ndarray, notes: Sequence[Note]
) -> tuple[int, Chosen]:
    """The first best point by AUROC of validation scores (n, P) and (k, P), and its column."""
    index, value = select(inside, outside)
    return index, Chosen(public_options(points[index]), value, tuple(notes))


def public_options(point: Detector) -> dict[str, Any]:
    """A point's hyper-parameters as tables show them: without the names of ODIN's axes."""
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in point.options.items()
        if k not in ("temperatures", "noises")
    }


def scores(points: Sequence[Detector], kept: Kept, odin: str = "odin") -> np.ndarray:
    """(n, len(points)) float32 scores of points of one detector, in blocks of one shape.

    Args:
      points: fitted.
      kept: of the set.
      odin: the array that holds ODIN's scores at these points.
    """
    needs = points[0].needs
    names = [name for name in ("logits", "features", "layer_means", "odin") if name in needs]
    columns = {name: kept.arrays[odin if name == "odin" else name] for name in names}
    found = []
    for start in range(0, len(kept.rows), BLOCK):
        rows = kept.rows[start : start + BLOCK]
        block = {name: _padded(array[rows], BLOCK) for name, array in columns.items()}
        for name in ("logits", "features"):  # an `Outputs` always has both
            block.setdefault(name, np.zeros((BLOCK, 1), np.float32))
        found.append((score_points(tuple(points), Outputs(**block)), len(rows)))
    return np.concatenate([np.asarray(block)[:count] for block, count in found])


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def odin_at(options: Mapping[str, Any]) -> Detector:
    """ODIN at one point, reading scores that were made for that point alone."""
    t, e = options["temperature"], options["noise"]
    return detectors.create("odin", temperature=t, noise=e, temperatures=(t,), noises=(e,))


ReadKept = Callable[[ImageSet], Kept]


def score_detector(
    name: str, stats: Any, validation: Sequence[Kept], tests: Sequence[Kept], id_val: Outputs | None
) -> tuple[Chosen, list[np.ndarray]]:
    """One detector on one model, from what is kept.

    Args:
      name: the detector, a name or a label.
      stats: training statistics, or those of the head alone.
      validation: ID first, then the OOD sets; empty where nothing is searched.
      tests: the sets to score.
      id_val: outputs and labels of the ID validation set, for detectors that are fitted to it.

    Returns:
      The point, and its scores on each test set.
    """
    points, notes = candidates(name, stats, bool(validation))
    if in_pass(name):
        index, chosen = _choose_kept(name, points, validation, notes)
        return chosen, [kept.take(array_of(name))[:, index] for kept in tests]
    fitted = fit(points, stats, id_val)
    is_odin = parse(name).name == "odin"
    if validation and (searched(name) or not is_odin):  # ODIN's scores cost passes, so one point takes none
        inside, *outside = (scores(fitted, kept) for kept in validation)
        index, chosen = choose(fitted, inside, np.concatenate(outside), notes)
    else:
        index, chosen = 0, Chosen(public_options(fitted[0]), None)
    if is_odin:  # test sets hold the chosen point alone
        return chosen, [scores((odin_at(fitted[index].options),), kept, array_of(name))[:, 0] for kept in tests]
    found = []
    for kept in tests:
        whole = len(kept.rows) < WHOLE_GRID and bool(validation)
        some = scores(fitted if whole else (fitted[index],), kept)
        found.append(some[:, index if whole else 0])
    return chosen, found


def _choose_kept(
    name: str, points: Sequence[Detector], validation: Sequence[Kept], notes: Sequence[Note]
) -> tuple[int, Chosen]:
    if not validation:
        return 0, Chosen(public_options(points[0]), None)
    inside, *outside = (kept.take(array_of(name)) for kept in validation)
    return choose(points, inside, np.concatenate(outside), notes)
