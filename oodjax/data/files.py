"""Sources on disk: image files by list or folder, and IDX files."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from oodjax.data.arrays import Arrays
from oodjax.data.contract import DataError, Opens, checked_labels, reason_of

if TYPE_CHECKING:
    from oodjax.data.contract import Opened

SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
_PATHS_A_TASK = 256
_LARGEST_LABEL = 2**31 - 1

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Files(Opens):
    """Image files under a folder; each is decoded when it is asked for.

    Attributes:
      paths: relative to `root`, with forward slashes.
      labels: (n,) integers, -1 for OOD.
      root: the folder above them. It does not enter the fingerprint: data may move.
      hash_content: take the bytes of the files into the fingerprint, not only their sizes; reads every file.
      class_names: the folder behind each label, when labels come from folders.
      description: where they come from.
    """

    paths: Sequence[str]
    labels: np.ndarray
    root: Path
    hash_content: bool = False
    class_names: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "paths", tuple(map(str, self.paths)))
        object.__setattr__(self, "labels", checked_labels(self.labels, len(self.paths)))
        object.__setattr__(self, "description", self.description or f"{len(self.paths)} files under {self.root}")

    @classmethod
    def from_folder(cls, folder: str | Path, hash_content: bool = False, class_names: Sequence[str] = ()) -> Files:
        """A folder of class folders, or a folder of images, which are labelled -1.

        Images are looked for at any depth below a class folder. Hidden files and folders, and files that are no
        images by their suffix, are passed over.

        Args:
          folder: where to look.
          hash_content: see the class.
          class_names: the folder behind each label, as of the training set; some may be absent here. Without them,
            the class folders are labelled 0, 1, ... in sorted order.

        Raises:
          DataError: no images; images beside class folders; an empty class folder, or one that is not in
            `class_names`: labels would shift unnoticed.
        """
        folder = Path(folder)
        if not os.path.isdir(folder):
            raise DataError(f"no such folder: {folder}")
        found = sorted(image_files(folder))
        if not found:
            raise DataError(f"{folder} holds no images (looked for files ending in {', '.join(SUFFIXES)})")
        tops = [path.partition("/")[0] if "/" in path else "" for path in found]
        classes = sorted(set(tops) - {""})
        if not classes:
            return cls(found, np.full(len(found), -1), folder, hash_content, (), f"folder {folder.name}")
        _check_classes(folder, found[tops.index("")] if "" in tops else None, classes, class_names)
        names = tuple(class_names or classes)
        number = {name: label for label, name in enumerate(names)}
        labels = np.array([number[top] for top in tops])
        return cls(found, labels, folder, hash_content, names, f"folder {folder.name}")

    @classmethod
    def from_list(cls, list_file: str | Path, root: str | Path, hash_content: bool = False) -> Files:
        """A text file with `path label` a line, paths relative to `root`; the label is the last word of the line."""
        list_file = Path(list_file)
        try:
            lines = list_file.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the list {list_file}: {reason_of(error)}") from None
        paths, labels = [], []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            path, label = (line.rsplit(None, 1) + [""])[:2]
            try:
                labels.append(int(label))
            except ValueError:
                labels.append(-2)
            if not -1 <= labels[-1] <= _LARGEST_LABEL:
                raise DataError(
                    f"{list_file}, line {number}: got {line[:80]!r}, "
                    f"expected `path label`, a label from -1 to {_LARGEST_LABEL}"
                )
            paths.append(path.strip(" \t"))
        if not paths:
            raise DataError(f"the list {list_file} is empty, expected `path label` a line")
        return cls(paths, np.array(labels), Path(root), hash_content, (), f"list {list_file.name}")

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"Files({self.description!r}, {len(self)} files under {str(self.root)!r})"

    @cached_property
    def _stats(self) -> np.ndarray:
        """(n, 3) int64: size in bytes, device and inode; -1 where there is no file."""
        return np.array(list(self.each(_stat)), np.int64).reshape(-1, 3)

    @property
    def sizes(self) -> np.ndarray:
        """(n,) int64, bytes a file; -1 where there is none."""
        return self._stats[:, 0]

    @cached_property
    def fingerprint(self) -> str:
        decisive = self.each(digest_of_file) if self.hash_content else map(str, self.sizes)
        digest = hashlib.sha256(b"bytes\n" if self.hash_content else b"sizes\n")
        for path, label, value in zip(self.paths, self.labels, decisive, strict=True):
            digest.update(f"{path}\0{label}\0{value}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def path(self, index: int) -> Path:
        return self.root / self.paths[index]

    def open(self, index: int) -> Opened:
        from oodjax.data.preprocess import decode

        return decode(self.path(index))

    def name(self, index: int) -> str:
        return str(self.path(index))

    def identities(self, content: bool = False) -> Sequence[str]:
        if content:
            return list(self.each(digest_of_file))
        # The inode, not the path: links to one file are one file.
        places = zip(self._stats, self.paths, strict=True)
        return [f"{device}:{inode}" if size >= 0 else path for (size, device, inode), path in places]

    def each(self, function: Callable[[str], T], indices: Sequence[int] | None = None) -> Iterator[T]:
        """`function` of paths, in order, by threads: on a network disk each call waits for the network."""
        chosen = range(len(self)) if indices is None else indices
        parts = [chosen[start : start + _PATHS_A_TASK] for start in range(0, len(chosen), _PATHS_A_TASK)]
        with ThreadPoolExecutor(16) as pool:
            for part in pool.map(lambda part: [function(self.name(i)) for i in part], parts):
                yield from part


class Idx(Arrays):
    """An IDX file as MNIST and Fashion-MNIST are published, plain or gzipped; grey is repeated to RGB."""

    def __init__(self, images_path: str | Path, labels_path: str | Path | None = None, description: str = "") -> None:
        grey = _read_idx(Path(images_path), dimensions=3)
        labels = None if labels_path is None else _read_idx(Path(labels_path), dimensions=1).astype(np.int32)
        if labels is not None and len(labels) != len(grey):
            raise DataError(f"{labels_path} holds {len(labels)} labels, {images_path} holds {len(grey)} images")
        rgb = np.broadcast_to(grey[..., None], (*grey.shape, 3))
        super().__init__(rgb, labels, description or f"IDX file {Path(images_path).name}")  # type: ignore[arg-type]


def _check_classes(folder: Path, loose: str | None, classes: Sequence[str], known: Sequence[str]) -> None:
    if loose is not None:
        raise DataError(
            f"{folder} holds both images ({loose}) and folders of images ({classes[0]}): "
            "expected a folder of class folders, or a folder of images"
        )
    strangers = sorted(set(classes) - set(known))
    if known and strangers:
        raise DataError(f"{folder} holds a class that is not known: {strangers[0]}; known are {', '.join(known)}")
    folders = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    empty = sorted(folders - set(classes))
    if empty and not known:
        raise DataError(f"{folder} holds a class folder without images: {empty[0]}")


def image_files(folder: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from None

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(Path(parent, name))]
        place = Path(parent).relative_to(folder)
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield (place / name).as_posix()


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to a folder above itself, which would be walked for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return -1, -1, -1
    if not stat.S_ISREG(found.st_mode):
        return -1, -1, -1
    return found.st_size, found.st_dev, found.st_ino


def digest_of_file(path: str) -> str:
    """sha256 of what a file holds; of one that cannot be read, its path."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return path


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of bytes: magic 0, 0, 8 (unsigned byte), number of axes; sizes as big-endian int32; values."""
    kind = "images" if dimensions == 3 else "labels"
    expected = bytes((0, 0, 8, dimensions))
    try:
        with open(path, "rb") as packed:
            gzipped = packed.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else open(path, "rb") as file:
            magic, sizes = file.read(4), file.read(4 * dimensions)
            if magic != expected or len(sizes) < 4 * dimensions:
                found = magic.hex() or "nothing"
                raise DataError(f"{path} is no IDX file of {kind}: begins with {found}, expected {expected.hex()}")
            shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
            count = math.prod(shape)
            # One byte more than announced, so that a longer file is noticed and nothing larger is unpacked.
            content = file.read(count + 1)
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from None
    if len(content) != count:
        found = "more" if len(content) > count else str(len(content))
        raise DataError(f"{path}: {found} bytes of values, expected {count} for {shape} as its header says")
    return np.frombuffer(content, np.uint8).reshape(shape)
