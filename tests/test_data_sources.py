"""Every kind of source: what it opens, its labels, and what its fingerprint sees."""

import gzip
import io
import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from image_files import class_folders, picture, save, truncate
from PIL import Image

from oodjax.data import BadImage, DataError, source_of
from oodjax.data.sources import Arrays, Files, Generated, Idx, Subset, Tfds, unlabelled


def pixels(source, index):
    return np.asarray(source.open(index))


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "images")


# Arrays, parts of them, and images made by a function


def test_arrays_give_their_rows_and_cannot_be_altered():
    images = np.stack([picture(i, 4, 5) for i in range(3)])
    source = Arrays(images, [2, 0, 1], "drawn here")
    assert len(source) == 3 and source.labels.dtype == np.int32 and source.labels.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(source[1], images[1])
    assert source.name(1) == "image 1 of drawn here"
    with pytest.raises(ValueError, match="read-only"):
        source.images[0] = 0
    assert Arrays(images).labels.tolist() == [-1] * 3


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (np.zeros((2, 4, 4, 3)), None, r"got float64 \(2, 4, 4, 3\), expected uint8"),
        (np.zeros((2, 4, 4), np.uint8), None, r"got uint8 \(2, 4, 4\), expected uint8 \(n, h, w, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int), r"labels: got int64 \(3,\), expected integers \(2,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), r"labels: got float64 \(2,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-2, 0], "labels: got -2 to 0"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 2**40], "labels: got 0 to 1099511627776"),
    ],
)
def test_wrong_arrays_are_refused(images, labels, match):
    with pytest.raises(ValueError, match=match):
        Arrays(images, labels)


def test_a_subset_is_the_rows_asked_for():
    whole = Arrays(np.stack([picture(i, 4, 5) for i in range(6)]), np.arange(6))
    part = Subset(whole, np.array([4, 1]))
    assert len(part) == 2 and part.labels.tolist() == [4, 1] and part.name(0) == whole.name(4)
    np.testing.assert_array_equal(part[0], whole.images[4])
    assert list(part.identities()) == [whole.identities()[4], whole.identities()[1]]
    others = [whole, Subset(whole, np.array([1, 4])), Subset(whole, np.array([4, 1]), np.array([0, 1])), part]
    assert len({source.fingerprint for source in others}) == 4
    assert Subset(whole, np.array([4, 1])).fingerprint == part.fingerprint
    bare = unlabelled(whole)
    assert Subset(bare, np.array([4, 1])).fingerprint != Subset(bare, np.array([4, 2])).fingerprint
    for wrong in ([6], [-1], [0.5], [[0]]):
        with pytest.raises(ValueError, match="indices: expected whole numbers from 0 to 5"):
            Subset(whole, np.array(wrong))


def test_unlabelled_images_are_the_same_images():
    whole = Arrays(np.stack([picture(i, 4, 5) for i in range(3)]), np.arange(3))
    bare = unlabelled(whole)
    assert bare.labels.tolist() == [-1] * 3 and list(bare.identities()) == list(whole.identities())
    assert unlabelled(bare) is bare


def test_generated_images_are_made_when_asked_for_and_another_way_to_draw_is_noticed():
    def make(index):
        made.append(index)
        return np.full((4, 4, 3), index, np.uint8)

    made: list[int] = []
    source = Generated(make, 100, "seed 0", "flat")
    assert len(source) == 100 and not made
    assert pixels(source, 7).max() == 7 and made == [7]
    assert source.fingerprint == Generated(make, 100, "seed 0", "told otherwise").fingerprint
    assert len(set(made)) == 1 + 32 - (7 in made[1:])  # the sampled ones only
    others = [
        Generated(make, 100, "seed 1", "flat"),
        Generated(make, 99, "seed 0", "flat"),
        Generated(lambda index: make(index) + 1, 100, "seed 0", "flat"),
    ]
    assert len({source.fingerprint, *(other.fingerprint for other in others)}) == 4


# Image files


