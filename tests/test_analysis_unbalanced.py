"""Analyses of variance with rows missing equal statsmodels'; with cells missing they equal plain least squares."""

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api
import statsmodels.formula.api

from oodjax import analysis

FACTORS = ["model", "detector", "ood_category"]


def results(seed=0, shape=(3, 4, 2), sets=3):
    rng = np.random.default_rng(seed)
    rows = list(itertools.product(*(range(n) for n in shape), range(sets)))
    table = pd.DataFrame(rows, columns=[*FACTORS, "dataset"])
    table[FACTORS] = table[FACTORS].astype(str)
    effect = rng.normal(size=shape)
    return table.assign(auroc=[effect[r[:3]] + rng.normal() for r in rows])


def with_holes(table, share=0.25, seed=1):
    """Rows are lost, no cell loses all of its rows."""
    keep = np.random.default_rng(seed).random(len(table)) >= share
    return table[keep | (table["dataset"] == 0)]


def by_statsmodels(table, factors, typ):
    formula = "auroc ~ " + " * ".join(f"C({f}, Sum)" for f in factors)
    return statsmodels.api.stats.anova_lm(statsmodels.formula.api.ols(formula, table).fit(), typ=typ)


@pytest.mark.parametrize("typ", [2, 3])
@pytest.mark.parametrize("factors", [FACTORS, FACTORS[:2], ["detector"]], ids=len)
def test_equals_statsmodels(typ, factors):
    table = with_holes(results())
    ours = analysis.anova(table, factors=factors, sums_of_squares=typ)
    theirs = by_statsmodels(table, factors, typ).drop(index="Intercept", errors="ignore")
    assert ours.attrs["design"] == ("unbalanced" if len(factors) > 1 else "proportional")
    np.testing.assert_array_equal(ours["df"], theirs["df"])
    for mine, their in (("sum_sq", "sum_sq"), ("F", "F"), ("p", "PR(>F)")):
        np.testing.assert_allclose(ours[mine], theirs[their], rtol=1e-8)


def test_the_types_differ_where_cells_do():
    table = with_holes(results())
    second, third = (analysis.anova(table, sums_of_squares=t)["sum_sq"].to_numpy() for t in (2, 3))
    assert (np.abs(second[:-2] / third[:-2] - 1) > 1e-3).any()
    np.testing.assert_allclose(second[-2:], third[-2:], rtol=1e-9)  # the last term and the residual are the same


def test_type_3_of_a_proportional_design_equals_statsmodels():
    """Cells of proportional sizes make types I and II the same; type III still weighs all levels alike."""
    table = results()
    table = table[(table["ood_category"] == "0") | (table["dataset"] == 0)]
    for typ in (2, 3):
        ours = analysis.anova(table, sums_of_squares=typ)
        theirs = by_statsmodels(table, FACTORS, typ).drop(index="Intercept", errors="ignore")
        assert ours.attrs["design"] == "proportional"
        np.testing.assert_allclose(ours["sum_sq"], theirs["sum_sq"], rtol=1e-8)


def least_squares(table, terms):
    """Residual sum of squares and rank of a model with the given terms, each a list of factors."""
    design = np.hstack([pd.get_dummies(table[list(t)].agg("|".join, axis=1)).to_numpy(float) for t in terms])
    coefficients, _, rank, _ = np.linalg.lstsq(design, table["auroc"], rcond=None)
    return float(np.sum((table["auroc"] - design @ coefficients) ** 2)), rank


def test_empty_cells_take_degrees_of_freedom():
    table = with_holes(results())
    gone = table["model"].eq("1") & table["detector"].eq("2") | table["model"].eq("0") & table["ood_category"].eq("1")
    table = table[~gone]
    found = analysis.anova(table).set_index("term")
    m, d, c = FACTORS
    pairs = [(m, d), (m, c), (d, c)]
    cases = {
        m: [(d, c)],
        c: [(m, d)],
        f"{m}:{d}": [(m, c), (d, c)],
        f"{m}:{d}:{c}": pairs,
    }
    for term, without in cases.items():
        before, rank = least_squares(table, without)
        after, full = least_squares(table, [*without, tuple(term.split(":"))])
        assert found.loc[term, "df"] == full - rank
        assert found.loc[term, "sum_sq"] == pytest.approx(before - after, rel=1e-8)
    cells = len(table.groupby(FACTORS))
    assert found.loc["Residual", "df"] == len(table) - cells
    with pytest.raises(ValueError, match=r"no row for model='0', detector='0', ood_category='1' \(6 combinations"):
        analysis.anova(table, sums_of_squares=3)


def test_seven_percent_of_the_rows_may_be_missing():
    table = results(shape=(17, 21, 4), sets=2)
    holes = table[np.random.default_rng(0).random(len(table)) >= 0.07]
    whole, found = analysis.anova(table), analysis.anova(holes)
    assert np.isfinite(found["F"].iloc[:-1]).all() and found["df"].sum() == len(holes) - 1
    # the residual has 14 % fewer degrees of freedom, and a smaller share
    np.testing.assert_allclose(found["share"], whole["share"], atol=0.03)
    assert list(analysis.leave_one_category_out(holes).columns)[:3] == ["term", "all", "without 0"]


@pytest.mark.parametrize("kind", [1, "2", None])
def test_the_type_is_checked(kind):
    with pytest.raises(ValueError, match="sums_of_squares must be 2 or 3, the type of the sums of squares, got"):
        analysis.anova(results(), sums_of_squares=kind)
