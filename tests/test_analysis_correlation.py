import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import simulated

from oodjax import analysis

MODELS = pd.DataFrame(
    {
        "model": ["baseline", "a", "b", "c", "d"],
        "category": ["baseline", "adversarial", "adversarial", "augmentation", "augmentation"],
        "accuracy": [0.76, 0.5, 0.6, 0.78, 0.8],
        "ece": [0.03, 0.05, 0.08, 0.02, 0.01],
    }
)


def results(seed=0):
    rng = np.random.default_rng(seed)
    rows = itertools.product(MODELS["model"], ["msp", "knn"], [("ninco", "near"), ("textures", "far")])
    table = pd.DataFrame([{"model": m, "detector": d, "dataset": s, "ood_category": c} for m, d, (s, c) in rows])
    return table.assign(auroc=rng.random(len(table)), auroc_correct_vs_ood=rng.random(len(table)))


def test_arrays_equal_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 50), rng.normal(size=50)
    expected = scipy.stats.spearmanr(a, b)
    rho, p = analysis.spearman(a, b)
    assert (rho, p) == (expected.statistic, expected.pvalue)


def test_table_whole_and_by_group():
    table = analysis.join_models(results(), MODELS)
    whole = analysis.spearman(table)
    expected = scipy.stats.spearmanr(table["accuracy"], table["auroc"])
    assert whole == (expected.statistic, expected.pvalue, 20, "")
    by = analysis.spearman(table, "ece", "auroc", by="detector").set_index("detector")
    knn = table[table["detector"] == "knn"]
    assert by.loc["knn", "rho"] == scipy.stats.spearmanr(knn["ece"], knn["auroc"]).statistic
    assert list(by["n"]) == [10, 10]


def test_undefined_correlations_say_why():
    table = analysis.join_models(results(), MODELS)
    constant = analysis.spearman(table.assign(auroc=0.5))
    assert np.isnan(constant.rho) and constant.n == 20 and constant.reason == "auroc is constant"
    few = analysis.spearman(table.iloc[:2])
    assert np.isnan(few.p) and few.reason == "2 rows, at least 3 are needed"
    assert all(np.isnan(analysis.spearman([1, 1, 1], [1, 2, 3])))
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        analysis.spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"lacks the columns \['fpr95'\]"):
        analysis.spearman(table, y="fpr95")


def test_rows_without_a_value_are_left_out_and_counted():
    table = analysis.join_models(results(), MODELS)
    holes = table.assign(auroc=table["auroc"].mask(table.index < 4))
    rest = table.iloc[4:]
    assert analysis.spearman(holes)[:3] == (*scipy.stats.spearmanr(rest["accuracy"], rest["auroc"]), 16)


def test_spearman_table_lists_every_subset():
    table = results()
    found = analysis.spearman_table(table, MODELS)
    assert set(found["x"]) == {"accuracy", "ece"} and set(found["y"]) == {"auroc", "auroc_correct_vs_ood"}
    joined = analysis.join_models(table, MODELS)
    subsets = {
        ("overall", ""): joined["accuracy"] > 0,
        ("below baseline", ""): joined["accuracy"] < 0.76,
        ("at or above baseline", ""): joined["accuracy"] >= 0.76,
        ("model_category", "adversarial"): joined["model"].isin(["a", "b"]),
        ("detector", "msp"): joined["detector"] == "msp",
        ("ood_category", "far"): joined["ood_category"] == "far",
    }
    keyed = found.set_index(["x", "y", "subset", "group"]).sort_index()
    for (x, y), (subset, rows) in itertools.product(
        itertools.product(["accuracy", "ece"], ["auroc", "auroc_correct_vs_ood"]), subsets.items()
    ):
        expected = scipy.stats.spearmanr(joined.loc[rows, x], joined.loc[rows, y])
        row = keyed.loc[(x, y, *subset)]
        assert (row["rho"], row["p"], row["n"]) == (expected.statistic, expected.pvalue, rows.sum())
    alone = keyed.loc[("accuracy", "auroc", "model_category", "baseline")]
    assert np.isnan(alone["rho"]) and alone["reason"] == "accuracy is constant"
    assert len(found) == 4 * (3 + 3 + 2 + 2)


def test_the_accuracy_of_the_models_table_counts():
    stale = results().assign(accuracy=0.1, ece=0.1, model_category="other")
    pd.testing.assert_frame_equal(analysis.spearman_table(stale, MODELS), analysis.spearman_table(results(), MODELS))


