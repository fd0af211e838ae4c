"""Every detector and every option against the float64 oracles, on rectified, signed, sharp and flat problems."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache

import numpy as np
import oracles
import pytest

import oodjax
from oodjax import detectors

GRAM_POWERS = ((3,), (1, 3, 5), tuple(range(1, 11)))
OPTIONS: dict[str, list[dict]] = {
    "odin": [{"temperature": t, "noise": e} for t, e in itertools.product(oracles.TEMPERATURES, oracles.NOISES)],
    "gen": [{"gamma": g, "top_m": m} for g, m in itertools.product((0.01, 0.1, 0.5, 1, 2, 5, 10), (1, 3, 7, 100))],
    "knn": [{"k": k} for k in (1, 5, 50, oracles.TRAIN)],
    "vim": [{"dim": d} for d in (1, 12, 20, oracles.FEATURES)],
    "ash": [{"percentile": q} for q in (0, 65, 75, 80, 95)],
    "react": [{"percentile": q} for q in (70, 90, 99, 100)],
    "dice": [{"percentile": q} for q in (0, 10, 50, 90)],
    "scale": [{"percentile": q} for q in (0, 65, 75, 80, 95)],
    "nnguide": [{"k": k, "fraction": f} for k, f in ((1, 0.1), (10, 0.1), (10, 0.5), (240, 1.0))],
    "fdbd": [{"distance_as_normalizer": True}, {"distance_as_normalizer": False}],
    "gram": [{"divide_by_confidence": d, "powers": p} for d, p in itertools.product((True, False), GRAM_POWERS)],
    "ats": [{"tail": t} for t in ("two-sided", "left", "right")],
}
POINTS = [(name, options) for name in detectors.NAMES for options in OPTIONS.get(name, [{}])]


@cache
def fitted(variant: str) -> tuple[detectors.Detector, ...]:
    p, stats = oracles.problem(variant), oracles.stats(variant)
    return tuple(detectors.create(name, **options).fit(stats, validation=p.val) for name, options in POINTS)


@cache
def scored(variant: str) -> np.ndarray:
    """(n, points): all points in one compiled call as a study makes it, the same program for every variant."""
    return np.asarray(oracles.score_together(fitted(variant), oracles.problem(variant).test), np.float64)


def oracle(name: str, variant: str, options: dict) -> np.ndarray:
    p = oracles.problem(variant)
    if name == "nnguide":  # which rows are drawn is the statistics' affair; how many and what is done with them, ours
        chosen = oracles.stats(variant).bank_subset(round(options["fraction"] * oracles.TRAIN))
        return np.array(oracles.nnguide(p, chosen, options["k"]))
    return np.array(oracles.ORACLES[name](p, **options))


def tolerance(name: str, variant: str, options: dict, want: np.ndarray) -> tuple[float, float]:
    """(relative, absolute). The general 5e-6 is some hundred float32 roundings of 6e-8: sums over 24 units or 7
    classes and an exponential. Where a score is a difference, the error belongs to the terms, not to the score."""
    p, top = oracles.problem(variant), np.abs(want).max()
    if name == "gen":  # a power: gamma times the rounding of log p, itself that of logits up to 2e3
        return 5e-6 + options["gamma"] * 2e-7 * np.abs(p.test.logits).max(), 0.0
    if name == "rmds":  # the difference of two distances of up to 90
        return 0.0, 5e-6 * 90
    if name == "vim" and options["dim"] == 20:  # alpha, about 20, times a residual far below the feature's length
        return 0.0, 1e-4 * top
    if name == "klm":  # where all is flat, templates are sums of p whose float32 rounding is 1e-4 of p - 1 / K
        return 1e-5, (1e-4 if variant == "flat" else 1e-5) * top
    return 5e-6, 5e-6 * top


@pytest.mark.parametrize("variant", oracles.VARIANTS)
@pytest.mark.parametrize("name", detectors.NAMES)
def test_scores_agree(name, variant):
    for i, (other, options) in enumerate(POINTS):
        if other == name:
            want = oracle(name, variant, options)
            rtol, atol = tolerance(name, variant, options, want)
            np.testing.assert_allclose(scored(variant)[:, i], want, rtol=rtol, atol=atol, err_msg=f"{name} {options}")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_score(name):
    columns = {str(o): scored("rectified")[:, i] for i, (other, o) in enumerate(POINTS) if other == name}
    if name == "gen":  # 100 is capped at the 7 classes
        columns = {key: column for key, column in columns.items() if "'top_m': 100" not in key}
    for (a, x), (b, y) in itertools.combinations(columns.items(), 2):
        assert np.abs(x - y).max() > 1e-4 * min(np.abs(x).max(), np.abs(y).max()), f"{name}: {a} and {b} agree"


@pytest.mark.parametrize("name", detectors.NAMES)
def test_one_flat_call_equals_the_single_points(name):
    points = [(i, det) for i, det in enumerate(fitted("rectified")) if det.name == name]
    for i, det in (points[0], points[-1]):  # of the ends of the grid: every point would be a program of its own
        want = scored("rectified")[:, i]
        got = det.score(oracles.problem().test)  # float32 sums, perhaps in another order
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max(), err_msg=str(det.options))


def test_options_of_every_detector_are_exercised():
    for name in detectors.NAMES:
        exercised = set().union(*OPTIONS.get(name, [{}]))
        assert exercised | {"temperatures", "noises"} >= set(detectors.create(name).options), name


# ---------------------------------------------------------------------------------------------------------------------
# Confidence beyond float32


def fitted_to(name: str, train_logits: np.ndarray, **options) -> detectors.Detector:
    """A detector fitted to samples of these logits, two of each class, that it classifies correctly."""
    k = train_logits.shape[1]
    h = np.eye(k, dtype=np.float32)[np.argmax(train_logits, axis=1)]
    train = oodjax.Outputs(train_logits, h, np.argmax(train_logits, axis=1).astype(np.int32))
    head = oodjax.Head(np.eye(k, dtype=np.float32), np.zeros(k, np.float32))
    stats = oodjax.TrainStatistics.collect(train, head, check_head=False)
    return detectors.create(name, **options).fit(stats, validation=train)


def peaked(gaps, classes: int = 5) -> oodjax.Outputs:
    """Samples whose first logit stands that far above the others."""
    gaps = np.asarray(gaps, np.float32)
    logits = np.zeros((len(gaps), classes), np.float32)
    logits[:, 0] = gaps
    return oodjax.Outputs(logits, np.eye(classes, dtype=np.float32)[np.zeros(len(gaps), int)])


@pytest.mark.parametrize("name", ["msp", "tempscale", "klm", "entropy"])
def test_certain_samples_keep_their_order(name):
    gaps = np.array([1.0, 8, 14, 16, 18, 20, 24, 30, 60])
    det = fitted_to(name, 40 * np.eye(5, dtype=np.float32)[np.arange(10) % 5])
    assert (np.diff(det.score(peaked(gaps))) > 0).all()


@pytest.mark.parametrize(("gamma", "top_m"), [(0.1, 5), (0.5, 1), (2, 5), (10, 1), (10, 5)])
def test_gen_keeps_the_order_of_certain_samples_at_every_power(gamma, top_m):
    det = detectors.create("gen", gamma=gamma, top_m=top_m).fit(sized(20, 5, k=5))
    assert (np.diff(det.score(peaked([1.0, 4, 8, 8.01, 16, 30, 60, 300, 1e4, 1e6]))) > 0).all()


@pytest.mark.parametrize("name", ["msp", "tempscale", "klm", "gradnorm", "entropy"])
def test_flat_samples_keep_their_order(name):
    """Probabilities of 1 / K but for the seventh digit: the more the first class stands out, the more certain."""
    gaps = np.array([0.0, 1e-6, 2e-6, 4e-6, 1e-5, 1e-4, 1e-3])
    det = fitted_to(name, np.eye(5, dtype=np.float32)[np.arange(10) % 5])
    assert (np.diff(det.score(peaked(gaps))) > 0).all()


@pytest.mark.parametrize("gap", [0.0, 1.0, 20.0, 60.0, 80.0, 200.0])
def test_gen_with_extreme_confidence(gap):
    """p next to 1 (1 - p far below float32's epsilon) and p below float32's smallest number."""
    logits = np.array([[gap, 0, -1, -gap, 0.5, 0.5, -2 * gap]], np.float32)
    p = dataclasses.replace(oracles.problem(), test=oodjax.Outputs(logits, np.ones((1, oracles.FEATURES), np.float32)))
    points = [(g, m) for g in (0.01, 0.1, 0.5, 1) for m in (1, 3, 7)]
    fitted = tuple(detectors.create("gen", gamma=g, top_m=m).fit(oracles.stats()) for g, m in points)
    got = np.asarray(oracles.score_together(fitted, p.test), np.float64)[0]
    want = np.array([oracles.gen(p, gamma=g, top_m=m)[0] for g, m in points])
    # logits of up to 400 are exact to 3e-5, and so is the logarithm of p
    np.testing.assert_allclose(got, want, rtol=5e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e9, 1e12])
@pytest.mark.parametrize("name", ["ats", "tempscale", "msp", "ebo"])
def test_logits_of_any_size(name, scale):
    """A quotient of 1e12 rounded twice differs by more than an exponential bears."""
    p = oracles.make(scale=scale)
    det = detectors.create(name).fit(oodjax.TrainStatistics.collect(p.train, p.head), validation=p.val)
    want = np.array(oracles.ORACLES[name](p))
    # the fitted temperature of tempscale carries some roundings more
    np.testing.assert_allclose(det.score(p.test), want, rtol=2e-5, atol=5e-6 * np.abs(want).max())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_fitted_temperature_follows_the_logits(scale):
    p = oracles.make()
    val = p.val.replace(logits=(scale * p.val.logits).astype(np.float32))
    det = detectors.create("tempscale").fit(oracles.stats(), validation=val)
    want = oracles.best_temperature(oracles.f64(p.val.logits), p.val.labels)
    assert float(det.params["temperature"]) == pytest.approx(scale * want, rel=1e-5)


def test_klm_with_underflowing_probabilities():
    logits = np.array([[300.0, 0, -1, -300, 0, 0, 0], [0, 0, 0, 0, 0, 0, 300]], np.float32)
    test = oodjax.Outputs(logits, np.ones((2, oracles.FEATURES), np.float32))
    p = dataclasses.replace(oracles.problem("sharp"), test=test)
    got = detectors.create("klm").fit(oracles.stats("sharp")).score(test)
    np.testing.assert_allclose(got, oracles.klm(p), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("zeros", [0, 1, 7, 30])
def test_zero_features_lie_at_their_true_distance(zeros, signed):
    """In training and in tests, with every k: products of 0 rank them with rows at right angles."""
    p = oracles.make(signed=signed, seed=6)
    h, x = np.copy(p.train.features[:30]), np.copy(p.test.features)
    h[:zeros] = 0
    h[zeros : zeros + 3, ::2], x[:3, 1::2] = 0, 0  # at right angles to one another
    x[3] = 0
    train = p.train[:30].replace(features=h)
    p = dataclasses.replace(p, train=train, test=p.test.replace(features=x))
    stats = oodjax.TrainStatistics.collect(train, p.head, check_head=False)
    points = [detectors.create("knn", k=k).fit(stats) for k in range(1, 31)]
    got = np.asarray(oracles.score_together(points, p.test))
    for k in range(1, 31):
        np.testing.assert_allclose(got[:, k - 1], oracles.knn(p, k), rtol=1e-5, atol=1e-6, err_msg=str(k))


def test_zero_features_guide_nothing():
    """NNGuide's neighbours are inner products, which an all-zero feature has none of."""
    p = oracles.make(signed=True, seed=6)
    h, x = np.copy(p.train.features[:30]), np.copy(p.test.features)
    h[:7], x[3] = 0, 0
    train = p.train[:30].replace(features=h)
    p = dataclasses.replace(p, train=train, test=p.test.replace(features=x))
    stats = oodjax.TrainStatistics.collect(train, p.head, check_head=False)
    for k in (1, 10, 25, 30):
        got = detectors.create("nnguide", k=k, fraction=1.0).fit(stats).score(p.test)
        want = np.array(oracles.nnguide(p, np.arange(30), k))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=5e-6 * np.abs(want).max(), err_msg=str(k))