def test_class_folders_give_labels_in_sorted_order(folder):
    (folder / ".hidden").mkdir()
    save(folder / ".hidden" / "a.png", 0)
    save(folder / "class_1" / ".thumb.png", 0)
    (folder / "class_1" / "notes.txt").write_text("no image", encoding="utf-8")
    save(folder / "class_1" / "deep" / "er.PNG", 99)
    source = Files.from_folder(folder)
    assert source.class_names == ("class_0", "class_1", "class_2")
    assert source.labels.tolist() == [0] * 5 + [1] * 6 + [2] * 5
    assert source.paths[5] == "class_1/deep/er.PNG"
    np.testing.assert_array_equal(pixels(source, 5), picture(99, 40, 60))
    with Image.open(folder / "class_0" / "image 0.jpg") as image:
        np.testing.assert_array_equal(pixels(source, 0), np.asarray(image))


def test_an_empty_class_folder_is_refused_for_it_would_shift_the_labels(folder):
    (folder / "class_0b" / "deep").mkdir(parents=True)
    (folder / "class_0b" / "deep" / "notes.txt").write_text("no image", encoding="utf-8")
    with pytest.raises(DataError, match="images holds a class folder without images: class_0b"):
        Files.from_folder(folder)


def test_class_names_of_another_set_decide_the_labels(folder, tmp_path):
    train = Files.from_folder(folder)
    for i in range(2):
        save(tmp_path / "test" / "class_2" / f"{i}.png", i)
    alone = Files.from_folder(tmp_path / "test")
    same = Files.from_folder(tmp_path / "test", class_names=train.class_names)
    assert alone.labels.tolist() == [0, 0] and same.labels.tolist() == [2, 2]
    assert same.class_names == train.class_names
    assert source_of("test", base=tmp_path, class_names=train.class_names).fingerprint == same.fingerprint
    save(tmp_path / "test" / "zebra" / "0.png", 0)
    with pytest.raises(
        DataError, match=r"test holds a class that is not known: zebra; known are class_0, class_1, cla"
    ):
        Files.from_folder(tmp_path / "test", class_names=train.class_names)


def test_a_folder_of_images_has_no_labels(tmp_path):
    for i in range(3):
        save(tmp_path / f"{2 - i}.png", i)
    source = Files.from_folder(tmp_path)
    assert source.labels.tolist() == [-1] * 3 and source.class_names == () and source.paths[0] == "0.png"
    np.testing.assert_array_equal(pixels(source, 0), picture(2, 40, 60))


def test_a_list_gives_paths_with_spaces_and_labels(folder, tmp_path):
    lines = ["class_1/image 0.jpg 7", "", "class_0/image 1.png -1  ", "class_2/image 4.png 3"]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = Files.from_list(tmp_path / "list.txt", folder)
    assert source.paths == ("class_1/image 0.jpg", "class_0/image 1.png", "class_2/image 4.png")
    assert source.labels.tolist() == [7, -1, 3]
    assert source.name(0) == str(folder / "class_1" / "image 0.jpg")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("a.png 0\nb.png\n", r"line 2: got 'b.png', expected `path label`"),
        ("a.png cat\n", r"line 1: got 'a.png cat'"),
        ("7\n", r"line 1: got '7'"),
        ("a.png 0\nb.png -2\n", r"line 2: got 'b.png -2', expected `path label`, a label from -1 to 2147483647"),
        ("a.png 2147483648\n", r"line 1: got 'a.png 2147483648'"),
        ("\n \n", "is empty"),
        (b"\xff\xd8\xff\xe0 0", "cannot read the list"),
    ],
)
def test_a_wrong_list_is_refused_by_its_line(tmp_path, content, match):
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=match):
        Files.from_list(path, tmp_path)


