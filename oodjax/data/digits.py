"""The embedded study's data: handwritten digits and eight OOD sets, all of it in the installed packages.

ID: scikit-learn's digits without 4 and 9. Classifiers of all ten classes take 4 for 1 or 7 and 9 for 3, 5, 7 or 8,
hardly one for the other: both lie near classes that stay, and neither is a second copy of one.

There are 215 images to train on, 27 of each class. With four times as many, sixteen of the study's seventeen recipes
classify 97.8 to 99.4 % of the test digits correctly and no figure can show what accuracy has to do with detection; with
these they range from 90 to 97 % (73 % with the strongest attacks), and training takes a quarter of the time. Harder
images (noise, clutter, occlusion) would have spread them too, but what the OOD images do not share is what a detector
finds first. 502 images test; a third is left out, so that a study of several seeds takes minutes.

OOD test sets:
    near       held_out_digits  4 and 9, by the same writers
               letters          letters that look like no digit, in the digits' style
    far        china, flower    crops of the two photographs that come with scikit-learn
               textures         crops of brick, grass and gravel
    extreme    heat_cells       rows of the breast cancer table as grids of coloured cells
               bars             rows of the diabetes table as bar charts
    synthetic  unit_tests       12 images of each of NINCO's 17 families
OOD validation: crops of a photograph of a cat and rows of the wine table as stars; no test set uses either.

Bundled photographs (photographs.npz), all CC0, from the images in scikit-image 0.26's wheel, whose docstrings
(skimage/data/_fetchers.py) name the sources and the licence:
    brick   cc0textures.com Bricks25            top left 256 x 256 of brick.png, grey, halved
    grass   "Grass 01", linolafett, DeviantArt  top left 256 x 256 of grass.png, grey, halved
    gravel  cc0textures.com Gravel04            top left 256 x 256 of gravel.png, grey, halved
    cat     "Chelsea", Stefan van der Walt      columns 75 to 375 of chelsea.png, RGB, reduced to 128 x 128
    (Pillow's BOX filter each time)
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from importlib import resources

import numpy as np

from oodjax.data import drawings, synthetic
from oodjax.data.arrays import Arrays
from oodjax.data.sets import ImageSet

SIZE = 16
HELD_OUT = (4, 9)
CLASS_NAMES = tuple(str(digit) for digit in range(10) if digit not in HELD_OUT)

_SHARES = {"train": 0.15, "id_val": 0.15, "id_test": 0.35}
_OOD_COUNT = 204  # 17 families x 12, and the same for every set
_VALIDATION_COUNT = 192
_SMALLEST_CROP = 32
_DIGITS_SOURCE = "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0)"


@dataclass(frozen=True, eq=False)
class DigitsData:
    """All image sets of the embedded study.

    Attributes:
        ood_tests: eight sets, ordered near, far, extreme, synthetic.
        mean, std: per channel, of the training images scaled to 0..1.
        class_names: the digit behind each label.
    """

    train: ImageSet
    id_val: ImageSet
    id_test: ImageSet
    ood_val: ImageSet
    ood_tests: tuple[ImageSet, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...]


def load(seed: int = 0) -> DigitsData:
    """Build every set from `seed`, which decides the splits, the rows and crops taken and all that is drawn."""
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected a non-negative integer")
    images, digits = _digits()
    train, id_val, id_test = _id_sets(images, digits, seed)
    pixels = train.images.astype(np.float64) / 255
    red, green, blue = pixels.mean(axis=(0, 1, 2))
    red_std, green_std, blue_std = pixels.std(axis=(0, 1, 2))
    return DigitsData(
        train=train,
        id_val=id_val,
        id_test=id_test,
        ood_val=_ood_val(seed),
        ood_tests=_ood_tests(images[np.isin(digits, HELD_OUT)], id_test.images, seed),
        mean=(float(red), float(green), float(blue)),
        std=(float(red_std), float(green_std), float(blue_std)),
        class_names=CLASS_NAMES,
    )


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return drawings.upsample_digits(bunch.images, SIZE), bunch.target


def _id_sets(images: np.ndarray, digits: np.ndarray, seed: int) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Stratified split: the shares hold within each class to one image."""
    rows: dict[str, list[np.ndarray]] = {role: [] for role in _SHARES}
    rng = _rng(seed, "split")
    for name in CLASS_NAMES:
        members = rng.permutation(np.flatnonzero(digits == int(name)))
        ends = np.rint(np.cumsum(list(_SHARES.values())) * len(members)).astype(int)
        for role, part in zip(rows, np.split(members, ends)[:-1], strict=True):
            rows[role].append(part)
    label_of = np.full(10, -1, np.int32)
    label_of[[int(name) for name in CLASS_NAMES]] = np.arange(len(CLASS_NAMES))
    sets = []
    for role, parts in rows.items():
        chosen = np.sort(np.concatenate(parts))
        source = Arrays(images[chosen], label_of[digits[chosen]], _DIGITS_SOURCE)
        sets.append(ImageSet(f"digits_{role}", role, "id", source))
    return sets[0], sets[1], sets[2]


