"""What a network takes pixels to: the one place where they are centred and scaled."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def normalize_images(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(n, H, W, C) uint8 images -> float32: pixels scaled to 0..1, less `mean`, over `std`, (C,) each."""
    return normalize(images.astype(jnp.float32) / 255.0, mean, std)


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(n, H, W, C) pixels in 0..1, less `mean`, over `std`, (C,) each."""
    shape = (1, 1, 1, -1)
    return (images - mean.reshape(shape)) / std.reshape(shape)
