"""ODIN's perturbed passes: the one detector that goes through the network again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from oodjax.softmax import confidence


def odin_scores(
    apply_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    temperatures: Sequence[float],
    noises: Sequence[float],
    input_std: jax.Array | Sequence[float],
) -> jax.Array:
    """ODIN for every temperature and noise (Liang et al., ICLR 2018, eqs. 1-3).

    x' = x - noise * s / std with s the sign (+1 at 0) of the gradient of the cross-entropy at temperature T against
    the predicted class; the score is max softmax(z(x') / T), given as log(p / mean of the others), which puts samples
    in the same order and neither saturates nor cancels in float32 (`oodjax.softmax.confidence`). The network is
    linearised once; each temperature's gradient is pulled back through it with respect to the images alone; then one
    forward pass for each pair.

    Args:
      apply_fn: normalised images -> (n, K) logits; traceable; treats samples independently.
      images: (n, H, W, C) normalised images.
      temperatures: T values.
      noises: perturbation sizes, in units of pixels scaled to 0..1.
      input_std: (C,) per-channel standard deviation of the normalisation.

    Returns:
      (n, T, E) float32 scores from 0 (uniform) to infinity; the probability is 1 / (1 + (K - 1) exp(-score)).

    Raises:
      ValueError: no temperature or noise, a temperature that is not positive, or a std of another length.
    """
    std = jnp.asarray(input_std, images.dtype)
    if len(temperatures) == 0 or len(noises) == 0:
        raise ValueError(f"odin_scores needs temperatures and noises, got {temperatures!r} and {noises!r}")
    if min(temperatures) <= 0:
        raise ValueError(f"odin_scores: temperatures must be positive, got {temperatures!r}")
    if std.shape not in ((), (images.shape[-1],)):
        raise ValueError(f"odin_scores: input_std must have shape ({images.shape[-1]},), got {std.shape}")
    t, e = jnp.asarray(temperatures, jnp.float32), jnp.asarray(noises, images.dtype)
    return perturbed_scores(lambda x: (apply_fn(x), None), images, t, e, std)[0]


def perturbed_scores(
    apply_fn: Callable[[jax.Array], tuple[jax.Array, Any]],
    images: jax.Array,
    temperatures: jax.Array,
    noises: jax.Array,
    std: jax.Array,
) -> tuple[jax.Array, Any]:
    """`odin_scores` where `apply_fn` returns (logits, whatever else the pass leaves): ((n, T, E) scores, that else).

    The unperturbed forward pass is the one whose gradient is taken: it is run once. Temperatures (T,), noises (E,)
    and `std` (C,) or () are arrays, so one program serves all their values.
    """
    logits, pull_back, rest = jax.vjp(apply_fn, images, has_aux=True)
    z = logits.astype(jnp.float32)
    top = jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1], dtype=bool)
    gaps = (z - z.max(axis=-1, keepdims=True))[None] / temperatures[:, None, None]
    # d CE(z/T)/dz up to the positive factor (1 - p)/T, which no sign depends on and which would underflow.
    others = jnp.where(top[None], jnp.finfo(jnp.float32).min, gaps)
    cotangents = jax.nn.softmax(others, axis=-1) - top[None].astype(jnp.float32)
    # Written out, not mapped: XLA runs convolution gradients inside a loop at half their speed on a CPU. The forward
    # passes below keep their speed in one, and a loop compiles once for all of them.
    gradients = jnp.stack([pull_back(cotangent.astype(logits.dtype))[0] for cotangent in cotangents])
    step = jnp.where(gradients >= 0, 1.0, -1.0).astype(images.dtype) / std.reshape((1,) * images.ndim + (-1,))

    def perturbed(pair):
        row, size = pair // len(noises), noises[pair % len(noises)]
        z = apply_fn(images - size * step[row])[0].astype(jnp.float32)
        return confidence(z, temperatures[row])

    scores = jax.lax.map(perturbed, jnp.arange(len(temperatures) * len(noises)))
    return scores.T.reshape(len(images), len(temperatures), len(noises)), (logits, rest)
