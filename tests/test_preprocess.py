"""Crops agree with the reference's bit for bit."""

from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from oodjax.data import preprocess as pp

GOLDEN = Path(__file__).parent / "data" / "models.npz"
NAMES = ("landscape_rgb", "portrait_rgb", "small_gray", "rgba", "palette")


@pytest.mark.parametrize("name", NAMES)
def test_crop_equals_the_reference(name: str, tmp_path: Path) -> None:
    with np.load(GOLDEN) as golden:
        encoded, expected = golden[f"image/{name}"].tobytes(), golden[f"crop/{name}"]
    found = pp.preprocess(encoded)
    assert found.dtype == np.uint8
    if name == "portrait_rgb" and int(PIL.__version__.partition(".")[0]) < 13:
        assert np.abs(found.astype(int) - expected).max() == 1  # Pillow 13 resizes tall images another way
        return
    np.testing.assert_array_equal(found, expected)
    path = tmp_path / "image.png"
    path.write_bytes(encoded)
    np.testing.assert_array_equal(pp.preprocess(path), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(pp.preprocess(image), expected)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((500, 375), (341, 256)), ((375, 500), (256, 341)), ((256, 300), (256, 300)), ((10, 10), (256, 256))],
)
def test_longer_side_is_rounded_down(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert pp.resize_shorter(Image.new("RGB", size), 256).size == expected


def test_an_odd_margin_is_split_half_to_even() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None], (8, 8, 3))
    # margins 1.5 and 2.5 both round to 2
    assert np.asarray(pp.centre_crop(Image.fromarray(ramp.copy()), 5))[0, 0, 0] == 2
    assert np.asarray(pp.centre_crop(Image.fromarray(ramp.copy()), 3))[0, 0, 0] == 2


def test_another_resize_moves_the_crop() -> None:
    with np.load(GOLDEN) as golden:
        encoded = golden["image/landscape_rgb"].tobytes()
    narrow, wide = pp.preprocess(encoded, resize=232), pp.preprocess(encoded)
    assert narrow.shape == wide.shape and not np.array_equal(narrow, wide)


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="crop must not exceed resize"):
        pp.preprocess(Image.new("RGB", (300, 300)), resize=200, crop=224)
    with pytest.raises(ValueError, match="at least that size"):
        pp.centre_crop(Image.new("RGB", (100, 300)), 224)
