"""From an encoded image to a network's input, equal to torchvision's evaluation transform on PIL images bit for bit.

What becomes of the kinds of images:
    colour, CMYK     `Image.convert("RGB")`, without colour profiles, as torchvision and OpenOOD do
    grey, palette    expanded to RGB
    alpha            dropped: the colour under it is kept, whatever shows through
    16 bits          the high byte, as Pillow does for 16-bit colour (its own conversion of grey clips to white)
    32 bits, float   refused: nothing says which value is white
    several frames   the first
    EXIF             the pixels as stored; orientation is not applied
    very thin        resized around the crop alone, see `cut`; then a value may be one level off
    very large       Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS`: a warning from there, refused from twice that
    truncated        refused, as is all that Pillow cannot read
"""

from __future__ import annotations

import io
import math
import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from oodjax.data.contract import BadImage, reason_of

RESIZE = 256
CROP = 224

_LARGEST_RESIZED = 16_000_000  # pixels, at 4 bytes


def decode(source: str | Path | bytes) -> Image.Image:
    """An encoded image, by path or content, as RGB.

    Raises:
      BadImage: it cannot be read; names the path.
    """
    name = f"encoded image of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
            raise OSError("not a file")  # a pipe would be waited for
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return to_rgb(image)
    except UnidentifiedImageError:
        raise BadImage(name, "not an image that Pillow can read") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)
        raise BadImage(name, reason) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in three channels of 8 bits, as the table above says."""
    mode = image.mode
    # Older versions of Pillow open 16-bit grey PNG and PGM files as 32-bit integers.
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {mode}) do not say which value is white: save them with 8 or 16")
    if mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours; going straight to RGB, Pillow warns
    return image.convert("RGB")


def resize_shorter(image: Image.Image, size: int) -> Image.Image:
    """Scales the shorter side to `size` with PIL's antialiased bilinear filter; the longer side is rounded down.

    The pixels are those of the Pillow that is installed: 12 and 13 differ by one level on some tall images.
    """
    target = _resized(image.size, size)
    return image if target == image.size else image.resize(target, Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle `size` x `size` pixels; an odd margin is split as torchvision does (half to even)."""
    width, height = image.size
    if min(width, height) < size:
        raise ValueError(f"crop of {size} pixels needs an image of at least that size, got {width}x{height}")
    left, top = _corner(image.size, size)
    return image.crop((left, top, left + size, top + size))


def cut(image: Image.Image | np.ndarray, resize: int | None, crop: int | None, fast: bool = False) -> np.ndarray:
    """One decoded image as the network's input.

    An image so thin that it would be resized to more than 16 million pixels (sides of 1 to 244 and more, at a
    resize of 256) is taken the fast way, so that memory stays bounded.

    Args:
      image: RGB, or uint8 (h, w, 3).
      resize: length of the shorter side before cropping; None: no resizing.
      crop: side of the square that is kept; None: all of it.
      fast: resize only what the crop shows, in one step. The values are at most one level off, because Pillow rounds
        the place of the part to float32 and may take the axes in another order: measured on 0 to 0.5 % of the values
        of photographs, on 10 to 26 % where the order differs (sides of 1 to 5 and more).

    Returns:
      (crop, crop, 3) uint8.
    """
    if crop is None:
        return np.asarray(image)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image))
    if resize is None:
        return np.asarray(centre_crop(image, crop))
    width, height = _resized(image.size, resize)
    if fast or width * height > _LARGEST_RESIZED:
        return np.asarray(_resize_part(image, (width, height), crop))
    return np.asarray(centre_crop(resize_shorter(image, resize), crop))


def preprocess(
    source: str | Path | bytes | Image.Image,
    resize: int | None = RESIZE,
    crop: int | None = CROP,
    fast: bool = False,
) -> np.ndarray:
    """One image as the network's input; normalisation belongs to the checkpoint and happens on the device.

    Args:
      source: path, encoded bytes or a PIL image.
      resize: length of the shorter side before cropping; None: no resizing.
      crop: side of the square that is kept; None: all of it, at its own size.
      fast: see `cut`.

    Returns:
      (crop, crop, 3) uint8.

    Raises:
      ValueError: `crop` exceeds `resize`.
      BadImage: the image cannot be read.
    """
    if crop is not None and resize is not None and crop > resize:
        raise ValueError(f"crop must not exceed resize, got crop {crop} and resize {resize}")
    return cut(to_rgb(source) if isinstance(source, Image.Image) else decode(source), resize, crop, fast)


def _resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    width, height = size
    if min(width, height) == shorter:
        return size
    return (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)


def _corner(size: tuple[int, int], crop: int) -> tuple[int, int]:
    return round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)


def _resize_part(image: Image.Image, resized: tuple[int, int], crop: int) -> Image.Image:
    """The middle `crop` x `crop` pixels of `image` resized to `resized`, without the rest.

    What the filter reads is cut out first: Pillow keeps a box in float32, which the coordinates in the middle of a
    long side would overflow, and it chooses the order of the two axes by the size of what it is given.
    """
    box, window = [], []
    for length, target, begin in zip(image.size, resized, _corner(resized, crop), strict=True):
        scale = length / target
        reach = math.ceil(max(scale, 1.0)) + 1
        first, last = begin * scale, (begin + crop) * scale
        window.append((max(int(first) - reach, 0), min(math.ceil(last) + reach, length)))
        box.append((first - window[-1][0], last - window[-1][0]))
    (left, right), (top, bottom) = window
    part = image.crop((left, top, right, bottom))
    (first_x, last_x), (first_y, last_y) = box
    return part.resize((crop, crop), Image.Resampling.BILINEAR, box=(first_x, first_y, last_x, last_y))
