"""ODIN's perturbed passes: the one detector that goes through the network again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from oodjax.arrays import describe, host_array, real_array
from oodjax.softmax import confidence


def odin_scores(
    apply_fn: Callable[[jax.Array], jax.Array],
    images: ArrayLike,
    temperatures: ArrayLike,
    noises: ArrayLike,
    input_std: ArrayLike,
) -> Float[jax.Array, "n T E"]:
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
      input_std: (C,) per-channel standard deviation of the normalisation, or one number for all channels.

    Returns:
      (n, T, E) float32 scores from 0 (uniform) to infinity; the probability is 1 / (1 + (K - 1) exp(-score)).

    Raises:
      TypeError: `apply_fn` is no function or returns no logits, or `images` are whole numbers.
      ValueError: a temperature or std that is not positive, a negative noise, NaN or none at all, or a std of another
        length than the channels.
    """
    x = real_array(images, "odin_scores: images")
    if not callable(apply_fn):
        raise TypeError(f"odin_scores: apply_fn must map images to logits, got {describe(apply_fn)}")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"odin_scores: images must have shape (n, H, W, C) with no empty axis, got {tuple(x.shape)}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"odin_scores: images must be normalised, (pixels / 255 - mean) / std, got {describe(images)}")
    x = jnp.asarray(x)
    t = jnp.asarray(_axis(temperatures, "temperatures", "positive", lambda v: v > 0), jnp.float32)
    e = jnp.asarray(_axis(noises, "noises", "0 or above", lambda v: v >= 0), x.dtype)
    std = _checked_std(input_std, tuple(x.shape))

    def logits(v: jax.Array) -> tuple[jax.Array, None]:
        z = apply_fn(v)
        if not isinstance(z, jax.Array) or z.ndim != 2 or len(z) != len(v):
            raise TypeError(f"odin_scores: apply_fn must return logits ({len(v)}, classes), got {describe(z)}")
        return z, None

    return perturbed_scores(logits, x, t, e, jnp.asarray(std, x.dtype))[0]


def _axis(values: ArrayLike, name: str, range_: str, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    array = host_array(values, f"odin_scores: {name}")
    if array.ndim != 1 or not len(array):
        raise ValueError(f"odin_scores needs temperatures and noises as sequences, got {name} {_short(values)}")
    if not (np.isfinite(array) & holds(array)).all():
        raise ValueError(f"odin_scores: {name} must be finite and {range_}, got {array.tolist()}")
    return array


def _short(values: Any) -> str:
    return "()" if np.size(values) == 0 else describe(values)


def _checked_std(input_std: ArrayLike, images: tuple[int, ...]) -> Any:
    std = real_array(input_std, "odin_scores: input_std")
    if std.shape not in ((), images[-1:]):
        first = std.shape == images[1:2] and len(images) == 4
        hint = ": images have their channels first, pass images.transpose(0, 2, 3, 1)" if first else ""
        raise ValueError(f"odin_scores: input_std must have shape ({images[-1]},), got {tuple(std.shape)}{hint}")
    if not isinstance(std, jax.core.Tracer) and not (np.isfinite(std) & (np.asarray(std) > 0)).all():
        raise ValueError(f"odin_scores: input_std must be finite and positive, got {np.asarray(std).tolist()}")
    return std


def perturbed_scores(
    apply_fn: Callable[[jax.Array], tuple[jax.Array, Any]],
    images: Float[jax.Array, "n ..."],
    temperatures: Float[jax.Array, " T"],
    noises: Float[jax.Array, " E"],
    std: Float[jax.Array, " C"] | Float[jax.Array, ""],
) -> tuple[Float[jax.Array, "n T E"], Any]:
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
    return scores.T.reshape(images.shape[0], len(temperatures), len(noises)), (logits, rest)
