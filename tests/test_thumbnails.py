"""Small pictures of a study's sets: of which images, how large, and what happens to those that cannot be read."""

import io

import numpy as np
import pytest
from PIL import Image

from oodjax.data.arrays import Arrays
from oodjax.data.contract import BadImage
from oodjax.data.sets import ImageSet
from oodjax.thumbnails import COUNT, SIDE, path_of, sprite


def image_set(images, name="set"):
    return ImageSet(name, "ood_test", "far", Arrays(np.asarray(images, np.uint8)))


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_small_images_are_shown_as_they_are_from_first_to_last():
    images = np.arange(25, dtype=np.uint8)[:, None, None, None] * np.ones((25, 8, 8, 3), np.uint8)
    content, count = sprite(image_set(images))
    tiles = pixels(content)
    assert count == COUNT == 10 and tiles.shape == (8, 80, 3)
    np.testing.assert_array_equal(tiles[0, ::8, 0], np.linspace(0, 24, 10).round())


def test_large_images_are_cut_to_the_middle_and_reduced():
    image = np.zeros((120, 300, 3), np.uint8)
    image[:, 90:210] = 200  # the square in the middle
    content, count = sprite(image_set([image]))
    tile = pixels(content)
    assert count == 1 and tile.shape == (SIDE, SIDE, 3)
    assert (tile[:, 3:-3] == 200).all()


def test_images_that_cannot_be_read_are_passed_over():
    class Torn(Arrays):
        def open(self, index):
            if index % 2:
                raise BadImage(str(index), "torn")
            return super().open(index)

    images = np.full((6, 8, 8, 3), 7, np.uint8)
    torn = ImageSet("torn", "ood_test", "far", Torn(images))
    content, count = sprite(torn)
    assert count == 3 and pixels(content).shape == (8, 24, 3)
    alone = ImageSet("torn", "ood_test", "far", Torn(images[:2]))
    assert sprite(alone)[1] == 1


@pytest.mark.parametrize("name", ["textures", "my set (2)", "瓷", "a/b", "..", "-"])
def test_the_file_of_a_set_can_be_listed_whatever_its_name(name):
    path = path_of(3, name)
    assert path.startswith("thumbnails/03") and path.endswith(".png")
    assert path.count("/") == 1 and not set(path) & set(" ()\\:")
    assert path_of(4, name) != path
