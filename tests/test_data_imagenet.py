"""The study's sets on disk: found where OpenOOD puts them, and named where they are not."""

import dataclasses
import gzip
import shutil

import imagenet_folder
import numpy as np
import pytest
from image_files import picture, save, torchvision_crop
from PIL import Image

from oodjax.data import DataError, imagenet, synthetic
from oodjax.data.imagenet import Options
from oodjax.data.sources import Arrays

FEW = Options(unit_tests_each=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return imagenet_folder.make(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


def by_name(data, **options):
    return {s.name: s for s in imagenet.load(data, **({"options": FEW} | options))}


def test_every_set_is_found_in_its_place(made):
    sets = imagenet.load(made, options=FEW)
    assert [(s.name, s.role, s.category, s.count) for s in sets] == [
        ("imagenet_train", "train", "id", 24),
        ("imagenet_val", "id_val", "id", 12),
        ("imagenet_test", "id_test", "id", 12),
        ("openimage_o_val", "ood_val", "validation", 12),
        ("ssb_hard", "ood_test", "near", 12),
        ("ninco", "ood_test", "near", 12),
        ("inaturalist", "ood_test", "far", 12),
        ("textures", "ood_test", "far", 12),
        ("openimage_o", "ood_test", "far", 12),
        ("mnist", "ood_test", "extreme", 12),
        ("fashion_mnist", "ood_test", "extreme", 12),
        ("unit_tests", "ood_test", "synthetic", 34),
    ]
    assert len({s.sha256 for s in sets}) == 12
    assert sets[0].labels.tolist() == [0, 1, 2, 3] * 6
    for s in sets[3:]:
        assert set(s.labels.tolist()) == {-1}


def test_images_are_those_of_the_lists(made):
    sets = by_name(made)
    with Image.open(made / "images_classic" / sets["textures"].source.paths[5]) as image:
        np.testing.assert_array_equal(np.asarray(sets["textures"].source.open(5)), np.asarray(image.convert("RGB")))
    assert sets["textures"].source.paths[5].startswith("texture/banded/5.")
    np.testing.assert_array_equal(sets["mnist"].images[3, :, :, 2], picture(1003, 28, 28)[..., 0])
    np.testing.assert_array_equal(sets["fashion_mnist"].images[3, :, :, 0], picture(2003, 28, 28)[..., 0])


def test_labels_in_an_ood_list_are_ignored(data):
    path = data / "benchmark_imglist" / "imagenet" / "test_ninco.txt"
    before = by_name(data)["ninco"]
    path.write_text(path.read_text(encoding="utf-8").replace(" -1", " 7"), encoding="utf-8")
    after = by_name(data)["ninco"]
    assert after.labels.tolist() == [-1] * 12 and after.sha256 == before.sha256


def test_published_counts(made):
    expected = {entry.name: entry.expected for entry in imagenet.ENTRIES}
    assert expected == {
        "imagenet_train": 1281167,
        "imagenet_val": 5000,
        "imagenet_test": 45000,
        "openimage_o_val": 1763,
        "ssb_hard": 49000,
        "ninco": 5879,
        "inaturalist": 10000,
        "textures": 5160,
        "openimage_o": 15869,
        "mnist": 10000,
        "fashion_mnist": 10000,
        "unit_tests": 6800,
    }
    assert by_name(made, options=Options())["unit_tests"].count == 6800


def test_only_what_is_needed_is_looked_for(data):
    shutil.rmtree(data / "images_classic")
    (data / "benchmark_imglist" / "imagenet" / "train_imagenet.txt").unlink()
    sets = imagenet.load(data, ["mnist", "ninco"], ["id_test", "ood_test"], FEW)
    assert [s.name for s in sets] == ["imagenet_test", "ninco", "mnist"]
    assert len(imagenet.load(data, ["mnist"], ["ood_test"])) == 1


def test_one_message_names_all_that_is_missing(data):
    shutil.rmtree(data / "images_classic")
    shutil.rmtree(data / "images_largescale" / "ssb_hard" / "n00")
    shutil.rmtree(data / "mnist")
    (data / "benchmark_imglist" / "imagenet" / "train_imagenet.txt").unlink()
    (data / "benchmark_imglist" / "imagenet" / "val_imagenet.txt").write_text("a.png\n", encoding="utf-8")
    with pytest.raises(DataError) as raised:
        imagenet.load(data, options=FEW)
    assert str(raised.value) == (
        f"{data} lacks 5 of 12 sets: "
        "imagenet_train (no list benchmark_imglist/imagenet/train_imagenet.txt); "
        f"imagenet_val ({data}/benchmark_imglist/imagenet/val_imagenet.txt, line 1: "
        "got 'a.png', expected `path label`, a label from -1 to 2147483647); "
        "ssb_hard (no images_largescale/ssb_hard/n00, which benchmark_imglist/imagenet/test_ssb_hard.txt names); "
        "textures (no images_classic, which benchmark_imglist/imagenet/test_textures.txt names); "
        "mnist (no mnist/t10k-images-idx3-ubyte[.gz], no benchmark_imglist/imagenet/test_mnist.txt, "
        "no tensorflow_datasets/mnist); OOD test sets are left out by naming the others: "
        "--datasets ninco,inaturalist,openimage_o,fashion_mnist,unit_tests"
    )


def test_wrong_words_are_refused(made, tmp_path):
    with pytest.raises(DataError, match="no data set minst; there are ssb_hard, ninco, "):
        imagenet.load(made, ["minst"])
    with pytest.raises(DataError, match="no such folder: .*nowhere"):
        imagenet.load(tmp_path / "nowhere")


def test_an_id_list_without_labels_is_refused(data):
    path = data / "benchmark_imglist" / "imagenet" / "test_imagenet.txt"
    path.write_text(path.read_text(encoding="utf-8").replace(" 3\n", " -1\n"), encoding="utf-8")
    with pytest.raises(DataError, match=r"imagenet_test \(labels of 'imagenet_test': got -1, expected classes >= 0"):
        imagenet.load(data, ["mnist"])


def test_mnist_may_be_gzipped_or_listed(data):
    plain = by_name(data)["mnist"]
    path = data / "mnist" / "t10k-images-idx3-ubyte"
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    gzipped = by_name(data)["mnist"]
    assert gzipped.sha256 == plain.sha256 and gzipped.source.description != plain.source.description
    shutil.rmtree(data / "mnist")
    save(data / "images_classic" / "mnist" / "test" / "7.png", 0, 28, 28, "L")
    for benchmark in ("cifar10", "imagenet"):
        lists = data / "benchmark_imglist" / benchmark
        lists.mkdir(exist_ok=True)
        (lists / "test_mnist.txt").write_text("mnist/test/7.png 7\n", encoding="utf-8")
        listed = by_name(data)["mnist"]
        assert (listed.count, listed.labels.tolist()) == (1, [-1])
        assert listed.source.name(0) == str(data / "images_classic" / "mnist" / "test" / "7.png")


def test_mnist_may_be_prepared_by_tfds(data):
    tfds_folder = pytest.importorskip("tfds_folder")
    shutil.rmtree(data / "mnist")
    tfds_folder.make(data / "tensorflow_datasets", "mnist", {"train": 2, "test": 5})
    prepared = by_name(data)["mnist"]
    assert prepared.source.description == "tensorflow-datasets mnist/3.0.1, split test"
    assert (prepared.count, prepared.labels.tolist()) == (5, [-1] * 5)
    drawn = {picture(1000 + i, 28, 28)[..., 0].tobytes() for i in range(5)}
    assert {np.ascontiguousarray(prepared.source.open(i)[..., 1]).tobytes() for i in range(5)} == drawn


@pytest.mark.parametrize("place", ["NINCO_OOD_unit_tests", "NINCO/NINCO_OOD_unit_tests"])
def test_published_unit_tests_are_taken_where_they_are(data, place):
    for family in ("black", "blobs"):
        for i in range(3):
            save(data / place / family / f"{i}.png", i)
    published = by_name(data)["unit_tests"]
    assert published.count == 6 and published.labels.tolist() == [-1] * 6
    assert published.source.description == f"NINCO's unit tests as published, folder {place}"


def test_generated_unit_tests_are_the_seventeen_families(made):
    sets = by_name(made)
    source, test = sets["unit_tests"].source, sets["imagenet_test"].source
    assert source.description == "generated after NINCO's unit tests: 17 families, 2 images each, seed 0"
    for place in (0, 1, 20):
        family, index = synthetic.FAMILIES[place // 2], place % 2
        expected = synthetic.generate(family, 2, 256, 0)[index]
        np.testing.assert_array_equal(np.asarray(source.open(place)), expected)
    permuted = np.asarray(source.open(2 * synthetic.FAMILIES.index("pixel_permutation") + 1))
    with Image.open(test.path(1)) as image:
        original = torchvision_crop(image, 256, 256)
    assert not np.array_equal(permuted, original)
    order = [np.lexsort(image.reshape(-1, 3).T) for image in (permuted, original)]
    np.testing.assert_array_equal(permuted.reshape(-1, 3)[order[0]], original.reshape(-1, 3)[order[1]])


def test_options_decide_the_generated_unit_tests(made):
    permuted = Arrays(np.stack([picture(i, 20, 20) for i in range(3)]))
    base = {"permuted": permuted, "each": 3, "size": 16, "seed": 0}
    changed = [{}, {"permuted": Arrays(permuted.images[::-1])}, {"each": 2}, {"size": 17}, {"seed": 1}]
    prints = [imagenet.generated_unit_tests(**(base | change)).fingerprint for change in changed]
    assert len(set(prints)) == 5
    assert imagenet.generated_unit_tests(**base).fingerprint == prints[0]


def test_a_seed_reaches_the_generated_unit_tests(made):
    first, second = (by_name(made, options=Options(False, 2, seed)) for seed in (0, 1))
    assert {name for name in first if first[name].sha256 != second[name].sha256} == {"unit_tests"}


def test_hash_content_reaches_every_list(made):
    plain, hashed = (by_name(made, options=Options(content, 2)) for content in (False, True))
    changed = {name for name in plain if plain[name].sha256 != hashed[name].sha256}
    assert changed == set(plain) - {"mnist", "fashion_mnist"}


def test_a_set_is_a_record(made):
    ninco = by_name(made)["ninco"]
    assert dataclasses.replace(ninco, name="other").sha256 == ninco.sha256
    with pytest.raises(TypeError, match="the images of 'ninco' are not in memory"):
        _ = ninco.images
