"""What a run would do and take, before it does it: `python -m oodjax.run --plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oodjax import detectors, memory
from oodjax.detectors.classification import ODIN_NOISES, ODIN_TEMPERATURES
from oodjax.execute import Engine, Todo
from oodjax.study import Study

ODIN_GRID_PASSES = len(ODIN_TEMPERATURES) * (1 + len(ODIN_NOISES))
ODIN_POINT_PASSES = 2


@dataclass(frozen=True)
class Plan:
    """What is missing of a study, in numbers.

    Attributes:
      todo: model -> what is missing of it.
      decoded: images to decode; a set is decoded once for a fleet.
      forwards: forward passes of single images.
      odin_passes: ODIN's passes beside them.
      fleet: models that share a pass.
      device_bytes: of a fleet's weights and sums on each device; a pass adds its batch.
      host_bytes: that grow with the study on the host: GRAM's bounds and the sums of one model, in float64.
      disk_bytes: of what is kept of all models.
    """

    todo: Mapping[str, Todo]
    decoded: int
    forwards: int
    odin_passes: int
    fleet: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int

    @property
    def finished(self) -> list[str]:
        """Models of which nothing is missing."""
        return [name for name, todo in self.todo.items() if not (todo.train or todo.passes or todo.scores)]


def plan(engine: Engine) -> Plan:
    """The plan of what `engine.run()` would do now; nothing is written."""
    study = engine.study
    todo = {model.name: engine.todo(model) for model in study.models}
    reads = detectors.reads(study.detectors) if study.train is not None else frozenset()
    size = memory.fleet_size(study, reads)
    waiting = [model for model in study.models if todo[model.name].passes]
    counts = {s.name: s.count for s in study.sets}
    odin = {s.name: ODIN_GRID_PASSES for s in study.validations} | {s.name: ODIN_POINT_PASSES for s in study.tests}
    decoded = forwards = odin_passes = 0
    for start in range(0, len(waiting), size):
        group = [todo[model.name] for model in waiting[start : start + size]]
        if study.train is not None:
            training = sum(one.statistics for one in group)
            decoded += study.train.count * (training > 0)
            forwards += study.train.count * training
        for name, count in counts.items():
            passing = [one.arrays[name] for one in group if one.arrays.get(name)]
            decoded += count * bool(passing)
            points = [_odin_arrays(arrays) for arrays in passing]
            forwards += count * sum(max(1, found) for found in points)  # each further point of ODIN's takes a pass more
            odin_passes += count * odin.get(name, 0) * sum(points)
    shapes = [model.head_shape() for model in study.models]
    images = sum(s.count for s in study.sets if s is not study.train)
    sums = [memory.sums_bytes(shape, reads) for shape in shapes]
    weights = [model.weight_bytes() for model in study.models]
    return Plan(
        todo,
        decoded,
        forwards,
        odin_passes,
        min(size, len(study.models)),
        device_bytes=sum(sorted((w + s for w, s in zip(weights, sums, strict=True)), reverse=True)[:size]),
        host_bytes=2 * max(sums, default=0),
        disk_bytes=_bank_bytes(study, study.bank_fraction)
        + sum(memory.outputs_bytes(shape, images) + kept for shape, kept in zip(shapes, sums, strict=True)),
    )


def _odin_arrays(arrays: list[str]) -> int:
    """How many of the arrays of a set hold ODIN's scores: of test sets one for each label."""
    return sum(array.partition(".")[0] == "odin" for array in arrays)


def _bank_bytes(study: Study, fraction: float) -> int:
    """Of all models' feature banks on disk."""
    if study.train is None:
        return 0
    reads, images = detectors.reads(study.detectors), study.train.count
    return sum(memory.bank_bytes(model.head_shape(), images, fraction, reads) for model in study.models)


def smaller(study: Study, found: Plan) -> list[str]:
    """How to make a study smaller, a line each."""
    lines = []
    if study.bank_fraction == 1.0 and _bank_bytes(study, 0.1) < _bank_bytes(study, 1.0):
        lines.append("--bank-fraction 0.1 keeps a tenth of the training features (KNN and NNGuide search those)")
    if found.fleet > 1:
        half, models = max(1, found.fleet // 2), len(study.models)
        lines.append(
            f"--fleet {half} holds {half} models on the device instead of {found.fleet}, and decodes each set "
            f"{-(-models // half)} times instead of {-(-models // found.fleet)}"
        )
    if found.odin_passes > found.forwards:
        lines.append("--detectors without odin saves most of the passes")
    return lines
