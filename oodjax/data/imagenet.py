"""The study's data on disk, in OpenOOD's layout as it is.

    DATA/benchmark_imglist/imagenet/*.txt   lists: `path label` a line
    DATA/images_largescale, images_classic  the images that the lists name
    DATA/mnist, DATA/fashion_mnist          t10k-images-idx3-ubyte[.gz] as published; or OpenOOD's list test_mnist.txt
                                            over images_classic; or what tensorflow-datasets has prepared under
                                            DATA/tensorflow_datasets
    DATA/NINCO_OOD_unit_tests               NINCO's unit tests as published, also below DATA/NINCO or
                                            images_largescale; without it the 17 families are generated

Counts: OpenOOD v1.5 (arXiv 2306.09301) and the study (arXiv 2601.10836); MNIST's and Fashion-MNIST's test images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oodjax.data import synthetic
from oodjax.data.sets import OOD_ROLES, ROLES, ImageSet
from oodjax.data.sources import DataError, Files, Generated, Idx, Source, Tfds, unlabelled

LISTS = Path("benchmark_imglist")
UNIT_TEST_SIDE = 256
UNIT_TESTS_EACH = 400
_UNIT_TEST_FOLDERS = (
    "NINCO_OOD_unit_tests",
    "NINCO/NINCO_OOD_unit_tests",
    "images_largescale/NINCO_OOD_unit_tests",
    "images_largescale/NINCO/NINCO_OOD_unit_tests",
    "unit_tests",
)


class Options(NamedTuple):
    """How the sets are read.

    Attributes:
      hash_content: fingerprints of files take their bytes in, not only their sizes.
      unit_tests_each: images of each of the 17 families, where they are generated.
      seed: of the generated images.
    """

    hash_content: bool = False
    unit_tests_each: int = UNIT_TESTS_EACH
    seed: int = 0


DEFAULT = Options()


class Entry(NamedTuple):
    """One set of the study: its place there, how many images it has as published, and how it is found."""

    name: str
    role: str
    category: str
    expected: int
    find: Callable[[Path, str, Options], Source]


def _listed(list_file: str, folder: str, data: Path, name: str, options: Options) -> Source:
    path = data / LISTS / list_file
    if not path.is_file():
        raise DataError(f"no list {LISTS / list_file}")
    source = Files.from_list(path, data / folder, options.hash_content)
    first = Path(source.paths[0])
    if not os.path.exists(source.path(0)):
        above = next((p for p in reversed(first.parents) if not os.path.exists(data / folder / p)), first)
        raise DataError(f"no {Path(folder) / above}, which {LISTS / list_file} names")
    return source


def _mnist(data: Path, name: str, options: Options) -> Source:
    for suffix in ("", ".gz"):
        path = data / name / f"t10k-images-idx3-ubyte{suffix}"
        if path.is_file():
            return Idx(path, description=f"IDX file {path.relative_to(data)}")
    for benchmark in ("imagenet", "cifar10"):
        list_file = f"{benchmark}/test_{name}.txt"
        if (data / LISTS / list_file).is_file():
            return _listed(list_file, "images_classic", data, name, options)
    prepared = data / "tensorflow_datasets"
    if (prepared / name).is_dir():
        return Tfds(name, "test", prepared)
    raise DataError(
        f"no {name}/t10k-images-idx3-ubyte[.gz], no {LISTS}/imagenet/test_{name}.txt, no {prepared.name}/{name}"
    )


def _unit_tests(data: Path, name: str, options: Options) -> Source:
    for folder in _UNIT_TEST_FOLDERS:
        if (data / folder).is_dir():
            published = Files.from_folder(data / folder, options.hash_content)
            return replace(published, description=f"NINCO's unit tests as published, folder {folder}")
    test = next(entry for entry in ENTRIES if entry.role == "id_test")
    try:
        permuted = test.find(data, test.name, options)
    except DataError as error:
        looked_for = " or ".join(_UNIT_TEST_FOLDERS)
        raise DataError(f"no {looked_for}, and generating them takes images of {test.name}: {error}") from None
    return generated_unit_tests(permuted, options.unit_tests_each, UNIT_TEST_SIDE, options.seed)


def generated_unit_tests(permuted: Source, each: int, size: int, seed: int) -> Source:
    """The 17 families of `data.synthetic`, image by image.

    Args:
      permuted: the images whose pixels the two permutation families permute, resized and cropped to `size`.
      each: images of a family.
      size: side in pixels.
      seed: non-negative.
    """
    from oodjax.data.preprocess import cut

    def make(place: int) -> np.ndarray:
        family, index = synthetic.FAMILIES[place // each], place % each
        image = None
        if family in synthetic.PERMUTING:
            image = cut(permuted.open(index % len(permuted)), size, size)
        return synthetic.draw(family, index, size, seed, image)

    count = each * len(synthetic.FAMILIES)
    key = f"unit tests {each} {size} {seed} {permuted.fingerprint}"
    description = f"generated after NINCO's unit tests: 17 families, {each} images each, seed {seed}"
    return Generated(make, count, key, description)


def _openood(
    name: str, role: str, category: str, expected: int, list_file: str, folder: str = "images_largescale"
) -> Entry:
    return Entry(name, role, category, expected, partial(_listed, f"imagenet/{list_file}", folder))


ENTRIES = (
    _openood("imagenet_train", "train", "id", 1_281_167, "train_imagenet.txt"),
    _openood("imagenet_val", "id_val", "id", 5_000, "val_imagenet.txt"),
    _openood("imagenet_test", "id_test", "id", 45_000, "test_imagenet.txt"),
    _openood("openimage_o_val", "ood_val", "validation", 1_763, "val_openimage_o.txt"),
    _openood("ssb_hard", "ood_test", "near", 49_000, "test_ssb_hard.txt"),
    _openood("ninco", "ood_test", "near", 5_879, "test_ninco.txt"),
    _openood("inaturalist", "ood_test", "far", 10_000, "test_inaturalist.txt"),
    _openood("textures", "ood_test", "far", 5_160, "test_textures.txt", "images_classic"),
    _openood("openimage_o", "ood_test", "far", 15_869, "test_openimage_o.txt"),
    Entry("mnist", "ood_test", "extreme", 10_000, _mnist),
    Entry("fashion_mnist", "ood_test", "extreme", 10_000, _mnist),
    Entry("unit_tests", "ood_test", "synthetic", len(synthetic.FAMILIES) * UNIT_TESTS_EACH, _unit_tests),
)
DATASETS = tuple(entry.name for entry in ENTRIES if entry.role == "ood_test")


def chosen(datasets: Sequence[str] = ()) -> tuple[Entry, ...]:
    """The study's sets, with the OOD test sets that are named, or with all where none is."""
    unknown = [name for name in datasets if name not in DATASETS]
    if unknown:
        raise DataError(f"no data set {', '.join(unknown)}; there are {', '.join(DATASETS)}")
    return tuple(e for e in ENTRIES if e.role != "ood_test" or not datasets or e.name in datasets)


