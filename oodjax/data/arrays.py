"""Sources without files: arrays in memory, images that a function makes, parts of other sources."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from oodjax.data.contract import Opens, Source, checked_labels, digest_of_pixels, read_only

if TYPE_CHECKING:
    from oodjax.data.contract import Opened


@dataclass(frozen=True, eq=False, repr=False)
class Arrays(Opens):
    """Images in memory.

    Attributes:
      images: uint8 (n, h, w, 3), read-only from here on.
      labels: (n,) integers, -1 (the default) for OOD.
      description: where they come from.
    """

    images: np.ndarray
    labels: np.ndarray = None  # type: ignore[assignment]
    description: str = "arrays in memory"

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images: got {images.dtype} {images.shape}, expected uint8 (n, h, w, 3)")
        object.__setattr__(self, "images", read_only(images))
        object.__setattr__(self, "labels", checked_labels(self.labels, len(images)))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description!r}, {len(self)} images of {self.images.shape[1:]})"

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            for row in array:
                digest.update(row.tobytes())
        return digest.hexdigest()

    def open(self, index: int) -> Opened:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"image {index} of {self.description}"

    def identities(self, content: bool = False) -> Sequence[str]:
        return [digest_of_pixels(image) for image in self.images]


@dataclass(frozen=True, eq=False, repr=False)
class Generated(Opens):
    """Images that a function makes, each when it is asked for.

    Attributes:
      make: index -> uint8 (h, w, 3), of the index alone.
      count: how many there are.
      key: what else decides them, for example the seed and the size.
      description: what they are.
    """

    make: Callable[[int], np.ndarray]
    count: int
    key: str
    description: str

    _SAMPLES = 32

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Generated({self.description!r}, {self.count} images)"

    @cached_property
    def labels(self) -> np.ndarray:
        return checked_labels(None, self.count)

    @cached_property
    def fingerprint(self) -> str:
        """Of the key, the count and up to 32 of the images, so that another way to draw them is noticed."""
        digest = hashlib.sha256(f"{self.key}\n{self.count}\n".encode())
        for index in np.unique(np.linspace(0, max(self.count - 1, 0), self._SAMPLES).astype(int))[: self.count]:
            digest.update(digest_of_pixels(self.make(int(index))).encode())
        return digest.hexdigest()

    def open(self, index: int) -> Opened:
        return self.make(index)

    def name(self, index: int) -> str:
        return f"image {index} of {self.description}"

    def identities(self, content: bool = False) -> Sequence[str]:
        return [f"{self.fingerprint}:{index}" for index in range(self.count)]


@dataclass(frozen=True, eq=False, repr=False)
class Subset(Opens):
    """Some images of another source, in the order of `indices`; `labels` replaces theirs."""

    parent: Source
    indices: np.ndarray
    labels: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        indices = np.asarray(self.indices)
        if indices.ndim != 1 or indices.dtype.kind not in "iu" or np.any((indices < 0) | (indices >= len(self.parent))):
            raise ValueError(f"indices: expected whole numbers from 0 to {len(self.parent) - 1}, one axis")
        labels = self.parent.labels[indices] if self.labels is None else self.labels
        object.__setattr__(self, "indices", read_only(indices.astype(np.int64)))
        object.__setattr__(self, "labels", checked_labels(labels, len(indices)))

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {self.parent!r})"

    @property
    def description(self) -> str:
        return self.parent.description

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"subset of {self.parent.fingerprint}\n".encode())
        digest.update(self.indices.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def open(self, index: int) -> Opened:
        return self.parent.open(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.parent.name(int(self.indices[index]))

    def identities(self, content: bool = False) -> Sequence[str]:
        whole = self.parent.identities(content)
        return [whole[index] for index in self.indices]
