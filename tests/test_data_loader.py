"""Batches of one shape: each image once over all hosts, one decode for all sizes, resumed anywhere, bad files named."""

import numpy as np
import pytest
from image_files import class_folders, picture, save, torchvision_crop, truncate
from PIL import Image

from oodjax.data import BadImage, Geometry, load, preprocess
from oodjax.data.sources import Arrays, Files, Subset

SMALL = Geometry(28, 24)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files.from_folder(class_folders(tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def arrays():
    return Arrays(np.stack([picture(i, 8, 8) for i in range(13)]), np.arange(13))


class Counting:
    """A source that counts what is opened."""

    def __init__(self, source):
        self.source, self.opened = source, []
        self.labels = source.labels

    def __len__(self):
        return len(self.source)

    def open(self, index):
        self.opened.append(index)
        return self.source.open(index)

    def name(self, index):
        return self.source.name(index)


def rows(loader):
    """Index, label and pixels of every row that counts, in order."""
    return [
        (int(b.index[i]), int(b.labels[i]), b.images[i].tobytes())
        for b in loader
        for i in range(len(b.mask))
        if b.mask[i]
    ]


@pytest.mark.parametrize("geometry", [SMALL, Geometry(32, 32), Geometry(None, 20)])
def test_crops_equal_torchvision_on_pil_images(files, geometry):
    found = rows(load(files, 4, geometries=[geometry]))
    assert [index for index, _, _ in found] == list(range(15))
    assert [label for _, label, _ in found] == [0] * 5 + [1] * 5 + [2] * 5
    for index, _, pixels in found:
        with Image.open(files.path(index)) as image:
            expected = torchvision_crop(image, geometry.resize, geometry.crop)
        assert pixels == expected.tobytes(), files.name(index)


@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_hosts_together_read_each_image_once_in_equally_many_batches(request, kind, hosts):
    source = request.getfixturevalue(kind)
    geometries = [SMALL] if kind == "files" else [Geometry()]
    whole = dict((index, rest) for index, *rest in rows(load(source, 3, geometries=geometries)))
    assert sorted(whole) == list(range(len(source)))
    loaders = [load(source, 3, geometries=geometries, host=(host, hosts)) for host in range(hosts)]
    assert {len(loader) for loader in loaders} == {-(-len(source) // (3 * hosts))}
    per_host = [list(loader) for loader in loaders]
    assert {len(batches) for batches in per_host} == {len(loaders[0])}
    for number in range(len(loaders[0])):
        # One step over all hosts takes consecutive images.
        together = np.sort(np.concatenate([batches[number].index for batches in per_host]))
        first = number * 3 * hosts
        expected = np.arange(first, min(first + 3 * hosts, len(source)))
        np.testing.assert_array_equal(together[together >= 0], expected)
    found = [row for batches in per_host for row in rows(batches)]
    assert sorted(index for index, *_ in found) == list(range(len(source)))
    assert all(whole[index] == rest for index, *rest in found)


@pytest.mark.parametrize("kind", ["files", "arrays"])
@pytest.mark.parametrize("host", [(0, 1), (1, 2)])
def test_a_start_resumes_with_the_same_batches_and_opens_nothing_before_it(request, kind, host):
    source = request.getfixturevalue(kind)
    geometries = [SMALL] if kind == "files" else [Geometry()]
    whole = list(load(source, 2, geometries=geometries, host=host))
    for start in range(len(whole) + 1):
        counting = Counting(source) if kind == "files" else source
        tail = load(counting, 2, geometries=geometries, host=host, start=start)
        assert len(tail) == len(whole) - start
        for found, expected in zip(list(tail), whole[start:], strict=True):
            np.testing.assert_array_equal(found.images, expected.images)
            np.testing.assert_array_equal(found.labels, expected.labels)
            np.testing.assert_array_equal(found.index, expected.index)
            np.testing.assert_array_equal(found.mask, expected.mask)
        if kind == "files":
            assert sorted(counting.opened) == list(range(host[0], 15, host[1]))[2 * start :]


def test_padding_is_masked_black_and_unlabelled(files):
    *_, last = load(files, 4, geometries=[SMALL])
    assert last.images.shape == (4, 24, 24, 3) and last.mask.tolist() == [True] * 3 + [False]
    assert (last.labels[3], last.index[3], last.images[3].max()) == (-1, -1, 0)


def test_one_decode_serves_all_sizes_and_equal_ones_are_made_once(files, monkeypatch):
    made = []
    cut = preprocess.cut
    monkeypatch.setattr(preprocess, "cut", lambda image, *geometry: made.append(geometry) or cut(image, *geometry))
    counting = Counting(files)
    other = Geometry(40, 24)
    batches = list(load(counting, 4, geometries=[SMALL, other, Geometry(28, 24)]))
    assert sorted(counting.opened) == list(range(15))
    assert sorted(made) == [(28, 24, False)] * 15 + [(40, 24, False)] * 15
    for geometry in (SMALL, other):
        alone = list(load(files, 4, geometries=[geometry]))
        assert len(batches[0].crops) == 2
        for both, one in zip(batches, alone, strict=True):
            np.testing.assert_array_equal(both.crops[geometry], one.images)
    with pytest.raises(ValueError, match="holds 2 geometries"):
        _ = batches[0].images


def test_arrays_are_resized_like_files(arrays):
    found = rows(load(arrays, 5, geometries=[Geometry(16, 12)]))
    for index, label, pixels in found:
        expected = torchvision_crop(Image.fromarray(arrays.images[index]), 16, 12)
        assert (label, pixels) == (index, expected.tobytes())


def test_a_subset_of_arrays_is_read_as_it_is(arrays):
    chosen = np.array([7, 2, 11])
    found = rows(load(Subset(arrays, chosen), 2))
    assert found == [(i, int(row), arrays.images[row].tobytes()) for i, row in enumerate(chosen)]


def test_fast_pixels_are_other_pixels_by_one_level_at_most(files):
    exact = next(load(files, 15, geometries=[SMALL])).images.astype(int)
    fast = next(load(files, 15, geometries=[Geometry(28, 24, fast=True)])).images
    difference = np.abs(fast - exact)
    assert difference.max() == 1 and np.mean(difference > 0) < 0.26


@pytest.fixture
def damaged(tmp_path):
    folder = class_folders(tmp_path / "images")
    truncate(folder / "class_0" / "image 1.png")
    truncate(folder / "class_2" / "image 0.jpg")
    source = Files.from_folder(folder)
    (folder / "class_1" / "image 4.jpg").unlink()
    return source


def test_a_bad_file_stops_with_its_path(damaged):
    with pytest.raises(BadImage, match="truncated") as raised:
        list(load(damaged, 4, geometries=[SMALL]))
    assert raised.value.path == damaged.name(1)
    assert str(raised.value).startswith(damaged.name(1) + ": ")


@pytest.mark.parametrize("threads", [1, 4])
def test_bad_files_can_be_skipped_counted_and_listed(damaged, threads):
    loader = load(damaged, 4, geometries=[SMALL], on_bad="skip", threads=threads)
    batches = list(loader)
    assert [error.path for error in loader.bad] == [damaged.name(i) for i in (1, 9, 10)]
    assert "truncated" in loader.bad[0].reason and "No such file" in loader.bad[1].reason
    masked = [int(b.index[i]) for b in batches for i in np.flatnonzero(~b.mask)]
    assert masked == [1, 9, 10, -1]
    for batch in batches:
        np.testing.assert_array_equal(batch.images[~batch.mask], 0)
        np.testing.assert_array_equal(batch.labels[~batch.mask], -1)
    good = rows(batches)
    assert [index for index, *_ in good] == [i for i in range(15) if i not in (1, 9, 10)]
    with Image.open(damaged.path(0)) as image:
        assert good[0][2] == torchvision_crop(image, 28, 24).tobytes()


def test_images_of_several_sizes_need_a_crop(tmp_path):
    save(tmp_path / "a.png", 0, 20, 20)
    save(tmp_path / "b.png", 1, 20, 20)
    source = Files.from_folder(tmp_path)
    assert next(load(source, 2)).images.tobytes() == np.stack([picture(0, 20, 20), picture(1, 20, 20)]).tobytes()
    save(tmp_path / "b.png", 1, 20, 24)
    with pytest.raises(BadImage, match=r"b\.png: 24x20 pixels, but 20x20 in the first image"):
        list(load(source, 2))
    with pytest.raises(BadImage, match=r"a\.png: crop of 22 pixels needs an image of at least that size, got 20x20"):
        list(load(source, 2, geometries=[Geometry(None, 22)]))


def test_no_images_are_no_batches():
    assert list(load(Arrays(np.zeros((0, 4, 4, 3), np.uint8)), 4)) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"geometries": []}, "geometries: got none"),
        ({"host": (2, 2)}, r"host: got \(2, 2\)"),
        ({"start": 5}, "start: got 5, expected 0 to 4"),
        ({"start": -1}, "start: got -1"),
        ({"on_bad": "ignore"}, "on_bad: got 'ignore', expected 'stop' or 'skip'"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arrays, changes, match):
    with pytest.raises(ValueError, match=match):
        load(arrays, **({"batch_size": 4} | changes))


@pytest.mark.parametrize(
    ("fields", "match"),
    [((256, None), "without a crop"), ((200, 224), "crop must not exceed resize"), ((None, 0), "got crop 0")],
)
def test_impossible_geometries_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        Geometry(*fields)