# ---------------------------------------------------------------------------------------------------------------------
# The study's grids, defaults and what a problem cannot carry


def percentiles(*values):
    return [{"percentile": q} for q in values]


SHAPING = percentiles(65, 70, 75, 80, 85, 90, 95)
GRIDS = {
    "odin": [{"temperature": t, "noise": e} for t in (1, 10, 100, 1000) for e in (0.0014, 0.0028)],
    "gen": [{"gamma": g, "top_m": m} for g in (0.01, 0.1, 0.5, 1, 2, 5, 10) for m in (10, 50, 100, 200, 500, 1000)],
    "knn": [{"k": k} for k in (50, 100, 200, 500, 1000)],
    "ash": SHAPING,
    "react": percentiles(70, 80, 85, 90, 95, 99),
    "dice": percentiles(10, 30, 50, 70, 90),
    "scale": SHAPING,
    "fdbd": [{"distance_as_normalizer": True}, {"distance_as_normalizer": False}],
}
DEFAULTS = {
    "odin": {"temperature": 1000, "noise": 0.0014, "temperatures": (1, 10, 100, 1000), "noises": (0.0014, 0.0028)},
    "gen": {"gamma": 0.1, "top_m": 100},
    "ash": {"percentile": 90},
    "react": {"percentile": 90},
    "dice": {"percentile": 90},
    "scale": {"percentile": 85},
    "fdbd": {"distance_as_normalizer": True},
    "gram": {"divide_by_confidence": True, "powers": tuple(range(1, 11))},
    "ats": {"tail": "two-sided"},
}


