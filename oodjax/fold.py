"""Training outputs of one model folded into statistics, with snapshots from which a killed run goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

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
from oodjax.data.loader import Batch
from oodjax.devices import Devices
from oodjax.outputs import Outputs
from oodjax.passes import Shared, check_finite, shared_writer
from oodjax.percentiles import leading_histogram
from oodjax.store import SNAPSHOT, Store, key_of
from oodjax.study import Study

SNAPSHOT_SECONDS = 600.0
READ_ROWS = 4096
HOSTS_AGREE_EVERY = 16  # batches: to agree on a snapshot costs several hosts a message


class Fold:
    """Folds training outputs into statistics: sums on the devices, the bank's rows to the disk as they come.

    A snapshot of the sums and the number of batches done is kept every ten minutes; `resumed` says how many of them
    a killed run had done. It is gone on with where the bank's rows are still those that were written before it.
    """

    def __init__(
        self,
        study: Study,
        devices: Devices,
        store: Store,
        group: str,
        key: str,
        needs: frozenset[str],
        head_shape: tuple[int, int],
        layers: int,
        who: str,
    ):
        assert study.train is not None
        self._devices, self._store, self._group, self._key, self._needs, self._who = (
            devices,
            store,
            group,
            key,
            needs,
            who,
        )
        self._own_group = f"{group}/host-{devices.host[0]}"
        self._saved = time.monotonic()
        self._last: tuple[Outputs, Batch] | None = None
        count = study.train.count
        keys, keep = index_keys(np.arange(count), study.seed), kept_rows(count, study.seed, study.bank_fraction)
        self._slots = np.where(keep, np.cumsum(keep) - 1, -1)
        self._partial = study.bank_fraction < 1.0 and "features" in needs
        self._batch = devices.rows(study.batch_size)
        rows = int(keep.sum())
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {"seen": ((count,), bool)}
        if "features" in needs:
            shapes |= {"features": ((rows, head_shape[0]), np.float32), "energies": ((rows,), np.float32)}
        if "layer_means" in needs:
            shapes["layer_means"] = (count, layers), np.float32
        self._room = {name: (key, shape, dtype) for name, (shape, dtype) in shapes.items()}
        self._bank_keys = keys[keep]
        self._state: Accumulator | None = None
        self._histogram: np.ndarray | None = None
        self._written = {name: hashlib.sha256() for name in self._room}
        self.resumed = self._restore()
        self._writer = shared_writer(devices, store, group, self._room, self.resumed > 0)

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
        self._write("seen", rows, np.ones(len(rows), bool))
        if "features" in self._needs:
            if self._partial:
                counts = leading_histogram(features)
                self._histogram = counts if self._histogram is None else self._histogram + counts
            slots = self._slots[rows]
            self._write("features", slots[slots >= 0], features[slots >= 0])
            self._write("energies", slots[slots >= 0], energies_of(logits)[slots >= 0])
        if "layer_means" in self._needs:
            self._write("layer_means", rows, local(outputs.layer_means)[mask])

    def _write(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values, self._room[name][2])
        self._writer.write(name, rows, values)
        self._written[name].update(values.data)

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
        shares = [host, self._devices.host[1], len(self._devices.mesh.local_devices), self._batch]
        return key_of(key=self._key, needs=sorted(self._needs), shares=shares)

    def _put_own(self, arrays: Mapping[str, np.ndarray], done: int) -> None:
        """This host's sums, found again by `_read_own`."""
        own = dict(arrays) | ({} if self._histogram is None else {"histogram": self._histogram})
        key = key_of(own=self._own_key, done=done)
        written = {name: digest.hexdigest() for name, digest in self._written.items()}
        facts = {"done": done, "names": sorted(own), "written": written}
        self._store.put(self._own_group, {n: (key, a) for n, a in own.items()}, {SNAPSHOT: (self._own_key, facts)})

    def _read_own(self, group: str, own_key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        facts = self._store.value(group, SNAPSHOT, own_key)
        if facts is None:
            return {}, {"done": 0}
        key = key_of(own=own_key, done=facts["done"])
        found = {name: self._store.read(group, name, key) for name in facts["names"]}
        if any(array is None for array in found.values()):
            return {}, {"done": 0}
        return {name: np.array(array) for name, array in found.items()}, facts

    def _restore(self) -> int:
        """Takes up the snapshot, where every host has the same one; returns the batches done, else 0."""
        arrays, facts = self._read_own(self._own_group, self._own_key)
        done = facts["done"] if facts["done"] > 0 and self._rows_are(facts) else 0
        if set(self._devices.gather(done)) != {done} or not done:
            self._written = {name: hashlib.sha256() for name in self._room}
            return 0
        self._histogram = arrays.pop("histogram", None)
        self._state = from_arrays(arrays, self._devices.mesh)
        return done

    def close(self) -> None:
        self._writer.close()

    def _rows_are(self, facts: Mapping[str, Any]) -> bool:
        """Whether the bank still holds what this host had written before the snapshot."""
        found = self._store.half_written(self._group, self._room)
        if found is not None:
            host, hosts = self._devices.host
            places = np.arange(host, min(len(self._slots), facts["done"] * self._batch * hosts), hosts)
            places = places[found["seen"][places]]
            for name, digest in self._written.items():
                banked = name in ("features", "energies")
                rows = self._slots[places][self._slots[places] >= 0] if banked else places
                for start in range(0, len(rows), READ_ROWS):
                    digest.update(np.ascontiguousarray(found[name][rows[start : start + READ_ROWS]]).data)
            if {name: digest.hexdigest() for name, digest in self._written.items()} == facts["written"]:
                return True
        self._store.warn(f"{self._who}: the rows that its snapshot goes on from are damaged; the pass begins anew")
        return False

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
        if self._devices.leads:
            for group in self._store.hosts_of(self._group):
                self._store.discard(group)

    def _commit(self, own: Mapping[str, np.ndarray]) -> None:
        """The sums of all hosts in one, and the bank's rows, kept together."""
        states, histograms = [from_arrays(own)], [self._histogram]
        for host in range(1, self._devices.host[1]):
            arrays, facts = self._read_own(f"{self._group}/host-{host}", self._own_key_of(host))
            if facts["done"] != -1:
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
