"""`calibrate`, `predict`, `p_value`: against counting in plain Python, and what they promise against simulation."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats as scipy_stats

import oodjax
from oodjax import detectors
from oodjax.detectors.calibration import Reference, order

SAMPLES = 60


def outputs_scored(scores) -> oodjax.Outputs:
    """Outputs to which `mls` gives these scores."""
    scores = np.asarray(scores, np.float32)
    return oodjax.Outputs(np.stack([scores, scores - 1], axis=1), np.ones((len(scores), 2), np.float32))


def calibrated(scores, tpr=0.95) -> detectors.Detector:
    return detectors.create("mls").calibrate(outputs_scored(scores), tpr=tpr)


def naive(calibration, tpr: str, scores):
    """Threshold, verdicts and p-values by counting; `tpr` as a decimal text, so that no rounding hides here."""
    n, alpha = len(calibration), 1 - Fraction(tpr)
    # The largest score such that at most alpha of the n + 1 lie below it, were the new one among them.
    allowed = [c for c in calibration if Fraction(sum(o < c for o in calibration) + 1, n + 1) <= alpha]
    ranks = sorted(calibration)
    k = max(k for k in range(1, n + 1) if Fraction(k, n + 1) <= alpha)
    assert max(allowed) >= ranks[k - 1]
    p = [Fraction(1 + sum(c <= s for c in calibration), n + 1) for s in scores]
    return ranks[k - 1], [s >= ranks[k - 1] for s in scores], p


@pytest.mark.parametrize("tpr", ["0.95", "0.9", "0.8", "0.5", "0.05"])
@pytest.mark.parametrize("ties", [False, True])
def test_threshold_verdicts_and_p_values_are_those_of_counting(tpr, ties):
    rng = np.random.default_rng(3)
    draw = (lambda n: rng.integers(0, 6, n)) if ties else (lambda n: rng.normal(size=n).round(3))
    for n in (19, 20, 59, 99):
        known, new = draw(n).astype(np.float32), draw(40).astype(np.float32)
        new = np.concatenate([new, known[:10]])
        det = calibrated(known, float(tpr))
        threshold, verdicts, p = naive(known.tolist(), tpr, new.tolist())
        assert det.calibration.threshold == threshold
        np.testing.assert_array_equal(det.predict(outputs_scored(new)), verdicts)
        np.testing.assert_allclose(det.p_value(outputs_scored(new)), [float(v) for v in p], rtol=1e-6)
        np.testing.assert_array_equal(verdicts, [v > 1 - Fraction(tpr) for v in p])


def test_decimal_shares_are_not_rounded():
    """10 x (1 - 0.9) is below 1 in floating point."""
    assert [order(9, 0.9), order(19, 0.95), order(99, 0.99), order(999, 0.999)] == [1, 1, 1, 1]
    assert [order(8, 0.9), order(18, 0.95), order(98, 0.99)] == [0, 0, 0]


def test_the_share_asked_for_moves_the_threshold():
    scores = np.arange(1, 100)
    assert [calibrated(scores, t).calibration.threshold for t in (0.99, 0.95, 0.9, 0.5)] == [1, 5, 10, 50]
    assert [int(calibrated(scores, t).predict(outputs_scored(scores)).sum()) for t in (0.95, 0.5)] == [95, 50]


@pytest.mark.parametrize("ties", [False, True])
def test_new_samples_are_accepted_as_often_as_promised(ties):
    """Over many draws of the calibration set: marginal coverage, and the false alarms' distribution."""
    rng, draws, n, tpr = np.random.default_rng(0), 4000, 39, 0.9
    known = rng.integers(0, 4, (draws, n)) if ties else rng.uniform(size=(draws, n))
    new = rng.integers(0, 4, (draws, 1)) if ties else rng.uniform(size=(draws, 1))

    def verdict(known, new):
        reference = Reference(jnp.sort(known), tpr)
        return reference.accept(new), reference.p_values(new), reference.threshold

    known, new = (jnp.asarray(x, jnp.float32) for x in (known, new))
    accepted, p, thresholds = (np.asarray(x).ravel() for x in jax.jit(jax.vmap(verdict))(known, new))
    slack = 4 * np.sqrt(tpr * (1 - tpr) / draws)  # four standard errors
    assert accepted.mean() >= tpr - slack
    for a in (0.025, 0.1, 0.3, 0.5, 0.9):
        assert (p <= a + 1e-6).mean() <= a + 4 * np.sqrt(a * (1 - a) / draws)
    if ties:
        return
    assert abs(accepted.mean() - tpr) <= slack
    assert scipy_stats.kstest(p - rng.uniform(size=draws) / (n + 1), "uniform").pvalue > 1e-3
    # For uniform scores the threshold is the false-alarm rate itself.
    record = calibrated(np.arange(n), tpr).calibration
    inside = (thresholds >= record.interval[0]) & (thresholds <= record.interval[1])
    assert abs(inside.mean() - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / draws)
    assert abs(thresholds.mean() - record.false_alarm_rate) <= 4 * thresholds.std() / np.sqrt(draws)


