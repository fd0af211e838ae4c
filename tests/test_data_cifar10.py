"""CIFAR-10's sets come from the splits that are named, without TensorFlow."""

import sys

import numpy as np
import pytest
from image_files import picture

from oodjax.data import DataError, cifar10, load, synthetic

tfds_folder = pytest.importorskip("tfds_folder", reason="tensorflow-datasets is not installed")

SPLITS = {
    "cifar10": {"train": 20, "test": 10},
    "cifar100": {"test": 11},
    "svhn_cropped": {"test": 12},
    "dtd": {"validation": 6, "test": 7},
    "mnist": {"test": 13},
    "fashion_mnist": {"test": 14},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    for place, (dataset, splits) in enumerate(SPLITS.items()):
        tfds_folder.make(folder, dataset, splits, first_seed=10_000 * place)
    return folder


def seeds(image_set, first, height=32, width=32):
    """Which of the pictures drawn from seed `first` on each image is."""
    drawn = {picture(first + i, height, width).tobytes(): i for i in range(20)}
    return [drawn[np.ascontiguousarray(image_set.source.open(i)).tobytes()] for i in range(image_set.count)]


def test_every_set_comes_from_its_split(data_dir):
    sets = cifar10.load(data_dir)
    assert "tensorflow" not in sys.modules
    assert [(s.name, s.role, s.category, s.count) for s in sets] == [
        ("cifar10_train", "train", "id", 18),
        ("cifar10_val", "id_val", "id", 2),
        ("cifar10_test", "id_test", "id", 10),
        ("dtd_val", "ood_val", "validation", 6),
        ("cifar100", "ood_test", "near", 11),
        ("svhn_cropped", "ood_test", "far", 12),
        ("dtd", "ood_test", "far", 7),
        ("mnist", "ood_test", "extreme", 13),
        ("fashion_mnist", "ood_test", "extreme", 14),
        ("unit_tests", "ood_test", "synthetic", 1700),
    ]
    assert len({s.sha256 for s in sets}) == 10
    train, val, test = sets[:3]
    assert sorted(seeds(train, 0) + seeds(val, 0)) == list(range(20)) and sorted(seeds(test, 1000)) == list(range(10))
    for part, first in ((train, 0), (val, 0), (test, 1000)):
        assert part.labels.tolist() == [(first + seed) % 10 for seed in seeds(part, first)]
    assert sorted(seeds(sets[4], 10_000)) == list(range(11)) and set(sets[4].labels.tolist()) == {-1}


def test_all_sets_are_read_at_one_size(data_dir):
    for image_set in cifar10.load(data_dir, need=["id_test", "ood_val", "ood_test"], datasets=["mnist", "dtd"]):
        batch = next(load(image_set.source, 8, geometries=[cifar10.GEOMETRY]))
        assert batch.images.shape == (8, 32, 32, 3) and batch.mask.sum() == min(8, image_set.count)
        if image_set.name == "cifar10_test":
            np.testing.assert_array_equal(batch.images[3], image_set.source.open(3))


def test_unit_tests_are_drawn_by_the_seed(data_dir):
    (first,), (second,) = (cifar10.load(data_dir, ["unit_tests"], ["ood_test"], seed) for seed in (0, 1))
    assert first.sha256 != second.sha256
    np.testing.assert_array_equal(first.source.open(100), synthetic.generate("gaussian", 1, 32, 0)[0])


def test_wrong_words_are_one_sentence(data_dir):
    with pytest.raises(
        DataError, match="no data set cifar; there are cifar100, svhn_cropped, dtd, mnist, fashion_mnist"
    ):
        cifar10.load(data_dir, ["cifar"])
