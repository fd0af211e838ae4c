"""Intervals hold the truth as often as they say, p-values are uniform where nothing is there, SciPy agrees."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import simulated
from statsmodels.stats.multitest import multipletests

from oodjax import analysis
from oodjax.analysis import association, clusters, resampling, seeds

# 92 to 98 % of intervals of 95 % are to hold the truth; 500 of them leave a standard error of 1 %.
LOW, HIGH = 0.92, 0.98


def within(hits):
    assert LOW <= np.mean(hits) <= HIGH, f"{np.mean(hits):.3f} of {len(hits)} intervals hold the truth"


def skewed(rng, shape):
    """Like AUROC near its ceiling."""
    return 1 / (1 + np.exp(-(1.5 + rng.normal(size=shape))))


@pytest.mark.parametrize("n", [5, 17, 60])
def test_intervals_of_means_cover(n):
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n, 1000))  # one column, one study
    low, high = resampling.studentised(values, 0.95, replicates=999)
    within((low <= 0) & (high >= 0))


def test_intervals_of_skewed_means_cover_where_student_s_do_not():
    rng = np.random.default_rng(1)
    truth = skewed(rng, 4_000_000).mean()
    values = skewed(rng, (12, 4000))
    hits = [
        np.mean((low <= truth) & (truth <= high))
        for low, high in (resampling.studentised(values, 0.95, replicates=999), resampling.student(values, 0.95))
    ]
    assert 0.935 <= hits[0] <= 0.965 and hits[1] < hits[0] - 0.01


def test_few_values_have_student_s_interval():
    values = np.random.default_rng(0).normal(size=(5, 1))
    low, high = resampling.studentised(values, 0.9)
    expected = scipy.stats.t.interval(0.9, 4, values.mean(), scipy.stats.sem(values[:, 0]))
    np.testing.assert_allclose([low[0], high[0]], expected, rtol=1e-12)


def test_values_that_do_not_vary_have_an_interval_without_width():
    low, high = resampling.studentised(np.full((9, 2), 0.7), 0.95)
    np.testing.assert_allclose([low, high], np.full((2, 2), 0.7), rtol=1e-15)


@pytest.mark.parametrize("n, slope", [(8, 0.0), (17, 0.0), (17, 1.0), (40, 0.6)])
def test_correlations_by_models_cover(n, slope):
    """The truth of Spearman's rho of a normal pair is 6 / pi * asin(r / 2)."""
    truth = 6 / np.pi * np.arcsin(slope / np.sqrt(slope**2 + 1) / 2)
    rng = np.random.default_rng(n)
    counts, hits = resampling.draw([0] * n, 999), []
    for _ in range(400):
        x = rng.normal(size=n)
        y = slope * x + rng.normal(size=n)
        statistic = association.weighted_spearman(x, y, np.arange(n))
        estimate = statistic(np.ones((1, n)))[0]
        low, high = resampling.bca(estimate, statistic(counts), statistic(1 - np.eye(n)), 0.95, widen=False)
        hits.append(low <= truth <= high)
    within(hits)


def test_p_of_permuted_models_is_uniform_where_nothing_is_there():
    rng = np.random.default_rng(0)
    p = [resampling.permutation_p(rng.normal(size=9), rng.normal(size=9), 999) for _ in range(400)]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.08


def test_p_of_the_paper_s_rows_is_far_too_small_where_nothing_is_there():
    """Why models are permuted: rows of one model share its level."""
    found = []
    for seed in range(40):
        joined = analysis.join_models(*simulated.table(models=12, seed=seed))
        found.append((analysis.spearman(joined).p, analysis.correlation_interval(joined, replicates=100).p))
    rows, models = np.mean(np.array(found) < 0.05, axis=0)
    assert rows > 0.3 and models < 0.12


def test_exact_p_equals_scipy_s():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=6), rng.normal(size=6)

    def statistic(a):
        return scipy.stats.spearmanr(a, y).statistic

    expected = scipy.stats.permutation_test((x,), statistic, permutation_type="pairings", n_resamples=np.inf)
    assert analysis.permutation_p(x, y) == pytest.approx(expected.pvalue, abs=1e-12)
    assert analysis.permutation_p([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]) == 2 / 120
    assert np.isnan(analysis.permutation_p([1, 1, 1], [1, 2, 3]))