@pytest.mark.parametrize("name", detectors.NAMES)
def test_grid_and_defaults_are_the_studys(name):
    assert detectors.grid(name) == GRIDS.get(name, [{}])
    if name not in ("knn", "vim", "nnguide"):  # those three depend on the problem, see below
        assert detectors.create(name).options == DEFAULTS.get(name, {})


def sized(n: int, d: int, k: int = 3, **options) -> oodjax.TrainStatistics:
    rng = np.random.default_rng(5)
    head = oodjax.Head(rng.normal(size=(d, k)).astype(np.float32), np.zeros(k, np.float32))
    h = rng.normal(size=(n, d)).astype(np.float32)
    train = oodjax.Outputs(np.asarray(head(h)), h, rng.integers(0, k, n).astype(np.int32))
    return oodjax.TrainStatistics.collect(train, head, **options)


@dataclasses.dataclass(frozen=True)
class Dimension:
    """Stands in for statistics of that many features and that rank: what the choice of vim's default reads."""

    dim: int
    rank: int
    features: tuple = (0,)

    @property
    def spectrum(self) -> Dimension:
        return self


@pytest.mark.parametrize(
    ("d", "dim"), [(1, 1), (10, 5), (767, 383), (768, 512), (1499, 512), (1500, 1000), (2048, 1000)]
)
def test_default_dim_of_vim(d, dim):
    method, stats = detectors.create("vim").method, Dimension(d, d)
    assert method.resolve(stats, {"dim": None}) == {"dim": dim}
    assert method.limit(stats, {"dim": dim}) is None
    assert (method.note(stats, {"dim": None}) is None) == (d > 1)


