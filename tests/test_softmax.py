"""Probabilities in the forms that keep their digits, against float64 and by their order."""

from __future__ import annotations

import jax
import numpy as np
import oracles
import pytest

from oodjax.softmax import confidence, energy, log_against_uniform, log_softmax

SCALES = (1e-6, 1e-3, 1.0, 30.0, 1e3, 1e9, 1e12, 1e30)


def logits(scale: float, classes: int = 7) -> np.ndarray:
    return (scale * np.random.default_rng(0).normal(size=(50, classes))).astype(np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("classes", [2, 7, 1000])
def test_confidence_agrees_with_float64_from_the_flattest_to_the_sharpest(scale, classes):
    z = logits(scale, classes)
    want = [oracles.confidence(row) for row in z.astype(np.float64)]
    if scale < 1e-2:  # there the oracle's own logarithms cancel: mean of the others' gaps, to second order
        gaps = np.sort(z.astype(np.float64).max(axis=1, keepdims=True) - z, axis=1)[:, 1:]
        want = -np.log1p(np.expm1(-gaps).mean(axis=1))
    # some roundings of 6e-8 of the sum, of which large gaps keep the share
    np.testing.assert_allclose(jax.jit(confidence)(z), want, rtol=2e-6, atol=0)


def test_confidence_is_zero_for_equal_and_for_single_classes():
    np.testing.assert_array_equal(confidence(np.full((2, 5), 3.0, np.float32)), [0, 0])
    np.testing.assert_array_equal(confidence(np.array([[-4.0], [1e9]], np.float32)), [0, 0])


@pytest.mark.parametrize("temperature", [1e-3, 0.3, 1000.0])
def test_the_temperature_divides_the_logits(temperature):
    z = logits(10.0)
    want = [oracles.confidence(row / temperature) for row in z.astype(np.float64)]
    np.testing.assert_allclose(jax.jit(confidence)(z, temperature), want, rtol=5e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_energy_is_finite_and_agrees(scale):
    z = logits(scale)
    want = [oracles.lse(row) for row in z.astype(np.float64)]
    np.testing.assert_allclose(jax.jit(energy)(z), want, rtol=5e-7)


@pytest.mark.parametrize("scale", SCALES)
def test_log_probabilities_keep_the_digits_of_a_certain_class(scale):
    z = logits(scale)
    exact = z.astype(np.float64)
    top = exact.max(axis=1, keepdims=True)
    rest = np.where(exact == top, 0, np.exp(exact - top)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(log_softmax(z), exact - top - np.log1p(rest), rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("scale", SCALES)
def test_log_against_uniform_keeps_the_digits_of_a_flat_distribution(scale):
    z = logits(scale)
    exact = z.astype(np.float64)
    gaps = exact - exact.max(axis=1, keepdims=True)
    want = gaps - np.log1p(np.expm1(gaps).mean(axis=1, keepdims=True))
    # a gap next to the mean of all cancels: roundings belong to the largest
    np.testing.assert_allclose(log_against_uniform(z), want, rtol=2e-6, atol=3e-7 * np.abs(want).max())
