"""Batches of one shape from any source: each image once over all hosts, decoded once for every size asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oodjax.data.arrays import Arrays
from oodjax.data.contract import BadImage, Source

_PREFETCHED_IMAGES = 512


@dataclass(frozen=True)
class Geometry:
    """How an image becomes the square that a network reads.

    Attributes:
      resize: length in pixels that the shorter side is scaled to before cropping; None keeps the image's size.
      crop: side of the square that is cut from the middle; None takes the image as it is, then all must be of one size.
      fast: resize and crop in one step: other pixels, by at most one level (see `data.preprocess`).
    """

    resize: int | None = None
    crop: int | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        if self.crop is None and self.resize is not None:
            raise ValueError(f"geometry: got resize {self.resize} without a crop, which leaves images of many sizes")
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"geometry: got crop {self.crop}, expected at least 1")
        if self.crop is not None and self.resize is not None and self.crop > self.resize:
            raise ValueError(f"crop must not exceed resize, got crop {self.crop} and resize {self.resize}")


AS_IT_IS = Geometry()


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a batch; every batch of a loader has the same shapes.

    Attributes:
      crops: for each distinct geometry, uint8 (b, h, w, 3).
      labels: int32 (b,).
      mask: bool (b,); False marks padding and images that could not be read (pixels 0, label -1).
      index: int64 (b,), the image's place in the source, -1 for padding.
    """

    crops: Mapping[Geometry, np.ndarray]
    labels: np.ndarray
    mask: np.ndarray
    index: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """The images of a loader with one geometry."""
        if len(self.crops) != 1:
            raise ValueError(f"this batch holds {len(self.crops)} geometries: take one, crops[geometry]")
        return next(iter(self.crops.values()))


class _Row(NamedTuple):
    place: int  # -1 for padding
    crops: tuple[np.ndarray, ...] = ()  # empty for padding and for an image that could not be read
    error: BadImage | None = None


