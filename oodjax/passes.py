"""A fleet of models over a stream of images: each image is decoded and sent once, and goes through every model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from oodjax.accumulate import (
    Accumulator,
    from_arrays,
    merge,
    merge_accumulators,
    start_sharded,
    step_sharded,
    to_arrays,
)
from oodjax.bank import energies_of, index_keys, kept_rows
from oodjax.checks import check_logits
from oodjax.data.loader import Batch, Geometry, batch_count, load
from oodjax.data.sets import ImageSet
from oodjax.detectors import Detector, score_all
from oodjax.devices import Devices
from oodjax.forward import forward, odin_axes, pixels_of
from oodjax.models.network import Network
from oodjax.outputs import Outputs
from oodjax.percentiles import leading_histogram
from oodjax.store import SNAPSHOT, Store, Writer, key_of
from oodjax.study import Study, StudyError

SNAPSHOT_SECONDS = 600.0
HOSTS_AGREE_EVERY = 16  # batches: to agree on a snapshot costs several hosts a message
Points = tuple[tuple[float, ...], tuple[float, ...]]

score_points = jax.jit(score_all)


@dataclass
class Counts:
    """What a run did: images decoded, forward passes of single images, ODIN's passes beside them, images left out."""

    decoded: int = 0
    forwards: int = 0
    odin_passes: int = 0
    bad: list[str] = field(default_factory=list)


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
    """What one model does in a pass: what is needed of it beside logits and features, and who takes it."""

    member: Member
    needs: frozenset[str]
    points: Points
    sink: Sink


def run_pass(
    study: Study, devices: Devices, image_set: ImageSet, tasks: Sequence[Task], counts: Counts,
    advance: Callable[[int], None], first: int = 0,
) -> None:  # fmt: skip
    """One pass over a set for every task; batches before `first` are not read.

    Raises:
      BadImage: an image cannot be read and the study does not skip it.
    """
    try:
        _go_through(study, devices, image_set, tasks, counts, advance, first)
    except BaseException:
        for task in tasks:
            task.sink.close()
        raise
    for task in tasks:
        task.sink.finish()


def _go_through(
    study: Study, devices: Devices, image_set: ImageSet, tasks: Sequence[Task], counts: Counts,
    advance: Callable[[int], None], first: int,
) -> None:  # fmt: skip
    prepared = [(task, devices.replicate((pixels_of(task.member.network), odin_axes(task.points)))) for task in tasks]
    geometries = tuple(dict.fromkeys(task.member.geometry for task in tasks))
    for batch in _stream(study, devices, image_set, geometries, counts, first):
        rows = int(batch.host.mask.sum())
        begins = batch.number == first
        for task, (pixels, axes) in prepared:
            network = task.member.network
            outputs = forward(
                network.apply, task.needs, devices.mesh, network.state, batch.images[task.member.geometry], pixels, axes
            )
            if begins:
                _check_head(outputs, batch.host, task.member, devices, image_set)
            task.sink.take(outputs, batch)
            counts.forwards += rows
            if "odin" in task.needs:
                temperatures, noises = task.points
                counts.odin_passes += rows * len(temperatures) * (1 + len(noises))
        advance(rows)


def _stream(
    study: Study, devices: Devices, image_set: ImageSet, geometries: tuple[Geometry, ...], counts: Counts, first: int
) -> Iterator[Shared]:
    """The batches of a set on the devices; the next is read and sent while the caller works on one."""
    loader = load(
        image_set.source, devices.rows(study.batch_size), geometries=geometries, host=devices.host, start=first,
        on_bad=study.on_bad_image,
    )  # fmt: skip
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
    counts.bad += [str(bad) for bad in loader.bad]