def test_a_bootstrap_of_a_mean_equals_scipy_s_but_for_the_draws():
    rng = np.random.default_rng(3)
    values = skewed(rng, 40)
    table = pd.DataFrame({"model": [f"m{i}" for i in range(40)], "auroc": values})
    ours = analysis.bootstrap(table, "auroc", replicates=20000)
    level = 2 * scipy.stats.norm.cdf(np.sqrt(40 / 39) * scipy.stats.t.isf(0.025, 39)) - 1  # as ours is widened
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=20000, confidence_level=level, method="BCa", rng=rng)
    assert ours.estimate == pytest.approx(values.mean()) and ours.unit == "40 models"
    width = ours.high - ours.low  # two seeds of ours differ by up to 2 % of it
    np.testing.assert_allclose(ours[1:3], theirs.confidence_interval, atol=0.04 * width)


def test_a_bootstrap_draws_whole_models():
    """Rows of one model are alike: an interval of rows would be sqrt(8) too narrow."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"model": np.repeat(np.arange(20), 8), "auroc": np.repeat(rng.normal(size=20), 8)})
    whole = analysis.bootstrap(table, "auroc")
    rows = analysis.bootstrap(table.assign(row=np.arange(160)), "auroc", cluster="row")
    assert 2.5 < (whole.high - whole.low) / (rows.high - rows.low) < 3.3 and rows.unit == "160 rows"


def test_a_function_of_a_table_and_a_column_give_the_same():
    table = analysis.join_models(*simulated.table(models=6))
    named = analysis.bootstrap(table, "auroc", replicates=150)
    called = analysis.bootstrap(table, lambda t: t["auroc"].mean(), replicates=150)
    np.testing.assert_allclose(named[:3], called[:3], rtol=1e-9)
    # a model drawn twice counts as two
    assert analysis.bootstrap(table, lambda t: t["model"].nunique(), replicates=100)[:3] == (6, 6, 6)


def test_strata_keep_their_size():
    table, _ = simulated.table(models=12, between=0.01, within=0.01)
    kind = table["model"].isin([f"m{i}" for i in range(1, 6)])
    apart = table.assign(kind=kind, auroc=table["auroc"] + 10 * kind)
    free, kept = analysis.bootstrap(apart, "auroc"), analysis.bootstrap(apart, "auroc", strata="kind")
    assert kept.high - kept.low < (free.high - free.low) / 5
    with pytest.raises(ValueError, match="model 'baseline' lies in more than one value of detector"):
        analysis.bootstrap(table, "auroc", strata="detector")


@pytest.mark.slow
def test_means_by_detector_cover():
    """Models are the sample; every study's three detectors are three intervals."""
    hits = []
    for seed in range(300):
        table, _ = simulated.table(models=17, seed=seed, effects=(1.0,))
        found = analysis.mean_interval(table).set_index("detector")
        truth = 0.75 + np.array([1.0, 0.0, 0.0])  # the four sets' levels average to 0.75
        hits.extend((found["low"] <= truth) & (truth <= found["high"]))
    within(hits)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("first", [0, 9], ids=["paired", "unpaired"])
def test_differences_over_seeds_cover_and_p_is_uniform(n, first):
    rng, hits, p = np.random.default_rng(n), [], []
    for _ in range(500):
        shared = rng.normal(size=n) if first == 0 else 0.0  # what a seed does to both recipes
        base = pd.Series(shared + rng.normal(size=n))
        other = pd.Series(shared + rng.normal(size=n), index=range(first, first + n))
        found, value = seeds.compare(other, base, 0.95)
        hits.append(found.low <= 0 <= found.high)
        p.append(value)
    within(hits)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def seeds_table(values, first=None):
    """Recipe -> a value per seed; `first` the number of each recipe's first seed."""
    rows = [
        {"model": f"{r}.seed{s}", "recipe": r, "seed": s, "detector": d, "dataset": "a", "auroc": v + shift}
        for r, row in values.items()
        for s, v in enumerate(row, (first or {}).get(r, 0))
        for d, shift in (("msp", -0.5), ("knn", 0.5))
    ]
    table = pd.DataFrame(rows)
    models = table.drop_duplicates("model")[["model", "recipe", "seed"]]
    return table.drop(columns=["recipe", "seed"]), models


BASE, OTHER = [1.0, 2.0, 4.0], [2.0, 2.5, 5.5]


