"""A fleet of models over a stream of images: each image is decoded and sent once, and goes through every model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import jax
import numpy as np

from oodjax.checks import check_logits
from oodjax.data.loader import Batch, Geometry, batch_count, load
from oodjax.data.sets import ImageSet
from oodjax.detectors import Detector, score_all
from oodjax.devices import Devices
from oodjax.forward import forward, odin_axes, pixels_of
from oodjax.models.network import Network
from oodjax.outputs import Outputs
from oodjax.store import Room, Store, Writer
from oodjax.study import Study, StudyError

Points = tuple[tuple[float, ...], tuple[float, ...]]

score_points = jax.jit(score_all)


@dataclass
class Counts:
    """What a run did: images decoded, forward passes of single images, ODIN's passes beside them, images left out."""

    decoded: int = 0
    forwards: int = 0
    odin_passes: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def total(cls, parts: Iterable[Counts]) -> Counts:
        """What several processes did together."""
        whole = cls()
        for part in parts:
            whole.decoded += part.decoded
            whole.forwards += part.forwards
            whole.odin_passes += part.odin_passes
            whole.bad += part.bad
        return whole


@dataclass(frozen=True)
class Shared:
    """A batch on the devices.

    Attributes:
      number: of the batch in its set.
      images: for each geometry, (b, h, w, 3) uint8 over all hosts.
      labels, mask: (b,).
      host: this host's rows of it.
    """

    number: int
    images: Mapping[Geometry, jax.Array]
    labels: jax.Array
    mask: jax.Array
    host: Batch


class Sink(Protocol):
    """Takes what a pass leaves of one model."""

    def take(self, outputs: Outputs, batch: Shared) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None:
        """Lets go of its files where the pass has failed."""


@dataclass(frozen=True)
class Member:
    """A model of the fleet: its network with the weights on every device."""

    name: str
    network: Network
    geometry: Geometry

    @classmethod
    def of(cls, name: str, network: Network, devices: Devices, fast: bool) -> Member:
        geometry = Geometry(network.resize, network.crop, fast and network.crop is not None)
        return cls(name, dataclasses.replace(network, state=devices.replicate(network.state)), geometry)


@dataclass(frozen=True)
class Task:
    """What one model does in a pass: what is needed of it beside logits and features, and who takes it.

    Batches before `first` are done already.
    """

    member: Member
    needs: frozenset[str]
    points: Points
    sink: Sink
    first: int = 0


def run_pass(
    study: Study,
    devices: Devices,
    image_set: ImageSet,
    tasks: Sequence[Task],
    counts: Counts,
    advance: Callable[[int], None],
) -> None:
    """One pass over a set for every task; batches that all of them have done are not read.

    Raises:
      BadImage: an image cannot be read and the study does not skip it.
      StudyError: no image can be read; logits are not the head's of the features.
    """
    try:
        _go_through(study, devices, image_set, tasks, counts, advance)
    except BaseException:
        for task in tasks:
            task.sink.close()
        raise
    for task in tasks:
        task.sink.finish()


def _go_through(
    study: Study,
    devices: Devices,
    image_set: ImageSet,
    tasks: Sequence[Task],
    counts: Counts,
    advance: Callable[[int], None],
) -> None:
    prepared = [(task, devices.replicate((pixels_of(task.member.network), odin_axes(task.points)))) for task in tasks]
    geometries = tuple(dict.fromkeys(task.member.geometry for task in tasks))
    first, readable = min(task.first for task in tasks), 0
    for batch in _stream(study, devices, image_set, geometries, counts, first):
        rows = int(batch.host.mask.sum())
        readable += rows
        for task, (pixels, axes) in prepared:
            if batch.number < task.first:  # a run was killed between the snapshots of two models
                continue
            network = task.member.network
            outputs = forward(
                network.apply, task.needs, devices.mesh, network.state, batch.images[task.member.geometry], pixels, axes
            )
            if batch.number == task.first:
                _check_head(outputs, batch.host, task.member, devices, image_set)
            task.sink.take(outputs, batch)
            counts.forwards += rows
            if "odin" in task.needs:
                temperatures, noises = task.points
                counts.odin_passes += rows * len(temperatures) * (1 + len(noises))
        advance(rows)
    if not first and not sum(devices.gather(readable)):
        reasons = f": {': '.join(counts.bad[-1])}" if counts.bad else ""
        raise StudyError(f"none of the {image_set.count} images of {image_set.name} can be read{reasons}")


