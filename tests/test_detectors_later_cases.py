"""Where numbers are hard for the later detectors, what they choose by themselves, and what they refuse."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import oracles
import oracles_later
import pytest

import oodjax
from oodjax import detectors
from oodjax.detectors.later.classification import TRANSLATION, fit_weibull


def with_training(p: oracles.Problem, **changes) -> tuple[oracles.Problem, oodjax.TrainStatistics]:
    p = dataclasses.replace(p, train=p.train.replace(**changes))
    return p, oodjax.TrainStatistics.collect(p.train, p.head, check_head=False)


def agrees(name: str, p: oracles.Problem, stats: oodjax.TrainStatistics, rtol=1e-5, **options) -> None:
    got = np.asarray(detectors.create(name, **options).fit(stats).score(p.test), np.float64)
    want = np.array(oracles_later.ORACLES[name](p, **options))
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max(), err_msg=f"{name} {options}")


# ---------------------------------------------------------------------------------------------------------------------
# Few, collinear and missing


@pytest.mark.parametrize("n", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_fewer_samples_than_features_agree_with_float64(n):
    p = oracles.make(d=40, signed=True, seed=5)
    p = dataclasses.replace(p, train=p.train[:n])
    stats = oodjax.TrainStatistics.collect(p.train, p.head)
    agrees("mdspp", p, stats)
    agrees("mdspp", p, stats, rtol=2e-5, relative=True)
    agrees("gmm", p, stats)
    agrees("residual", p, stats, dim=n // 2)
    agrees("residual", p, stats, dim=n)  # all that training never uses
    agrees("neco", p, stats, dim=n // 2)


def test_a_class_without_correct_or_any_samples_is_counted_as_the_docstrings_say():
    p = oracles.problem()
    labels = np.where(np.asarray(p.train.labels) == 3, 2, p.train.labels)
    p, stats = with_training(p, labels=labels)
    for name in ("openmax", "gmm", "mdspp", "cadref"):
        agrees(name, p, stats, rtol=2e-5)
    low = np.where(np.arange(oracles.CLASSES) == 3, -1e4, 0).astype(np.float32)  # and never predicted
    p = dataclasses.replace(p, head=oodjax.Head(p.head.kernel, p.head.bias + low))
    p, stats = with_training(p, logits=p.train.logits + low[None])
    agrees("openmax", p, stats, rtol=2e-5)
    agrees("cadref", p, stats, decoupled=False)


@pytest.mark.slow
def test_dead_units_and_zero_rows():
    p = oracles.problem()
    h, x = np.copy(p.train.features), np.copy(p.test.features)
    h[:, ::3], h[::5], x[3] = 0, 0, 0  # tests have length where training has none
    kernel, bias = (np.asarray(v) for v in (p.head.kernel, p.head.bias))
    p = dataclasses.replace(p, test=p.test.replace(features=x, logits=x @ kernel + bias))
    p, stats = with_training(p, features=h, logits=h @ kernel + bias)
    for name, options in (
        ("neco", {"dim": 5}),
        ("nci", {"alpha": 0.1}),
        ("lts", {"percentile": 65}),
        ("mdspp", {}),
        ("vra", {"low": 60, "high": 95}),
        ("cadref", {"decoupled": False}),
    ):
        agrees(name, p, stats, **options)
    relation = detectors.create("relation", fraction=1.0).fit(stats).score(p.test)
    np.testing.assert_allclose(relation, oracles_later.relation(p, np.arange(oracles.TRAIN)), rtol=1e-5)
    assert relation[3] == 0


def test_confidence_that_is_not_positive_is_a_hundredth_of_the_usual():
    """Of energies, which an offset of the logits moves below 0."""
    p = oracles.problem()
    for offset in (-4.0, -60.0):
        shifted = dataclasses.replace(
            p,
            head=oodjax.Head(p.head.kernel, p.head.bias + np.float32(offset)),
            test=p.test.replace(logits=p.test.logits + np.float32(offset)),
        )
        shifted, stats = with_training(shifted, logits=p.train.logits + np.float32(offset))
        agrees("cadref", shifted, stats)


@pytest.mark.parametrize("scale", [1e-6, 1e8, 1e12])
def test_logits_of_any_size(scale):
    p = oracles.make(scale=scale, seed=3)
    stats = oodjax.TrainStatistics.collect(p.train, p.head)
    agrees("lts", p, stats, percentile=65)
    agrees("nci", p, stats, alpha=0.1)
    agrees("vra", p, stats)
    agrees("cadref", p, stats)


# ---------------------------------------------------------------------------------------------------------------------
# OpenMax's tails


def distribution(fit: dict, distances: np.ndarray) -> np.ndarray:
    reached = np.log1p((distances - fit["location"]) / fit["scale"])
    return 1 - np.exp(-np.exp(fit["shape"] * reached))


def test_a_weibull_tail_is_found_again():
    rng = np.random.default_rng(0)
    shape, scale = 4e4, TRANSLATION + 3
    tails = scale * rng.weibull(shape, size=(2, 20_000)) - TRANSLATION
    fit = fit_weibull(tails, np.ones_like(tails, bool))
    np.testing.assert_allclose(fit["shape"], shape, rtol=0.03)  # 1 / sqrt(20,000), four times
    at = np.quantile(tails[0], [0.1, 0.5, 0.9])
    np.testing.assert_allclose(distribution({k: v[0] for k, v in fit.items()}, at), [0.1, 0.5, 0.9], atol=0.015)


@pytest.mark.parametrize("value", [0.0, 1e-3, 5.0, 1e6])
def test_a_tail_of_one_distance_is_a_step(value):
    fit = fit_weibull(np.array([[value, value, 0.0]]), np.array([[True, True, False]]))
    width = 1e-4 * max(value, 1e-3)
    low, high = distribution({k: v[0] for k, v in fit.items()}, value + np.array([-width, width]))
    assert low < 1e-3 and high > 1 - 1e-3 and all(np.isfinite(v).all() for v in fit.values())


# ---------------------------------------------------------------------------------------------------------------------
# What is chosen and what is refused


def test_necos_default_explains_nine_tenths_of_the_variance():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    p = oracles.problem()
    scaler = StandardScaler().fit(np.float64(p.train.features))
    axes = PCA(n_components=0.9, svd_solver="full").fit(scaler.transform(np.float64(p.train.features))).components_
    fitted = detectors.create("neco").fit(oracles.stats())
    assert np.count_nonzero(np.abs(fitted.params["basis"]).sum(axis=0)) == len(axes) < oracles.FEATURES
    standard = scaler.transform(np.float64(p.test.features))
    want = np.linalg.norm(standard @ axes.T, axis=1) / np.linalg.norm(standard, axis=1)
    np.testing.assert_allclose(fitted.score(p.test), want, rtol=1e-5)


@pytest.mark.parametrize(("n", "d", "dim"), [(240, 24, 12), (8, 24, 4), (240, 1, 0), (14, 24, 12)])
def test_residuals_default_is_vims_within_the_rank(n, d, dim):
    p = oracles.make(d=d, signed=True, seed=1)
    stats = oodjax.TrainStatistics.collect(p.train[:n], p.head)
    assert detectors.create("residual").fit(stats).options == {"dim": dim}


@pytest.mark.slow
def test_the_bank_in_blocks_is_the_bank(monkeypatch):
    p, stats = oracles.problem(), dataclasses.replace(oracles.stats())
    whole = {name: detectors.create(name).fit(stats).score(p.test) for name in ("relation", "openmax", "cadref")}
    for module in ("graph", "rows"):
        monkeypatch.setattr(f"oodjax.detectors.later.{module}.BLOCK", 70)
    jax.clear_caches()
    stats = dataclasses.replace(oracles.stats())
    for name, want in whole.items():
        np.testing.assert_allclose(detectors.create(name).fit(stats).score(p.test), want, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_share_of_the_bank_is_enough():
    """Fitted to the rows that were kept: the same as statistics of those rows give, but for what sums tell of all."""
    p = oracles.problem()
    some = oodjax.TrainStatistics.collect(p.train, p.head, bank_fraction=0.5)
    kept = np.flatnonzero((np.asarray(p.train.features)[:, None] == np.asarray(some.features)[None]).all(-1).any(1))
    assert 80 < len(kept) < 160
    rows = oodjax.TrainStatistics.collect(p.train[kept], p.head)
    for name in ("mdspp", "cadref"):
        got, want = (detectors.create(name).fit(s).score(p.test) for s in (some, rows))
        np.testing.assert_allclose(got, want, rtol=1e-4)
    assert detectors.create("relation").fit(some).options == {"power": 1, "fraction": 0.5}
    for name in detectors.names()[21:]:
        assert np.isfinite(detectors.create(name).fit(some).score(p.test)).all(), name


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("residual", {"dim": 24}, "residual: dim 24 leaves none of the 24 features"),
        ("neco", {"dim": 24}, "neco: dim 24 keeps all of the 24 features"),
        ("vra", {"low": 95, "high": 90}, "vra: low 95 exceeds high 90"),
        ("lts", {"percentile": 99}, "lts: percentile 99 keeps none of the 24 features"),
    ],
)
def test_what_the_problem_cannot_carry_is_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        detectors.create(name, **options).fit(oracles.stats())


def test_training_of_a_lower_rank_or_without_a_bank_is_refused_in_a_sentence():
    p = oracles.make(signed=True, seed=1)
    few = oodjax.TrainStatistics.collect(p.train[:8], p.head)
    for name, rank in (("residual", 8), ("neco", 7)):
        with pytest.raises(ValueError, match=f"{name}: dim 9 exceeds training's rank {rank}"):
            detectors.create(name, dim=9).fit(few)
    none = oodjax.TrainStatistics.collect(p.train[:2], p.head, bank_fraction=1e-9)
    for name in ("openmax", "mdspp", "cadref", "relation"):
        with pytest.raises(ValueError, match=rf"{name}: .*the bank's 0 features .*: raise bank_fraction"):
            detectors.create(name, **({"fraction": 1e-9} if name == "relation" else {})).fit(none)
    with pytest.raises(ValueError, match=r"relation: fraction 1\.0 exceeds the bank_fraction 1e-09"):
        detectors.create("relation", fraction=1.0).fit(none)


def test_openmax_revises_no_more_logits_than_there_are():
    fitted = detectors.create("openmax", alpha=50).fit(oracles.stats())
    assert fitted.options == {"alpha": oracles.CLASSES, "tail": 20}


def test_search_spaces_leave_out_what_a_problem_of_24_features_cannot_carry():
    points, notes = detectors.search_space("neco", oracles.stats())
    assert [point.options["dim"] for point in points] == [None, 16, None, 16] and len(notes) == 12
    points, notes = detectors.search_space("openmax", oracles.stats())
    assert {point.options["alpha"] for point in points} == {3, 5} and len(notes) == 3
    for name in ("nci", "vra", "lts", "cadref", "relation", "mdspp", "entropy", "gmm", "residual"):
        points, notes = detectors.search_space(name, oracles.stats())
        assert len(points) == len(detectors.grid(name)) and notes == [], name