def test_the_fingerprint_of_files_sees_list_labels_and_sizes_but_not_their_place(folder, tmp_path):
    def fingerprint(source=None, **changes):
        fields = {"paths": base.paths, "labels": base.labels, "root": folder}
        return Files(**(fields | changes)).fingerprint

    base = Files.from_folder(folder)
    moved = class_folders(tmp_path / "elsewhere" / "deeper")
    assert base.fingerprint == fingerprint() == Files.from_folder(moved).fingerprint
    assert base.fingerprint != fingerprint(labels=base.labels[::-1])
    assert base.fingerprint != fingerprint(paths=base.paths[::-1])
    assert base.fingerprint != fingerprint(paths=base.paths[:-1], labels=base.labels[:-1])
    with open(folder / base.paths[3], "ab") as file:
        file.write(b"\0")
    assert base.fingerprint != fingerprint()
    (folder / base.paths[3]).unlink()
    assert base.fingerprint != fingerprint()


def test_hash_content_sees_a_changed_byte_that_the_size_hides(folder):
    def fingerprints():
        return tuple(Files.from_folder(folder, hash_content=content).fingerprint for content in (False, True))

    before = fingerprints()
    path = folder / "class_1" / "image 2.jpg"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    after = fingerprints()
    assert before[0] == after[0] and before[1] != after[1] and before[0] != before[1]


def test_identities_are_paths_or_contents(folder):
    copy = folder / "class_2" / "copy.jpg"
    copy.write_bytes((folder / "class_0" / "image 0.jpg").read_bytes())
    (folder / "class_2" / "link.jpg").symlink_to(folder / "class_0" / "image 0.jpg")
    source = Files.from_folder(folder)
    at = {path: i for i, path in enumerate(source.paths)}
    first, copied, linked = at["class_0/image 0.jpg"], at["class_2/copy.jpg"], at["class_2/link.jpg"]
    paths, contents = source.identities(), source.identities(content=True)
    assert len(set(paths)) == 16 and paths[first] == paths[linked] != paths[copied]
    assert len(set(contents)) == 15 and contents[first] == contents[linked] == contents[copied]


def test_a_damaged_and_a_missing_file_are_named(folder):
    source = Files.from_folder(folder)
    truncate(folder / source.paths[0])
    (folder / source.paths[1]).write_text("not an image", encoding="utf-8")
    (folder / source.paths[2]).unlink()
    for index, reason in ((0, "truncated"), (1, "not an image that Pillow can read"), (2, "No such file")):
        with pytest.raises(BadImage, match=reason) as raised:
            source.open(index)
        assert raised.value.path == source.name(index) and str(raised.value).count(source.paths[index]) == 1


def test_a_link_that_leads_back_is_not_followed(folder):
    (folder / "class_1" / "loop").symlink_to(folder / "class_1")
    (folder / "class_2" / "up").symlink_to(folder)
    assert len(Files.from_folder(folder)) == 15


def test_a_folder_elsewhere_may_be_linked(folder, tmp_path):
    save(tmp_path / "elsewhere" / "a.png", 0)
    (folder / "class_3").symlink_to(tmp_path / "elsewhere")
    assert Files.from_folder(folder).labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_listed_is_no_empty_one(folder):
    (folder / "class_1").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot list .*class_1: Permission denied"):
            Files.from_folder(folder)
    finally:
        (folder / "class_1").chmod(0o755)


def test_lists_of_other_editors(folder, tmp_path):
    content = "\ufeffclass_1/image 0.jpg\t7\r\nclass_0/image\u2028 1.png  2\r\n"
    (tmp_path / "list.txt").write_bytes(content.encode())
    source = Files.from_list(tmp_path / "list.txt", folder)
    assert source.paths == ("class_1/image 0.jpg", "class_0/image\u2028 1.png") and source.labels.tolist() == [7, 2]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_missing_and_never_waited_for(tmp_path, make):
    make(tmp_path / "a.png")
    source = Files(["a.png"], [-1], tmp_path)
    assert source.sizes.tolist() == [-1]
    with pytest.raises(BadImage, match=r"a\.png: not a file"):
        source.open(0)


