"""Summaries of feature maps against explicit Gram matrices in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import oodjax
from oodjax import taps


def layers(signed: bool) -> list[np.ndarray]:
    """A map of positions, one of tokens, a pooled 1 x 1 map and one of a single channel."""
    rng = np.random.default_rng(int(signed))
    maps = [rng.normal(size=shape) for shape in ((3, 5, 4, 6), (3, 7, 8), (3, 1, 1, 9), (3, 2, 2, 1))]
    return [(m if signed else np.maximum(m, 0)).astype(np.float32) for m in maps]


def explicit(maps) -> np.ndarray:
    return np.concatenate([oracles.gram_rows(m) for m in maps], axis=-1)


summarize = jax.jit(oodjax.summarize, static_argnames="powers")


def assert_rows(got, want, maps):
    """Agreement before the root: the root of a sum that cancels to nearly 0 has no digits to compare.

    The sums have up to 160 terms no larger than the p-th power of |map|^2: float32 rounds each at 6e-8, and a power
    p multiplies that by p.
    """
    powers = np.arange(1, 11)[None, :, None]
    scale = np.concatenate(
        [np.broadcast_to(np.abs(m).max(axis=tuple(range(1, m.ndim)))[:, None], (len(m), m.shape[-1])) for m in maps], 1
    )[:, None].astype(np.float64)
    scale = np.where(scale > 0, scale, 1.0) ** 2

    def sums(rows):
        rows = np.asarray(rows, np.float64) / scale
        return np.sign(rows) * np.abs(rows) ** powers

    np.testing.assert_allclose(sums(got), sums(want), rtol=5e-6, atol=2e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_rows_are_the_row_sums_of_all_ten_gram_matrices(signed, scale):
    maps = [(scale * m).astype(np.float32) for m in layers(signed)]
    gram, _ = summarize(maps)
    want = explicit(maps)
    assert gram.shape == want.shape == (3, 10, 24) and gram.dtype == jnp.float32
    assert np.isfinite(gram).all()
    assert_rows(gram, want, maps)
    if not signed:  # nothing cancels: the rows themselves agree
        np.testing.assert_allclose(gram, want, rtol=5e-6, atol=1e-30)
    else:
        assert (want < 0).any() and (want > 0).any()


def test_both_ways_of_summing_agree():
    """A CPU sums tile by tile, an accelerator at once; maps of several tiles and a short last one."""
    base = np.random.default_rng(0).uniform(0, 1, (2, 50, 700)).astype(np.float32)
    assert taps.TILE // 700 < 50
    together = jax.jit(taps._power_sums, static_argnames="powers")(base, powers=10)
    by_tile = jax.jit(taps._power_sums_by_tile, static_argnames="powers")(base, powers=10)
    np.testing.assert_allclose(together, by_tile, rtol=1e-5)  # 35,000 positive float32 terms in another order
    want = np.einsum("nxi,nxj->ni", base.astype(np.float64) ** 10, base.astype(np.float64) ** 10)
    np.testing.assert_allclose(together[:, 9], want, rtol=1e-5)


def test_zero_maps_and_zero_samples():
    maps = layers(False)
    for m in maps:
        m[1] = 0
    gram, means = summarize(maps)
    np.testing.assert_array_equal(gram[1], 0)
    np.testing.assert_array_equal(means[1], 0)
    assert_rows(gram, explicit(maps), maps)


def test_layer_means_are_of_rectified_activations():
    maps = layers(True)
    _, means = summarize(maps)
    want = np.stack([np.maximum(m.astype(np.float64), 0).reshape(3, -1).mean(axis=1) for m in maps], axis=1)
    assert means.dtype == jnp.float32
    np.testing.assert_allclose(means, want, rtol=1e-6)


def test_fewer_powers_are_the_first_rows():
    maps = layers(True)[1:2]
    np.testing.assert_allclose(summarize(maps, powers=3)[0], summarize(maps)[0][:, :3], rtol=1e-6, atol=1e-6)


def test_half_precision_maps_are_summed_in_float32():
    maps = [m.astype(np.float16) for m in layers(False)[1:2]]
    gram, means = summarize(maps)
    assert gram.dtype == means.dtype == jnp.float32
    np.testing.assert_allclose(gram, explicit(maps), rtol=5e-6, atol=1e-30)


def test_samples_do_not_mix():
    maps = layers(True)[1:2]
    gram, means = summarize(maps)
    one, one_means = summarize([m[2:] for m in maps])
    np.testing.assert_allclose(one[0], gram[2], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one_means[0], means[2], rtol=1e-6)


@pytest.mark.parametrize(
    ("maps", "match"),
    [
        ([], "at least one feature map"),
        (
            np.zeros((3, 4, 4, 5)),
            r"takes a tuple of maps, one for each layer, such as summarize\(\(map,\)\), got ndarray",
        ),
        (jnp.zeros((3, 4, 4, 5)), "takes a tuple of maps, .* got jax.Array of float32, shape"),
        ({"layer1": np.zeros((3, 4, 5))}, "takes a tuple of maps, .* got a dict"),
        (None, "takes a tuple of maps, .* got None"),
        ([np.zeros((3, 4, 5)), np.zeros((3, 5))], r"feature_maps\[1\] must have shape .* got \(3, 5\)"),
        ([np.zeros((3, 4, 0))], r"feature_maps\[0\] must have shape .* got \(3, 4, 0\)"),
        ([np.zeros((3, 0, 4))], r"feature_maps\[0\] must have shape .* got \(3, 0, 4\)"),
        ([np.zeros((3, 4, 5)), np.zeros((4, 4, 5))], r"feature_maps hold different numbers of samples: \[3, 4\]"),
        ([np.zeros((3, 4, 5)) + 1j], r"feature_maps\[0\] must be an array of real numbers, got ndarray of complex128"),
        ([None], r"feature_maps\[0\] must be an array of real numbers, got None"),
    ],
)
def test_bad_maps_are_named(maps, match):
    with pytest.raises((ValueError, TypeError), match=match):
        oodjax.summarize(maps)


@pytest.mark.parametrize("powers", [0, -1, 2.5, None, True, "3", 101])
def test_powers_are_whole_and_positive(powers):
    with pytest.raises(ValueError, match=f"powers must be at least 1 and whole, and at most [0-9]+, got {powers!r}"):
        oodjax.summarize(layers(False), powers=powers)


def test_any_kind_of_array_is_accepted():
    maps = layers(True)[1:2]
    want = summarize(maps)
    for convert in (jnp.asarray, lambda x: x.astype(">f4"), lambda x: x.astype(np.float64), lambda x: x.tolist()):
        got = oodjax.summarize([convert(m) for m in maps], powers=np.int64(10))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)  # compiled apart, so summed in another order
