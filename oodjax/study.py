"""The plan of a study: which checkpoints and units there are, which are done, and how to make the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from oodjax import accumulate
from oodjax.bank import BankBuilder
from oodjax.command_line import UsageError
from oodjax.data import ImageSet
from oodjax.detectors import NAMES, Detector, Note, score_all, search_space
from oodjax.extract import Counts, Extractor, to_host
from oodjax.files import code_fingerprint, fingerprint, read_arrays, write_arrays
from oodjax.outputs import Head, Outputs
from oodjax.selection import select
from oodjax.statistics import TrainStatistics

# What decides the numbers of a unit, beside its weights and images, which are hashed themselves: an edit elsewhere
# leaves finished units valid.
UNIT_CODE = (
    "accumulate.py", "arrays.py", "bank.py", "checks.py", "data/loader.py", "detectors", "extract.py", "linalg.py",
    "metrics.py", "models/normalize.py", "models/resnet.py", "neighbors.py", "odin.py", "outputs.py", "percentiles.py",
    "selection.py", "softmax.py",
    "statistics.py", "taps.py",
)  # fmt: skip

score_points = jax.jit(score_all)


class StudyError(UsageError):
    """A study that cannot be run as asked; the message names what was given and what is possible."""


class StudyData(Protocol):
    """The image sets of a study; see `oodjax.data.digits.load`."""

    train: ImageSet
    id_val: ImageSet
    id_test: ImageSet
    ood_val: ImageSet
    ood_tests: tuple[ImageSet, ...]
    mean: Any
    std: Any


@dataclass(frozen=True)
class Network:
    """A loaded checkpoint: the static part (equal for all of an architecture), its weights and its head."""

    graphdef: Any
    state: Any
    head: Head
    weights_hash: str


@dataclass(frozen=True)
class Preset:
    """A study: its data, its checkpoints and how to obtain them.

    Attributes:
      name: the first argument of the command line.
      models: checkpoint -> training category.
      load_data: seed -> the image sets.
      ready: (checkpoint, data, seed, folder) -> the weights' hash when the checkpoint is there and current, or None.
      make: the same arguments; trains or converts the checkpoint and writes it whole.
      load: (folder, precision) -> the network.
      batch_size: images a step.
    """

    name: str
    models: Mapping[str, str]
    load_data: Callable[[int], Any]
    ready: Callable[[str, Any, int, Path], str | None]
    make: Callable[[str, Any, int, Path], None]
    load: Callable[[Path, str], Network]
    batch_size: int = 256


@dataclass(frozen=True)
class Unit:
    """The scores of one checkpoint on one image set, as kept on disk.

    Attributes:
      scores: (n, P) float32, one column for each grid point of every detector.
      logits: (n, K) float32.
      features: (n, D) float32.
      labels: (n,) int32, -1 for OOD.
    """

    scores: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Choice:
    """The grid points of a checkpoint's detectors in column order, and which one each detector uses."""

    points: tuple[tuple[str, dict[str, Any]], ...]
    selected: dict[str, int]
    notes: tuple[Note, ...]


