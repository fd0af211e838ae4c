"""NINCO's OOD unit tests: 17 families of synthetic images that no classifier should take for its own classes.

Paper: Bitterwolf, Mueller, Hein, "In or Out? Fixing ImageNet Out-of-Distribution Detection Evaluation", ICML 2023.
Definitions after github.com/j-cb/NINCO@c63c4d5, noise_functions.py and create_unit_test_data.ipynb.

Deviations:
    - Images are drawn directly at the asked size; NINCO draws at the sizes of ImageNet photographs and resizes later.
      The widths of the low_freq families (10 to 85 pixels there) are therefore taken relative to a side of 224.
      The widths of blobs and low_freq_pixel_permutation are pixels as there, but at most an eighth of the side.
    - Bands of the striped families differ by at most one pixel; in NINCO the last band takes the whole remainder.
    - Values are rounded to uint8, not truncated, and nothing passes through JPEG.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

_REFERENCE_SIDE = 224
_LOW_FREQ_WIDTHS = (10, 15, 25, 40, 60, 85)
_PERMUTATION_WIDTHS = (1, 1.5, 2, 3, 4, 6, 8)
_BLOB_WIDTHS = (1.5, 2, 2.5, 3, 3.5, 4)
_GAUSSIAN_SIGMAS = (0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
_STRIPE_COUNTS = (4, 5, 7, 10, 15, 20)
_BLOB_DENSITY, _BLOB_FLOOR = 0.7, 0.75
_COLOUR_QUANTILES = (0.025, 0.975)

Rng = np.random.Generator


def _blur(image: np.ndarray, width: float) -> np.ndarray:
    """Gaussian of standard deviation `width` pixels over periodic edges, channel by channel."""
    rows, columns = (np.exp(-2 * (np.pi * width * np.fft.fftfreq(side)) ** 2) for side in image.shape[:2])
    spectrum = np.fft.fft2(image, axes=(0, 1)) * (rows[:, None] * columns)[:, :, None]
    return np.fft.ifft2(spectrum, axes=(0, 1)).real


def _stretch(image: np.ndarray, axis: tuple[int, ...] | None = None) -> np.ndarray:
    """Map the range over `axis` to 0..1."""
    low, high = image.min(axis=axis, keepdims=True), image.max(axis=axis, keepdims=True)
    return (image - low) / (high - low)


def _bands(colours: np.ndarray, size: int, horizontal: bool) -> np.ndarray:
    bands = colours[np.arange(size) * len(colours) // size]
    image = np.broadcast_to(bands[:, None], (size, size, 3))
    return image if horizontal else image.transpose(1, 0, 2)


def _uniform(rng: Rng, size: int) -> np.ndarray:
    return rng.random((size, size, 3))


def _gaussian(rng: Rng, size: int) -> np.ndarray:
    return 0.5 + rng.choice(_GAUSSIAN_SIGMAS) * rng.standard_normal((size, size, 3))


def _rademacher(rng: Rng, size: int) -> np.ndarray:
    return (rng.random((size, size, 3)) > 0.5).astype(float)


def _black(rng: Rng, size: int) -> np.ndarray:
    return np.zeros((size, size, 3))


def _white(rng: Rng, size: int) -> np.ndarray:
    return np.ones((size, size, 3))


def _grey(rng: Rng, size: int) -> np.ndarray:
    return np.full((size, size, 3), rng.random())


def _monochrome(rng: Rng, size: int) -> np.ndarray:
    return np.broadcast_to(rng.random(3), (size, size, 3))


def _tricolour(rng: Rng, size: int) -> np.ndarray:
    return _bands(rng.random((3, 3)), size, horizontal=rng.random() < 0.5)


def _tricolour_primary(rng: Rng, size: int) -> np.ndarray:
    return _bands(rng.integers(0, 2, (3, 3)).astype(float), size, horizontal=rng.random() < 0.5)


def _horizontal_stripes(rng: Rng, size: int) -> np.ndarray:
    return _bands(rng.random((rng.choice(_STRIPE_COUNTS), 3)), size, horizontal=True)


def _vertical_stripes(rng: Rng, size: int) -> np.ndarray:
    return _bands(rng.random((rng.choice(_STRIPE_COUNTS), 3)), size, horizontal=False)


def _blobs(rng: Rng, size: int) -> np.ndarray:
    dots = (rng.random((size, size, 3)) < _BLOB_DENSITY).astype(float)
    image = _blur(dots, min(rng.choice(_BLOB_WIDTHS), size / 8))
    return np.where(image < _BLOB_FLOOR, 0.0, image)


def _broad_noise(rng: Rng, size: int) -> np.ndarray:
    return _blur(_uniform(rng, size), rng.choice(_LOW_FREQ_WIDTHS) * size / _REFERENCE_SIDE)


def _low_freq(rng: Rng, size: int) -> np.ndarray:
    return _stretch(_broad_noise(rng, size))


def _low_freq_channelfullscale(rng: Rng, size: int) -> np.ndarray:
    return _stretch(_broad_noise(rng, size), axis=(0, 1))


def _low_freq_colorrange(rng: Rng, size: int) -> np.ndarray:
    # NINCO's range starts at the drawn colour ("center") and ends two deviations above it.
    colour, deviation = rng.random(3), rng.uniform(0.1, 0.3)
    image = _broad_noise(rng, size)
    low, high = np.quantile(image, _COLOUR_QUANTILES, axis=(0, 1))
    return colour + 2 * deviation * (image - low) / (high - low)


def _pixel_perm(rng: Rng, image: np.ndarray) -> np.ndarray:
    return rng.permutation(image.reshape(-1, 3)).reshape(image.shape)


def _low_freq_pixel_perm(rng: Rng, image: np.ndarray) -> np.ndarray:
    width = min(rng.choice(_PERMUTATION_WIDTHS), image.shape[0] / 8)
    return _blur(_pixel_perm(rng, image), width)


_FROM_SIZE: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "uniform": _uniform,
    "gaussian": _gaussian,
    "rademacher": _rademacher,
    "black": _black,
    "white": _white,
    "grey": _grey,
    "monochrome": _monochrome,
    "tricolour": _tricolour,
    "tricolour_primary": _tricolour_primary,
    "horizontal_stripes": _horizontal_stripes,
    "vertical_stripes": _vertical_stripes,
    "blobs": _blobs,
    "low_freq": _low_freq,
    "low_freq_channelfullscale": _low_freq_channelfullscale,
    "low_freq_colorrange": _low_freq_colorrange,
}
_FROM_IMAGE: dict[str, Callable[[Rng, np.ndarray], np.ndarray]] = {
    "pixel_permutation": _pixel_perm,
    "low_freq_pixel_permutation": _low_freq_pixel_perm,
}
PERMUTING: tuple[str, ...] = tuple(_FROM_IMAGE)
FAMILIES: tuple[str, ...] = (*_FROM_SIZE, *PERMUTING)


def generate(family: str, n: int, size: int, seed: int, images: np.ndarray | None = None) -> np.ndarray:
    """`n` images of one family.

    Image i depends on (family, size, seed, i) alone, so the first images of a larger `n` are those of a smaller one.

    Args:
        family: one of `FAMILIES`.
        n: number of images.
        size: side in pixels.
        seed: non-negative.
        images: uint8 (m, size, size, 3), needed by the two permutation families, which permute the pixels of
            image i modulo m.

    Returns:
        uint8 (n, size, size, 3).
    """
    _check(family, n, size, seed)
    if family in PERMUTING:
        images = _checked(family, images, size)
    result = np.empty((n, size, size, 3), np.uint8)
    for index in range(n):
        result[index] = draw(family, index, size, seed, None if images is None else images[index % len(images)])
    return result


def draw(family: str, index: int, size: int, seed: int, image: np.ndarray | None = None) -> np.ndarray:
    """Image `index` of one family, of `generate`'s; `image` is the one that a permutation family permutes.

    Returns:
        uint8 (size, size, 3).
    """
    _check(family, index, size, seed)
    rng = np.random.default_rng([seed, zlib.crc32(family.encode()), index])
    if family in PERMUTING:
        pixels = _FROM_IMAGE[family](rng, _checked(family, None if image is None else image[None], size)[0] / 255.0)
    else:
        pixels = _FROM_SIZE[family](rng, size)
    return np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)


def _check(family: str, n: int, size: int, seed: int) -> None:
    if family not in FAMILIES:
        raise ValueError(f"family: got {family!r}, expected one of {', '.join(FAMILIES)}")
    if n < 0 or size < 2 or seed < 0:
        raise ValueError(f"n, size, seed: got {n}, {size}, {seed}, expected n >= 0, size >= 2, seed >= 0")


def _checked(family: str, images: np.ndarray | None, size: int) -> np.ndarray:
    if images is None:
        raise ValueError(f"images: got None, expected uint8 (m, {size}, {size}, 3): {family} permutes their pixels")
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3) or not len(images):
        raise ValueError(f"images: got {images.dtype} {images.shape}, expected uint8 (m, {size}, {size}, 3), m >= 1")
    return images
