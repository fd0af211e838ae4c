"""The embedded study's sets, the record they come in, and the loader."""

import os
import subprocess
import sys

import numpy as np
import pytest

from oodjax.data import ImageSet, digits, drawings, epoch_order, synthetic
from oodjax.data.sources import Arrays


@pytest.fixture(scope="module")
def data():
    return digits.load(0)


def all_sets(data):
    return [data.train, data.id_val, data.id_test, data.ood_val, *data.ood_tests]


def keys(images):
    return {image.tobytes() for image in images}


def make_set(**changes):
    fields = {
        "name": "x",
        "role": "ood_test",
        "category": "near",
        "source": Arrays(np.zeros((2, 4, 4, 3), np.uint8), description="made here"),
    }
    return ImageSet(**(fields | changes))


def with_labels(*labels):
    return Arrays(np.zeros((len(labels), 4, 4, 3), np.uint8), np.array(labels, np.int32))


def test_counts_names_and_order(data):
    assert [(s.name, s.category, s.count) for s in data.ood_tests] == [
        ("held_out_digits", "near", 204),
        ("letters", "near", 204),
        ("china", "far", 204),
        ("flower", "far", 204),
        ("textures", "far", 204),
        ("heat_cells", "extreme", 204),
        ("bars", "extreme", 204),
        ("unit_tests", "synthetic", 204),
    ]
    assert (data.train.count, data.id_val.count, data.id_test.count, data.ood_val.count) == (215, 216, 502, 192)
    assert len({s.name for s in all_sets(data)}) == 12
    assert all(s.images.shape == (s.count, 16, 16, 3) and s.images.dtype == np.uint8 for s in all_sets(data))


