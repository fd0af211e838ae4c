"""Stand-ins for OOD images, where nobody has any: generated, and made of ID images by ruining or recombining them.

Nothing here is an image that a deployed network will meet. Each kind lacks something that ID images have:
    synthetic    no object at all: NINCO's 17 families (`oodjax.data.synthetic`)
    corrupted    the details of one ID image: noise on most pixels, a blur, coarse blocks, the negative; all far beyond
                 the severities of Hendrycks and Dietterich (ICLR 2019), which leave the class visible
    recombined   the arrangement: one image's tiles shuffled, four images' quarters, the mean of two images
The recombined ones keep the ID images' colours and textures, so they are the nearest of the three.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from oodjax.data import synthetic
from oodjax.data.arrays import Arrays
from oodjax.data.sets import ImageSet

KINDS = ("synthetic", "corrupted", "recombined")
PER_FAMILY, PER_TRANSFORM = 12, 96
_NOISY_PIXELS = 0.7
_BLUR = 1 / 10  # standard deviation, of the side
_BLOCKS = 5  # coarse blocks along a side
_TILES = 4  # shuffled tiles along a side

Rng = np.random.Generator


def _noise(rng: Rng, image: np.ndarray) -> np.ndarray:
    hit = rng.random(image.shape[:2]) < _NOISY_PIXELS
    return np.where(hit[:, :, None], rng.integers(0, 256, image.shape), image)


def _blur(rng: Rng, image: np.ndarray) -> np.ndarray:
    width = _BLUR * min(image.shape[:2])
    return gaussian_filter(image.astype(np.float64), (width, width, 0), mode="reflect")


def _blocks(rng: Rng, image: np.ndarray) -> np.ndarray:
    rows, columns = (np.arange(side) * _BLOCKS // side for side in image.shape[:2])
    block = rows[:, None] * _BLOCKS + columns[None]
    counts = np.bincount(block.ravel(), minlength=_BLOCKS**2)
    means = [np.bincount(block.ravel(), image[:, :, c].ravel(), _BLOCKS**2) / np.maximum(counts, 1) for c in range(3)]
    return np.stack(means, axis=-1)[block]


def _negative(rng: Rng, image: np.ndarray) -> np.ndarray:
    return 255 - image.astype(np.float64)


def _tiles(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Whole tiles change places; what the side leaves over at the bottom and the right stays."""
    height, width = (side // _TILES for side in image.shape[:2])
    corners = [(i * height, j * width) for i in range(_TILES) for j in range(_TILES)]
    result = image.copy()
    for (top, left), source in zip(corners, rng.permutation(len(corners)), strict=True):
        y, x = corners[source]
        result[top : top + height, left : left + width] = image[y : y + height, x : x + width]
    return result


def _quarters(rng: Rng, images: np.ndarray) -> np.ndarray:
    height, width = (side // 2 for side in images.shape[1:3])
    result = images[0].copy()
    result[:height, width:] = images[1, :height, width:]
    result[height:, :width] = images[2, height:, :width]
    result[height:, width:] = images[3, height:, width:]
    return result


def _mean(rng: Rng, images: np.ndarray) -> np.ndarray:
    return images[:2].mean(axis=0)


_OF_ONE: dict[str, tuple[str, Callable[[Rng, np.ndarray], np.ndarray]]] = {
    "noise": ("corrupted", _noise),
    "blur": ("corrupted", _blur),
    "blocks": ("corrupted", _blocks),
    "negative": ("corrupted", _negative),
    "tiles": ("recombined", _tiles),
}
_OF_SEVERAL: dict[str, tuple[str, Callable[[Rng, np.ndarray], np.ndarray]]] = {
    "quarters": ("recombined", _quarters),
    "mean": ("recombined", _mean),
}
_TRANSFORMS = _OF_ONE | _OF_SEVERAL
TRANSFORMS: tuple[str, ...] = tuple(_TRANSFORMS)


def imitate(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[ImageSet, ...]:
    """Stand-ins as OOD test sets, one of each of `KINDS`, by which it is named.

    Args:
      images, labels, seed: as of `stand_ins`.

    Returns:
      The sets, of 204, 384 and 288 images. Every family and transform has as many images as any other of its kind, so
      that the AUROC of a set is the mean over them.

    Raises:
      ValueError: no image.
    """
    made = stand_ins(images, labels, seed)
    kind_of = dict.fromkeys(synthetic.FAMILIES, "synthetic") | {n: kind for n, (kind, _) in _TRANSFORMS.items()}
    pooled = {kind: [made[name] for name in made if kind_of[name] == kind] for kind in KINDS}
    return tuple(
        ImageSet(kind, "ood_test", kind, Arrays(np.concatenate(parts), description=f"{kind} stand-ins for OOD images"))
        for kind, parts in pooled.items()
    )


def stand_ins(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """12 images of each of the 17 families, 96 of each of the 7 transforms.

    Args:
      images: uint8 (n, h, w, 3), ID images.
      labels: (n,) their classes; quarters and means take images of different classes where there are several.
      seed: which images are taken, and all that is drawn.

    Returns:
      Family or transform -> uint8 (m, h, w, 3).

    Raises:
      ValueError: no image.
    """
    if not len(images):
        raise ValueError("images: got none, expected at least one ID image")
    made = {name: _family(name, images, seed) for name in synthetic.FAMILIES}
    for name, (_, function) in _TRANSFORMS.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        chosen = np.resize(rng.permutation(len(images)), PER_TRANSFORM)
        inputs = (images[i] if name in _OF_ONE else images[_group(rng, int(i), labels)] for i in chosen)
        made[name] = np.stack([_pixels(function(rng, given)) for given in inputs])
    return made


def _family(name: str, images: np.ndarray, seed: int) -> np.ndarray:
    """Families are drawn as squares, from which other shapes are cut."""
    height, width = images.shape[1:3]
    side = max(height, width)
    bases = np.stack([_square(image, side) for image in images[:PER_FAMILY]]) if name in synthetic.PERMUTING else None
    return synthetic.generate(name, PER_FAMILY, side, seed, bases)[:, :height, :width]


def _square(image: np.ndarray, side: int) -> np.ndarray:
    return np.resize(np.resize(image, (side, *image.shape[1:])).swapaxes(0, 1), (side, side, 3)).swapaxes(0, 1)


def _group(rng: Rng, first: int, labels: np.ndarray) -> list[int]:
    """`first` and three others, of other classes where there are any."""
    others = np.flatnonzero(labels != labels[first])
    others = others if len(others) else np.arange(len(labels))
    return [first, *rng.choice(others, 3, replace=len(others) < 3)]


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
