"""Crops agree with the reference's bit for bit."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from image_files import picture, torchvision_crop, truncate
from PIL import Image

from oodjax.data import BadImage
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


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def rgb(content: bytes) -> np.ndarray:
    return np.asarray(pp.decode(content)).astype(int)


PICTURE = Image.fromarray(picture(0, 40, 60))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P"])
def test_grey_palette_and_alpha_keep_the_stored_colours(mode: str) -> None:
    image = PICTURE.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(picture(1, 40, 60)[..., 0]))
    found = rgb(encoded(image))
    stored = np.asarray(image.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize(
    ("kind", "transparency"),
    [("PNG", 3), ("PNG", bytes([0, 128, 255])), ("GIF", 3)],  # a GIF has one such colour
)
def test_a_transparent_palette_keeps_its_colours(kind: str, transparency: int | bytes) -> None:
    image = PICTURE.quantize(16)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(rgb(encoded(image, kind, transparency=transparency)), expected)


def test_cmyk_is_taken_as_pillow_converts_it() -> None:
    content = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        inverse = 255 - np.asarray(image).astype(int)  # C, M, Y, K of 0 to 255
    expected = inverse[..., :3] * inverse[..., 3:] / 255
    np.testing.assert_allclose(rgb(content), expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped_to_white(kind: str) -> None:
    grey = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    found = rgb(encoded(Image.fromarray(grey), kind))
    np.testing.assert_array_equal(found, np.repeat((grey // 256)[..., None], 3, axis=-1))
    assert (found[0, 0, 0], found[-1, -1, 0]) == (0, 255) and len(np.unique(found)) == 256


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_white_are_refused(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    path.write_bytes(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))
    with pytest.raises(BadImage, match="32 bits .* do not say which value is white") as raised:
        pp.preprocess(path)
    assert raised.value.path == str(path)


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned, plain = encoded(PICTURE, "JPEG", exif=exif), encoded(PICTURE, "JPEG")
    assert turned != plain
    np.testing.assert_array_equal(rgb(turned), rgb(plain))


def test_the_first_of_several_frames_is_taken() -> None:
    frames = [Image.fromarray(picture(seed, 40, 60)) for seed in range(3)]
    content = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(rgb(content), picture(0, 40, 60))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(encoded(PICTURE, kind))
    truncate(path, 0.6)
    with pytest.raises(BadImage) as raised:
        pp.preprocess(path)
    assert raised.value.path == str(path) and str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    with pytest.raises(BadImage, match="^encoded image of [0-9]+ bytes: "):
        pp.preprocess(path.read_bytes())


def test_flipped_bytes_are_decoded_or_named() -> None:
    rng = np.random.default_rng(0)
    named = 0
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
        good = np.frombuffer(encoded(PICTURE, kind), np.uint8)
        for _ in range(60):
            damaged = good.copy()
            places = rng.integers(0, min(len(good), 200), 3)
            damaged[places] = rng.integers(0, 256, 3)
            try:
                found = pp.preprocess(damaged.tobytes(), 32, 24)
            except BadImage as error:
                named += 1
                assert error.path == f"encoded image of {len(good)} bytes"
            else:
                assert found.shape == (24, 24, 3) and found.dtype == np.uint8
    assert named > 100  # of 420


def test_more_pixels_than_pillow_allows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(PICTURE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadImage, match="2400 pixels"):
        pp.decode(content)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (180, 200), (60, 40), (900, 300), (256, 256)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (64, 64)])
def test_crops_follow_torchvisions_rules(size: tuple[int, int], resize: int, crop: int) -> None:
    image = Image.fromarray(picture(size[0], size[1], size[0]))
    expected = torchvision_crop(image, resize, crop)
    np.testing.assert_array_equal(pp.cut(image, resize, crop), expected)
    np.testing.assert_array_equal(pp.cut(np.asarray(image), resize, crop), expected)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (180, 200), (60, 40), (1600, 1200), (700, 701)])
def test_fast_pixels_are_at_most_one_level_off(size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(size[0], size[1], size[0]))
    difference = np.abs(pp.cut(image, 256, 224, fast=True).astype(int) - pp.cut(image, 256, 224))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01  # measured: 0 to 0.5 % for sides within 1 to 2


def test_fast_pixels_are_other_pixels() -> None:
    image = Image.fromarray(picture(5, 150, 200))
    assert not np.array_equal(pp.cut(image, 256, 224, fast=True), pp.cut(image, 256, 224))


@pytest.mark.parametrize("size", [(1, 244), (3, 700), (7, 1500), (1400, 6), (31, 4000), (1, 240)])
def test_thin_images_have_the_plain_ways_pixels_to_one_level(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(picture(size[0], size[1], size[0]))
    plain = pp.cut(image, 256, 224).astype(int)
    np.testing.assert_array_equal(plain, torchvision_crop(image, 256, 224))
    monkeypatch.setattr(pp, "_LARGEST_RESIZED", 1)
    difference = np.abs(pp.cut(image, 256, 224) - plain)
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.005  # measured: at most 0.0013


def test_a_thin_image_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    Image.fromarray(picture(0, 8000, 1)).save(path)
    code = (
        "import resource, sys, numpy as np; from oodjax.data.preprocess import preprocess\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); found = preprocess(sys.argv[1]); print(peak() - before, found[:, 0, 0].tolist())"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    mebibytes, _, column = result.stdout.partition(" ")
    assert int(mebibytes) < 50  # the plain way: 2,500
    # A resize from 1 to 256 repeats the column and interpolates linearly along it, 256 steps a pixel.
    row = 1024000 - 112 + np.arange(224)
    place = (row + 0.5) * 8000 / 2048000 - 0.5
    expected = np.interp(place, np.arange(8000), picture(0, 8000, 1)[:, 0, 0])
    np.testing.assert_allclose(np.array(eval(column)), expected, atol=1)


def test_without_resize_or_crop_an_image_stays_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(pp.preprocess(image, None, None), pixels)
    np.testing.assert_array_equal(
        pp.preprocess(image, None, 5), pixels[2:7, 4:9]
    )  # the margin of 3.5 goes to the even side
