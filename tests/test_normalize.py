"""One function takes pixels to what a network expects, in training and in extraction."""

import jax.numpy as jnp
import numpy as np
import pytest

from oodjax.models.normalize import normalize, normalize_images

MEAN, STD = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.3, 0.2, 0.25], np.float32)


def test_pixels_by_hand():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    expected = (images / 255.0 - MEAN.astype(np.float64)) / STD.astype(np.float64)
    found = normalize_images(jnp.asarray(images), jnp.asarray(MEAN), jnp.asarray(STD))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    floats = jnp.asarray(images.astype(np.float32) / np.float32(255))
    scaled = normalize(floats, jnp.asarray(MEAN), jnp.asarray(STD))
    np.testing.assert_allclose(scaled, found, rtol=1e-6, atol=1e-6)  # XLA divides by 255 with an error of one ulp


@pytest.mark.parametrize("change", [{"mean": MEAN + 0.1}, {"std": STD * 2}])
def test_mean_and_std_change_the_result(change):
    images = jnp.full((1, 2, 2, 3), 200, jnp.uint8)
    arguments = {"mean": MEAN, "std": STD}
    plain = normalize_images(images, **{k: jnp.asarray(v) for k, v in arguments.items()})
    other = normalize_images(images, **{k: jnp.asarray(v) for k, v in {**arguments, **change}.items()})
    assert float(jnp.abs(plain - other).min()) > 0.1
