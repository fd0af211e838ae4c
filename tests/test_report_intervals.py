"""Intervals over images: against a brute-force bootstrap, and by how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import norm

from oodjax import metrics
from oodjax.report.intervals import auroc_interval, difference_interval, fpr_interval, threshold


def bootstrapped(statistic, inside, sets, replicates=800):
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
    # a third of the standard error: what 800 replicates leave (0.003), and the curvature of the logit (0.004)
    np.testing.assert_allclose(found, bootstrapped(metrics.auroc, inside, sets), atol=0.008)


def test_a_difference_of_detectors_is_paired_by_image():
    rng = np.random.default_rng(4)
    images, others = rng.normal(1, 1, 300), [rng.normal(0, 1, 200), rng.normal(0.4, 1, 150)]
    seen = [(s + rng.normal(0, 0.3, len(s)), s + rng.normal(0, 0.3, len(s))) for s in (images, *others)]
    found = difference_interval(seen[0], seen[1:])
    values = []
    for _ in range(800):
        drawn = [rng.integers(len(s), size=len(s)) for s in (images, *others)]
        first, second = ([pair[i][at] for pair, at in zip(seen, drawn, strict=True)] for i in (0, 1))
        means = [np.mean([metrics.auroc(s[0], outside) for outside in s[1:]]) for s in (first, second)]
        values.append(means[0] - means[1])
    np.testing.assert_allclose(found, np.quantile(values, [0.025, 0.975]), atol=0.003)  # a third of the error, 0.009
    alone = np.subtract(*auroc_interval(seen[0][0], [s[0] for s in seen[1:]]))
    assert found[1] - found[0] < -0.6 * alone


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
