"""Each of NINCO's families has the property that defines it."""

import numpy as np
import pytest

from oodjax.data import synthetic

PERMUTED = ("pixel_permutation", "low_freq_pixel_permutation")
CONSTANT = ("black", "white")


@pytest.fixture(scope="module")
def photographs():
    """Three images whose pixels are all different, so that a permutation cannot hide."""
    values = np.arange(3 * 16 * 16, dtype=np.int64)
    pixels = np.stack([values % 256, values // 256 * 100, 255 - values % 256], axis=-1)
    return pixels.reshape(3, 16, 16, 3).astype(np.uint8)


def generate(family, n, size=16, seed=0, images=None):
    return synthetic.generate(family, n, size, seed, images if family in PERMUTED else None)


def band_colours(image, axis):
    """The colours of consecutive flat bands along `axis`, and their widths; fails if a line is not flat."""
    lines = np.moveaxis(image, axis, 0)
    np.testing.assert_array_equal(lines, np.broadcast_to(lines[:, :1], lines.shape))
    colours = lines[:, 0].astype(int)
    starts = np.flatnonzero(np.r_[True, np.any(colours[1:] != colours[:-1], axis=1)])
    return colours[starts], np.diff(np.r_[starts, len(colours)])


def low_frequency_share(images, radius):
    """Share of the variance at frequencies within `radius` cycles per image."""
    x = images.astype(float) - images.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(x, axes=(1, 2))) ** 2
    cycles = np.fft.fftfreq(images.shape[1], 1 / images.shape[1])
    inside = np.hypot(cycles[:, None], cycles) <= radius
    return power[:, inside].sum() / power.sum()


def test_there_are_seventeen_families():
    assert len(synthetic.FAMILIES) == len(set(synthetic.FAMILIES)) == 17


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_an_image_is_keyed_by_seed_family_and_index(family, photographs):
    long = generate(family, 7, images=photographs)
    assert long.shape == (7, 16, 16, 3) and long.dtype == np.uint8
    np.testing.assert_array_equal(generate(family, 4, images=photographs), long[:4])
    if family not in CONSTANT:
        assert len(np.unique(long, axis=0)) == 7
        other = generate(family, 7, seed=1, images=photographs)
        assert all(not np.array_equal(a, b) for a, b in zip(long, other, strict=True))


def test_families_do_not_share_their_random_numbers():
    assert not np.array_equal(generate("uniform", 1) > 127, generate("rademacher", 1) > 127)


def test_black_and_white():
    np.testing.assert_array_equal(generate("black", 3), 0)
    np.testing.assert_array_equal(generate("white", 3), 255)


def test_uniform_covers_the_range_evenly():
    counts = np.histogram(generate("uniform", 40), bins=8, range=(0, 256))[0] / (40 * 16 * 16 * 3)
    np.testing.assert_allclose(counts, 1 / 8, atol=0.01)  # 30,720 draws: standard error 0.002


def test_gaussian_has_mean_one_half_and_ninco_deviations():
    images = generate("gaussian", 200, size=32) / 255.0
    np.testing.assert_allclose(images.mean(), 0.5, atol=0.005)
    deviations = images.std(axis=(1, 2, 3))
    unclipped = np.array([0.05, 0.075, 0.1, 0.15])  # 0.2 and above lose tails to clipping
    nearest = np.abs(deviations[:, None] - unclipped).min(axis=1)
    narrow = deviations < 0.17
    assert 0.4 < narrow.mean() < 0.75  # 4 of 7 choices
    assert nearest[narrow].max() < 0.006
    assert 0.3 < deviations.max() < 0.42  # sigma 0.5, clipped to 0..1


def test_rademacher_is_a_fair_coin_per_channel():
    images = generate("rademacher", 40)
    assert set(np.unique(images)) == {0, 255}
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)) / 255, 0.5, atol=0.02)
    channels = images.reshape(-1, 3).T
    np.testing.assert_allclose(np.corrcoef(channels), np.eye(3), atol=0.04)


def test_grey_and_monochrome_have_one_colour_per_image():
    for family, is_grey in (("grey", True), ("monochrome", False)):
        images = generate(family, 20)
        np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1, :1], images.shape))
        equal_channels = np.all(images[:, 0, 0] == images[:, 0, 0, :1], axis=1)
        assert np.all(equal_channels) if is_grey else not np.any(equal_channels)


@pytest.mark.parametrize("family", ["tricolour", "tricolour_primary"])
def test_tricolour_has_three_bands_either_way(family):
    images = generate(family, 60, size=18)
    horizontal = np.all(images == images[:, :, :1], axis=(1, 2, 3))
    vertical = np.all(images == images[:, :1], axis=(1, 2, 3))
    assert np.all(horizontal | vertical)
    assert 15 < np.sum(horizontal & ~vertical) < 45
    for image, is_horizontal in zip(images, horizontal, strict=True):
        colours, widths = band_colours(image, 0 if is_horizontal else 1)
        assert np.all(widths % 6 == 0)  # equal neighbours merge
        assert set(np.unique(colours)) <= {0, 255} if family == "tricolour_primary" else len(colours) == 3


