"""The evaluation transform of the study, equal to torchvision's on PIL images bit for bit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

RESIZE = 256
CROP = 224


def decode(source: str | Path | bytes) -> Image.Image:
    """An encoded image, by path or content, as RGB; transparency is dropped, grey and palette images are expanded."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return image.convert("RGB")


def resize_shorter(image: Image.Image, size: int) -> Image.Image:
    """Scales the shorter side to `size` with PIL's antialiased bilinear filter; the longer side is rounded down.

    The pixels are those of the Pillow that is installed: 12 and 13 differ by one level on some tall images.
    """
    width, height = image.size
    shorter = min(width, height)
    if shorter == size:
        return image
    target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    return image.resize(target, Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle `size` x `size` pixels; an odd margin is split as torchvision does (half to even)."""
    width, height = image.size
    if min(width, height) < size:
        raise ValueError(f"crop of {size} pixels needs an image of at least that size, got {width}x{height}")
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def preprocess(source: str | Path | bytes | Image.Image, resize: int = RESIZE, crop: int = CROP) -> np.ndarray:
    """One image as the network's input; normalisation belongs to the checkpoint and happens on the device.

    Args:
      source: path, encoded bytes or a PIL image.
      resize: length of the shorter side before cropping.
      crop: side of the square that is kept.

    Returns:
      (crop, crop, 3) uint8.

    Raises:
      ValueError: `crop` exceeds `resize`.
    """
    if crop > resize:
        raise ValueError(f"crop must not exceed resize, got crop {crop} and resize {resize}")
    image = source.convert("RGB") if isinstance(source, Image.Image) else decode(source)
    return np.asarray(centre_crop(resize_shorter(image, resize), crop))
