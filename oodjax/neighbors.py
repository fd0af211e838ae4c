"""Exact blocked k-nearest-neighbour search by inner product: on one device, over a mesh, or streamed from a file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

BLOCK = 16_384
# Above so many neighbours larger blocks pay, since each block's own top k is a sort; XLA copies a block before it
# multiplies, so a block is held to so many numbers.
MANY, NUMBERS = 256, 2**25


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ShardedBank:
    """A bank whose rows are shared out over a mesh, each device holding a run of them.

    Attributes:
      rows: (m, D) float32 at unit length, zero rows appended up to a multiple of the devices.
      size: how many of them are real.
      mesh: the devices.
    """

    rows: jax.Array
    size: int = field(metadata={"static": True})
    mesh: Mesh = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.rows.shape[1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StreamedBank:
    """A bank that stays in its file and is read in blocks at each search: for one that no device has room for.

    Attributes:
      path: a file that holds float32 features in rows, one behind the other.
      shape: (m, D).
      offset: where in the file they begin, in bytes.
    """

    path: str = field(metadata={"static": True})
    shape: tuple[int, int] = field(metadata={"static": True})
    offset: int = field(default=0, metadata={"static": True})

    @classmethod
    def of(cls, features: Any) -> StreamedBank | None:
        """The rows of a memory map, or of a run of its rows; None where they are not a file's as they lie there."""
        mapped = getattr(features, "_mmap", None)
        if mapped is None or features.dtype != np.dtype("<f4") or not features.flags.c_contiguous:
            return None
        start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
        begun = features.offset - features.offset % mmap.ALLOCATIONGRANULARITY  # what a slice's own offset is not
        offset = begun + features.__array_interface__["data"][0] - start
        return cls(str(features.filename), (features.shape[0], features.shape[1]), offset)

    def read(self, rows: Any) -> np.ndarray:
        return np.asarray(np.memmap(self.path, "<f4", "r", self.offset, self.shape)[rows], np.float32)


Array = jax.Array | np.ndarray
DeviceBank = jax.Array | ShardedBank | StreamedBank


def normalize(features: Float[jax.Array, "n D"]) -> Float[jax.Array, "n D"]:
    """(n, D) rows at unit L2 length; an all-zero row stays zero."""
    # The largest magnitude goes first, so that squares of large features do not overflow.
    scale = jnp.abs(features).max(axis=-1, keepdims=True)
    scaled = features / jnp.where(scale > 0, scale, 1.0)
    norm = jnp.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    return scaled / jnp.where(norm > 0, norm, 1.0)


def inner(queries: Float[jax.Array, "n D"], rows: Float[jax.Array, "m D"]) -> Float[jax.Array, "n m"]:
    """The inner product of each query with each row, at full precision."""
    if queries.shape[0] == 1:  # as a product with the rows' transpose, XLA's CPU would turn them around in memory
        return jnp.matmul(rows, queries[0], precision="highest")[None]
    return jnp.matmul(queries, rows.T, precision="highest")


# ---------------------------------------------------------------------------------------------------------------------
# Where a bank lies


def place_bank(features: Float[np.ndarray, "m D"], mesh: Mesh | None = None, room: float | None = None) -> DeviceBank:
    """The bank's rows at unit length where searches read them.

    On the device; over the devices of `mesh` where there are several; or, where a device has no room for its part
    and the features are a memory map of a whole file, left there.

    Args:
      features: (m, D) float32, in memory or a memory map.
      mesh: the devices that score; None for one.
      room: bytes that the bank may take of a device; None for half of what the device has.
    """
    devices = 1 if mesh is None else mesh.size
    room = _room() if room is None else float(room)
    streamed = StreamedBank.of(features) if features.nbytes / devices > room else None
    if streamed is not None:
        return streamed
    if mesh is None or devices == 1:
        return _on_one_device(features)
    return _over_mesh(features, mesh)


def _room() -> float:
    """Half a device's memory in bytes, where CPU devices share the host's; without a limit where nothing says it."""
    device = jax.local_devices()[0]
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 / jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit", float("inf")) / 2


def _on_one_device(features: np.ndarray) -> jax.Array:
    """Filled block by block, so that beside the bank itself there is one block."""
    m, block = len(features), min(len(features), BLOCK)
    bank = jnp.zeros(features.shape, jnp.float32)
    for start in range(0, m, max(block, 1)):
        start = min(start, m - block)  # the last block is whole too, so that one program serves all
        bank = _fill(bank, np.asarray(features[start : start + block], np.float32), start)
    return bank