def test_names_that_no_file_can_have_are_bad_images(tmp_path):
    source = Files(["nul\0byte.png", "x" * 300 + ".png"], [-1, -1], tmp_path)
    assert source.sizes.tolist() == [-1, -1] and len(set(source.identities(content=True))) == 2
    for index in (0, 1):
        with pytest.raises(BadImage):
            source.open(index)


# IDX


def idx(array, kind=8):
    return bytes((0, 0, kind, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_as_mnist_is_published(tmp_path, pack):
    grey = np.stack([picture(i, 28, 20)[..., 0] for i in range(11)])
    labels = np.arange(11, dtype=np.uint8) % 10
    (tmp_path / "images").write_bytes(pack(idx(grey)))
    (tmp_path / "labels").write_bytes(pack(idx(labels)))
    source = Idx(tmp_path / "images", tmp_path / "labels")
    assert source.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal(source[3], np.stack([grey[3]] * 3, axis=-1))
    assert source.fingerprint == Arrays(np.repeat(grey[..., None], 3, axis=-1), labels).fingerprint
    assert Idx(tmp_path / "images").labels.tolist() == [-1] * 11


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (idx(np.zeros(5, np.uint8)), "no IDX file of images: begins with 00000801, expected 00000803"),
        (idx(np.zeros((2, 3, 3), np.uint8), kind=13), "begins with 00000d03"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-1], r"17 bytes of values, expected 18 for \(2, 3, 3\)"),
        (idx(np.zeros((2, 3, 3), np.uint8)) + b"\0", "more bytes of values, expected 18"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:9], "no IDX file"),
        (b"", "begins with nothing"),
        (idx(np.zeros((0, 3, 3), np.uint8))[:4] + b"\xff" * 12, "cannot read|0 bytes of values"),
        (gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)))[:-9], "cannot read"),
        (b"\x1f\x8bnonsense", "cannot read"),
    ],
)
def test_a_wrong_idx_file_is_refused(tmp_path, content, match):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(DataError, match=match):
        Idx(tmp_path / "images")


def test_idx_counts_must_agree(tmp_path):
    (tmp_path / "images").write_bytes(idx(np.zeros((2, 3, 3), np.uint8)))
    (tmp_path / "labels").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="holds 3 labels, .* holds 2 images"):
        Idx(tmp_path / "images", tmp_path / "labels")


# tensorflow-datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Where two data sets are: one whose builder yields PNG files, one whose builder yields arrays, as MNIST's does."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class OodjaxPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path_factory.mktemp("builder")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=4),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(8)), "test": self._generate_examples(range(100, 107))}

        def _generate_examples(self, seeds):
            for seed in seeds:
                content = io.BytesIO()
                Image.fromarray(picture(seed, 9, 8)).save(content, "PNG")
                content.seek(0)
                yield seed, {"image": content, "label": seed % 4}

    class OodjaxArrays(OodjaxPictures):
        def _generate_examples(self, seeds):
            for seed in seeds:
                yield seed, {"image": picture(seed, 9, 8), "label": seed % 4}

    return tmp_path_factory.mktemp("tensorflow_datasets")


def test_tfds_is_prepared_and_read_without_tensorflow(prepared):
    source = Tfds("oodjax_pictures", "test", prepared)
    assert "tensorflow" not in sys.modules
    assert len(source) == 7 and source.description == "tensorflow-datasets oodjax_pictures/1.0.0, split test"
    # tensorflow-datasets shuffles, so pixels say which image it is.
    seed_of = {picture(seed, 9, 8).tobytes(): seed for seed in range(100, 107)}
    seeds = [seed_of[pixels(source, i).tobytes()] for i in range(7)]
    assert sorted(seeds) == list(range(100, 107)) and source.labels.tolist() == [seed % 4 for seed in seeds]


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is there")
def test_a_data_set_that_takes_tensorflow_to_prepare_says_so(prepared):
    with pytest.raises(
        DataError, match=r"^tfds:oodjax_arrays:test cannot be opened: preparing it takes TensorFlow, onc"
    ):
        Tfds("oodjax_arrays", "test", prepared)


