"""The devices of a run: one mesh over all of them, whatever there are, on one host or several."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


@dataclass(frozen=True)
class Devices:
    """All devices as one axis over which samples are shared out.

    Attributes:
      mesh: of one axis, `batch`.
    """

    mesh: Mesh

    @classmethod
    def all(cls) -> Devices:
        return cls(Mesh(np.array(jax.devices()), (AXIS,)))

    @property
    def host(self) -> tuple[int, int]:
        """(number of this process, number of processes)."""
        return jax.process_index(), jax.process_count()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes what belongs to all."""
        return jax.process_index() == 0

    def rows(self, batch_size: int) -> int:
        """Samples a step on this host: its share of `batch_size`, a whole number for each of its devices."""
        local = len(self.mesh.local_devices)
        return -(-batch_size // self.mesh.size) * local

    @cached_property
    def split(self) -> NamedSharding:
        """Samples shared out over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    @cached_property
    def everywhere(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, tree: Any) -> Any:
        """The tree on every device; every process gives the same."""
        if jax.process_count() == 1:
            return jax.device_put(tree, self.everywhere)
        return jax.tree.map(
            lambda x: multihost_utils.host_local_array_to_global_array(x, self.mesh, PartitionSpec()), tree
        )

    def share(self, tree: Any) -> Any:
        """This host's rows, joined with those of the other hosts into arrays over all devices."""
        if jax.process_count() == 1:
            return jax.device_put(tree, self.split)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.split, x), tree)

    def local(self, array: jax.Array) -> np.ndarray:
        """The rows of a shared array that lie on this host, in the order in which `share` took them."""
        if jax.process_count() == 1:
            return np.asarray(array)
        shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    def wait(self, where: str) -> None:
        """Returns when every process has come here."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(where)

    def agree(self, value: Any) -> Any:
        """The JSON value that the first process gives, on every process."""
        if jax.process_count() == 1:
            return value
        text = json.dumps(value).encode()
        size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
        buffer = np.zeros(size, np.uint8)
        if self.leads:
            buffer[:] = np.frombuffer(text, np.uint8)
        return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))))

    def gather(self, value: Any) -> list[Any]:
        """The JSON values that the processes give, in their order."""
        if jax.process_count() == 1:
            return [value]
        text = json.dumps(value).encode()
        sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
        buffer = np.zeros(sizes.max(), np.uint8)
        buffer[: len(text)] = np.frombuffer(text, np.uint8)
        rows = np.asarray(multihost_utils.process_allgather(buffer)).reshape(len(sizes), -1)
        return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]