def test_the_record_says_what_is_promised():
    record = calibrated(np.arange(100), 0.95).calibration
    assert (record.n, record.tpr, record.threshold, record.false_alarm_rate) == (100, 0.95, 4.0, 5 / 101)
    np.testing.assert_allclose(record.interval, scipy_stats.beta(5, 96).ppf([0.025, 0.975]), rtol=1e-10)


def test_calibrate_returns_a_copy_that_scores_the_same():
    p = oracles.problem()
    fitted = detectors.create("vim").fit(oracles.stats())
    det = fitted.calibrate(p.val)
    assert fitted.reference is None and det.reference is not None
    np.testing.assert_array_equal(det.score(p.test), fitted.score(p.test))
    np.testing.assert_array_equal(det.reference.scores, np.sort(fitted.score(p.val)))
    assert det != fitted and det == fitted.calibrate(p.val) and det != fitted.calibrate(p.val, tpr=0.9)
    assert repr(det).endswith("features, calibrated on 60 samples to accept 0.95")
    assert det.fit(oracles.stats("signed")).reference is None  # another fit, other scores


def test_verdicts_go_through_jit_and_vmap():
    p = oracles.problem()
    det = detectors.create("mds").fit(oracles.stats()).calibrate(p.val)

    @jax.jit
    def both(det, outputs):
        return det.predict(outputs), det.p_value(outputs), det.score(outputs)

    accepted, p_values, scores = (np.asarray(x) for x in both(det, p.test))
    threshold, verdicts, expected = naive(np.asarray(det.reference.scores).tolist(), "0.95", scores.tolist())
    np.testing.assert_array_equal(accepted, verdicts)
    assert 0 < accepted.sum() < len(accepted)
    np.testing.assert_allclose(p_values, [float(v) for v in expected], rtol=1e-6)
    halves = jax.tree.map(lambda x: jnp.reshape(jnp.asarray(x), (2, -1, *x.shape[1:])), p.test.only(det.needs))
    mapped = jax.vmap(lambda outputs: det.predict(outputs))(halves)
    np.testing.assert_array_equal(np.ravel(mapped), det.predict(p.test))


def test_a_score_that_is_no_number_has_no_p_value():
    reference = Reference(jnp.arange(5, dtype=jnp.float32), 0.5)
    scores = jnp.asarray([jnp.nan, 9.0], jnp.float32)
    assert np.isnan(reference.p_values(scores)).tolist() == [True, False]
    assert np.asarray(reference.accept(scores)).tolist() == [False, True]


def a_few(n=40, **changes):
    out = outputs_scored(np.arange(n))
    return out.replace(**changes) if changes else out


def with_nan():
    logits = np.array(a_few().logits)
    logits[3] = np.nan
    return a_few(logits=logits)


FAULTS = {
    "not fitted": (lambda: detectors.create("mds").predict(a_few()), ValueError, "mds is not fitted"),
    "calibrated before fit": (lambda: detectors.create("mds").calibrate(a_few()), ValueError, "mds is not fitted"),
    "not calibrated": (lambda: detectors.create("mls").predict(a_few()), ValueError, "mls is not calibrated: call"),
    "no p-value": (lambda: detectors.create("mls").p_value(a_few()), ValueError, "mls is not calibrated: call"),
    "no record": (lambda: detectors.create("mls").calibration, ValueError, "mls is not calibrated: call"),
    "too few": (lambda: calibrated(range(18)), ValueError, "18 samples are too few .* 0.95: give at least 19"),
    "far too few": (lambda: calibrated(range(18), 0.999), ValueError, "give at least 999"),
    "share of one": (lambda: calibrated(range(30), 1.0), ValueError, "tpr must be a number between 0 and 1.*got 1.0"),
    "percent": (lambda: calibrated(range(30), 95), ValueError, "tpr must be a number between 0 and 1.*got 95"),
    "text": (lambda: calibrated(range(30), "0.95"), ValueError, "tpr must be a number"),
    "nan": (lambda: detectors.create("mls").calibrate(with_nan()), ValueError, "mls: Outputs.logits holds 2 values"),
    "arrays": (lambda: detectors.create("mls").calibrate(np.ones((3, 2))), TypeError, "takes oodjax.Outputs"),
    "ood": (
        lambda: detectors.create("mls").calibrate(a_few(labels=np.repeat([0, -1], 20))),
        ValueError,
        "takes in-distribution samples, got 20 with the label -1",
    ),
    "another width": (
        lambda: detectors.create("mds").fit(oracles.stats()).calibrate(oracles.problem().val).predict(a_few()),
        ValueError,
        r"features has shape \(n, 2\), in training it had \(n, 24\)",
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_is_said_in_a_sentence(call, kind, words):
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
