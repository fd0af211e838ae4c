"""Pure functions (key, images, targets) -> (images, targets): (n, H, W, 3) in 0..1 and (n, K) class probabilities."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

Augmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def shift(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves each image by up to an eighth of its side, zeros entering: the random crop of small images."""
    n, side = images.shape[:2]
    reach = side // 8
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    corners = jax.random.randint(key, (n, 2), 0, 2 * reach + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], jnp.int32(0)), images.shape[1:])

    return jax.vmap(crop)(padded, corners), targets


def mixup(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Convex combinations of pairs, share ~ Beta(0.4, 0.4) (Zhang et al., ICLR 2018)."""
    return mix(images, targets, jax.random.beta(key, 0.4, 0.4, (images.shape[0],)))


def mix(images: jax.Array, targets: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`share` (n,) of each row and the rest of the row before it."""
    blend = share[:, None, None, None]
    images = blend * images + (1.0 - blend) * jnp.roll(images, 1, axis=0)
    return images, share[:, None] * targets + (1.0 - share[:, None]) * jnp.roll(targets, 1, axis=0)


def cutmix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A box of each image comes from the row before it, area ~ uniform before clipping (Yun et al., ICCV 2019)."""
    area_key, centre_key = jax.random.split(key)
    n, height, width = images.shape[:3]
    side = jnp.sqrt(jax.random.uniform(area_key, (n, 1)))
    centre = jax.random.uniform(centre_key, (n, 2))
    size = jnp.asarray([[height, width]], jnp.float32)
    low = jnp.round((centre - side / 2).clip(0, 1) * size).astype(jnp.int32)
    high = jnp.round((centre + side / 2).clip(0, 1) * size).astype(jnp.int32)
    return paste(images, targets, low, high)


def paste(images: jax.Array, targets: jax.Array, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The boxes low <= (row, column) < high, each (n, 2), taken from the row before; labels mix by area."""
    inside = []
    for axis in (0, 1):
        index = jnp.arange(images.shape[1 + axis])[None]
        inside.append((index >= low[:, axis, None]) & (index < high[:, axis, None]))
    box = inside[0][:, :, None] & inside[1][:, None, :]
    share = 1.0 - box.astype(jnp.float32).mean(axis=(1, 2))
    images = jnp.where(box[..., None], jnp.roll(images, 1, axis=0), images)
    return images, share[:, None] * targets + (1.0 - share[:, None]) * jnp.roll(targets, 1, axis=0)


def mixup_or_cutmix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One of the two for the whole batch, at even odds, as in TorchVision's reference training."""
    choice_key, key = jax.random.split(key)
    return jax.lax.cond(jax.random.bernoulli(choice_key), mixup, cutmix, key, images, targets)


def noise(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gaussian pixel noise on every second image, deviation uniform up to 0.3 (after Rusak et al., ECCV 2020)."""
    spread_key, key = jax.random.split(key)
    spread = 0.3 * jnp.maximum(jax.random.uniform(spread_key, (images.shape[0], 1, 1, 1), minval=-1.0), 0.0)
    return (images + spread * jax.random.normal(key, images.shape)).clip(0, 1), targets


def texture(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keeps the phase of each image's spectrum and moves its amplitudes towards coloured noise of equal energy.

    In place of style transfer (Geirhos et al., ICLR 2019), after the amplitude mixing of Xu et al. (CVPR 2021):
    shapes stay, textures, colours and brightness change. The share mixed in is uniform.
    """
    n, height, width = images.shape[:3]
    white_key, share_key, slope_key, colour_key = jax.random.split(key, 4)
    share = jax.random.uniform(share_key, (n, 1, 1, 1))
    slope = jax.random.uniform(slope_key, (n, 1, 1, 1), maxval=2.0)
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.fftfreq(width)[None, :])[None, :, :, None]
    spectrum = jnp.fft.fft2(images, axes=(1, 2))
    amplitude = jnp.abs(spectrum)
    other = jnp.abs(jnp.fft.fft2(jax.random.normal(white_key, images.shape), axes=(1, 2)))
    other = jnp.where(frequency > 0, other / jnp.maximum(frequency, 1 / 64) ** slope, 0.0)
    energy = jnp.where(frequency > 0, amplitude, 0.0).sum(axis=(1, 2), keepdims=True)
    other = other * energy / other.sum(axis=(1, 2), keepdims=True)
    other = other + jnp.where(frequency > 0, 0.0, amplitude)
    mixed = amplitude * (1.0 - share) + other * share
    ratio = (mixed / jnp.maximum(amplitude, 1e-6)).astype(spectrum.dtype)
    shaped = jnp.fft.ifft2(spectrum * ratio, axes=(1, 2)).real
    colour = jax.random.uniform(colour_key, (2, n, 1, 1, 3), minval=-0.4, maxval=0.4)
    return (shaped * (1.0 + share * colour[0]) + share * colour[1]).clip(0, 1), targets


def randaugment(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two operations an image, each drawn from ten, strength uniform (Cubuk et al., NeurIPS 2020).

    identity, rotate, shear and move along each axis, brightness, contrast, posterize, solarize.
    """
    for round_key in jax.random.split(key, 2):
        choice_key, strength_key = jax.random.split(round_key)
        choice = jax.random.randint(choice_key, (images.shape[0],), 0, 10)
        strength = jax.random.uniform(strength_key, (images.shape[0],), minval=-1.0)
        images = _photometric(_geometric(images, choice, strength), choice, strength)
    return images, targets


def _geometric(images: jax.Array, choice: jax.Array, strength: jax.Array) -> jax.Array:
    def amount(operation: int, largest: float) -> jax.Array:
        return jnp.where(choice == operation, strength * largest, 0.0)

    side = images.shape[1]
    matrix = affine_matrix(amount(1, jnp.pi / 6), amount(2, 0.3), amount(3, 0.3), jnp.ones_like(strength))
    return warp(images, matrix, jnp.stack([amount(4, 0.2 * side), amount(5, 0.2 * side)], axis=1))


def _photometric(images: jax.Array, choice: jax.Array, strength: jax.Array) -> jax.Array:
    choice, strength = choice[:, None, None, None], strength[:, None, None, None]
    middle = images.mean(axis=(1, 2, 3), keepdims=True)
    levels = 2.0 + jnp.round(6.0 * jnp.abs(strength))
    changed = [
        images * (1.0 + 0.8 * strength),
        middle + (images - middle) * (1.0 + 0.8 * strength),
        jnp.round(images * (levels - 1.0)) / (levels - 1.0),
        jnp.where(images > jnp.abs(strength), 1.0 - images, images),
    ]
    return jnp.select([choice == 6 + i for i in range(4)], changed, images).clip(0, 1)


def views(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A random view for contrastive learning: moved, turned, scaled, then contrast, brightness, noise and a hole.

    In place of crop, flip, colour and blur (Chen et al., ICML 2020): mirrored digits are other digits.
    """
    n, height, width = images.shape[:3]
    keys = jax.random.split(key, 8)

    def uniform(i: int, low: float, high: float, *shape: int) -> jax.Array:
        return jax.random.uniform(keys[i], (n, *shape), minval=low, maxval=high)

    matrix = affine_matrix(uniform(0, -0.3, 0.3), uniform(1, -0.2, 0.2), jnp.zeros(n), uniform(2, 0.8, 1.25))
    images = warp(images, matrix, uniform(3, -height / 8, height / 8, 2))
    images = images * uniform(4, 0.5, 1.3, 1, 1, 3) + uniform(5, 0.0, 0.1, 1, 1, 1)
    images = images + uniform(6, 0.0, 0.1, 1, 1, 1) * jax.random.normal(keys[7], images.shape)
    corner = jax.random.randint(jax.random.fold_in(key, 8), (n, 2), -height // 4, height)
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    down, right = rows - corner[:, :1, None], columns - corner[:, 1:, None]
    inside = (down >= 0) & (down < height // 4) & (right >= 0) & (right < width // 4)
    return jnp.where(inside[..., None], 0.0, images).clip(0, 1), targets


def affine_matrix(angle: jax.Array, shear_x: jax.Array, shear_y: jax.Array, scale: jax.Array) -> jax.Array:
    """(n,) each -> (n, 2, 2) maps of output to input offsets (row, column): rotation in radians, shears, scale."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    top = jnp.stack([cosine, -sine + shear_y], axis=1)
    bottom = jnp.stack([sine + shear_x, cosine], axis=1)
    return jnp.stack([top, bottom], axis=1) / scale[:, None, None]


def warp(images: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
    """Bilinear samples at centre + matrix (position - centre) + offset (n, 2); zero outside."""
    height, width = images.shape[1:3]
    centre = jnp.asarray([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1).astype(jnp.float32)
    relative = grid - centre[None, None]
    at = jnp.einsum("nij,hwj->nihw", matrix, relative) + (centre[None] + offset)[:, :, None, None]

    def sample(image: jax.Array, position: jax.Array) -> jax.Array:
        return map_coordinates(image, [position[0], position[1]], order=1)

    return jax.vmap(jax.vmap(sample, in_axes=(2, None), out_axes=2))(images, at)


AUGMENTATIONS: dict[str, Augmentation] = {
    f.__name__: f for f in (shift, mixup, cutmix, mixup_or_cutmix, noise, texture, randaugment, views)
}
MIXES_LABELS = ("mixup", "cutmix", "mixup_or_cutmix")