def test_tfds_without_labels_is_the_same_images(prepared):
    source = Tfds("oodjax_pictures", "test", prepared)
    bare = unlabelled(source)
    assert source.class_names == ("0", "1", "2", "3") and bare.class_names == ()
    assert bare.labels.tolist() == [-1] * 7 and bare.fingerprint != source.fingerprint
    assert all(pixels(bare, i).tobytes() == pixels(source, i).tobytes() for i in range(7))
    assert list(bare.identities(content=True)) == list(source.identities(content=True))


def test_the_fingerprint_of_tfds_sees_the_split(prepared):
    sources = [Tfds("oodjax_pictures", split, prepared) for split in ("test", "train", "train[:7]", "test")]
    for prints in ([s.fingerprint for s in sources], [unlabelled(s).fingerprint for s in sources]):
        assert prints[0] == prints[3] and len(set(prints)) == 3


@pytest.mark.parametrize(
    ("name", "split", "match"),
    [
        ("no_such_set", "test", "tensorflow-datasets knows no data set 'no_such_set'"),
        ("oodjax_pictures", "val", "tfds:oodjax_pictures:val cannot be opened: Unknown split 'val'"),
    ],
)
def test_a_wrong_tfds_name_is_one_sentence(prepared, name, split, match):
    with pytest.raises(DataError, match=match):
        Tfds(name, split, prepared)


def test_without_tensorflow_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"tfds:mnist:test needs tensorflow-datasets: pip install 'oodjax\[tfds\]'"):
        Tfds("mnist", "test")


# The user's word


def test_a_word_names_a_folder_or_a_list(folder, tmp_path):
    whole = Files.from_folder(folder)
    assert source_of("images", base=tmp_path).fingerprint == whole.fingerprint
    assert source_of(str(folder), base="/nowhere").fingerprint == whole.fingerprint
    (tmp_path / "list.txt").write_text("class_1/image 0.jpg 3\n", encoding="utf-8")
    listed = source_of("list.txt", root="images", base=tmp_path)
    assert listed.labels.tolist() == [3] and pixels(listed, 0).tobytes() == pixels(whole, 5).tobytes()
    (folder / "list.txt").write_text("class_1/image 0.jpg 3\n", encoding="utf-8")
    assert source_of("images/list.txt", base=tmp_path).name(0) == listed.name(0)
    assert source_of("images", base=tmp_path, hash_content=True).fingerprint != whole.fingerprint


def test_a_word_names_a_tfds_split(prepared):
    assert len(source_of("tfds:oodjax_pictures:train[:3]", data_dir=prepared)) == 3


@pytest.mark.parametrize(
    ("word", "root", "match"),
    [
        ("nowhere", None, "nowhere is not there: expected a folder, a list file or tfds:NAME:SPLIT"),
        ("", None, "got an empty word"),
        ("tfds:mnist", None, "got 'tfds:mnist', expected tfds:NAME:SPLIT"),
        ("tfds::test", None, "expected tfds:NAME:SPLIT"),
        ("images", "images", "images is a folder: a root belongs to a list file"),
        ("list.txt", "nowhere", "no such folder: .*nowhere"),
        ("empty", None, "empty holds no images"),
        ("mixed", None, r"mixed holds both images \(a.png\) and folders of images \(b\)"),
        ("mixed/a.png", None, "cannot read the list"),
        ("x" * 300, None, "xxx is not there"),
        ("nul\0byte", None, "is not there"),
    ],
)
def test_a_wrong_word_is_one_sentence(folder, tmp_path, word, root, match):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "mixed" / "a.png", 0)
    save(tmp_path / "mixed" / "b" / "c.png", 0)
    (tmp_path / "list.txt").write_text("a.png 0\n", encoding="utf-8")
    with pytest.raises(DataError, match=match) as raised:
        source_of(word, root, tmp_path)
    assert "\n" not in str(raised.value)
