import itertools
import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api
import statsmodels.formula.api

from oodjax import analysis

# The paper's ANOVA (arXiv 2601.10836): F and share in per cent per term, for 56 x 21 x 8 rows.
PAPER = {
    "detector": (20, 156.69, 7.08),
    "model": (55, 77.90, 9.69),
    "ood_category": (3, 5045.22, 34.22),
    "model:detector": (1100, 8.47, 21.05),
    "model:ood_category": (165, 9.10, 3.39),
    "detector:ood_category": (60, 39.05, 5.30),
    "model:detector:ood_category": (3300, 1.16, 8.66),
}
PAPER_RESIDUAL = (4704, 10.62)


def results(models=3, detectors=4, sets=(2, 3, 2, 1), seed=0):
    rng = np.random.default_rng(seed)
    names = ["near", "far", "extreme", "synthetic"]
    datasets = [(f"{names[c]}{i}", names[c]) for c, count in enumerate(sets) for i in range(count)]
    rows = [
        {"model": f"m{m}", "detector": f"d{d}", "dataset": dataset, "ood_category": category}
        for m, d, (dataset, category) in itertools.product(range(models), range(detectors), datasets)
    ]
    table = pd.DataFrame(rows)
    effects = sum(table[c].map({v: rng.normal() for v in table[c].unique()}) for c in ("model", "detector"))
    return table.assign(auroc=effects + rng.normal(size=len(table)))


def by_statsmodels(table, factors):
    formula = "auroc ~ " + " * ".join(f"C({factor}, Sum)" for factor in factors)
    return statsmodels.api.stats.anova_lm(statsmodels.formula.api.ols(formula, table).fit(), typ=2)


@pytest.mark.parametrize("sets", [(2, 3, 2, 1), (2, 2, 2), (5, 1)])
@pytest.mark.parametrize("factors", [analysis.FACTORS, ("model", "ood_category"), ("detector",)])
def test_equals_statsmodels_type_2(sets, factors):
    table = results(sets=sets).sample(frac=1, random_state=1)
    ours, theirs = analysis.anova(table, factors=factors), by_statsmodels(table, factors)
    assert list(ours.columns) == ["term", "df", "sum_sq", "F", "p", "share"]
    assert len(ours) == len(theirs)
    np.testing.assert_array_equal(ours["df"], theirs["df"])
    np.testing.assert_allclose(ours["sum_sq"], theirs["sum_sq"], rtol=1e-8)
    np.testing.assert_allclose(ours["F"], theirs["F"], rtol=1e-8)
    np.testing.assert_allclose(ours["p"], theirs["PR(>F)"], rtol=1e-8)
    assert ours["share"].sum() == pytest.approx(1)
    assert ours["sum_sq"].sum() == pytest.approx(((table["auroc"] - table["auroc"].mean()) ** 2).sum())


def test_four_factors_equal_statsmodels():
    table = results(models=2, detectors=3, sets=(4, 6))
    table["half"] = table["dataset"].str[-1].astype(int) % 2
    factors = ("model", "detector", "ood_category", "half")
    ours, theirs = analysis.anova(table, factors=factors), by_statsmodels(table, factors)
    expected = {frozenset(re.findall(r"C\((\w+),", term)): value for term, value in theirs["sum_sq"].items()}
    found = {frozenset(term.split(":")): value for term, value in zip(ours["term"], ours["sum_sq"], strict=True)}
    expected[frozenset(["Residual"])] = expected.pop(frozenset())
    assert found == pytest.approx(expected, rel=1e-8) and len(found) == 16


def test_the_design_of_the_study():
    table = results(56, 21)
    assert len(table) == 9408
    result = analysis.anova(table)
    assert dict(zip(result["term"], result["df"], strict=True)) == {
        **{term: df for term, (df, _, _) in PAPER.items()},
        "Residual": PAPER_RESIDUAL[0],
    }
    assert result["term"].iloc[-1] == "Residual" and result[["F", "p"]].iloc[-1].isna().all()


@pytest.mark.parametrize("term", PAPER)
def test_shares_and_f_of_the_paper_fit_these_degrees_of_freedom(term):
    df, f, share = PAPER[term]
    # All seven F agree, within their rounding, on a residual share of 10.6336 to 10.6353; 10.62 is printed.
    residual_df, residual = PAPER_RESIDUAL[0], 10.6345
    assert abs(residual - PAPER_RESIDUAL[1]) < 0.02
    assert (share / df) / (residual / residual_df) == pytest.approx(f, rel=0.005 / f + 0.005 / share)


def test_leave_one_category_out():
    table = results()
    shares = analysis.leave_one_category_out(table)
    assert list(shares.columns) == [
        "term",
        "all",
        "without near",
        "without far",
        "without extreme",
        "without synthetic",
    ]
    np.testing.assert_array_equal(shares["all"], analysis.anova(table)["share"])
    far = by_statsmodels(table[table["ood_category"] != "far"], analysis.FACTORS)["sum_sq"]
    np.testing.assert_allclose(shares["without far"], far / far.sum(), rtol=1e-8)
    with pytest.raises(ValueError, match="takes two or more, got .*near"):
        analysis.leave_one_category_out(table[table["ood_category"] == "near"])


def test_without_replicates_nothing_is_tested():
    result = analysis.anova(results(sets=(1, 1, 1)))
    assert result["df"].iloc[-1] == 0 and result["F"].isna().all() and result["p"].isna().all()
    assert result["share"].sum() == pytest.approx(1)


def test_single_levels_and_constant_responses_are_nan():
    result = analysis.anova(results(models=1)).set_index("term")
    assert result.loc["model", "df"] == 0 and np.isnan(result.loc["model", "F"])
    assert np.isfinite(result.loc["detector", "F"])
    constant = analysis.anova(results().assign(auroc=0.1))
    assert (constant["sum_sq"] == 0).all() and constant[["F", "p", "share"]].isna().all(axis=None)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.assign(auroc=t.auroc.mask(t.index == 5)), "auroc is NaN or infinite in 1 of 96 rows.*extreme0"),
        (lambda t: t.assign(detector=t.detector.mask(t.index == 5)), "detector is missing in 1 of 96 rows"),
        (lambda t: t.drop(columns="detector"), r"lacks the columns \['detector'\]"),
        (lambda t: t.iloc[:0], "has no rows"),
    ],
)
def test_other_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        analysis.anova(change(results()))


@pytest.mark.parametrize("factors", [(), ("model", "model")])
def test_factors_are_checked(factors):
    with pytest.raises(ValueError, match="one or more different columns"):
        analysis.anova(results(), factors=factors)