def test_the_id_split_is_disjoint_and_stratified(data):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    kept = ~np.isin(bunch.target, (4, 9))
    # The digits hold no image twice, so bytes identify an image.
    parts = [keys(s.images) for s in (data.train, data.id_val, data.id_test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 933 < kept.sum() == 1436
    label_of = dict(zip(map(bytes, drawings.upsample_digits(bunch.images[kept], 16)), bunch.target[kept], strict=True))
    for part, share in ((data.train, 0.15), (data.id_val, 0.15), (data.id_test, 0.35)):
        for image, label in zip(part.images, part.labels, strict=True):
            assert data.class_names[label] == str(label_of[image.tobytes()])
        counts = np.bincount(part.labels, minlength=8)
        assert np.all(np.abs(counts - share * np.bincount(bunch.target)[[0, 1, 2, 3, 5, 6, 7, 8]]) <= 1)


def test_upsampling_is_bilinear_between_pixel_centres():
    counts = np.zeros((1, 8, 8))
    counts[0, 0, 0] = 16
    image = drawings.upsample_digits(counts, 16)[0]
    # Output centres lie at 1/4 and 3/4 of an input pixel: weights 1, 3/4 and 1/4 along an axis at the edge.
    weights = np.array([1, 0.75, 0.25, 0])
    np.testing.assert_allclose(image[:4, :4, 1], 255 * np.outer(weights, weights), atol=1)
    assert image[4:].max() == 0 and image[:, 4:].max() == 0
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert drawings.upsample_digits(np.full((1, 8, 8), 8), 16)[0, 0, 0, 0] == 128


def test_normalisation_is_of_the_training_images(data):
    scaled = data.train.images / 255.0
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)
    assert 0.25 < data.mean[0] < 0.35


def test_a_seed_fixes_every_set_and_another_seed_changes_every_set(data):
    first = [s.sha256 for s in all_sets(data)]
    assert [s.sha256 for s in all_sets(digits.load(0))] == first
    other = [s.sha256 for s in all_sets(digits.load(1))]
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len(set(first)) == 12


def test_another_process_builds_the_same_sets(data):
    code = "from oodjax.data import digits; d = digits.load(0); print(d.train.sha256, *[s.sha256 for s in d.ood_tests])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert result.stdout.split() == [data.train.sha256, *[s.sha256 for s in data.ood_tests]]


def test_no_ood_image_is_an_id_image_and_no_two_sets_share_one(data):
    seen = set()
    for part in all_sets(data):
        own = keys(part.images)
        assert not own & seen, part.name
        seen |= own


def test_validation_images_come_from_their_own_sources(data):
    sources = {s.source.description for s in data.ood_tests}
    assert data.ood_val.source.description not in sources
    assert "chelsea" in data.ood_val.source.description and "load_wine" in data.ood_val.source.description
    assert not any("chelsea" in source or "load_wine" in source for source in sources)
    cat, wine = data.ood_val.images[:96].astype(int), data.ood_val.images[96:]
    assert np.all(cat[..., 0].mean(axis=(1, 2)) > cat[..., 2].mean(axis=(1, 2)) + 20)  # ginger fur
    assert np.all(wine[:, 8, 8] == (110, 40, 140))  # the middle of a star is filled


def test_held_out_digits_are_fours_and_nines(data):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    own = keys(data.ood_tests[0].images)
    upsampled = drawings.upsample_digits(bunch.images, 16)
    found = [digit for image, digit in zip(upsampled, bunch.target, strict=True) if image.tobytes() in own]
    counts = np.bincount(found, minlength=10)
    assert len(own) == counts[4] + counts[9] == 204
    assert min(counts[4], counts[9]) > 80


def test_letters_share_the_digits_style(data):
    letters, train = data.ood_tests[1].images, data.train.images
    np.testing.assert_array_equal(letters[..., 0], letters[..., 1])
    assert np.all(letters.max(axis=(1, 2, 3)) > 120)
    assert abs(letters.mean() - train.mean()) < 15
    # The border columns are background, the rows of ink reach top and bottom, as for digits.
    assert letters[:, :, [0, -1]].mean() < 15 and train[:, :, [0, -1]].mean() < 15
    assert np.median(letters[:, :3].max(axis=(1, 2, 3))) > 120

    def steps(images):
        ink = images[..., 0].astype(int)
        return np.abs(np.diff(ink, axis=2)).mean() / ink.mean()

    assert 0.7 < steps(letters) / steps(train) < 1.4  # as sharp as the digits


def test_a_letter_drawn_twice_differs_and_no_letter_passes_for_a_digit():
    drawn = drawings.letters(2 * len(drawings.LETTERS), 16, np.random.default_rng(0))[..., 0].astype(float)
    assert len(np.unique(drawn, axis=0)) == 2 * len(drawings.LETTERS)
    assert not set(drawings.LETTERS) & set("BDIJLOQSTUZbgilosz")


def test_photographs_are_recognisable_by_colour(data):
    china, flower, textures = (s.images.astype(int) for s in data.ood_tests[2:5])
    np.testing.assert_array_equal(textures[..., 0], textures[..., 2])
    assert textures.std(axis=(1, 2, 3)).min() > 5
    assert china.mean() > 120 > flower.mean()
    assert np.mean(flower[..., 0] - flower[..., 2]) > 20


def test_ranks_share_the_lowest_place_in_a_tie():
    table = np.array([[3.0, 1], [1, 1], [2, 5]])
    np.testing.assert_allclose(drawings.to_ranks(table), [[1, 0], [0, 0], [0.5, 1]])


def test_heat_cells_put_value_i_in_cell_i():
    values = np.zeros((1, 30))
    values[0, 7] = 1  # second row, second column of 5 x 6
    image = drawings.heat_cells(values, 30)[0]
    assert image[6:12, 5:10].reshape(-1, 3).tolist() == [[255, 235, 40]] * 30
    assert np.all(image == (20, 10, 90), axis=-1).sum() == 900 - 30


def test_bars_are_as_high_as_their_value():
    image = drawings.bars(np.array([[0, 0.5, 1, 0.25]]), 8)[0]
    heights = np.any(image != 255, axis=-1).sum(axis=0)
    assert heights.tolist() == [0, 0, 4, 4, 8, 8, 2, 2]
    assert image[-1, 2].tolist() == [235, 130, 20] and image[0, 4].tolist() == [30, 130, 80]


def test_stars_reach_as_far_as_their_value():
    east, west = np.zeros((1, 12)), np.zeros((1, 12))
    east[0, 0], west[0, 6] = 1, 1
    ink = [np.all(drawings.stars(row, 64)[0] == (110, 40, 140), axis=-1) for row in (east, west)]
    assert ink[0][32, 55] and not ink[0][32, 8]
    assert ink[1][32, 8] and not ink[1][32, 55]


def test_unit_tests_hold_twelve_of_each_family(data):
    images = data.ood_tests[7].images.reshape(17, 12, 16, 16, 3)
    for family in ("gaussian", "blobs", "low_freq"):
        expected = synthetic.generate(family, 12, 16, 0)
        np.testing.assert_array_equal(images[synthetic.FAMILIES.index(family)], expected)
    permuted = images[synthetic.FAMILIES.index("pixel_permutation")].reshape(12, -1, 3)
    originals = {np.sort(image[..., 0].ravel()).tobytes() for image in data.id_test.images}
    assert all(np.sort(image[:, 0]).tobytes() in originals for image in permuted)


def test_hash_sees_content_shape_and_labels_only():
    base = make_set()
    renamed = Arrays(np.zeros((2, 4, 4, 3), np.uint8), description="elsewhere")
    assert base.sha256 == make_set(name="y", category="far", source=renamed).sha256
    bright = np.zeros((2, 4, 4, 3), np.uint8)
    bright[1, 2, 3, 0] = 1
    others = [
        make_set(source=Arrays(bright)),
        make_set(source=Arrays(np.zeros((2, 2, 8, 3), np.uint8))),
        make_set(role="train", category="id", source=with_labels(0, 1)),
        make_set(role="train", category="id", source=with_labels(1, 0)),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 5


def test_a_set_cannot_be_altered():
    base = make_set()
    for array in (base.images, base.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        base.name = "z"


def test_a_user_names_the_category_of_an_ood_set():
    assert make_set(category="foxes").category == "foxes"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"role": "test"}, "role of 'x': got 'test', expected one of"),
        ({"category": "id"}, r"category of 'x' \(ood_test\): got 'id', expected one of \('near', 'far'"),
        ({"category": ""}, "got '', expected one of"),
        ({"role": "train", "source": with_labels(0)}, "got 'near', expected 'id'"),
        ({"source": with_labels(-1, 4)}, "got 4, expected -1 everywhere"),
        ({"role": "train", "category": "id"}, "got -1, expected classes >= 0"),
    ],
)
def test_wrong_fields_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        make_set(**changes)


def test_epoch_order_is_a_permutation_keyed_by_seed_and_epoch():
    first = epoch_order(50, seed=3, epoch=4)
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    np.testing.assert_array_equal(epoch_order(50, seed=3, epoch=4), first)
    for other in (epoch_order(50, 3, 5), epoch_order(50, 4, 4), epoch_order(50, 4, 3)):
        assert not np.array_equal(other, first)


def test_importing_the_data_package_is_light():
    heavy = {"sklearn", "PIL", "torch", "matplotlib", "grain", "tensorflow_datasets"}
    code = f"import sys, oodjax.data; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