class Keep:
    """Keeps outputs of a set in the store: arrays by name, and the scores of detectors that are scored in the pass."""

    def __init__(
        self, devices: Devices, writer: Writer, names: Sequence[str], in_pass: Mapping[str, tuple[Detector, ...]],
        who: str,
    ):  # fmt: skip
        self._devices, self._writer, self._names, self._in_pass, self._who = devices, writer, tuple(names), in_pass, who
        self._last: tuple[dict[str, jax.Array], Batch] | None = None

    def take(self, outputs: Outputs, batch: Shared) -> None:
        arrays = {name: getattr(outputs, name) for name in self._names if name != "valid"}
        for name, points in self._in_pass.items():
            arrays[name] = score_points(points, outputs)
        self._write_last()  # while the device works on this batch
        self._last = arrays, batch.host

    def _write_last(self) -> None:
        if self._last is None:
            return
        (arrays, batch), self._last = self._last, None
        rows = batch.index[batch.mask]
        for name, array in arrays.items():
            values = self._devices.local(array)[batch.mask]
            check_finite(values, name, self._who)
            self._writer.write(name, rows, values)
        if "valid" in self._names:
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


class Fold:
    """Folds training outputs into statistics: sums on the devices, the bank's rows to the disk as they come.

    A snapshot of the sums and the number of batches done is kept every ten minutes; `resumed` says how many of them
    a killed run had done.
    """

    def __init__(
        self, study: Study, devices: Devices, store: Store, group: str, key: str, needs: frozenset[str],
        head_shape: tuple[int, int], layers: int, who: str,
    ):  # fmt: skip
        assert study.train is not None
        self._devices, self._store, self._group, self._key, self._needs, self._who = (
            devices, store, group, key, needs, who,
        )  # fmt: skip
        self._own_group = f"{group}/host-{devices.host[0]}"
        self._saved = time.monotonic()
        self._last: tuple[Outputs, Batch] | None = None
        count = study.train.count
        keys, keep = index_keys(np.arange(count), study.seed), kept_rows(count, study.seed, study.bank_fraction)
        self._slots = np.where(keep, np.cumsum(keep) - 1, -1)
        self._partial = study.bank_fraction < 1.0 and "features" in needs
        rows = int(keep.sum())
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {"seen": ((count,), bool)}
        if "features" in needs:
            shapes |= {"features": ((rows, head_shape[0]), np.float32), "energies": ((rows,), np.float32)}
        if "layer_means" in needs:
            shapes["layer_means"] = (count, layers), np.float32
        self._bank_keys = keys[keep]
        self._state: Accumulator | None = None
        self._histogram: np.ndarray | None = None
        self.resumed = self._restore()
        specification = {name: (key, shape, dtype) for name, (shape, dtype) in shapes.items()}
        if devices.leads:
            self._writer = store.writer(group, specification, resume=self.resumed > 0)
        devices.wait(f"bank of {who}")
        if not devices.leads:
            self._writer = store.writer(group, specification, resume=True)

    def take(self, outputs: Outputs, batch: Shared) -> None:
        outputs = outputs.replace(labels=batch.labels)
        if self._state is None:
            self._state = start_sharded(outputs, batch.mask, self._devices.mesh, self._needs)
        self._state = step_sharded(self._state, outputs, batch.mask, self._devices.mesh)
        self._write_last()
        self._last = (outputs, batch.host)
        if self._devices.host[1] > 1 and batch.number % HOSTS_AGREE_EVERY:
            return
        if self._devices.agree(time.monotonic() - self._saved >= SNAPSHOT_SECONDS):
            self._snapshot(batch.number + 1)

    def _write_last(self) -> None:
        if self._last is None:
            return
        (outputs, batch), self._last = self._last, None
        rows, mask, local = batch.index[batch.mask], batch.mask, self._devices.local
        logits, features = local(outputs.logits)[mask], local(outputs.features)[mask]
        for name, values in (("logits", logits), ("features", features)):
            check_finite(values, name, self._who)
        self._writer.write("seen", rows, np.ones(len(rows), bool))
        if "features" in self._needs:
            if self._partial:
                counts = leading_histogram(features)
                self._histogram = counts if self._histogram is None else self._histogram + counts
            slots = self._slots[rows]
            self._writer.write("features", slots[slots >= 0], features[slots >= 0])
            self._writer.write("energies", slots[slots >= 0], energies_of(logits)[slots >= 0])
        if "layer_means" in self._needs:
            self._writer.write("layer_means", rows, local(outputs.layer_means)[mask])

    def _snapshot(self, done: int) -> None:
        """Keeps the sums after `done` batches; the bank's rows are already where they belong."""
        self._write_last()
        self._writer.flush()
        assert self._state is not None
        self._put_own(to_arrays(self._state), done)
        self._saved = time.monotonic()

    @property
    def _own_key(self) -> str:
        return self._own_key_of(self._devices.host[0])

    def _own_key_of(self, host: int) -> str:
        devices = len(self._devices.mesh.local_devices)
        return key_of(key=self._key, needs=sorted(self._needs), host=[host, self._devices.host[1]], devices=devices)

    def _put_own(self, arrays: Mapping[str, np.ndarray], done: int) -> None:
        """This host's sums, found again by `_read_own`."""
        own = dict(arrays) | ({} if self._histogram is None else {"histogram": self._histogram})
        key = key_of(own=self._own_key, done=done)
        facts = {"done": done, "names": sorted(own)}
        self._store.put(self._own_group, {n: (key, a) for n, a in own.items()}, {SNAPSHOT: (self._own_key, facts)})

    def _read_own(self, group: str, own_key: str) -> tuple[dict[str, np.ndarray], int]:
        facts = self._store.value(group, SNAPSHOT, own_key)
        if facts is None:
            return {}, 0
        key = key_of(own=own_key, done=facts["done"])
        found = {name: self._store.read(group, name, key) for name in facts["names"]}
        if any(array is None for array in found.values()):
            return {}, 0
        return {name: np.array(array) for name, array in found.items()}, int(facts["done"])

    def _restore(self) -> int:
        """Takes up the snapshot, where every host has the same one; returns the batches done, else 0."""
        arrays, done = self._read_own(self._own_group, self._own_key)
        if set(self._devices.gather(done)) != {done} or not done:
            return 0
        self._histogram = arrays.pop("histogram", None)
        self._state = from_arrays(arrays, self._devices.mesh)
        return done

    def close(self) -> None:
        self._writer.close()

    def finish(self) -> None:
        self._write_last()
        self._writer.flush()
        assert self._state is not None
        own = to_arrays(merge(self._state))
        if not self._devices.leads:
            self._put_own(own, -1)
        self._devices.wait(f"sums of {self._who}")
        if self._devices.leads:
            self._commit(own)
        else:
            self._writer.close()
        self._devices.wait(f"statistics of {self._who}")
        self._store.discard(self._own_group)

    def _commit(self, own: Mapping[str, np.ndarray]) -> None:
        """The sums of all hosts in one, and the bank's rows, kept together."""
        states, histograms = [from_arrays(own)], [self._histogram]
        for host in range(1, self._devices.host[1]):
            key = self._own_key_of(host)
            arrays, done = self._read_own(f"{self._group}/host-{host}", key)
            if done != -1:
                raise OSError(
                    f"the sums of host {host} for {self._who} are not there: is the folder shared by all hosts?"
                )
            histograms.append(arrays.pop("histogram", None))
            states.append(from_arrays(arrays))
        sums = {f"sums.{name}": array for name, array in to_arrays(merge_accumulators(states)).items()}
        seen = [h for h in histograms if h is not None]
        if seen:
            sums["histogram"] = np.sum(seen, axis=0)
        if "features" in self._needs:
            sums["keys"] = self._bank_keys
        for name, array in sums.items():
            self._writer.add(name, self._key, array)
        self._writer.commit({"sums": (self._key, sorted(sums))})


def _check_head(outputs: Outputs, batch: Batch, member: Member, devices: Devices, image_set: ImageSet) -> None:
    """Raises a StudyError unless the logits of a batch are the head's of its features; others are checked as kept."""
    logits, features = (devices.local(x)[batch.mask] for x in (outputs.logits, outputs.features))
    if not (len(logits) and np.isfinite(logits).all() and np.isfinite(features).all()):
        return
    try:
        check_logits(Outputs(logits, features), member.network.head, f"{member.name} on {image_set.name}")
    except ValueError as error:
        raise StudyError(str(error)) from error


def check_finite(values: np.ndarray, name: str, who: str) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise StudyError(f"{who}: {bad} values of its {name} are NaN or infinite; all must be finite")


def batches_of(study: Study, devices: Devices, image_set: ImageSet) -> int:
    return batch_count(image_set.count, devices.rows(study.batch_size), devices.host[1])