@dataclass
class Study:
    """One study in one folder: finds what is finished, makes the rest.

    Attributes:
      preset, data: what is studied.
      folder: where checkpoints and units are kept.
      models, detectors, datasets: names, in the study's order.
      seed: of data, training and pseudo-random choices.
      precision: float32 or bfloat16, of the network's forward pass.
      batch_size: images a step.
    """

    preset: Preset
    data: StudyData
    folder: Path
    models: tuple[str, ...]
    detectors: tuple[str, ...] = NAMES
    datasets: tuple[str, ...] = ()
    seed: int = 0
    precision: str = "float32"
    batch_size: int = 256
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.counts.decoded = sum(s.count for s in (*self.shared_sets, *self.test_sets))

    @property
    def shared_sets(self) -> tuple[ImageSet, ...]:
        """What fitting and selection read."""
        return self.data.train, self.data.id_val, self.data.ood_val

    @property
    def test_sets(self) -> tuple[ImageSet, ...]:
        chosen = [s for s in self.data.ood_tests if not self.datasets or s.name in self.datasets]
        return (self.data.id_test, *chosen)

    @cached_property
    def extractor(self) -> Extractor:
        return Extractor(self.data.mean, self.data.std, self.batch_size, counts=self.counts)

    def checkpoint_folder(self, model: str) -> Path:
        return self.folder / "checkpoints" / model

    def missing_checkpoints(self) -> list[str]:
        return [m for m in self.models if self.weights_hash(m) is None]

    def weights_hash(self, model: str) -> str | None:
        return self.preset.ready(model, self.data, self.seed, self.checkpoint_folder(model))

    def make_checkpoint(self, model: str) -> None:
        self.preset.make(model, self.data, self.seed, self.checkpoint_folder(model))

    def unit_path(self, model: str, image_set: ImageSet | None, with_odin: bool) -> Path:
        """Where a unit belongs, by everything that decides its numbers; `None` stands for the validation unit."""
        key = fingerprint(
            {
                "weights": self.weights_hash(model),
                "fitted_on": [s.sha256 for s in self.shared_sets],
                "scored": None if image_set is None else image_set.sha256,
                "normalisation": [[float(v) for v in x] for x in (self.data.mean, self.data.std)],
                "precision": self.precision,
                "seed": self.seed,
                "odin": with_odin,
                "code": code_fingerprint(*UNIT_CODE),
            }
        )
        name = "validation" if image_set is None else image_set.name
        return self.folder / "units" / model / f"{name}-{key[:16]}.npz"

    def find(self, model: str, image_set: ImageSet | None) -> Path | None:
        """The finished unit, or None. One with ODIN's scores also serves a study without ODIN."""
        for with_odin in (True, False) if "odin" not in self.detectors else (True,):
            path = self.unit_path(model, image_set, with_odin)
            if path.exists():
                return path
        return None

    def missing_units(self, model: str) -> list[ImageSet]:
        """The test sets still to be scored; all of them when the validation unit is missing."""
        if self.find(model, None) is None:
            return list(self.test_sets)
        return [s for s in self.test_sets if self.find(model, s) is None]

    def evaluate(self, model: str) -> Iterator[str]:
        """Scores what is missing of a checkpoint, one unit after the other; yields the name of each set as it is done.

        One pass over training gives the statistics, one over validation the hyper-parameters, one over each test set
        its scores: no image goes through the network twice, ODIN's own passes aside.
        """
        missing = self.missing_units(model)
        if not missing:
            return
        with_odin = "odin" in self.detectors
        network = self.preset.load(self.checkpoint_folder(model), self.precision)
        graphdef, state = network.graphdef, self.extractor.replicate(network.state)
        stats = self._train_statistics(network, state)
        yield self.data.train.name
        ready, waiting, notes = self._points(stats, with_odin)
        inside, outside = (self._pass(s, graphdef, state, (ready,)) for s in (self.data.id_val, self.data.ood_val))
        validation = Outputs(inside["logits"], inside["features"], self.data.id_val.labels)
        late = self.extractor.replicate(tuple(point.fit(stats, validation) for point in waiting))
        for kept in (inside, outside) if late else ():
            scores = score_points(late, Outputs(kept["logits"], kept["features"]))
            kept["scores"] = np.concatenate([kept["scores"], np.asarray(scores)], axis=1)
        self._write_choice(model, (*ready, *late), notes, inside["scores"], outside["scores"], with_odin)
        yield self.data.id_val.name
        for image_set in missing:
            arrays = self._pass(image_set, graphdef, state, (ready, late))
            write_arrays(self.unit_path(model, image_set, with_odin), {**arrays, "labels": image_set.labels})
            yield image_set.name

    def _train_statistics(self, network: Network, state: Any) -> TrainStatistics:
        train, accumulator, bank = self.data.train, None, BankBuilder(seed=self.seed)
        for outputs, mask, count in self.extractor.passes(
            network.graphdef, state, train.images, train.labels, with_odin=False
        ):
            if accumulator is None:
                accumulator = accumulate.start(outputs, mask)
            accumulator = accumulate.step(accumulator, outputs, mask)
            bank.add(outputs, count)
        assert accumulator is not None
        return TrainStatistics.finalize(accumulator, bank, network.head)

    def _points(
        self, stats: TrainStatistics, with_odin: bool
    ) -> tuple[tuple[Detector, ...], list[Detector], list[Note]]:
        """Fitted grid points, those still to be fitted to the validation split, and what the search left out."""
        ready, waiting, notes = [], [], []
        for name in NAMES:
            if name == "odin" and not with_odin:
                continue
            found, left_out = search_space(name, stats)
            notes += left_out
            for point in found:
                if point.method.reads_validation:
                    waiting.append(point)
                else:
                    ready.append(point.fit(stats))
        return self.extractor.replicate(tuple(ready)), waiting, notes

    def _pass(
        self, image_set: ImageSet, graphdef: Any, state: Any, groups: Sequence[tuple[Detector, ...]]
    ) -> dict[str, np.ndarray]:
        """One pass over a set: the scores of all points of the groups in a row, logits and features.

        GRAM's rows, 39,040 numbers an image on ResNet-50, are scored where they are and never kept.
        """
        kept: dict[str, list] = {"scores": [], "logits": [], "features": []}
        with_odin = any(point.name == "odin" for group in groups for point in group)
        for outputs, _, count in self.extractor.passes(
            graphdef, state, image_set.images, image_set.labels, with_odin=with_odin
        ):
            scores = [score_points(group, outputs.replace(labels=None)) for group in groups if group]
            kept["scores"].append((jnp.concatenate(scores, axis=1), count))
            kept["logits"].append((outputs.logits, count))
            kept["features"].append((outputs.features, count))
        return {name: to_host(parts) for name, parts in kept.items()}

    def _write_choice(
        self, model: str, points: Sequence[Detector], notes: Sequence[Note], id_scores: np.ndarray,
        ood_scores: np.ndarray, with_odin: bool,
    ) -> None:  # fmt: skip
        selected = select(points, id_scores, ood_scores)
        record = {
            "points": [[p.name, _public_options(p)] for p in points],
            "selected": selected,
            "notes": list(notes),
        }
        arrays = {"id_scores": id_scores, "ood_scores": ood_scores, "record": np.array(json.dumps(record))}
        write_arrays(self.unit_path(model, None, with_odin), arrays)

    def unit(self, model: str, image_set: ImageSet) -> Unit:
        path = self.find(model, image_set)
        assert path is not None, (model, image_set.name)
        return Unit(**read_arrays(path))

    def choice(self, model: str) -> Choice:
        path = self.find(model, None)
        assert path is not None, model
        record = json.loads(str(read_arrays(path)["record"]))
        return Choice(
            tuple((n, o) for n, o in record["points"]), record["selected"], tuple(Note(*n) for n in record["notes"])
        )


def _public_options(point: Detector) -> dict[str, Any]:
    """A point's hyper-parameters as the results table shows them: without the names of ODIN's axes."""
    return {k: v for k, v in point.options.items() if k not in ("temperatures", "noises")}
