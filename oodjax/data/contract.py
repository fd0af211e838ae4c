"""What every source of images answers, and what goes wrong with images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from oodjax.command_line import UsageError

if TYPE_CHECKING:
    from PIL import Image

    Opened: TypeAlias = Image.Image | np.ndarray


class BadImage(UsageError):
    """An image that cannot be read: `path` (or the name of its place in the source) and `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return BadImage, (self.path, self.reason)


class DataError(UsageError):
    """Data that is not there, or not what it should be; the message is one sentence for the user."""


class Source(Protocol):
    """Random access to images.

    `open` may be called from several threads at once.
    """

    @property
    def description(self) -> str:
        """Where the images come from, for the manifest of a run."""

    @property
    def labels(self) -> np.ndarray:
        """(n,) int32, the class of an ID image, -1 for OOD; no image is decoded for it."""

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of what decides images and labels: neither names of folders above them nor times enter."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Opened:
        """Image `index`: an RGB `PIL.Image.Image`, or uint8 (h, w, 3).

        Raises:
          BadImage: it cannot be read.
        """

    def __getitem__(self, index: int) -> Opened: ...

    def name(self, index: int) -> str:
        """What a message calls image `index`: its path, or its place."""

    def identities(self, content: bool = False) -> Sequence[str]:
        """One key an image, equal for images that are the same.

        Args:
          content: compare what the files hold, which reads them; otherwise files are the same when their paths are.
        """


class Opens(ABC):
    """What makes `source[i]` of `source.open(i)`."""

    @abstractmethod
    def open(self, index: int) -> Opened:
        """See `Source.open`."""

    def __getitem__(self, index: int) -> Opened:
        return self.open(index)


def checked_labels(labels: Any, count: int) -> np.ndarray:
    """Labels as read-only int32 (count,); None is -1 everywhere."""
    values = np.full(count, -1, np.int32) if labels is None else np.asarray(labels)
    if values.shape != (count,) or (values.dtype.kind not in "iu" and count):
        raise DataError(f"labels: got {values.dtype} {values.shape}, expected integers ({count},), one per image")
    if count and (values.min() < -1 or values.max() > np.iinfo(np.int32).max):
        raise DataError(f"labels: got {values.min()} to {values.max()}, expected classes from 0, or -1 for OOD")
    return read_only(values.astype(np.int32))


def read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def digest_of_pixels(image: np.ndarray) -> str:
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def reason_of(error: BaseException) -> str:
    """One line of what an exception says."""
    return " ".join(str(error).split())[:200] or type(error).__name__
