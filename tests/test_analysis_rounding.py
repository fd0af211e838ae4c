"""What is equal but for rounding is equal: nothing tests, ranks or correlates the last bits of a float."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api
import statsmodels.formula.api

from oodjax import analysis

FACTORS = ["model", "detector"]


def additive(models=3, detectors=4, replicates=2, scale=1.0, offset=0.0):
    """Every replicate is the sum of two effects: no interaction and no residual, but for rounding."""
    rows = itertools.product(range(models), range(detectors), range(replicates))
    return pd.DataFrame(
        [{"model": i, "detector": j, "auroc": offset + scale * (0.1 * i + 0.2 * j * j)} for i, j, _ in rows]
    )


@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (100.0, 0.0), (1e-3, 0.9), (1.0, 1e4)])
def test_a_perfect_fit_is_no_test_of_rounding(scale, offset):
    table = additive(scale=scale, offset=offset)
    result = analysis.anova(table, factors=FACTORS).set_index("term")
    assert (result.loc[["model:detector", "Residual"], ["sum_sq", "share"]] == 0).all(axis=None)
    assert result[["F", "p"]].isna().all(axis=None)
    effects = [scale**2 * 8 * np.var([0.0, 0.1, 0.2]) * 3, scale**2 * 6 * np.var([0, 0.2, 0.8, 1.8]) * 4]
    np.testing.assert_allclose(result.loc[FACTORS, "sum_sq"], effects, rtol=1e-9 if offset < 1e4 else 1e-7)
    assert result.attrs["note"] == "perfect fit"


def test_a_term_without_effect_has_f_0_where_there_is_noise():
    """The interaction is rounding, the residual is real: the test stands."""
    noise = np.tile([-0.1, 0.1], 12)
    table = additive().assign(auroc=lambda t: t["auroc"] + noise)
    result = analysis.anova(table, factors=FACTORS)
    row = result.set_index("term").loc["model:detector"]
    assert (row["sum_sq"], row["F"], row["p"]) == (0, 0, 1)
    fit = statsmodels.formula.api.ols("auroc ~ C(model, Sum) * C(detector, Sum)", table).fit()
    theirs = statsmodels.api.stats.anova_lm(fit, typ=2)
    np.testing.assert_allclose(result["F"][:2], theirs["F"].iloc[:2], rtol=1e-8)
    np.testing.assert_allclose(result["sum_sq"], theirs["sum_sq"], rtol=1e-8, atol=1e-12)
    assert result.attrs["note"] == ""


def test_small_effects_are_no_rounding():
    """An interaction of 1e-9 between values of 1 is real, and tested."""
    table = additive()
    rng = np.random.default_rng(0)
    table["auroc"] += 1e-9 * (table["model"] * table["detector"]) + 1e-10 * rng.normal(size=len(table))
    row = analysis.anova(table, factors=FACTORS).set_index("term").loc["model:detector"]
    assert row["sum_sq"] > 0 and row["F"] > 10 and row["p"] < 1e-3


def test_rounding_is_of_the_column_s_own_type():
    table = additive(offset=0.1).astype({"auroc": np.float32})
    assert analysis.anova(table, factors=FACTORS).attrs["note"] == "perfect fit"


@pytest.mark.parametrize(
    "table, note",
    [
        (additive().assign(auroc=lambda t: np.where(t["model"] == 1, 0.3, 0.1 + 0.2)), "constant response"),
        (additive(replicates=1), "no replicates"),
        (additive(models=1), "perfect fit"),
    ],
)
def test_why_nothing_is_tested_is_recorded(table, note):
    result = analysis.anova(table, factors=FACTORS)
    assert result.attrs["note"] == note and result[["F", "p"]].isna().all(axis=None)
    assert result["share"].isna().all() == (note == "constant response")


def nearly(values):
    """Two data sets per cell; every second detector has them in the other order, so that its sum rounds otherwise."""
    rows = [
        {"model": f"m{i}", "detector": f"d{j}", "dataset": s, "auroc": v + shift}
        for (i, j), v in np.ndenumerate(np.asarray(values, float))
        for s, shift in (((0, 0.1), (1, 0.2), (2, 0.3)) if j % 2 else ((2, 0.3), (1, 0.2), (0, 0.1)))
    ]
    return pd.DataFrame(rows)


def test_equal_means_tie_whatever_the_order_of_their_rows():
    table = nearly(np.zeros((4, 4)))
    means = table.groupby(["model", "detector"])["auroc"].mean()
    assert means.nunique() == 2  # 0.2 and its neighbour
    assert np.isnan(analysis.friedman(table).statistic) and analysis.friedman(table).reason == "all values tie"
    ranks = analysis.mean_ranks(table)
    assert (ranks["mean_rank"] == 2.5).all() and (ranks["ci_low"] == 2.5).all()
    worst = analysis.robustness(table, baseline="m0")
    assert (worst["change"] == 0).all() and worst["worst"].nunique() == 1


def test_ties_within_rows_equal_scipy_s():
    values = [[0.5, 0.5, 0.25, 0.75], [0.5, 0.25, 0.25, 0.75], [0.5, 0.5, 0.25, 0.25], [0.125, 0.5, 0.25, 0.75]]
    expected = scipy.stats.friedmanchisquare(*np.transpose(values))
    found = analysis.friedman(nearly(values))
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)


def test_one_model_is_no_friedman_test():
    """With one block the statistic is k - 1 whatever the values."""
    found = analysis.friedman(nearly([[0.5, 0.25, 0.125, 0.75]]))
    assert np.isnan(found.statistic) and np.isnan(found.p) and found[2:] == (1, 4, "one model")


def test_the_correlation_of_a_constant_but_for_rounding_is_undefined():
    constant = [0.1 + 0.2, 0.3, 0.3, 0.15 * 2]
    table = pd.DataFrame({"accuracy": [0.1, 0.2, 0.3, 0.4], "auroc": constant})
    found = analysis.spearman(table)
    assert np.isnan(found.rho) and found.reason == "auroc is constant"
    assert np.isnan(analysis.spearman([1, 2, 3, 4], constant)[0])
    tied = [0.1 + 0.2, 0.3, 0.5, 0.7]
    assert analysis.spearman([1, 2, 3, 4], tied)[0] == scipy.stats.spearmanr([1, 2, 3, 4], [0.3, 0.3, 0.5, 0.7])[0]


@pytest.mark.parametrize("dtype, noise", [(np.float64, 1e-16), (np.float32, 6e-8)])
def test_features_that_differ_by_rounding_do_not_vary(dtype, noise):
    rng = np.random.default_rng(0)
    x = (0.3 * (1 + noise * rng.integers(-1, 2, (50, 8)))).astype(dtype)
    assert len(np.unique(x)) > 1
    found = analysis.feature_space(x)
    assert found["total_variance"] == 0 and np.isnan(found["participation_ratio"])
    assert np.isnan(analysis.pca_embedding(x, x, 2).explained).all()
    real = (0.3 * (1 + 1e-4 * rng.normal(size=(50, 8)))).astype(dtype)
    assert analysis.feature_space(real)["participation_ratio"] > 5


def test_the_verdict_on_a_perfect_fit_says_so():
    names = {0: "baseline", 1: "a", 2: "b", 3: "c", 4: "d"}
    table = additive(models=5).assign(model=lambda t: t["model"].map(names), ood_category="near")
    models = pd.DataFrame(
        {"model": names.values(), "category": "baseline", "accuracy": [0.7, 0.8, 0.9, 0.6, 0.75], "ece": 0.1}
    )
    text = analysis.does_accuracy_predict(table, models)[3].text
    assert text == (
        "Which interaction is largest cannot be said: no interaction is left of auroc, and no residual to test it "
        "against."
    )
    table["auroc"] += table["model"].eq("a") * table["detector"] ** 2
    text = analysis.does_accuracy_predict(table, models)[3].text
    assert text.startswith("The largest interaction is model:detector, with ")
    assert text.endswith("40 rows; with replicates that do not differ it cannot be told from noise.")