def test_shared_seeds_are_paired_as_in_scipy():
    found = analysis.difference(*seeds_table({"baseline": BASE, "other": OTHER}), "other")
    theirs = scipy.stats.ttest_rel(OTHER, BASE).confidence_interval(0.95)
    np.testing.assert_allclose(found[:3], [1.0, theirs.low, theirs.high], rtol=1e-9)
    assert found.unit == "3 seeds of each recipe" and found.level == 0.95
    narrow = analysis.difference(*seeds_table({"baseline": BASE, "other": OTHER}), "other", level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_other_seeds_are_compared_as_welch_does():
    table, models = seeds_table({"baseline": BASE, "other": [*OTHER, 3.0]}, {"other": 7})
    found, p = analysis.difference(table, models, "other"), analysis.differences(table, models)["p"][0]
    theirs = scipy.stats.ttest_ind([*OTHER, 3.0], BASE, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose([*found[1:3], p], [interval.low, interval.high, theirs.pvalue], rtol=1e-9)
    assert found.unit == "4 and 3 seeds, unpaired"


def test_one_seed_gives_no_interval():
    table, models = simulated.table(models=3)
    found = analysis.difference(table, models, "m1")
    means = table.groupby("model")["auroc"].mean()
    assert found.estimate == pytest.approx(means["m1"] - means["baseline"])
    assert np.isnan(found.low) and np.isnan(found.high) and found.unit == "1 seed of a recipe"
    assert analysis.differences(table, models)[["p", "p_holm"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="there is no recipe 'm9'; there are"):
        analysis.difference(table, models, "m9")


def test_p_values_of_many_recipes_are_corrected():
    rng = np.random.default_rng(5)
    table, models = seeds_table({name: rng.normal(i, 1, 5) for i, name in enumerate(["baseline", *"abcd"])})
    found = analysis.differences(table, models)
    np.testing.assert_allclose(found["p_holm"], multipletests(found["p"], method="holm")[1])
    assert list(found["recipe"]) == ["d", "c", "b", "a"]


def test_holm_equals_statsmodels():
    p = np.random.default_rng(6).random(20) ** 3
    np.testing.assert_allclose(analysis.holm(p), multipletests(p, method="holm")[1], rtol=1e-12)
    np.testing.assert_array_equal(analysis.holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    with pytest.raises(ValueError, match="p_values must be one row of numbers in 0 to 1"):
        analysis.holm([0.5, 1.5])


def test_the_correlation_is_that_of_one_value_per_model():
    table, models = simulated.table(models=9, slope=1.0, seed=1)
    joined = analysis.join_models(table, models)
    found = analysis.correlation_interval(joined)
    means = table.groupby("model")["auroc"].mean()
    expected = scipy.stats.spearmanr(models.set_index("model")["accuracy"].reindex(means.index), means)
    assert found.rho == pytest.approx(expected.statistic) and found.unit == "9 models" and found.n == 9
    assert found.low < found.rho < found.high
    rows = analysis.correlation_interval(joined, over="rows")
    assert rows.rho == pytest.approx(analysis.spearman(joined).rho) and rows.unit == "9 models"
    assert rows.rho < found.rho and rows.p == pytest.approx(found.p, abs=0.1)


def test_weighted_rows_are_repeated_rows():
    rng = np.random.default_rng(7)
    x, y = rng.integers(0, 5, 24).astype(float), rng.integers(0, 9, 24).astype(float)
    codes, counts = np.repeat(np.arange(6), 4), np.array([[2.0, 0, 1, 3, 0, 0]])
    times = counts[0, codes].astype(int)
    expected = scipy.stats.spearmanr(np.repeat(x, times), np.repeat(y, times)).statistic
    assert association.weighted_spearman(x, y, codes)(counts)[0] == pytest.approx(expected, rel=1e-12)


def test_seeds_are_no_new_evidence_about_recipes():
    table, models = simulated.table(models=6, seeds=4, slope=1.0)
    joined = analysis.join_models(table, models)
    found = analysis.correlation_interval(joined)
    assert found.n == 6 and found.unit == "6 recipes"
    apart = analysis.correlation_interval(joined.drop(columns=["recipe", "seed"]))
    assert apart.n == 24 and apart.p < found.p
    assert set(analysis.mean_interval(joined)["unit"]) == {"6 recipes"}
    assert set(analysis.mean_interval(joined, "recipe")["unit"]) == {"4 seeds"}


def test_means_say_what_was_resampled():
    table, _ = simulated.table(models=6)
    by_model, one = analysis.mean_interval(table, "model"), analysis.mean_interval(table[table["model"] == "m1"])
    assert set(by_model["unit"]) == {"4 OOD sets"} and set(one["unit"]) == {"4 OOD sets"}
    sets = table[table["model"] == "m1"].groupby("dataset")["auroc"].mean()
    expected = scipy.stats.t.interval(0.95, 3, sets.mean(), scipy.stats.sem(sets))
    row = by_model.set_index("model").loc["m1"]
    np.testing.assert_allclose([row["low"], row["high"]], expected, rtol=1e-9)


def test_few_models_have_no_interval():
    joined = analysis.join_models(*simulated.table(models=4))
    found = analysis.correlation_interval(joined)
    assert np.isfinite(found.rho) and np.isnan(found.low) and np.isnan(found.p) and not found.excludes_zero
    assert found.reason == "4 models, at least 5 are needed for an interval"


def test_missing_cells_move_no_mean():
    """Levels are additive, so that what is there tells what is missing."""
    rng = np.random.default_rng(8)
    values = rng.normal(size=(9, 1)) + np.array([0.0, 5.0, -3.0, 8.0, 1.0])
    holes = values.copy()
    holes[rng.random(values.shape) < 0.2] = np.nan
    assert np.isnan(holes).any() and not np.isnan(holes).all(axis=1).any()
    np.testing.assert_allclose(clusters.adjusted_means(holes), values.mean(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(clusters.adjusted_means(values), values.mean(axis=1))
    holes[:, 1:] = np.nan
    holes[0, 0] = np.nan
    assert np.isnan(clusters.adjusted_means(holes)[0])
    split = np.array([[1.0, 2, np.nan, np.nan], [3, 4, np.nan, np.nan], [5, 6, np.nan, np.nan], [np.nan, np.nan, 1, 2]])
    assert np.isnan(clusters.adjusted_means(split)[3]) and clusters.adjusted_means(split)[0] == 1.5


def test_results_do_not_depend_on_the_order_of_rows_but_on_level_and_seed():
    joined = analysis.join_models(*simulated.table(models=12, slope=0.5))
    found = analysis.correlation_interval(joined)
    assert analysis.correlation_interval(joined, seed=1)[1:3] != found[1:3]
    wide = analysis.correlation_interval(joined, level=0.99)
    assert wide.low < found.low and wide.high > found.high
    by = analysis.mean_interval(joined, level=0.8).set_index("detector")
    assert (by["low"] > analysis.mean_interval(joined).set_index("detector")["low"]).all()
    with pytest.raises(ValueError, match="level must be a share between 0 and 1"):
        analysis.mean_interval(joined, level=95)
    with pytest.raises(ValueError, match="replicates must be a whole number, 100 or more, got 5"):
        analysis.correlation_interval(joined, replicates=5)
    with pytest.raises(ValueError, match='over must be "clusters" or "rows"'):
        analysis.correlation_interval(joined, over="cells")


def test_a_seed_that_lacks_a_cell_is_adjusted_not_averaged_over():
    """Seeds differ in level: a hard cell that only the best one lacks makes its recipe no better."""
    table, models = seeds_table({"baseline": [0.0, 10.0], "other": [1.0, 11.0]})
    lost = (table["model"] == "other.seed1") & (table["detector"] == "msp")
    joined = table.merge(models, on="model")
    found, note = clusters.cluster_values(joined[~lost.to_numpy()], "auroc", "recipe")
    np.testing.assert_allclose(found["auroc"], [5.0, 6.0], rtol=1e-12)
    assert note == "1 of 8 cells are missing and adjusted for"


def test_no_interval_excludes_what_the_exact_test_does_not():
    """The bootstrap's interval of few models is now and then too short; that of the permutation test never is."""
    stretched = 0
    for seed in range(20):
        joined = analysis.join_models(*simulated.table(models=7, detectors=1, seed=seed))
        found = analysis.correlation_interval(joined, replicates=400)
        assert not (found.excludes_zero and found.p >= 0.05)
        stretched += found.low == 0 or found.high == 0
        wide = analysis.correlation_interval(joined, level=0.999, replicates=400)
        assert not (wide.excludes_zero and wide.p >= 0.001)
    assert stretched > 0