@pytest.mark.parametrize(
    "models, options, message",
    [
        (MODELS.iloc[:3], {}, r"models has no row for \['c', 'd'\]"),
        (pd.concat([MODELS, MODELS.iloc[:1]]), {}, r"lists \['baseline'\] twice"),
        (MODELS.drop(columns="ece"), {}, r"models lacks the columns \['ece'\]"),
        (MODELS, {"baseline": "none"}, "0 rows for the baseline 'none'"),
        (MODELS, {"responses": ["fpr95"]}, r"lacks the columns \['fpr95'\]"),
        (MODELS, {"responses": []}, "none of the responses"),
    ],
)
def test_tables_that_do_not_fit_are_refused(models, options, message):
    with pytest.raises(ValueError, match=message):
        analysis.spearman_table(results(), models, **options)


def test_without_a_baseline_there_is_no_division():
    found = analysis.spearman_table(results(), MODELS, baseline=None)
    assert "below baseline" not in set(found["subset"]) and "overall" in set(found["subset"])


def test_correlations_of_models_stand_beside_those_of_rows():
    table, models = simulated.table(models=12, slope=1.0, detectors=2)
    found, rows = analysis.correlation_table(table, models), analysis.spearman_table(table, models)
    pd.testing.assert_frame_equal(found[rows.columns], rows)
    joined = analysis.join_models(table, models)
    keyed = found.set_index(["x", "y", "subset", "group"]).sort_index()
    for group in ("d0", "d1"):
        one = analysis.correlation_interval(joined[joined["detector"] == group], "ece")
        row = keyed.loc[("ece", "auroc", "detector", group)]
        assert tuple(row[["rho_models", "low", "high", "p_models", "models"]]) == (
            one.rho,
            one.low,
            one.high,
            one.p,
            12,
        )
    two = keyed.loc[("ece", "auroc", "detector")]
    np.testing.assert_array_equal(two["p_holm"], analysis.holm(two["p_models"]))
    assert (two["p_holm"] > two["p_models"]).any()
    alone = keyed.loc[("accuracy", "auroc", "model_category", "baseline")]
    assert np.isnan(alone["p_holm"]) and alone["models"] == 1


def test_every_part_has_the_interval_of_its_own_rows():
    table, models = simulated.table(models=11, seeds=2, detectors=2)
    table = table.assign(auroc=table["auroc"].mask(np.arange(len(table)) % 14 == 0))
    joined = analysis.join_models(table, models)
    found = analysis.correlation_table(table, models).set_index(["x", "subset", "group"]).sort_index()
    parts = {
        ("overall", ""): joined,
        ("detector", "d1"): joined[joined["detector"] == "d1"],
        ("ood_category", "far"): joined[joined["ood_category"] == "far"],
        ("model_category", "other"): joined[joined["model_category"] == "other"],
    }
    for key, part in parts.items():
        for x in ("accuracy", "ece"):
            one, row = analysis.correlation_interval(part, x), found.loc[(x, *key)]
            columns = ["rho_models", "low", "high", "p_models", "models"]
            assert tuple(row[columns]) == (one.rho, one.low, one.high, one.p, one.n)


def test_a_recipe_is_the_border_by_the_mean_of_its_seeds():
    table, models = simulated.table(models=6, seeds=3)
    models["accuracy"] += 0.001 * models["seed"]
    found = analysis.spearman_table(table, models).set_index(["x", "y", "subset"])["n"]
    limit = models.loc[models["recipe"] == "baseline", "accuracy"].mean()
    below = (models["accuracy"] < limit).sum()
    assert found["accuracy", "auroc", "below baseline"] == 12 * below


def test_a_baseline_that_nothing_lies_below_takes_no_part_away():
    """The least accurate model as baseline: the part below it has no rows, the others stand."""
    rng = np.random.default_rng(2)
    models = pd.DataFrame(
        {"model": list("abcdef"), "category": "ssl", "accuracy": np.arange(6.0), "ece": rng.random(6)}
    )
    table = models[["model"]].merge(
        pd.DataFrame({"detector": ["msp", "knn"], "ood_category": ["far", "far"]}), how="cross"
    )
    table = table.assign(auroc=rng.random(len(table)))
    found = analysis.correlation_table(table, models, baseline="a", responses=["auroc"]).set_index(["x", "subset"])
    below, above = found.loc[("accuracy", "below baseline")], found.loc[("accuracy", "at or above baseline")]
    assert below["models"] == 0 and np.isnan(below["rho_models"])
    assert above["models"] == 6
    assert above["rho_models"] == found.loc[("accuracy", "overall"), "rho_models"]
