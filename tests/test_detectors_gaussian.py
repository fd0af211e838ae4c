"""Mahalanobis distances where training is small, collinear or far off, against pseudo-inverses in float64."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import oodjax
from oodjax import detectors, moments

CLASSES = 5


def problem(n: int, d: int, *, offset: float = 0.0, scale: float = 1.0, rank: int | None = None, seed: int = 0):
    """Training and test rows, correlated, rectified unless they lie off the origin; the labels of training."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(rank or d, d)) * np.exp(-3 * np.arange(rank or d) / d)[:, None] / np.sqrt(rank or d)
    centers = 0.5 * rng.normal(size=(CLASSES, rank or d))

    def draw(rows):
        labels = np.arange(rows) % CLASSES
        h = (centers[labels] + rng.normal(size=(rows, rank or d))) @ mix
        h = h + offset if offset or rank else np.maximum(h, 0)
        return (scale * h).astype(np.float32), labels.astype(np.int32)

    (train, labels), (test, _) = draw(n), draw(60)
    test[30:] = scale * (rng.normal(size=(30, d)) + offset).astype(np.float32)
    return train, labels, test


def collected(train, labels, **options) -> oodjax.TrainStatistics:
    d = train.shape[1]
    head = oodjax.Head(np.eye(d, CLASSES, dtype=np.float32), np.zeros(CLASSES, np.float32))
    logits = np.eye(CLASSES, dtype=np.float32)[labels]
    return oodjax.TrainStatistics.collect(oodjax.Outputs(logits, train, labels), head, check_head=False, **options)


def oracle(train, labels, test) -> dict[str, np.ndarray]:
    """Both scores in float64 with the inverses of all directions above the cut-off."""
    head = oodjax.Head(np.zeros((train.shape[1], CLASSES)), np.zeros(CLASSES))
    fit, tests = (oodjax.Outputs(np.zeros((len(h), CLASSES)), h, y) for h, y in ((train, labels), (test, None)))
    p = oracles.Problem(fit, fit, tests, head)
    return {"mds": oracles.mds(p), "rmds": oracles.rmds(p)}


def assert_share_of_std(got, want, share: float):
    assert np.abs(np.asarray(got, np.float64) - want).max() <= share * want.std() + 1e-6 * np.abs(want).max()


def queries(test) -> oodjax.Outputs:
    return oodjax.Outputs(np.zeros((len(test), CLASSES), np.float32), test)


SIZES = [(1, 24), (2, 24), (8, 40), (30, 40), (60, 300), (600, 300), (600, 24)]


@pytest.mark.parametrize(("n", "d"), [*SIZES, pytest.param(600, 2048, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mds", "rmds"])
def test_few_samples_agree_with_float64(name, n, d):
    train, labels, test = problem(n, d)
    det = detectors.create(name).fit(collected(train, labels))
    # rmds is a difference of two sums of up to D squares, 1e4 large, each rounded at some 1e-7 of itself
    share = {"mds": 2e-5, "rmds": 1e-4}[name]
    assert_share_of_std(det.score(queries(test)), oracle(train, labels, test)[name], share)


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1e-6), (0.0, 1e6), (100.0, 1.0), (1e3, 1e3)])
@pytest.mark.parametrize("name", ["mds", "rmds"])
def test_offsets_and_scales_change_nothing_else(name, offset, scale):
    train, labels, test = problem(60, 100, offset=offset, scale=scale)
    det = detectors.create(name).fit(collected(train, labels))
    assert_share_of_std(det.score(queries(test)), oracle(train, labels, test)[name], 1e-4)


@pytest.mark.parametrize("name", ["mds", "rmds"])
def test_collinear_features_leave_out_the_rounding_of_their_own(name):
    """Forty features of rank 12: float32 leaves variances of 1e-14 in the other directions, which count as none."""
    train, labels, test = problem(200, 40, rank=12)
    det = detectors.create(name).fit(collected(train, labels))
    assert int((np.abs(np.asarray(det.params["within"])).max(axis=0) > 0).sum()) == 12
    assert_share_of_std(det.score(queries(test)), oracle(train, labels, test)[name], 1e-4)


@pytest.mark.parametrize("name", ["mds", "rmds"])
def test_classes_far_apart_do_not_cancel(name):
    """A thousand deviations between classes: products of 1e6 would leave a tenth of a distance of 40."""
    train, labels, test = problem(400, 40)
    shift = 1e3 * np.random.default_rng(3).normal(size=(CLASSES, 40)) / np.sqrt(40)
    train = (train + shift[labels]).astype(np.float32)
    test = (test + shift[np.arange(60) % CLASSES]).astype(np.float32)
    det = detectors.create(name).fit(collected(train, labels))
    assert_share_of_std(det.score(queries(test)), oracle(train, labels, test)[name], 1e-3)


def test_rows_decide_only_where_all_are_kept_and_few_enough(monkeypatch):
    train, labels, _ = problem(600, 24)
    rows = collected(train, labels)
    sums = collected(train, labels, bank_fraction=0.9)
    assert rows.from_rows and not sums.from_rows and rows.cutoff < sums.cutoff
    np.testing.assert_allclose(sums.within_covariance, rows.within_covariance, atol=5e-6 * rows.within_covariance.max())
    monkeypatch.setattr(moments, "PRODUCTS", 600 * 24**2 - 1)
    assert not collected(train, labels).from_rows
    monkeypatch.setattr(moments, "PRODUCTS", 600 * 24**2)
    assert collected(train, labels).from_rows


def test_blocks_of_rows_add_up(monkeypatch):
    train, labels, _ = problem(50, 8)
    want = collected(train, labels)
    monkeypatch.setattr(moments, "BLOCK", 7)
    got = collected(train, labels)
    for name in ("total_covariance", "within_covariance"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=0, atol=1e-15)
    h = train.astype(np.float64)
    np.testing.assert_allclose(got.total_covariance, np.cov(h.T, bias=True), rtol=0, atol=1e-15)


def test_a_merge_takes_its_moments_from_all_rows():
    train, labels, _ = problem(60, 100)
    whole = collected(train, labels)
    merged = collected(train[:25], labels[:25]).merge(collected(train[25:], labels[25:]))
    np.testing.assert_allclose(merged.within_covariance, whole.within_covariance, rtol=0, atol=1e-15)