def batch_count(images: int, batch_size: int, hosts: int = 1) -> int:
    """Batches that each host goes through; the same for all, as programs over several hosts need."""
    return -(-images // (batch_size * hosts))


def load(
    source: Source,
    batch_size: int,
    *,
    geometries: Sequence[Geometry] = (AS_IT_IS,),
    host: tuple[int, int] = (0, 1),
    start: int = 0,
    threads: int | None = None,
    on_bad: str = "stop",
) -> Loader:
    """All images of a source once, in batches of one shape.

    Args:
      source: what is read.
      batch_size: rows of a batch of this host; the last batches are padded to it.
      geometries: sizes asked for. Each image is decoded once, and cut once for each distinct geometry.
      host: (i, n): this host reads images i, i + n, i + 2n, ...; the hosts together read each image once, and each
        goes through the same number of batches.
      start: the batch to begin with. The images before it are not read; what follows does not depend on `start`.
      threads: of the reader; default one a processor, 16 at most.
      on_bad: "stop" raises `BadImage` when the unreadable image is reached, "skip" masks it and lists it in
        `Loader.bad`.

    Returns:
      An iterator of batches; its length is the number of batches from `start`. Arguments are checked first.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if not geometries:
        raise ValueError("geometries: got none, expected at least one")
    if not 0 <= host[0] < host[1]:
        raise ValueError(f"host: got {host}, expected (i, n) with 0 <= i < n")
    if on_bad not in ("stop", "skip"):
        raise ValueError(f"on_bad: got {on_bad!r}, expected 'stop' or 'skip'")
    total = batch_count(len(source), batch_size, host[1])
    if not 0 <= start <= total:
        raise ValueError(f"start: got {start}, expected 0 to {total}, the number of batches")
    distinct = tuple(dict.fromkeys(geometries))
    bad: list[BadImage] = []
    if isinstance(source, Arrays) and distinct == (AS_IT_IS,):
        found = _from_memory(source, batch_size, host, range(start, total))
    else:
        found = _decoded(source, batch_size, distinct, host, range(start, total), threads, on_bad, bad)
    return Loader(found, total - start, bad)


class Loader(Iterator[Batch]):
    """The batches of `load`.

    Attributes:
      bad: the images that could not be read so far, in the order of the source.
    """

    def __init__(self, found: Iterator[Batch], count: int, bad: list[BadImage]) -> None:
        self._found, self._count, self.bad = found, count, bad

    def __len__(self) -> int:
        return self._count

    def __next__(self) -> Batch:
        return next(self._found)


def _from_memory(source: Arrays, batch_size: int, host: tuple[int, int], numbers: range) -> Iterator[Batch]:
    for number in numbers:
        index = (np.arange(batch_size) + number * batch_size) * host[1] + host[0]
        count = int(np.sum(index < len(source)))
        images = np.zeros((batch_size, *source.images.shape[1:]), np.uint8)
        images[:count] = source.images[index[:count]]
        yield _batch({AS_IT_IS: images}, source, np.where(index < len(source), index, -1), index < len(source))


def _decoded(
    source: Source,
    batch_size: int,
    geometries: tuple[Geometry, ...],
    host: tuple[int, int],
    numbers: range,
    threads: int | None,
    on_bad: str,
    bad: list[BadImage],
) -> Iterator[Batch]:
    if not numbers:
        return
    sizes = [_size(geometry, source) for geometry in geometries]
    rows = _rows(source, batch_size, geometries, sizes, host, numbers, threads, on_bad)
    for _ in numbers:
        crops = {g: np.zeros((batch_size, *size), np.uint8) for g, size in zip(geometries, sizes, strict=True)}
        index, mask = np.full(batch_size, -1, np.int64), np.zeros(batch_size, bool)
        for at in range(batch_size):
            row = next(rows)
            index[at], mask[at] = row.place, bool(row.crops)
            if row.error is not None:
                bad.append(row.error)
            for images, pixels in zip(crops.values(), row.crops, strict=False):
                images[at] = pixels
        yield _batch(crops, source, index, mask)


def _batch(crops: dict[Geometry, np.ndarray], source: Source, index: np.ndarray, mask: np.ndarray) -> Batch:
    labels = np.full(len(index), -1, np.int32)
    labels[mask] = source.labels[index[mask]]
    return Batch(crops, labels, mask, index)


def _rows(
    source: Source,
    batch_size: int,
    geometries: tuple[Geometry, ...],
    sizes: Sequence[tuple[int, ...]],
    host: tuple[int, int],
    numbers: range,
    threads: int | None,
    on_bad: str,
) -> Iterator[_Row]:
    """The rows of the batches asked for, in order, read ahead by threads."""
    import grain

    from oodjax.data.preprocess import cut

    def row(place: int) -> _Row:
        if place >= len(source):
            return _Row(-1)
        try:
            image = source.open(place)
            crops = tuple(cut(image, g.resize, g.crop, g.fast) for g in geometries)
            for pixels, size in zip(crops, sizes, strict=True):
                _check_size(pixels.shape, size)
            return _Row(place, crops)
        except BadImage as error:
            found = error
        except ValueError as error:  # of an image smaller than the crop
            found = BadImage(source.name(place), str(error))
        if on_bad == "stop":
            raise found
        return _Row(place, error=found)

    places = grain.MapDataset.range(numbers.stop * batch_size * host[1])[host[0] :: host[1]]
    ahead = min(_PREFETCHED_IMAGES, 2 * batch_size)
    options = grain.ReadOptions(num_threads=threads or min(16, os.cpu_count() or 1), prefetch_buffer_size=ahead)
    return iter(places[numbers.start * batch_size :].map(row).to_iter_dataset(options))


def _size(geometry: Geometry, source: Source) -> tuple[int, ...]:
    """What the geometry makes of the images of this source; as they are, that of the first readable one."""
    if geometry.crop is not None:
        return geometry.crop, geometry.crop, 3
    for place in range(len(source)):
        try:
            return np.asarray(source.open(place)).shape
        except BadImage as error:
            unreadable = error
    raise unreadable


def _check_size(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(
            f"{found[1]}x{found[0]} pixels, but {expected[1]}x{expected[0]} in the first image: "
            "images of several sizes need a resize and a crop"
        )


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(n) that depends on nothing but (n, seed, epoch), so that training resumes at any epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)