def load(
    data: str | Path,
    datasets: Sequence[str] | None = None,
    need: Sequence[str] = ROLES,
    options: Options = DEFAULT,
) -> tuple[ImageSet, ...]:
    """The sets of the study, in its order.

    Args:
      data: the folder of OpenOOD's layout.
      datasets: names of the OOD test sets to read, of `DATASETS`; none for all.
      need: the roles to read.
      options: how.

    Raises:
      DataError: a set is not there; one message names all that are not, where each was looked for, and how to leave
        one out.
    """
    data = Path(data)
    if not data.is_dir():
        raise DataError(f"no such folder: {data}")
    entries = [entry for entry in chosen(datasets or ()) if entry.role in need]
    found = {entry: look(entry, data, options) for entry in entries}
    missing = {entry: reason for entry, reason in found.items() if isinstance(reason, DataError)}
    if missing:
        message = "; ".join(f"{entry.name} ({reason})" for entry, reason in missing.items())
        if any(entry.role == "ood_test" for entry in missing):
            there = ",".join(e.name for e in entries if e.role == "ood_test" and e not in missing)
            message += f"; OOD test sets are left out by naming the others: --datasets {there or 'NAME'}"
        raise DataError(f"{data} lacks {len(missing)} of {len(entries)} sets: {message}")
    return tuple(image_set for image_set in found.values() if isinstance(image_set, ImageSet))


def look(entry: Entry, data: Path, options: Options = DEFAULT) -> ImageSet | DataError:
    """One set, or why it cannot be read."""
    try:
        source = entry.find(data, entry.name, options)
        if entry.role in OOD_ROLES:
            source = unlabelled(source)
        return ImageSet(entry.name, entry.role, entry.category, source)
    except DataError as error:
        return error