def _ood_tests(held_out: np.ndarray, id_images: np.ndarray, seed: int) -> tuple[ImageSet, ...]:
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_sample_image

    def test(name: str, category: str, images: np.ndarray, source: str) -> ImageSet:
        return ImageSet(name, "ood_test", category, Arrays(images, description=source))

    n = _OOD_COUNT
    photographs = _photographs()
    textures = [photographs["brick"], photographs["grass"], photographs["gravel"]]
    cancer = _rows(load_breast_cancer().data, n, _rng(seed, "heat_cells"))
    diabetes = _rows(load_diabetes(scaled=False).data, n, _rng(seed, "bars"))
    permuted = _rng(seed, "permuted").permutation(id_images)
    per_family = n // len(synthetic.FAMILIES)
    families = [synthetic.generate(name, per_family, SIZE, seed, permuted) for name in synthetic.FAMILIES]
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    sample = "scikit-learn load_sample_image, CC BY 2.0, flickr.com/photos/"
    return (
        test("held_out_digits", "near", _take(held_out, n, _rng(seed, "held_out_digits")), _DIGITS_SOURCE),
        test("letters", "near", drawings.letters(n, SIZE, _rng(seed, "letters")), "Pillow's bundled font"),
        test("china", "far", _crops([china], n, _rng(seed, "china")), sample + "danielbuechele"),
        test("flower", "far", _crops([flower], n, _rng(seed, "flower")), sample + "vultilion"),
        test("textures", "far", _crops(textures, n, _rng(seed, "textures")), "scikit-image brick, grass, gravel, CC0"),
        test("heat_cells", "extreme", drawings.heat_cells(cancer, SIZE), "scikit-learn load_breast_cancer (UCI)"),
        test("bars", "extreme", drawings.bars(diabetes, SIZE), "scikit-learn load_diabetes (Efron et al. 2004)"),
        test("unit_tests", "synthetic", np.concatenate(families), "generated after NINCO's OOD unit tests"),
    )


def _ood_val(seed: int) -> ImageSet:
    from sklearn.datasets import load_wine

    half = _VALIDATION_COUNT // 2
    cat = _crops([_photographs()["cat"]], half, _rng(seed, "cat"))
    wine = drawings.stars(_rows(load_wine().data, half, _rng(seed, "wine")), SIZE)
    source = "scikit-image chelsea, CC0; scikit-learn load_wine (UCI)"
    return ImageSet("cat_and_wine", "ood_val", "validation", Arrays(np.concatenate([cat, wine]), description=source))


def _photographs() -> dict[str, np.ndarray]:
    with resources.files("oodjax.data").joinpath("photographs.npz").open("rb") as file, np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def _take(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rows[np.sort(rng.choice(len(rows), n, replace=False))]


def _rows(table: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return _take(drawings.to_ranks(table), n, rng)


def _crops(photographs: list[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """Square crops of each photograph in turn, side log-uniform from 32 pixels to the whole, reduced to `SIZE`."""
    from PIL import Image

    crops = []
    for index in range(n):
        photograph = photographs[index % len(photographs)]
        height, width = photograph.shape[:2]
        shortest = min(height, width)
        side = int(round(_SMALLEST_CROP * (shortest / _SMALLEST_CROP) ** rng.random()))
        left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        crop = Image.fromarray(photograph).crop((left, top, left + side, top + side)).convert("RGB")
        crops.append(np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BOX)))
    return np.stack(crops)