@pytest.mark.parametrize(("family", "axis"), [("horizontal_stripes", 0), ("vertical_stripes", 1)])
def test_stripes_run_one_way_in_ninco_counts(family, axis):
    seen = set()
    for image in generate(family, 60, size=60):
        colours, widths = band_colours(image, axis)
        assert widths.max() - widths.min() <= 1
        seen.add(len(colours))
    assert seen == {4, 5, 7, 10, 15, 20}


def test_more_stripes_than_pixels_fill_every_line():
    assert max(len(band_colours(image, 0)[0]) for image in generate("horizontal_stripes", 40, size=8)) == 8


def test_blobs_are_bright_patches_on_exact_black():
    images = generate("blobs", 40, size=64)
    assert np.all((images == 0) | (images >= round(0.75 * 255)))
    assert 0.05 < np.mean(images > 0) < 0.45
    bright = images > 0
    agree = np.mean(bright[:, 1:] == bright[:, :-1])
    assert agree > 0.85  # independent pixels of this density would agree in less than 0.75 of the cases
    assert bright.any(axis=-1).mean() > bright[..., 0].mean() * 1.5  # the channels differ


def test_low_frequency_families_hold_their_energy_low():
    white = low_frequency_share(generate("uniform", 40, size=64), 8)
    assert white < 0.06
    for family in ("low_freq", "low_freq_channelfullscale", "low_freq_colorrange"):
        assert low_frequency_share(generate(family, 40, size=64), 8) > 0.9


def test_low_frequency_widths_are_relative_to_the_side():
    small, large = (low_frequency_share(generate("low_freq", 40, size=size), 2) for size in (32, 96))
    assert abs(small - large) < 0.15
    assert small > 0.4


def test_low_frequency_scalings_differ_as_named():
    full = generate("low_freq", 40, size=32)
    assert np.all(full.min(axis=(1, 2, 3)) == 0) and np.all(full.max(axis=(1, 2, 3)) == 255)
    assert np.mean(full.max(axis=(1, 2)) - full.min(axis=(1, 2)).astype(int) == 255) < 0.5
    channel = generate("low_freq_channelfullscale", 40, size=32)
    assert np.all(channel.min(axis=(1, 2)) == 0) and np.all(channel.max(axis=(1, 2)) == 255)


def test_low_frequency_colour_range_spans_two_deviations():
    images = generate("low_freq_colorrange", 60, size=32) / 255.0
    low, high = np.quantile(images, (0.025, 0.975), axis=(1, 2))
    unclipped = (images.max(axis=(1, 2)) < 1) & (images.min(axis=(1, 2)) > 0)
    spans = (high - low)[unclipped]
    assert unclipped.sum() > 20
    assert spans.min() > 0.195 and spans.max() < 0.605 and np.ptp(spans) > 0.2
    assert low[unclipped].max() - low[unclipped].min() > 0.3


def test_pixel_permutation_keeps_the_pixels_and_moves_them(photographs):
    images = generate("pixel_permutation", 6, images=photographs)
    for index, image in enumerate(images):
        original = photographs[index % 3].reshape(-1, 3)
        permuted = image.reshape(-1, 3)
        np.testing.assert_array_equal(permuted[np.lexsort(permuted.T)], original[np.lexsort(original.T)])
        assert np.mean(np.all(permuted == original, axis=1)) < 0.05
    assert not np.array_equal(images[0], images[3])  # the same photograph, another permutation


def test_low_frequency_permutation_blurs_a_permutation(photographs):
    images = generate("low_freq_pixel_permutation", 30, images=photographs)
    means = photographs.mean(axis=(1, 2))
    np.testing.assert_allclose(images.mean(axis=(1, 2)), means[np.arange(30) % 3], atol=0.5)  # rounding only
    assert low_frequency_share(images, 4) > 0.8
    assert images[..., 0].std(axis=(1, 2)).max() < 0.5 * photographs[..., 0].std()


def test_wrong_arguments_say_what_is_expected(photographs):
    with pytest.raises(ValueError, match="got 'plaid', expected one of uniform, gaussian, .*pixel_permutation"):
        synthetic.generate("plaid", 1, 16, 0)
    with pytest.raises(ValueError, match="got None, expected uint8"):
        synthetic.generate("pixel_permutation", 1, 16, 0)
    with pytest.raises(ValueError, match=r"got uint8 \(3, 16, 16, 3\), expected uint8 \(m, 8, 8, 3\)"):
        synthetic.generate("low_freq_pixel_permutation", 1, 8, 0, photographs)
    with pytest.raises(ValueError, match="seed: got 1, 16, -1"):
        synthetic.generate("black", 1, 16, -1)
