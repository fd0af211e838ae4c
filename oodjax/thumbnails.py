"""A row of small images of each set, which a run leaves beside its tables for the report."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from oodjax.data.contract import BadImage
from oodjax.data.preprocess import cut
from oodjax.data.sets import ImageSet
from oodjax.files import write_whole

FOLDER = "thumbnails"
COUNT, SIDE = 10, 64  # images of a set, and the most pixels a side of each


def path_of(place: int, name: str) -> str:
    """The file of the set at a place of the study, below the results folder."""
    return f"{FOLDER}/{place:02d}-{re.sub(r'[^a-zA-Z0-9_]+', '-', name).strip('-') or 'set'}.png"


def paths(sets: Sequence[ImageSet]) -> list[str]:
    """Every file that `write` may write."""
    return [path_of(place, s.name) for place, s in enumerate(sets)]


def write(sets: Sequence[ImageSet], folder: Path) -> list[dict[str, Any]]:
    """Writes a PNG for each set that has an image which can be read.

    Returns:
      For the manifest, of each file the set's name, the path below the folder, and how many images it shows.
    """
    written = []
    for place, image_set in enumerate(sets):
        content, count = sprite(image_set)
        if count:
            path = path_of(place, image_set.name)
            write_whole(folder / path, lambda file, content=content: file.write(content))  # type: ignore[misc]
            written.append({"name": image_set.name, "file": path, "count": count})
    return written


def sprite(image_set: ImageSet) -> tuple[bytes, int]:
    """Images from the first to the last of a set, in one row, as a PNG; and how many: those that can be read."""
    places = np.unique(np.linspace(0, image_set.count - 1, COUNT).round().astype(int))
    opened = []
    for place in places:
        try:
            opened.append(image_set.source.open(int(place)))
        except BadImage:
            continue  # the run says which images are left out
    if not opened:
        return b"", 0
    side = min(SIDE, max(map(_shorter, opened)))
    row = np.concatenate([cut(image, side, side, fast=True) for image in opened], axis=1)
    file = io.BytesIO()
    Image.fromarray(row).save(file, "PNG", optimize=True)
    return file.getvalue(), len(opened)


def _shorter(image: Image.Image | np.ndarray) -> int:
    return min(image.size if isinstance(image, Image.Image) else image.shape[:2])
