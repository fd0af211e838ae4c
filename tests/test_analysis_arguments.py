"""Arguments of the analyses: NumPy's numbers are numbers, and what cannot be right is one clear sentence."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from oodjax import analysis

TABLE = pd.DataFrame(
    [
        {"model": m, "detector": d, "ood_category": "near", "auroc": v}
        for m, row in zip("abc", [[0.5, 0.75, 0.25], [0.5, 0.25, 0.75], [0.125, 0.5, 0.25]], strict=True)
        for d, v in zip(("msp", "knn", "vim"), row, strict=True)
    ]
)
MODELS = pd.DataFrame({"model": list("abc"), "category": "x", "accuracy": [0.5, 0.6, 0.7], "ece": 0.1})
FACTORS = ["model", "detector"]
X = np.random.default_rng(0).normal(size=(20, 5))


def with_auroc(values):
    return TABLE.assign(auroc=values)


@pytest.mark.parametrize(
    "column",
    [
        TABLE["auroc"].astype(object),
        TABLE["auroc"].astype("Float64"),
        TABLE["auroc"].astype(np.float32),
        TABLE["auroc"].astype(">f8"),
        [Decimal(str(v)) for v in TABLE["auroc"]],
    ],
)
def test_numbers_of_any_type_give_the_same(column):
    table = with_auroc(column)
    np.testing.assert_array_equal(
        analysis.anova(table, factors=FACTORS)["sum_sq"], analysis.anova(TABLE, factors=FACTORS)["sum_sq"]
    )
    assert analysis.friedman(table) == analysis.friedman(TABLE)
    joined, expected = analysis.join_models(table, MODELS), analysis.join_models(TABLE, MODELS)
    assert analysis.spearman(joined) == analysis.spearman(expected)


def test_numpy_scalars_are_numbers():
    np.testing.assert_array_equal(analysis.pca_embedding(X, X, np.int64(2)).id, analysis.pca_embedding(X, X, 2).id)
    found = analysis.critical_difference(np.int32(5), np.uint8(14), np.float64(0.1))
    assert found == analysis.critical_difference(5, 14, 0.1)
    assert analysis.cd_groups([1.0, 1.5, 4.0], np.float32(1)) == [[0, 1]]
    wide = analysis.mean_ranks(TABLE, confidence=np.float64(0.5))
    pd.testing.assert_frame_equal(wide, analysis.mean_ranks(TABLE, confidence=0.5))


def test_missing_values_are_left_out_of_a_nullable_column():
    values = TABLE["auroc"].astype("Float64").mask(TABLE.index == 0)
    found = analysis.spearman(analysis.join_models(with_auroc(values), MODELS))
    rest = analysis.join_models(TABLE.iloc[1:], MODELS)
    assert found.n == 8 and found == analysis.spearman(rest)
    with pytest.raises(ValueError, match="auroc is NaN or infinite in 1 of 9 rows"):
        analysis.anova(with_auroc(values), factors=FACTORS)


BAD = {
    "text": (
        lambda: analysis.anova(with_auroc("0.9"), factors=FACTORS),
        "auroc must be a column of real numbers, got string, the first being '0.9'",
    ),
    "text ranks": (lambda: analysis.friedman(with_auroc("0.9")), "auroc must be a column of real numbers, got string"),
    "dates": (
        lambda: analysis.mean_ranks(with_auroc(pd.Timestamp("2020-01-01"))),
        "auroc must be a column of real numbers, got datetime",
    ),
    "complex": (
        lambda: analysis.robustness(with_auroc(1j), baseline=None),
        "auroc must be a column of real numbers, got complex, the first being 1j",
    ),
    "mixed": (
        lambda: analysis.anova(with_auroc([0.5, "x"] * 4 + [0.5]), factors=FACTORS),
        "auroc must be a column of real numbers, got mixed",
    ),
    "correlated text": (
        lambda: analysis.spearman(TABLE, "detector", "auroc"),
        "detector must be a column of real numbers, got string, the first being 'msp'",
    ),
    "arrays of text": (
        lambda: analysis.spearman(["a", "b", "c"], [1, 2, 3]),
        "the first array must be an array of real numbers",
    ),
    "masked": (
        lambda: analysis.spearman([1, 2, 3], np.ma.array([1, 2, 3], mask=[0, 1, 0])),
        "the second array is a masked array with 1 masked",
    ),
    "no table": (lambda: analysis.anova([[0.5, 0.4]]), "table must be a pandas DataFrame, got a list"),
    "array as table": (lambda: analysis.friedman(X), "table must be a pandas DataFrame, got ndarray of float64"),
    "array as models": (lambda: analysis.join_models(TABLE, X), "models must be a pandas DataFrame, got ndarray"),
    "twice": (
        lambda: analysis.friedman(pd.concat([TABLE, TABLE["auroc"]], axis=1)),
        "table has more than one column named 'auroc'",
    ),
    "list as column": (
        lambda: analysis.spearman(TABLE, "auroc", "auroc", by=["model"]),
        r"table lacks the columns \[\['model'\]\]",
    ),
    "factors as text": (
        lambda: analysis.anova(TABLE, factors="model"),
        r"factors must be a list of columns, got 'model': write \['model'\]",
    ),
    "response as factor": (
        lambda: analysis.anova(TABLE, factors=["model", "auroc"]),
        "different columns other than the response, got",
    ),
    "dim": (lambda: analysis.pca_embedding(X, X, 1.5), "dim must be a whole number in 1 to 5, got 1.5"),
    "dim true": (lambda: analysis.pca_embedding(X, X, True), "dim must be a whole number in 1 to 5, got True"),
    "k": (lambda: analysis.critical_difference(2.5, 3), "k and n whole numbers, got k=2.5"),
    "alpha": (lambda: analysis.critical_difference(3, 3, float("nan")), "got k=3, n=3, alpha=nan"),
    "confidence": (
        lambda: analysis.mean_ranks(TABLE, confidence=95),
        "confidence must be a share between 0 and 1, such as 0.95, got 95",
    ),
    "cd": (
        lambda: analysis.cd_groups([1.0, 2.0], float("nan")),
        "cd must be a critical difference, 0 or more, got nan",
    ),
    "cd below 0": (lambda: analysis.cd_groups([1.0, 2.0], -1), "cd must be a critical difference, 0 or more, got -1"),
    "ranks": (lambda: analysis.cd_groups([1.0, float("nan")], 1), "ranks has 1 values that are NaN"),
    "no ranks": (lambda: analysis.cd_groups(TABLE, 1), r"ranks lacks the columns \['mean_rank'\]"),
    "features": (lambda: analysis.feature_space([["a", "b"], ["c", "d"]]), "features must be an array of real numbers"),
    "complex features": (
        lambda: analysis.feature_space(X * 1j),
        "features must be an array of real numbers, got ndarray of complex128",
    ),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD)
def test_bad_arguments_are_one_sentence(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
