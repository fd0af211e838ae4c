import numpy as np
import pandas as pd
import pytest
import scipy.stats

from oodjax import analysis

DETECTORS = ["msp", "knn", "vim", "scale"]
MODELS = ["baseline", "a", "b", "c", "d"]


def results(values):
    """Two data sets whose mean is `values` (models, detectors)."""
    values = np.asarray(values, float)
    rows = [
        {"model": m, "detector": d, "dataset": s, "auroc": values[i, j] + shift}
        for i, m in enumerate(MODELS[: len(values)])
        for j, d in enumerate(DETECTORS[: values.shape[1]])
        for s, shift in (("ninco", -0.125), ("textures", 0.125))
    ]
    return pd.DataFrame(rows)


VALUES = np.random.default_rng(0).integers(0, 64, (5, 4)) / 64


def test_friedman_equals_scipy():
    expected = scipy.stats.friedmanchisquare(*VALUES.T)
    assert analysis.friedman(results(VALUES)) == (expected.statistic, expected.pvalue, 5, 4, "")
    shuffled = results(VALUES).sample(frac=1, random_state=0)
    assert analysis.friedman(shuffled).statistic == pytest.approx(expected.statistic)
    assert np.isnan(analysis.friedman(results(np.full((3, 4), 0.5))).statistic)
    with pytest.raises(ValueError, match="at least 3 of detector, got .*msp"):
        analysis.friedman(results(VALUES[:, :2]))


def test_mean_ranks_by_hand():
    values = [[0.5, 0.75, 0.25], [0.5, 0.75, 0.75], [0.75, 0.5, 0.25]]
    # ranks: msp 2 3 1, knn 1 1.5 2, vim 3 1.5 3
    ranks = analysis.mean_ranks(results(values))
    assert list(ranks.columns) == ["detector", "mean_rank", "ci_low", "ci_high"]
    assert list(ranks["detector"]) == ["knn", "msp", "vim"]
    np.testing.assert_allclose(ranks["mean_rank"], [1.5, 2, 2.5])
    low, high = scipy.stats.t.interval(0.95, 2, loc=2, scale=scipy.stats.sem([2, 3, 1]))
    np.testing.assert_allclose(ranks.loc[1, ["ci_low", "ci_high"]].astype(float), [low, high])
    worst_first = analysis.mean_ranks(results(values), higher_is_better=False)
    np.testing.assert_allclose(worst_first["mean_rank"], [1.5, 2, 2.5])
    assert list(worst_first["detector"]) == ["vim", "msp", "knn"]


def test_intervals_take_two_models_and_follow_the_confidence():
    alone = analysis.mean_ranks(results(VALUES[:1]))
    assert alone[["ci_low", "ci_high"]].isna().all(axis=None) and alone["mean_rank"].sum() == 10
    narrow, wide = analysis.mean_ranks(results(VALUES), confidence=0.5), analysis.mean_ranks(results(VALUES))
    assert (narrow["ci_high"] < wide["ci_high"]).all()


# Demsar 2006 (JMLR 7), Table 5(a): two-tailed Nemenyi q at alpha 0.05 and 0.10.
@pytest.mark.parametrize("k, q05, q10", [(2, 1.960, 1.645), (5, 2.728, 2.459), (10, 3.164, 2.920)])
def test_critical_difference_equals_the_published_table(k, q05, q10):
    for alpha, q in ((0.05, q05), (0.10, q10)):
        expected = q * np.sqrt(k * (k + 1) / (6 * 14))
        assert analysis.critical_difference(k, 14, alpha) == pytest.approx(expected, rel=5e-4)


def test_critical_difference_is_checked():
    for arguments in ((1, 5), (3, 0), (3, 5, 1.0)):
        with pytest.raises(ValueError, match="expected k >= 2"):
            analysis.critical_difference(*arguments)


def test_groups_are_the_largest_and_not_nested():
    assert analysis.cd_groups([1.0, 1.5, 2.0, 4.0, 4.5, 9.0], 1.0) == [[0, 1, 2], [3, 4]]
    assert analysis.cd_groups([3.0, 1.0, 2.0], 1.0) == [[1, 2], [2, 0]]
    assert analysis.cd_groups([1.0, 3.0], 1.0) == []
    ranks = analysis.mean_ranks(results([[0.5, 0.75, 0.25]] * 4))
    assert analysis.cd_groups(ranks, 1.0) == [["knn", "msp"], ["msp", "vim"]]


def test_robustness_by_hand():
    values = [[0.5, 0.75], [0.25, 0.875], [0.625, 0.125]]
    table = analysis.robustness(results(values))
    assert list(table["detector"]) == ["msp", "knn"]
    msp, knn = table.iloc[0], table.iloc[1]
    assert (msp["best"], msp["best_model"], msp["worst"], msp["worst_model"]) == (0.625, "b", 0.25, "a")
    assert (knn["best"], knn["best_model"], knn["worst"], knn["worst_model"]) == (0.875, "a", 0.125, "b")
    assert msp["change"] == pytest.approx(np.mean([-0.25, 0.125]))
    assert msp["change_std"] == pytest.approx(np.std([-0.25, 0.125], ddof=1))
    assert msp["mean"] == pytest.approx(np.mean([0.5, 0.25, 0.625]))
    assert msp["std"] == pytest.approx(np.std([0.5, 0.25, 0.625], ddof=1))


