"""Functions of softmax probabilities in forms that float32 neither saturates nor cancels.

Everything is taken of the gaps to the largest logit, whose own gap is exactly 0: a temperature divides the gap, not
the logit, so that no rounding of a large quotient is raised to a power.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def energy(logits: jax.Array) -> jax.Array:
    """(..., K) -> (...) logsumexp over classes (Liu et al., NeurIPS 2020, eq. 4 with T = 1, negated)."""
    top = logits.max(axis=-1, keepdims=True)
    # A compiler may round the same logit differently in the maximum and here: never above it.
    return top[..., 0] + jnp.log(jnp.exp(jnp.minimum(logits - top, 0.0)).sum(axis=-1))


def confidence(logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """(..., K) -> (...) the largest softmax probability p as log(p / mean of the others), in 0 to infinity.

    It increases with p = 1 / (1 + (K - 1) exp(-s)), so that it puts samples in the same order, is 0 where all
    classes are equally probable, and keeps its digits there as well as where float32 rounds p to 1. A single class
    gives 0. `temperature` is a number or an array that broadcasts against `logits`.
    """
    top, gaps = _gaps(logits, temperature)
    classes = max(logits.shape[-1] - 1, 1)
    near = jnp.where(top, 0.0, jnp.expm1(gaps)).sum(axis=-1) / classes
    far = energy(jnp.where(top, -jnp.inf, gaps)) - jnp.log(jnp.float32(classes))
    return -jnp.where(near > -0.5, jnp.log1p(near), far)


def log_softmax(logits: jax.Array) -> jax.Array:
    """(..., K) -> (..., K) log p, with all digits also of a p next to 1."""
    top, gaps = _gaps(logits)
    return gaps - jnp.log1p(jnp.where(top, 0.0, jnp.exp(gaps)).sum(axis=-1, keepdims=True))


def log_against_uniform(logits: jax.Array) -> jax.Array:
    """(..., K) -> (..., K) log(K p), with all digits also of a p next to 1 / K."""
    _, gaps = _gaps(logits)
    mean = jnp.expm1(gaps).mean(axis=-1, keepdims=True)
    return jnp.where(mean > -0.5, gaps - jnp.log1p(mean), log_softmax(logits) + jnp.log(jnp.float32(logits.shape[-1])))


def _gaps(logits: jax.Array, temperature: jax.Array | float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Where the (first) largest logit stands, and every logit less it over the temperature, as far as float32 goes."""
    top = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    gaps = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    return top, jnp.maximum(gaps, jnp.finfo(jnp.float32).min)