@partial(jax.jit, donate_argnums=0)
def _fill(bank: jax.Array, rows: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(bank, normalize(rows), start, axis=0)


def _over_mesh(features: np.ndarray, mesh: Mesh) -> ShardedBank:
    size, dim = features.shape
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(total)
        rows = np.asarray(features[start : min(stop, size)], np.float32)
        return np.concatenate([rows, np.zeros((stop - start - len(rows), dim), np.float32)])

    total = -(-size // mesh.size) * mesh.size
    rows = jax.make_array_from_callback((total, dim), sharding, part)
    return ShardedBank(jax.jit(normalize, donate_argnums=0, out_shardings=sharding)(rows), size, mesh)


def replicate(tree: Any, sharding: NamedSharding) -> Any:
    """The tree on every device of a mesh; a buffer that several leaves share is sent once, a sharded bank stays."""
    sent: dict[int, Any] = {}

    def send(leaf: Any) -> Any:
        if isinstance(leaf, ShardedBank):
            return leaf
        if id(leaf) not in sent:
            sent[id(leaf)] = jax.device_put(leaf, sharding)
        return sent[id(leaf)]

    return jax.tree.map(send, tree, is_leaf=lambda x: isinstance(x, ShardedBank))


# ---------------------------------------------------------------------------------------------------------------------
# Searching


def nearest(
    queries: Float[Array, "n D"], bank: DeviceBank, k: int, block: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """The k bank rows with the largest inner product with each query, best first; of equal ones the first rows.

    One pass over the bank in blocks with a running top-k: memory is n x (block + k), whatever the bank's size. Over a
    mesh each device searches its rows, and the devices' top k are merged.

    Args:
      queries: (n, D) float32.
      bank: (m, D) float32, m >= k, or what `place_bank` returned.
      k: how many neighbours.
      block: bank rows a step; chosen by k when None.

    Returns:
      products: (n, k) float32 inner products, descending.
      indices: (n, k) int32 rows of the bank.
    """
    m = bank.shape[0]
    if not 1 <= k <= m:
        raise ValueError(f"k must be between 1 and the bank's {m} rows, got {k}")
    block = block or (BLOCK if k <= MANY else min(4 * BLOCK, max(BLOCK, NUMBERS // bank.shape[1])))
    if isinstance(bank, StreamedBank):
        return _streamed(queries, bank, k, block)
    if isinstance(bank, ShardedBank):
        return _sharded(queries, bank, k, block)
    return _plain(queries, bank, k, block)


def take(bank: DeviceBank, indices: jax.Array) -> jax.Array:
    """(n,) row numbers -> (n, D) those rows of the bank."""
    if isinstance(bank, StreamedBank):
        shape = jax.ShapeDtypeStruct((indices.shape[0], bank.shape[1]), jnp.float32)
        return normalize(jax.pure_callback(lambda i: bank.read(np.asarray(i)), shape, indices))
    if not isinstance(bank, ShardedBank):
        return bank[indices]
    axes = bank.mesh.axis_names

    def own(rows: jax.Array, indices: jax.Array) -> jax.Array:
        local = indices - jax.lax.axis_index(axes) * len(rows)
        here = (local >= 0) & (local < len(rows))
        return jax.lax.psum(jnp.where(here[:, None], rows[jnp.where(here, local, 0)], 0.0), axes)

    parts = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(own, mesh=bank.mesh, in_specs=parts, out_specs=PartitionSpec())(bank.rows, indices)


@partial(jax.jit, static_argnames=("k", "block"))
def _plain(
    queries: Float[jax.Array, "n D"], bank: Float[jax.Array, "m D"], k: int, block: int
) -> tuple[jax.Array, jax.Array]:
    return _blocks(queries, partial(jax.lax.dynamic_slice_in_dim, bank), bank.shape[0], k, block)


@partial(jax.jit, static_argnames=("bank", "k", "block"))
def _streamed(queries: jax.Array, bank: StreamedBank, k: int, block: int) -> tuple[jax.Array, jax.Array]:
    def fetch(start: jax.Array, size: int) -> jax.Array:
        shape = jax.ShapeDtypeStruct((size, bank.shape[1]), jnp.float32)
        return normalize(jax.pure_callback(lambda s: bank.read(slice(int(s), int(s) + size)), shape, start))

    return _blocks(queries, fetch, bank.shape[0], k, block)


@partial(jax.jit, static_argnames=("k", "block"))
def _sharded(queries: jax.Array, bank: ShardedBank, k: int, block: int) -> tuple[jax.Array, jax.Array]:
    axes = bank.mesh.axis_names

    def search(queries: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        m = len(rows)
        first = jax.lax.axis_index(axes) * m
        fetch = partial(jax.lax.dynamic_slice_in_dim, rows)
        padded = bank.size < bank.rows.shape[0]
        found = _blocks(queries, fetch, m, min(k, m), block, real=bank.size - first if padded else None)
        # Devices hold runs of rows in order, so of equal products the first row comes first here too.
        products, indices = (jax.lax.all_gather(x, axes, axis=1, tiled=True) for x in (found[0], found[1] + first))
        products, chosen = jax.lax.top_k(products, k)
        return products, jnp.take_along_axis(indices, chosen, axis=1)

    parts, whole = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(search, mesh=bank.mesh, in_specs=(whole, parts), out_specs=whole, check_vma=False)(
        queries, bank.rows
    )


def _blocks(
    queries: jax.Array, fetch: Callable[..., jax.Array], m: int, k: int, block: int, real: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The search over m rows that `fetch(start, size)` returns; those from row `real` on are not in it."""

    def products(start: jax.Array, size: int) -> jax.Array:
        found = inner(queries, fetch(start, size))
        if real is None:
            return found
        return jnp.where((start + jnp.arange(size, dtype=jnp.int32) < real)[None, :], found, -jnp.inf)

    if m <= block:
        values, indices = jax.lax.top_k(products(jnp.int32(0), m), k)
        # Behind barriers: where one place of the k is read, XLA would otherwise sort all m.
        return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(indices)
    n, whole = queries.shape[0], m // block

    def merge(carry, start, size):
        values, indices = carry
        found = products(start, size)
        if size > k:  # a block's own top k first: the merge then sorts 2k values instead of k + block
            found, local = jax.lax.top_k(found, k)
        else:
            local = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32)[None, :], (n, size))
        both = jnp.concatenate([values, found], axis=1)
        ids = jnp.concatenate([indices, local + start], axis=1)
        values, chosen = jax.lax.top_k(both, k)
        return values, jnp.take_along_axis(ids, chosen, axis=1)

    carry = (jnp.full((n, k), -jnp.inf, jnp.float32), jnp.zeros((n, k), jnp.int32))
    starts = jnp.arange(whole, dtype=jnp.int32) * block
    carry, _ = jax.lax.scan(lambda c, s: (merge(c, s, block), None), carry, starts)
    return merge(carry, jnp.int32(whole * block), m - whole * block) if m % block else carry