@pytest.mark.parametrize(
    ("d", "rank", "dim"),
    [(2048, 1500, 1000), (2048, 1001, 1000), (2048, 1000, 512), (2048, 600, 300), (24, 12, 6), (24, 2, 1), (24, 1, 1)],
)
def test_default_dim_of_vim_stays_below_the_rank(d, rank, dim):
    method, stats = detectors.create("vim").method, Dimension(d, rank)
    assert method.resolve(stats, {"dim": None}) == {"dim": dim} and method.limit(stats, {"dim": dim}) is None
    usual = method.resolve(Dimension(d, d), {"dim": None})["dim"]
    if dim == usual:
        assert method.note(stats, {"dim": None}) is None
    elif rank > 1:
        assert method.note(stats, {"dim": None}) == f"dim {dim} instead of {usual}, since training has rank {rank}"
    else:
        assert "the energy alone, since training has rank 1" in method.note(stats, {"dim": None})
    assert method.resolve(stats, {"dim": rank}) == {"dim": rank} and method.note(stats, {"dim": rank}) is None
    if rank > 1:
        assert f"dim {rank} leaves no residual: training has rank {rank}" in method.limit(stats, {"dim": rank})


@pytest.mark.parametrize(("n", "d"), [(8, 40), (30, 40), (60, 300)])
def test_vim_of_few_samples_agrees_with_float64(n, d):
    """The rank is n: all else is null directions, on which test samples, not training, have their length."""
    p = oracles.make(d=d, signed=True)
    p = dataclasses.replace(p, train=p.train[:n])
    stats = oodjax.TrainStatistics.collect(p.train, p.head)
    assert stats.spectrum.rank == n
    for dim in (1, n // 2, n - 1):
        want = np.array(oracles.vim(p, dim))
        got = np.asarray(detectors.create("vim", dim=dim).fit(stats).score(p.test), np.float64)
        assert np.abs(got - want).max() < 2e-5 * want.std(), dim
    fitted = detectors.create("vim").fit(stats)
    usual = d // 2
    assert fitted.options == {"dim": usual if usual < n else n // 2}
    points, notes = detectors.search_space("vim", stats)
    assert [point.fit(stats) for point in points] == [fitted]
    assert notes == (
        [] if usual < n else [("vim", f"dim {n // 2} instead of {usual}, since training has rank {n}", False)]
    )
    with pytest.raises(ValueError, match=rf"vim: dim {n} leaves no residual: training has rank {n}"):
        detectors.create("vim", dim=n).fit(stats)


def test_rank_of_collinear_features():
    """Features of rank 8 but for float32's rounding, from the rows and from sums of float32 products."""
    p = oracles.make(signed=True)
    mix = np.linalg.qr(np.random.default_rng(0).normal(size=(oracles.FEATURES, 8)))[0]
    kernel = (mix @ mix.T @ p.head.kernel).astype(np.float32)
    h = (p.train.features @ mix @ mix.T).astype(np.float32)
    head = oodjax.Head(kernel, np.zeros_like(p.head.bias))
    train = p.train.replace(features=h, logits=h @ kernel)
    for fraction in (1.0, 0.9):
        stats = oodjax.TrainStatistics.collect(train, head, bank_fraction=fraction)
        assert stats.spectrum.rank == 8
        assert detectors.create("vim").fit(stats).options == {"dim": 4}


def test_defaults_follow_the_size_of_the_bank():
    few, many = sized(30, 4), sized(12_000, 4)
    assert detectors.create("knn").fit(few).options == {"k": 30}
    assert detectors.create("knn").fit(many).options == {"k": 50}
    assert detectors.create("nnguide").fit(few).options == {"k": 30, "fraction": 1.0}
    fitted = detectors.create("nnguide").fit(many)
    assert fitted.options == {"k": 100, "fraction": 0.01}
    assert fitted.params["bank"].shape == (120, 4)
    assert detectors.create("nnguide", k=300).fit(many).params["bank"].shape == (300, 4)
    assert detectors.create("nnguide", fraction=0.005).fit(many).options == {"k": 60, "fraction": 0.005}


def test_nnguide_fraction_is_a_share_of_the_training_split():
    """1% of training, also where the statistics kept only a tenth of the features."""
    stats = sized(12_000, 4, bank_fraction=0.1)
    assert detectors.create("nnguide").fit(stats).params["bank"].shape == (120, 4)
    with pytest.raises(ValueError, match=r"fraction 0\.5 .* 0\.1"):
        detectors.create("nnguide", fraction=0.5).fit(stats)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("knn", {"k": 241}, r"knn: k 241 exceeds the bank's 240 features"),
        ("vim", {"dim": 25}, r"vim: dim 25 exceeds the 24 features"),
        ("nnguide", {"k": 25, "fraction": 0.1}, r"nnguide: k 25 exceeds the bank's 24 features"),
        ("ash", {"percentile": 99}, r"ash: percentile 99 keeps none of the 24 features"),
        ("scale", {"percentile": 100}, r"scale: percentile 100 keeps none of the 24 features"),
        ("gram", {"powers": (1, 11)}, r"gram: powers \(1, 11\) exceed the 10 in Outputs.gram"),
    ],
)
def test_what_the_problem_cannot_carry_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        detectors.create(name, **options).fit(oracles.stats())


