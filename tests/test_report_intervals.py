"""Intervals over images: against a brute-force bootstrap, and by how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import norm

from oodjax import metrics
from oodjax.report.intervals import auroc_interval, fpr_interval, threshold


def bootstrapped(statistic, inside, sets, replicates=1500):
    rng = np.random.default_rng(5)
    values = []
    for _ in range(replicates):
        drawn = inside[rng.integers(len(inside), size=len(inside))]
        values.append(np.mean([statistic(drawn, s[rng.integers(len(s), size=len(s))]) for s in sets]))
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
@pytest.mark.parametrize("count", [1, 3], ids=["one set", "mean of three"])
def test_auroc_intervals_are_those_of_a_bootstrap_over_images(digits, count):
    rng = np.random.default_rng(digits + count)
    inside = rng.normal(1.2, 1, 300).round(digits)
    sets = [rng.normal(0.3 * k, 1, 150 + 40 * k).round(digits) for k in range(count)]
    found = auroc_interval(inside, sets)
    # a third of the standard error: what 1500 replicates leave (0.002), and the curvature of the logit (0.004)
    np.testing.assert_allclose(found, bootstrapped(metrics.auroc, inside, sets), atol=0.008)


def test_auroc_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    truth, held = norm.cdf(1.5 / np.sqrt(2)), []
    for _ in range(1000):
        low, high = auroc_interval(rng.normal(1.5, 1, 120), [rng.normal(0, 1, 80)])
        held.append(low <= truth <= high)
    assert 0.93 <= np.mean(held) <= 0.97  # 95 % and three standard errors


def test_a_perfect_detector_has_no_interval_below_one():
    assert auroc_interval(np.array([3.0, 4, 5]), [np.array([0.0, 1])]) == (1, 1)


def test_fpr_intervals_are_those_of_a_bootstrap_over_images():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(2, 1, 400), rng.normal(0, 1, 250)
    found = fpr_interval(inside, outside, np.random.default_rng(0), replicates=4000)
    np.testing.assert_allclose(found, bootstrapped(metrics.fpr95_id, inside, [outside]), atol=0.012)


@pytest.mark.parametrize("digits", [0, 9], ids=["ties", "no ties"])
def test_at_the_threshold_the_rates_are_those_of_the_tables(digits):
    rng = np.random.default_rng(2)
    inside, outside = rng.normal(2, 2, 333).round(digits), rng.normal(0, 2, 222).round(digits)
    at = threshold(inside)
    assert np.mean(inside >= at) >= 0.95 > np.mean(inside > at)
    assert np.mean(outside >= at) == metrics.fpr95_id(inside, outside)
