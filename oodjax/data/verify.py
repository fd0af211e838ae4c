"""Is the data what it should be: counts, missing and unreadable files, images that stand in two sets."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from oodjax.data.files import Files, digest_of_file
from oodjax.data.sets import ID_ROLES, ImageSet
from oodjax.data.sources import BadImage, DataError

_SMALL = 20_000  # images that are compared by content unasked
_BEGINNING = 4096
_IMAGES_A_STEP = 1024


@dataclass(frozen=True)
class SetCheck:
    """What was found of one set.

    Attributes:
      name, description: of the set and its source.
      expected: images as published; None where nothing is.
      found: images in the list, the folder or the file.
      sha256: the source's fingerprint.
      missing: files that are not there.
      opened: how many of the others were decoded.
      unreadable: those of them that cannot be read.
    """

    name: str
    description: str
    expected: int | None
    found: int
    sha256: str
    missing: tuple[str, ...]
    opened: int
    unreadable: tuple[BadImage, ...]

    @property
    def is_right(self) -> bool:
        return self.expected in (None, self.found) and not self.missing and not self.unreadable


@dataclass(frozen=True)
class Overlap:
    """Two sets share `count` images."""

    first: ImageSet
    second: ImageSet
    count: int

    @property
    def is_whole(self) -> bool:
        return self.count == min(self.first.count, self.second.count)


def check_set(
    image_set: ImageSet,
    expected: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> SetCheck:
    """Looks at every file of a set and decodes some.

    Args:
      image_set: what to look at.
      expected: how many images there should be.
      sample: how many to decode, drawn by `seed`; None for all.
      advance: told how many more were decoded.
    """
    source = image_set.source
    there = np.flatnonzero(source.sizes >= 0) if isinstance(source, Files) else np.arange(len(source))
    missing = [source.name(i) for i in np.setdiff1d(np.arange(len(source)), there)]
    if sample is not None and sample < len(there):
        there = np.sort(np.random.default_rng(seed).choice(there, sample, replace=False))
    unreadable: list[BadImage] = []

    def try_to_open(index: int) -> BadImage | None:
        try:
            source.open(int(index))
        except BadImage as error:
            return error
        return None

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(there), _IMAGES_A_STEP):
            step = there[start : start + _IMAGES_A_STEP]
            for error in pool.map(try_to_open, step):
                if error is not None:
                    unreadable.append(error)
                advance(1)
    return SetCheck(
        name=image_set.name,
        description=source.description,
        expected=expected,
        found=len(source),
        sha256=image_set.sha256,
        missing=tuple(missing),
        opened=len(there),
        unreadable=tuple(unreadable),
    )


def overlap(sets: Sequence[ImageSet], content: bool | None = None) -> list[Overlap]:
    """Pairs of sets that share images.

    Args:
      sets: what to compare, each with each.
      content: True compares what files hold, reading those that agree in size and in their first 4 KiB with one of
        another set. False compares the files' places, and contents where two sets agree in all sizes. None takes
        contents up to 20,000 images together. Arrays are always compared by content, generated images never.
    """
    if content is None:
        content = sum(s.count for s in sets) <= _SMALL
    keys = _contents(sets) if content else [s.source.identities() for s in sets]
    counted = [Counter(own) for own in keys]
    found = []
    for i, j in combinations(range(len(sets)), 2):
        count = (counted[i] & counted[j]).total()
        if not content and not count and _agree_in_sizes(sets[i], sets[j]):
            count = (Counter(sets[i].source.identities(True)) & Counter(sets[j].source.identities(True))).total()
        if count:
            found.append(Overlap(sets[i], sets[j], count))
    return found


def check_overlap(sets: Sequence[ImageSet], content: bool | None = None) -> list[str]:
    """What is wrong with images that stand in two sets of different roles of a study, a sentence a pair.

    Args:
      sets, content: as of `overlap`.

    Raises:
      DataError: a whole set stands in another, one of them OOD and of another role.
    """
    sentences = []
    for pair in overlap(sets, content):
        first, second = pair.first, pair.second
        if first.role == second.role:
            continue
        named = f"{first.name} ({first.role}) and {second.name} ({second.role})"
        if pair.is_whole and not {first.role, second.role} <= set(ID_ROLES):
            raise DataError(f"{named} are the same {pair.count} images: no detector can tell them apart")
        sentences.append(f"{named} share {pair.count} images")
    return sentences


def _agree_in_sizes(first: ImageSet, second: ImageSet) -> bool:
    if not isinstance(first.source, Files) or not isinstance(second.source, Files) or first.count != second.count:
        return False
    return np.array_equal(np.sort(first.source.sizes), np.sort(second.source.sizes))


def _contents(sets: Sequence[ImageSet]) -> list[list[str]]:
    """One key an image, equal for equal contents. A file is read no further than it agrees with one of another set."""
    keys = []
    for s in sets:
        if isinstance(s.source, Files):
            sizes = zip(s.source.sizes, s.source.paths, strict=True)
            keys.append([str(size) if size >= 0 else f"missing {path}" for size, path in sizes])
        else:
            keys.append(list(s.source.identities(content=True)))
    for digest in (_digest_of_beginning, digest_of_file):
        sets_with = Counter(key for own in keys for key in set(own))
        for s, own in zip(sets, keys, strict=True):
            if isinstance(s.source, Files):
                shared = [i for i, key in enumerate(own) if sets_with[key] > 1]
                for i, found in zip(shared, s.source.each(digest, shared), strict=True):
                    own[i] = f"{own[i]} {found}"
    return keys


def _digest_of_beginning(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(_BEGINNING)).hexdigest()
    except (OSError, ValueError):
        return path