def test_robustness_options():
    table = results(VALUES)
    lower = analysis.robustness(table, higher_is_better=False).set_index("detector")
    higher = analysis.robustness(table).set_index("detector").loc[lower.index]
    assert list(lower["worst_model"]) == list(higher["best_model"])
    assert analysis.robustness(table, baseline=None)[["change", "change_std"]].isna().all(axis=None)
    other = analysis.robustness(table, baseline="a").set_index("detector").loc["msp", "change"]
    assert other == pytest.approx((VALUES[[0, 2, 3, 4], 0] - VALUES[1, 0]).mean())
    with pytest.raises(ValueError, match="baseline 'none' is not among the models"):
        analysis.robustness(table, baseline="none")


def test_missing_sets_are_adjusted_for():
    """Both sets tell the same of models and detectors, so that one of them is enough."""
    whole = results(VALUES)
    holes = whole.drop(index=[0, 13, 30])
    for analyse in (analysis.mean_ranks, analysis.robustness):
        pd.testing.assert_frame_equal(analyse(holes), analyse(whole))
        assert analyse(whole).attrs["note"] == ""
        assert analyse(holes).attrs["note"] == "3 of 40 cells are missing and adjusted for"
    assert analysis.friedman(holes).statistic == pytest.approx(analysis.friedman(whole).statistic)
    empty = whole.assign(auroc=whole["auroc"].mask(whole.index == 0))
    pd.testing.assert_frame_equal(analysis.mean_ranks(empty), analysis.mean_ranks(whole))


def test_a_detector_that_a_model_lacks():
    table = results([[0.5, 0.75, 0.25], [0.5, 0.25, 0.75], [0.25, 0.5, 0.75]])
    lacking = table[(table["model"] != "b") | (table["detector"] != "vim")]
    with pytest.raises(
        ValueError, match=r"model='b', detector='vim' has no value that compares \(1 such comb.*skillings"
    ):
        analysis.friedman(lacking)
    ranks = analysis.mean_ranks(lacking).set_index("detector")["mean_rank"]
    # msp 2 2 3, knn 1 3 1 + (2 - 1) x 2 / 1, vim 3 1; with b's two ranks stretched to 1 and 3
    np.testing.assert_allclose(ranks[["msp", "knn", "vim"]], [(2 + 2 + 3) / 3, (1 + 3 + 1) / 3, (3 + 1) / 2])


def test_what_cannot_be_compared_is_refused():
    table = results(VALUES)
    with pytest.raises(ValueError, match="model='baseline', detector='msp' has 1 rows where others have 2.*no column"):
        analysis.mean_ranks(table.iloc[1:].drop(columns="dataset"))
    with pytest.raises(ValueError, match="auroc is infinite in 1 of 40 rows"):
        analysis.robustness(table.assign(auroc=table["auroc"].mask(table.index == 0, np.inf)))


def test_seeds_of_one_recipe_count_once():
    table = results(VALUES).assign(recipe=lambda t: t["model"].replace({"a": "baseline"}))
    found, whole = analysis.mean_ranks(table), analysis.mean_ranks(results(VALUES))
    assert found.attrs["unit"] == "4 recipes" and whole.attrs["unit"] == "5 models"
    merged = results([VALUES[:2].mean(axis=0), *VALUES[2:]])
    pd.testing.assert_frame_equal(found, analysis.mean_ranks(merged))
    robust = analysis.robustness(table, baseline="a")  # a model stands for its recipe
    assert set(robust["worst_model"]) <= {"baseline", "b", "c", "d"}
    pd.testing.assert_frame_equal(robust, analysis.robustness(table, baseline="baseline"))


@pytest.mark.slow
def test_intervals_of_mean_ranks_cover():
    """Four detectors whose levels overlap; the truth is the mean rank over very many models."""
    rng = np.random.default_rng(0)

    def models(n):
        return np.array([0.0, 0.3, 0.6, 1.5]) + rng.normal(size=(n, 4))

    truth = scipy.stats.rankdata(-models(200_000), axis=1).mean(0)
    hits = []
    for _ in range(200):
        values = models(12)
        rows = {"model": np.repeat(np.arange(12), 4), "detector": DETECTORS * 12, "dataset": "a"}
        found = (
            analysis.mean_ranks(pd.DataFrame(rows).assign(auroc=values.ravel())).set_index("detector").loc[DETECTORS]
        )
        hits.append((found["ci_low"] <= truth) & (truth <= found["ci_high"]))
    assert 0.92 <= np.mean(hits) <= 0.98