def test_gen_caps_top_m_at_the_classes():
    assert detectors.create("gen", gamma=0.5, top_m=1000).fit(oracles.stats()).options == {"gamma": 0.5, "top_m": 7}


def test_search_space_leaves_out_what_cannot_be_carried():
    points, notes = detectors.search_space("knn", oracles.stats())
    assert [p.options for p in points] == [{"k": 50}, {"k": 100}, {"k": 200}]
    assert notes == [("knn", f"k {k} exceeds the bank's 240 features", True) for k in (500, 1000)]

    points, notes = detectors.search_space("gen", sized(60, 4, k=60))
    assert {p.options["top_m"] for p in points} == {10, 50}
    assert len(points) == 14 and len(notes) == 28

    points, notes = detectors.search_space("gen", oracles.stats())  # 7 classes: no size of the grid fits
    assert [p.options for p in points] == [{"gamma": g, "top_m": 7} for g in (0.01, 0.1, 0.5, 1, 2, 5, 10)]
    assert notes[-1] == ("gen", "searched capped instead", False) and len(notes) == 43

    points, notes = detectors.search_space("knn", sized(30, 4))
    assert [p.fit(sized(30, 4)).options for p in points] == [{"k": 30}]
    assert notes[-1] == ("knn", "searched at its defaults instead", False)

    for name in set(detectors.NAMES) - {"gen", "knn"}:
        points, notes = detectors.search_space(name, oracles.stats())
        assert len(points) == len(detectors.grid(name)) and notes == [], name
