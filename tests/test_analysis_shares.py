"""Shares of variance with intervals: coverage on designs whose truth is known, and what is claimed of noise."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from oodjax import analysis


def design(n, rng, model=0.0, pair=0.0, detectors=6, categories=3, sets=2):
    """Effects of models and of model x detector of the given standard deviations, noise of 0.5."""
    shape = n, detectors, categories, sets
    of_pair = pair * rng.normal(size=(n, detectors, 1, 1))
    value = model * rng.normal(size=(n, 1, 1, 1)) + of_pair + np.arange(detectors)[:, None, None] / 4
    value = value + np.arange(categories)[:, None] / 2 + 0.5 * rng.normal(size=shape)
    m, d, c, s = (axis.ravel() for axis in np.indices(shape))
    columns = {"model": m, "detector": d, "ood_category": c, "dataset": 10 * c + s}
    return pd.DataFrame(columns).astype(str).assign(auroc=value.ravel())


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 17])
def test_intervals_cover(n):
    rng = np.random.default_rng(n)
    shares = np.mean([analysis.anova(design(n, rng, 0.5, 0.3))["share"] for _ in range(300)], axis=0)
    limit = analysis.share_intervals(design(1500, rng, 0.5, 0.3))["effect"]
    found = [analysis.share_intervals(design(n, rng, 0.5, 0.3)) for _ in range(300)]
    hits = np.array([(t["low"] <= shares) & (shares <= t["high"]) for t in found])
    assert 0.92 <= hits.mean() <= 0.98 and (hits.mean(axis=0) > 0.9).all()
    pairs = np.array([(t["effect_low"] <= limit) & (limit <= t["effect_high"]) for t in found])[:, 3]
    assert 0.92 <= pairs.mean() <= 0.98  # model x detector, the one that is there


def test_noise_is_no_interaction():
    """A share of noise is never 0, and its interval above it; the effect's interval holds 0."""
    rng = np.random.default_rng(0)
    claimed = []
    for _ in range(30):
        found = analysis.share_intervals(design(8, rng, 0.5), level=0.95).set_index("term")
        claimed.append(found.loc["model:detector", "effect_low"] > 0)
    assert np.mean(claimed) <= 0.07  # 2.5 % are above
    assert found.loc["model:detector", "low"] > 0.01 and found.attrs["unit"] == "8 models"


def test_a_real_interaction_is_found_and_is_the_largest():
    found = analysis.share_intervals(design(17, np.random.default_rng(1), 0.3, 0.8))
    row = found.set_index("term").loc["model:detector"]
    assert 0 < row["effect_low"] < row["effect"] < row["share"] < row["high"]
    gap, low, high = found.attrs["gap"]
    assert 0 < low < gap < high and found.attrs["rows"] == 17 * 36
    expected = analysis.anova(design(17, np.random.default_rng(1), 0.3, 0.8))
    np.testing.assert_array_equal(found["share"], expected["share"])
    term = expected.set_index("term").loc["model:detector"]
    noise = expected["share"].iloc[-1] / expected["df"].iloc[-1]
    assert row["effect"] == pytest.approx(term["share"] - term["df"] * noise)


def test_the_jackknife_of_a_mean_square_is_by_hand():
    """One factor beside the models: the log odds of its share, one model left out at a time."""
    table = design(6, np.random.default_rng(2), 0.2, 0.2)
    found = analysis.share_intervals(table, factors=["model", "detector"], level=0.9).set_index("term")

    def odds(rows):
        share = analysis.anova(rows, factors=["model", "detector"]).set_index("term")["share"]["detector"]
        return np.log(share / (1 - share))

    parts = [odds(table[table["model"] != name]) for name in table["model"].unique()]
    half = scipy.stats.t.isf(0.05, 5) * np.std(parts, ddof=1) * 5 / np.sqrt(6)
    ends = 1 / (1 + np.exp(-(odds(table) + np.array([-half, half]))))
    np.testing.assert_allclose(found.loc["detector", ["low", "high"]].astype(float), ends, rtol=1e-9)


def test_few_models_and_no_replicates_say_nothing():
    rng = np.random.default_rng(3)
    few = analysis.share_intervals(design(4, rng, 0.5))
    assert few[["low", "high", "effect_low"]].isna().all(axis=None) and few["share"].notna().all()
    bare = analysis.share_intervals(design(6, rng, 0.5, sets=1))
    assert bare["effect"].isna().all() and bare.attrs["note"] == "no replicates"
    assert bare["low"].iloc[:-1].notna().all() and np.isfinite(bare.attrs["gap"]).all()
    one = analysis.share_intervals(design(6, rng), factors=["model", "detector"])
    assert np.isnan(one.attrs["gap"]).all()


def test_recipes_are_left_out_whole_and_gaps_are_taken():
    table = design(12, np.random.default_rng(4), 0.5, 0.5)
    table["recipe"] = (table["model"].astype(int) % 6).astype(str)
    found = analysis.share_intervals(table)
    assert found.attrs["unit"] == "6 recipes" and found["term"][0] == "recipe"
    holes = table.drop(columns="recipe")
    holes = holes.assign(auroc=holes["auroc"].mask(np.arange(len(holes)) % 14 == 0))
    gaps = analysis.share_intervals(holes)
    assert gaps.attrs["rows"] == holes["auroc"].notna().sum() and gaps["low"].notna().all()
