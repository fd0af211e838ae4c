"""Where images come from: every kind of source, and the one that the user's word names.

A source is random access to n images, each decoded when it is asked for: `len(source)`, `source.open(i)` (also
`source[i]`), `source.labels`, `source.fingerprint`, `source.description`; see `Source`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from oodjax.data.arrays import Arrays, Generated, Subset
from oodjax.data.contract import BadImage, DataError, Source
from oodjax.data.files import Files, Idx
from oodjax.data.tfds import Tfds

__all__ = [
    "Arrays",
    "BadImage",
    "DataError",
    "Files",
    "Generated",
    "Idx",
    "Source",
    "Subset",
    "Tfds",
    "source_of",
    "unlabelled",
]


def source_of(
    text: str,
    root: str | Path | None = None,
    base: str | Path = ".",
    *,
    class_names: Sequence[str] = (),
    hash_content: bool = False,
    data_dir: str | Path | None = None,
) -> Source:
    """The source that a word of the user's names.

    Args:
      text: a folder of class folders, a folder of images, a list file (`path label` a line), or `tfds:NAME:SPLIT`.
      root: the folder above the paths of a list file; default the list's own folder.
      base: the folder that relative paths in `text` and `root` start from.
      class_names: for a folder of class folders, the folder behind each label, as of the training set.
      hash_content: for files, take their bytes into the fingerprint.
      data_dir: where tensorflow-datasets keeps what it prepared.

    Raises:
      DataError: nothing can be read there; one sentence says what was found and what is possible.
    """
    if text.startswith("tfds:"):
        _, name, split = (text.split(":", 2) + ["", ""])[:3]
        if not name or not split:
            raise DataError(f"got {text!r}, expected tfds:NAME:SPLIT, for example tfds:mnist:test")
        return Tfds(name, split, data_dir)
    if not text.strip():
        raise DataError("got an empty word, expected a folder, a list file or tfds:NAME:SPLIT")
    path = Path(base) / Path(text).expanduser()
    if os.path.isdir(path):
        if root is not None:
            raise DataError(f"{path} is a folder: a root belongs to a list file")
        return Files.from_folder(path, hash_content, class_names)
    if not os.path.isfile(path):
        raise DataError(f"{path} is not there: expected a folder, a list file or tfds:NAME:SPLIT")
    above = path.parent if root is None else Path(base) / Path(root).expanduser()
    if not os.path.isdir(above):
        raise DataError(f"root of {path}: no such folder: {above}")
    return Files.from_list(path, above, hash_content)


def unlabelled(source: Source) -> Source:
    """The same images as OOD images: every label -1."""
    if isinstance(source, Tfds):
        return replace(source, labelled=False)
    if not np.any(source.labels != -1):
        return source
    none = np.full(len(source), -1, np.int32)
    return replace(source, labels=none) if isinstance(source, Files) else Subset(source, np.arange(len(source)), none)
