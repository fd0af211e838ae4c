"""CIFAR-10 and OOD sets for it, as tensorflow-datasets has them.

ID: 45,000 images to train on and 5,000 for validation, both of the train split, and the test split.
OOD validation: the validation split of DTD. As in the study's ImageNet protocol, it is another split of one test set.
OOD test sets: cifar100 (near), svhn_cropped and dtd (far), mnist and fashion_mnist (extreme), NINCO's unit tests,
generated (synthetic).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from oodjax.data.imagenet import generated_unit_tests
from oodjax.data.loader import Geometry
from oodjax.data.sets import ROLES, ImageSet
from oodjax.data.sources import DataError, Source, Tfds, unlabelled
from oodjax.data.tfds import is_prepared

SIZE = 32
GEOMETRY = Geometry(SIZE, SIZE)
UNIT_TESTS_EACH = 100

_ID_SETS = (
    ("cifar10_train", "train", "train[:90%]"),
    ("cifar10_val", "id_val", "train[90%:]"),
    ("cifar10_test", "id_test", "test"),
)
_OOD_SETS = (
    ("dtd_val", "ood_val", "validation", "dtd", "validation"),
    ("cifar100", "ood_test", "near", "cifar100", "test"),
    ("svhn_cropped", "ood_test", "far", "svhn_cropped", "test"),
    ("dtd", "ood_test", "far", "dtd", "test"),
    ("mnist", "ood_test", "extreme", "mnist", "test"),
    ("fashion_mnist", "ood_test", "extreme", "fashion_mnist", "test"),
)
DATASETS = (*(name for name, role, *_ in _OOD_SETS if role == "ood_test"), "unit_tests")


def is_there(name: str, data_dir: str | Path | None = None) -> bool:
    """Whether an OOD test set of `DATASETS` can be read without a download."""
    dataset = next((dataset for known, role, _, dataset, _ in _OOD_SETS if (known, role) == (name, "ood_test")), None)
    return dataset is None or is_prepared(dataset, data_dir)


def load(
    data_dir: str | Path | None = None,
    datasets: Sequence[str] | None = None,
    need: Sequence[str] = ROLES,
    seed: int = 0,
) -> tuple[ImageSet, ...]:
    """The sets, in this order; their images come in several sizes, see `GEOMETRY`.

    Args:
      data_dir: where tensorflow-datasets keeps what it prepared; what is not there is downloaded.
      datasets: names of the OOD test sets to read, of `DATASETS`; none for all.
      need: the roles to read.
      seed: of the generated images.

    Raises:
      DataError: tensorflow-datasets is missing, or cannot open or prepare a data set.
    """
    unknown = [name for name in datasets or () if name not in DATASETS]
    if unknown:
        raise DataError(f"no data set {', '.join(unknown)}; there are {', '.join(DATASETS)}")

    def is_asked_for(name: str, role: str) -> bool:
        return role in need and (role != "ood_test" or not datasets or name in datasets)

    open_split = partial(Tfds, data_dir=data_dir)
    sets = [
        ImageSet(name, role, "id", open_split("cifar10", split))
        for name, role, split in _ID_SETS
        if is_asked_for(name, role)
    ]
    sets += [
        ImageSet(name, role, category, unlabelled(open_split(dataset, split)))
        for name, role, category, dataset, split in _OOD_SETS
        if is_asked_for(name, role)
    ]
    if is_asked_for("unit_tests", "ood_test"):
        permuted: Source = unlabelled(open_split("cifar10", "test"))
        unit_tests = generated_unit_tests(permuted, UNIT_TESTS_EACH, SIZE, seed)
        sets.append(ImageSet("unit_tests", "ood_test", "synthetic", unit_tests))
    return tuple(sets)
