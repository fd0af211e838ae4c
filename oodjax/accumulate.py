"""Running sums over batches on the device: init / update, pure and masked.

Sums are float32 pairs (high, low) added without loss, so that a million additions keep the digits that plain float32
loses; features are summed about an origin close to their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from oodjax.outputs import Outputs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Accumulator:
    """Running sums over batches; sums are (2, ...) float32 pairs whose total is the value."""

    origin: jax.Array  # (D,) features are summed about this point
    label_counts: jax.Array  # (K,) int32
    predicted_counts: jax.Array  # (K,) int32
    correct_counts: jax.Array  # (K,) int32
    label_sums: jax.Array  # (2, K, D)
    correct_sums: jax.Array  # (2, K, D) of the correctly classified
    second: jax.Array  # (2, D, D)
    softmax_sums: jax.Array  # (2, K, K) by predicted class
    max_logit_sum: jax.Array  # (2,)
    gram_predicted: tuple[jax.Array, jax.Array] | None  # (K, P, C) lowest and highest by predicted class
    gram_labelled: tuple[jax.Array, jax.Array] | None  # the same by label


def init(outputs: Outputs, mask: jax.Array) -> Accumulator:
    """An empty accumulator for outputs of these shapes, its origin the mean feature of the rows where mask holds."""
    k, d = outputs.logits.shape[1], outputs.features.shape[1]
    kept = jnp.where(mask[:, None], outputs.features, 0.0)
    origin = kept.sum(axis=0) / jnp.maximum(mask.sum(dtype=jnp.float32), 1.0)
    zeros, counts = partial(jnp.zeros, dtype=jnp.float32), jnp.zeros(k, jnp.int32)
    gram = None
    if outputs.gram is not None:
        shape = (k, *outputs.gram.shape[1:])
        gram = jnp.full(shape, jnp.inf, jnp.float32), jnp.full(shape, -jnp.inf, jnp.float32)
    return Accumulator(
        origin, counts, counts, counts, zeros((2, k, d)), zeros((2, k, d)), zeros((2, d, d)), zeros((2, k, k)),
        zeros((2,)), gram, gram,
    )  # fmt: skip


def update(state: Accumulator, outputs: Outputs, mask: jax.Array) -> Accumulator:
    """Adds the rows of `outputs` where `mask` (n,) is true, whatever the others hold.

    Pure; labels must lie in 0..K-1 where `mask` is true.
    """
    k = outputs.logits.shape[1]
    keep = mask.astype(jnp.float32)[:, None]
    logits = jnp.where(mask[:, None], outputs.logits, 0.0)
    predicted = jnp.argmax(logits, axis=-1)
    by_label = jax.nn.one_hot(outputs.labels, k, dtype=jnp.float32) * keep
    by_predicted = jax.nn.one_hot(predicted, k, dtype=jnp.float32) * keep
    by_correct = by_label * by_predicted
    centred = jnp.where(mask[:, None], outputs.features - state.origin[None, :], 0.0)
    dot = partial(jnp.matmul, precision="highest")

    def counts(one_hot):
        return one_hot.sum(axis=0).astype(jnp.int32)

    def bounds(old, one_hot):
        if old is None:
            return None
        owner = jnp.where(mask, jnp.argmax(one_hot, axis=-1), k)  # a masked row goes to a segment that is dropped
        lowest = jax.ops.segment_min(outputs.gram, owner, num_segments=k + 1)[:k]
        highest = jax.ops.segment_max(outputs.gram, owner, num_segments=k + 1)[:k]
        return jnp.minimum(old[0], lowest), jnp.maximum(old[1], highest)

    return Accumulator(
        origin=state.origin,
        label_counts=state.label_counts + counts(by_label),
        predicted_counts=state.predicted_counts + counts(by_predicted),
        correct_counts=state.correct_counts + counts(by_correct),
        label_sums=_add(state.label_sums, dot(by_label.T, centred)),
        correct_sums=_add(state.correct_sums, dot(by_correct.T, centred)),
        second=_add(state.second, dot(centred.T, centred)),
        softmax_sums=_add(state.softmax_sums, dot(by_predicted.T, jax.nn.softmax(logits, axis=-1))),
        max_logit_sum=_add(state.max_logit_sum, (logits.max(axis=-1) * keep[:, 0]).sum()),
        gram_predicted=bounds(state.gram_predicted, by_predicted),
        gram_labelled=bounds(state.gram_labelled, by_label),
    )


def _add(pair: jax.Array, value: jax.Array) -> jax.Array:
    """Adds `value` to a (high, low) pair; the rounding error of the sum is kept (Knuth's two-sum)."""
    high, low = pair[0], pair[1]
    total = high + value
    back = total - high
    error = (high - (total - back)) + (value - back)
    return jnp.stack([total, low + error])


start = jax.jit(init)
step = jax.jit(update, donate_argnums=0)
