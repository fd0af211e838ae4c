"""Running sums over batches on the device: start / step, pure and masked; and their merge on the host.

Sums are float32 pairs (high, low) added without loss, so that a million additions keep the digits that plain float32
loses; features are summed about an origin close to their mean. Over a mesh each device sums its own rows
(`start_sharded`, `step_sharded`): a step moves nothing between devices, and they merge once, at the end, in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from oodjax.outputs import Outputs

Array = Any
Bounds = tuple[Array, Array]

SUMS = ("label_sums", "correct_sums", "second", "softmax_sums")
# What a fit may read of the training statistics beside the counts, the mean largest logit and the head, which are
# always there: sums and bounds kept here, rows kept by the bank.
STATISTICS = (*SUMS, "gram", "features", "layer_means")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Accumulator:
    """Running sums over batches; what was not asked for is None.

    On the device sums are (2, ...) float32 pairs whose total is the value; over a mesh every field has a leading
    device axis. On the host, after `merge`, sums are float64 values and counts int64.
    """

    origin: Array  # (D,) features are summed about this point
    label_counts: Array  # (K,) int32
    predicted_counts: Array  # (K,) int32
    correct_counts: Array  # (K,) int32
    max_logit_sum: Array  # (2,)
    label_sums: Array | None = None  # (2, K, D)
    correct_sums: Array | None = None  # (2, K, D) of the correctly classified
    second: Array | None = None  # (2, D, D)
    softmax_sums: Array | None = None  # (2, K, K) by predicted class
    gram_predicted: Bounds | None = None  # (K, P, C) lowest and highest by predicted class
    gram_labelled: Bounds | None = None  # the same by label


def init(
    outputs: Outputs, mask: Bool[jax.Array, " n"], needs: frozenset[str] | None = None, axes: tuple[str, ...] = ()
) -> Accumulator:
    """An empty accumulator for outputs of these shapes, its origin the mean feature of the rows where mask holds.

    Args:
      outputs: the first batch.
      mask: (n,) which of its rows count.
      needs: the names of `STATISTICS` to keep; None keeps all. `gram` is kept only where the outputs have it, and
        `second` brings `label_sums`.
      axes: mesh axes over which the mean is taken, inside `jax.shard_map`.
    """
    k, d = outputs.logits.shape[1], outputs.features.shape[1]
    needs = frozenset(STATISTICS) if needs is None else needs
    if "second" in needs:  # their sums move them to another origin
        needs = needs | {"label_sums"}
    kept, count = jnp.where(mask[:, None], outputs.features, 0.0).sum(axis=0), mask.sum(dtype=jnp.float32)
    if axes:
        kept, count = jax.lax.psum((kept, count), axes)
    counts = jnp.zeros(k, jnp.int32)
    shapes = {"label_sums": (k, d), "correct_sums": (k, d), "second": (d, d), "softmax_sums": (k, k)}
    fields: dict[str, Any] = {n: jnp.zeros((2, *shapes[n]), jnp.float32) for n in SUMS if n in needs}
    if "gram" in needs and outputs.gram is not None:
        shape = (k, *outputs.gram.shape[1:])
        empty = jnp.full(shape, jnp.inf, jnp.float32), jnp.full(shape, -jnp.inf, jnp.float32)
        fields |= {"gram_predicted": empty, "gram_labelled": empty}
    return Accumulator(kept / jnp.maximum(count, 1.0), counts, counts, counts, jnp.zeros(2, jnp.float32), **fields)


def update(state: Accumulator, outputs: Outputs, mask: Bool[jax.Array, " n"]) -> Accumulator:
    """Adds the rows of `outputs` where `mask` (n,) is true, whatever the others hold.

    Pure; labels must lie in 0..K-1 where `mask` is true.
    """
    k = outputs.logits.shape[1]
    logits = jnp.where(mask[:, None], outputs.logits, 0.0)
    labels = jnp.where(mask, outputs.labels, k)  # a masked row belongs to class k, which nothing keeps
    predicted = jnp.where(mask, jnp.argmax(logits, axis=-1).astype(jnp.int32), k)
    correct = jnp.where(labels == predicted, labels, k)
    centred = jnp.where(mask[:, None], outputs.features - state.origin[None, :], 0.0)

    def count(old: jax.Array, owner: jax.Array) -> jax.Array:
        return old.at[owner].add(1, mode="drop")

    def add(pair: jax.Array | None, rows: jax.Array, values: jax.Array) -> jax.Array | None:
        return None if pair is None else _add(pair, jnp.matmul(rows.T, values, precision="highest"))

    def by(owner: jax.Array) -> jax.Array:  # a product with these sums in one order; adding rows one by one need not
        return jax.nn.one_hot(owner, k, dtype=jnp.float32)

    def bounds(old: Bounds | None, owner: jax.Array) -> Bounds | None:
        if old is None:
            return None
        return old[0].at[owner].min(outputs.gram, mode="drop"), old[1].at[owner].max(outputs.gram, mode="drop")

    return Accumulator(
        origin=state.origin,
        label_counts=count(state.label_counts, labels),
        predicted_counts=count(state.predicted_counts, predicted),
        correct_counts=count(state.correct_counts, correct),
        max_logit_sum=_add(state.max_logit_sum, jnp.where(mask, logits.max(axis=-1), 0.0).sum()),
        label_sums=add(state.label_sums, by(labels), centred),
        correct_sums=add(state.correct_sums, by(correct), centred),
        second=add(state.second, centred, centred),
        softmax_sums=add(state.softmax_sums, by(predicted), jax.nn.softmax(logits, axis=-1)),
        gram_predicted=bounds(state.gram_predicted, predicted),
        gram_labelled=bounds(state.gram_labelled, labels),
    )


def _add(pair: jax.Array, value: jax.Array) -> jax.Array:
    """Adds `value` to a (high, low) pair; the rounding error of the sum is kept (Knuth's two-sum)."""
    high, low = pair[0], pair[1]
    total = high + value
    back = total - high
    error = (high - (total - back)) + (value - back)
    return jnp.stack([total, low + error])


start = jax.jit(init, static_argnames=("needs", "axes"))
step = jax.jit(update, donate_argnums=0)


# ---------------------------------------------------------------------------------------------------------------------
# Over a mesh


def _start_sharded(outputs: Outputs, mask: jax.Array, mesh: Mesh, needs: frozenset[str] | None = None) -> Accumulator:
    """`init` on every device of the mesh, the rows of the batch shared out among them; one origin for all."""

    def one(outputs: Outputs, mask: jax.Array) -> Accumulator:
        return jax.tree.map(lambda x: x[None], init(outputs, mask, needs, mesh.axis_names))

    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(one, mesh=mesh, in_specs=(rows, rows), out_specs=rows)(outputs, mask)


def _step_sharded(state: Accumulator, outputs: Outputs, mask: jax.Array, mesh: Mesh) -> Accumulator:
    """`update` on every device with its own rows and its own sums: nothing moves between devices."""

    def one(state: Accumulator, outputs: Outputs, mask: jax.Array) -> Accumulator:
        own = update(jax.tree.map(lambda x: x[0], state), outputs, mask)
        return jax.tree.map(lambda x: x[None], own)

    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(one, mesh=mesh, in_specs=(rows, rows, rows), out_specs=rows)(state, outputs, mask)


start_sharded = jax.jit(_start_sharded, static_argnames=("mesh", "needs"))
step_sharded = jax.jit(_step_sharded, static_argnames="mesh", donate_argnums=0)


# ---------------------------------------------------------------------------------------------------------------------
# On the host


def merge(state: Accumulator) -> Accumulator:
    """What this process's devices have summed, in float64 on the host: one accumulator without a device axis.

    Args:
      state: of `step`, of `step_sharded` (only the shards of this process are read), or on the host already.
    """
    return merge_accumulators([state])


def merge_accumulators(states: Iterable[Accumulator]) -> Accumulator:
    """The accumulator of the union of what several have seen, in float64 on the host.

    Origins may differ. All must keep the same statistics; a ValueError names what differs. Two are held at a time.
    """
    return reduce(_join, (part for state in states for part in _per_device(state)))


def _per_device(state: Accumulator) -> Iterator[Accumulator]:
    if np.ndim(state.label_counts) == 1:
        yield _to_host(state)
        return
    leaves, tree = jax.tree.flatten(state)
    shards = [_own_shards(leaf) for leaf in leaves]
    for device in range(len(shards[0])):
        yield _to_host(jax.tree.unflatten(tree, [np.asarray(own[device])[0] for own in shards]))


def _own_shards(leaf: Array) -> list[Array]:
    """This process's slices of the device axis, in its order."""
    if not isinstance(leaf, jax.Array):
        return list(leaf[:, None])
    return [s.data for s in sorted(leaf.addressable_shards, key=lambda s: s.index[0].start or 0)]


def _to_host(state: Accumulator) -> Accumulator:
    if np.asarray(state.label_counts).dtype == np.int64:
        return state
    host: dict[str, Any] = {"origin": np.asarray(state.origin, np.float64)}
    for name in ("label_counts", "predicted_counts", "correct_counts"):
        host[name] = np.asarray(getattr(state, name), np.int64)
    for name in ("max_logit_sum", *SUMS):
        pair = getattr(state, name)
        host[name] = None if pair is None else np.asarray(pair).sum(axis=0, dtype=np.float64)
    for name in ("gram_predicted", "gram_labelled"):
        pair = getattr(state, name)
        host[name] = None if pair is None else tuple(np.asarray(v) for v in pair)
    return Accumulator(**host)


def _join(a: Accumulator, b: Accumulator) -> Accumulator:
    """Two accumulators on the host; the sums of `b` are moved to the origin of `a`."""
    for field in dataclasses.fields(a):
        shapes = [[np.shape(v) for v in jax.tree.leaves(getattr(s, field.name))] for s in (a, b)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"merge: {field.name} differ: {shapes[0] or None} and {shapes[1] or None}")
    shift = b.origin - a.origin
    joined: dict[str, Any] = {"origin": a.origin}
    for name in ("label_counts", "predicted_counts", "correct_counts", "max_logit_sum", "softmax_sums"):
        joined[name] = None if getattr(a, name) is None else getattr(a, name) + getattr(b, name)
    for name, counts in (("label_sums", b.label_counts), ("correct_sums", b.correct_counts)):
        if getattr(a, name) is not None:
            joined[name] = getattr(a, name) + getattr(b, name) + counts[:, None] * shift
    if a.second is not None:
        joined["second"] = a.second + b.second + _moved(b, shift)
    for name in ("gram_predicted", "gram_labelled"):
        if getattr(a, name) is not None:
            (low, high), (other_low, other_high) = getattr(a, name), getattr(b, name)
            joined[name] = np.minimum(low, other_low), np.maximum(high, other_high)
    return Accumulator(**joined)


def _moved(state: Accumulator, shift: np.ndarray) -> np.ndarray:
    """(D, D) what `second` gains when the origin moves by -shift."""
    assert state.label_sums is not None
    spread = np.outer(state.label_sums.sum(axis=0), shift)
    return spread + spread.T + state.label_counts.sum() * np.outer(shift, shift)


def to_arrays(state: Accumulator) -> dict[str, np.ndarray]:
    """An accumulator as a flat dict of arrays, bit for bit, for a snapshot; over a mesh this process's devices."""
    arrays: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        pair = isinstance(value, tuple)
        for name, leaf in [(f"{field.name}.{i}", v) for i, v in enumerate(value)] if pair else [(field.name, value)]:
            if leaf is not None:
                whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
                arrays[name] = np.asarray(leaf) if whole else np.concatenate([np.asarray(s) for s in _own_shards(leaf)])
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray], mesh: Mesh | None = None) -> Accumulator:
    """The accumulator that `to_arrays` took apart, ready for `step`, `step_sharded` or `merge`.

    Args:
      arrays: what `to_arrays` returned.
      mesh: where its device axis belongs; None leaves the arrays on the host, where `step` and `merge` take them.

    Raises:
      ValueError: the mesh has another number of devices in this process than the snapshot.
    """

    def field(name: str) -> Any:
        return (arrays[f"{name}.0"], arrays[f"{name}.1"]) if f"{name}.0" in arrays else arrays.get(name)

    state = Accumulator(**{f.name: field(f.name) for f in dataclasses.fields(Accumulator)})
    if mesh is None:
        return state
    devices, saved = len(mesh.local_devices), len(state.label_counts)
    if np.ndim(state.label_counts) != 2 or devices != saved:
        raise ValueError(
            f"the snapshot holds the sums of {saved if np.ndim(state.label_counts) == 2 else 1} devices, this process "
            f"has {devices}: resume on as many, or start the pass anew"
        )
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), state)