def _stream(
    study: Study, devices: Devices, image_set: ImageSet, geometries: tuple[Geometry, ...], counts: Counts, first: int
) -> Iterator[Shared]:
    """The batches of a set on the devices; the next is read and sent while the caller works on one."""
    loader = load(
        image_set.source,
        devices.rows(study.batch_size),
        geometries=geometries,
        host=devices.host,
        start=first,
        on_bad=study.on_bad_image,
    )
    ready: Shared | None = None
    for number, batch in enumerate(loader, first):
        counts.decoded += int((batch.index >= 0).sum())
        images = {geometry: devices.share(batch.crops[geometry]) for geometry in geometries}
        labels, mask = devices.share((batch.labels, batch.mask))
        if ready is not None:
            yield ready
        ready = Shared(number, images, labels, mask, batch)
    if ready is not None:
        yield ready
    counts.bad += [(bad.path, bad.reason) for bad in loader.bad]


class Keep:
    """Keeps outputs of a set in the store: fields by array, and the scores of detectors that are scored in the pass."""

    def __init__(
        self,
        devices: Devices,
        writer: Writer,
        fields: Mapping[str, str],
        in_pass: Mapping[str, tuple[Detector, ...]],
        who: str,
    ):
        self._devices, self._writer, self._fields, self._in_pass, self._who = devices, writer, fields, in_pass, who
        self._last: tuple[dict[str, jax.Array], Batch] | None = None

    def take(self, outputs: Outputs, batch: Shared) -> None:
        arrays = {name: getattr(outputs, field) for name, field in self._fields.items() if name != "valid"}
        for name, points in self._in_pass.items():
            arrays[name] = score_points(points, outputs)
        self._write_last()  # while the device works on this batch
        self._last = arrays, batch.host

    def add(self, name: str, array: jax.Array) -> None:
        """One more array of the batch that was taken last."""
        assert self._last is not None
        self._last[0][name] = array

    def _write_last(self) -> None:
        if self._last is None:
            return
        (arrays, batch), self._last = self._last, None
        rows = batch.index[batch.mask]
        for name, array in arrays.items():
            values = self._devices.local(array)[batch.mask]
            check_finite(values, name, self._who)
            self._writer.write(name, rows, values)
        if "valid" in self._fields:
            self._writer.write("valid", rows, np.ones(len(rows), bool))

    def close(self) -> None:
        self._writer.close()

    def finish(self) -> None:
        self._write_last()
        self._writer.flush()
        self._devices.wait(f"kept {self._who}")
        if self._devices.leads:
            self._writer.commit()
        else:
            self._writer.close()
        self._devices.wait(f"committed {self._who}")


@dataclass(frozen=True)
class KeepMore:
    """Keeps ODIN's scores at one more point beside what `keep` has taken of the same batch."""

    keep: Keep
    name: str

    def take(self, outputs: Outputs, batch: Shared) -> None:
        assert outputs.odin is not None
        self.keep.add(self.name, outputs.odin)

    def finish(self) -> None:
        """Nothing: `keep` writes it."""

    def close(self) -> None:
        """Nothing: `keep` has the files."""


def _check_head(outputs: Outputs, batch: Batch, member: Member, devices: Devices, image_set: ImageSet) -> None:
    """Raises a StudyError unless the logits of a batch are the head's of its features; others are checked as kept."""
    logits, features = (devices.local(x)[batch.mask] for x in (outputs.logits, outputs.features))
    if not (len(logits) and np.isfinite(logits).all() and np.isfinite(features).all()):
        return
    try:
        check_logits(Outputs(logits, features), member.network.head, f"{member.name} on {image_set.name}")
    except ValueError as error:
        raise StudyError(str(error)) from error


def shared_writer(
    devices: Devices, store: Store, group: str, arrays: Mapping[str, Room], resume: bool = False
) -> Writer:
    """Room for the rows of all hosts: made by the first, filled by all."""
    if devices.leads:
        writer = store.writer(group, arrays, resume)
    devices.wait(f"room in {group}")
    return writer if devices.leads else store.writer(group, arrays, resume=True)


def check_finite(values: np.ndarray, name: str, who: str) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise StudyError(f"{who}: {bad} values of its {name} are NaN or infinite; all must be finite")


def batches_of(study: Study, devices: Devices, image_set: ImageSet) -> int:
    return batch_count(image_set.count, devices.rows(study.batch_size), devices.host[1])
