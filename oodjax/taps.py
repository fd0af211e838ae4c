"""Summaries of feature maps: what GRAM and ATS need of a layer, small enough to leave the pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float
from numpy.typing import ArrayLike

from oodjax.arrays import describe, is_whole, real_array

POWERS = 10
MOST_POWERS = 100  # each is a step of the program, and float32 has no digits for higher ones
TILE = 14_336  # floats of a tile, 56 KiB: within a core's second-level cache together with its power


def summarize(
    feature_maps: Sequence[ArrayLike], powers: int = POWERS
) -> tuple[Float[jax.Array, "n P C"], Float[jax.Array, "n L"]]:
    """Reduces the tapped layers' maps to what GRAM and ATS read.

    The row sum of the power-p Gram matrix needs no C x C matrix: with S_p(x) = sum_j F_j(x)^p it is
    g_i = sum_x F_i(x)^p S_p(x), then the signed root sign(g)|g|^(1/p) (Sastry and Oore, ICML 2020, eq. 2).
    Each sample's map is divided by its largest magnitude first and the result multiplied back (g is homogeneous
    of degree 2), so that no power overflows float32.

    Args:
      feature_maps: maps of the tapped layers, each (n, H, W, C) or (n, tokens, C).
      powers: highest power; rows for 1..powers are returned.

    Returns:
      gram: (n, powers, sum of C) float32.
      layer_means: (n, layers) float32, the mean over positions and channels of max(activation, 0).

    Raises:
      TypeError: one map instead of a sequence of maps, or a map that is no array.
      ValueError: no map, a map of another rank or without channels, maps of different samples, or powers below 1.
    """
    maps = _checked_maps(feature_maps)
    if not is_whole(powers) or not 1 <= powers <= MOST_POWERS:
        raise ValueError(f"powers must be at least 1 and whole, and at most {MOST_POWERS}, got {describe(powers)}")
    flat = [jnp.asarray(m, jnp.float32).reshape(m.shape[0], -1, m.shape[-1]) for m in maps]
    gram = jnp.concatenate([gram_rows(m, powers) for m in flat], axis=-1)
    means = jnp.stack([jnp.maximum(m, 0).mean(axis=(1, 2)) for m in flat], axis=-1)
    return gram, means


def _checked_maps(feature_maps: Any) -> list[Any]:
    if (
        hasattr(feature_maps, "dtype")
        or isinstance(feature_maps, (str, dict))
        or not isinstance(feature_maps, Iterable)
    ):
        given = describe(feature_maps)
        raise TypeError(f"summarize takes a tuple of maps, one for each layer, such as summarize((map,)), got {given}")
    maps = [real_array(m, f"feature_maps[{i}]") for i, m in enumerate(feature_maps)]
    if not maps:
        raise ValueError("summarize needs at least one feature map, got none")
    for i, m in enumerate(maps):
        if m.ndim not in (3, 4) or 0 in m.shape:
            raise ValueError(f"feature_maps[{i}] must have shape (n, H, W, C) or (n, tokens, C), got {tuple(m.shape)}")
    if len({m.shape[0] for m in maps}) > 1:
        raise ValueError(f"feature_maps hold different numbers of samples: {[len(m) for m in maps]}")
    return maps


def gram_rows(maps: Float[jax.Array, "n x C"], powers: int) -> Float[jax.Array, "n P C"]:
    """(n, positions, C) float32 -> (n, powers, C): see `summarize`."""
    largest = jnp.abs(maps).max(axis=(1, 2), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1.0)
    sums = jax.lax.platform_dependent(
        maps / scale, cpu=partial(_power_sums_by_tile, powers=powers), default=partial(_power_sums, powers=powers)
    )
    inverse = 1.0 / jnp.arange(1, powers + 1, dtype=jnp.float32)
    return jnp.sign(sums) * jnp.abs(sums) ** inverse[None, :, None] * scale**2


def _power_sums(base: Float[jax.Array, "*n x C"], powers: int) -> Float[jax.Array, "*n P C"]:
    """(..., positions, C) -> (..., powers, C): sum_x F_i(x)^p S_p(x) for p = 1..powers."""
    power, sums = base, []
    for _ in range(powers):
        totals = power.sum(axis=-1)
        sums.append(jnp.einsum("...xc,...x->...c", power, totals, precision="highest"))
        power = power * base
    return jnp.stack(sums, axis=-2)


def _power_sums_by_tile(base: Float[jax.Array, "n x C"], powers: int) -> Float[jax.Array, "n P C"]:
    """The same, some positions of one image at a time: on a CPU all powers of a tile stay in its cache."""
    n, positions, channels = base.shape
    rows = max(1, min(positions, TILE // channels))
    tiles = -(-positions // rows)
    padded = jnp.pad(base, ((0, 0), (0, tiles * rows - positions), (0, 0)))  # zeros add nothing to any power

    def image(maps: jax.Array) -> jax.Array:
        start = jnp.zeros((powers, channels), jnp.float32)
        return jax.lax.scan(lambda total, tile: (total + _power_sums(tile, powers), None), start, maps)[0]

    return jax.lax.map(image, padded.reshape(n, tiles, rows, channels))
