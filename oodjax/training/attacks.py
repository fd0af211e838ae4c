"""Projected gradient descent (Madry et al., ICLR 2018) on pixels in 0..1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from oodjax.models.normalize import normalize
from oodjax.training.fields import set_number, set_whole

NORMS = ("l2", "linf")
_INSIDE = 1 - 1e-5  # float32 rounding of image + perturbation must not leave the ball


@dataclass(frozen=True)
class PGD:
    """An attack: `steps` of length `step_size` within a ball of radius `eps`, from a random start.

    Attributes:
      norm: "l2", over all pixels and channels, or "linf".
      eps, step_size: in pixels scaled to 0..1.
      steps: at least 1.
    """

    norm: str
    eps: float
    steps: int
    step_size: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {self.norm!r}")
        for field in ("eps", "step_size"):
            set_number(self, field, "positive", lambda value: 0 < value < math.inf)
        set_whole(self, "steps", 1)

    def __call__(
        self,
        graphdef: Any,
        state: Any,
        images: jax.Array,
        targets: jax.Array,
        key: jax.Array,
        mean: jax.Array,
        std: jax.Array,
    ) -> jax.Array:
        """See `attack`."""
        return attack(graphdef, state, images, targets, key, *self.scalars(), mean, std)

    def scalars(self) -> tuple[np.generic, ...]:
        """is_l2, eps, step_size and steps, as `attack` takes them."""
        return np.bool_(self.norm == "l2"), np.float32(self.eps), np.float32(self.step_size), np.int32(self.steps)


@partial(jax.jit, static_argnames="graphdef")
def attack(
    graphdef: Any,
    state: Any,
    images: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    is_l2: jax.Array,
    eps: jax.Array,
    step_size: jax.Array,
    steps: jax.Array,
    mean: jax.Array,
    std: jax.Array,
) -> jax.Array:
    """Images that raise the cross entropy; one program for every norm and strength.

    Args:
      graphdef, state: a network, attacked with its running statistics.
      images: (n, H, W, 3) in 0..1.
      targets: (n, K) class probabilities.
      key: of the random start.
      is_l2, eps, step_size, steps: scalars, see `PGD`.
      mean, std: (3,) normalisation that the network expects.

    Returns:
      Images in 0..1, no further than `eps` from the given ones.
    """

    def loss(x: jax.Array) -> jax.Array:
        logits = nnx.merge(graphdef, state)(normalize(x, mean, std)).logits
        return optax.softmax_cross_entropy(logits, targets).sum()

    def project(delta: jax.Array) -> jax.Array:
        length = _length(delta)
        ball = delta * jnp.minimum(1.0, eps * _INSIDE / jnp.maximum(length, 1e-12))
        box = jnp.clip(delta, -eps * _INSIDE, eps * _INSIDE)
        return jnp.clip(images + jnp.where(is_l2, ball, box), 0.0, 1.0) - images

    def step(_: jax.Array, delta: jax.Array) -> jax.Array:
        gradient = jax.grad(loss)(images + delta)
        unit = gradient / jnp.maximum(_length(gradient), 1e-12)
        return project(delta + step_size * jnp.where(is_l2, unit, jnp.sign(gradient)))

    box_key, ball_key, radius_key = jax.random.split(key, 3)
    box = jax.random.uniform(box_key, images.shape, minval=-1.0, maxval=1.0)
    ball = jax.random.normal(ball_key, images.shape)
    radius = jax.random.uniform(radius_key, (images.shape[0], 1, 1, 1))
    start = project(eps * jnp.where(is_l2, ball / _length(ball) * radius, box))
    return jnp.clip(images + lax.fori_loop(0, steps, step, start), 0.0, 1.0)


def _length(x: jax.Array) -> jax.Array:
    """(n, H, W, C) -> (n, 1, 1, 1) Euclidean norms."""
    return jnp.sqrt((x**2).sum(axis=(1, 2, 3), keepdims=True))
