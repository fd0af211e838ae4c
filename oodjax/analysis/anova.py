"""Analysis of variance of a factorial design: in closed form where it is proportional, by least squares otherwise."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from oodjax.analysis.table import require_columns, require_finite, rounding
from oodjax.analysis.unbalanced import type_2, type_3

FACTORS = ("model", "detector", "ood_category")


def anova(
    table: pd.DataFrame, response: str = "auroc", factors: Sequence[str] = FACTORS, sums_of_squares: int = 2
) -> pd.DataFrame:
    """Full factorial analysis of variance: main effects and all interactions, rows of one cell being replicates.

    In a proportional design the size of every cell is the product of the shares of its levels. It is one when every
    model and detector was run on the same data sets, however many of them a category has. Effects are then orthogonal,
    sums of squares of types I and II are those of the weighted marginal means, and shares add up to 1:
    `SS(T) = N * sum of w * effect(T)^2`, where `effect(T)` of the cell means takes the mean over every factor outside T
    and the deviation from the mean over every factor in T. With rows missing, types I and II differ, and shares need
    not add up to 1.

    F and p take rows as independent, which rows of one model are not: see `share_intervals`.

    Args:
      table: one row per observation.
      response: a numeric column without NaN.
      factors: one or more columns, taken as categories.
      sums_of_squares: 2, each term after all that do not contain it; a cell may then be empty, which takes degrees of
        freedom. 3, each term after all others, effects adding up to zero: unweighted means, every cell needs a row.
        statsmodels' `anova_lm(typ=)` gives the same, for type 3 with `Sum` contrasts.

    Returns:
      Columns `term, df, sum_sq, F, p, share`: one row per term ("model", "model:detector", ...), the last being
      "Residual", whose F and p are NaN. `share` is the fraction of the total sum of squares. F and p are NaN where
      there is nothing to test: no replicates, a factor with a single level, a constant response; shares are NaN for a
      constant response. A sum of squares that may be rounding alone is 0, for F would divide it by other rounding.
      `attrs["note"]` says why nothing is tested: "no replicates", "perfect fit" (each row equals the mean of its
      cell) or "constant response"; it is empty otherwise. `attrs["design"]` is "proportional" or "unbalanced".

    Raises:
      TypeError: the table is no DataFrame, or `factors` is one text.
      ValueError: a column is missing, a value is no finite number, or for type 3 a cell is empty; it is named.
    """
    if isinstance(factors, str):
        raise TypeError(f"factors must be a list of columns, got {factors!r}: write [{factors!r}]")
    factors = list(factors)
    if not factors or len(set(factors)) != len(factors) or response in factors:
        raise ValueError(f"factors must be one or more different columns other than the response, got {factors}")
    if sums_of_squares not in (2, 3):
        raise ValueError(f"sums_of_squares must be 2 or 3, the type of the sums of squares, got {sums_of_squares!r}")
    require_columns(table, [response, *factors])
    values = require_finite(table, response)
    noise = len(table) * rounding(values) ** 2
    values = values.astype(np.float64)
    centred = values - values.mean()
    codes, counts = cells_of(table, factors)
    means = np.bincount(codes, centred, minlength=counts.size).reshape(counts.shape) / np.maximum(counts, 1)
    if sums_of_squares == 3 and not counts.all():
        absent = [int(i) for i in np.argwhere(counts == 0)[0]]
        raise ValueError(
            f"no row for {_name(table, factors, absent)} ({(counts == 0).sum()} combinations are missing): type 3 "
            "takes rows in every one; take type 2, or `largest_block`"
        )
    residual = float(np.sum((centred - means.ravel()[codes]) ** 2))
    total = _above(float(np.sum(centred**2)), noise)

    terms = [t for size in range(1, len(factors) + 1) for t in itertools.combinations(range(len(factors)), size)]
    names = [":".join(factors[axis] for axis in term) for term in terms]
    design = "proportional" if _proportional(counts) else "unbalanced"
    found = _explained(means, counts, terms, sums_of_squares, design)
    df = np.array([d for _, d in found] + [len(table) - np.count_nonzero(counts)])
    sum_sq = np.array([_above(s, noise) if total else 0.0 for s in (*(square for square, _ in found), residual)])
    tested = sum_sq[-1] > 0 and df[-1] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        f = (sum_sq[:-1] / df[:-1]) / (sum_sq[-1] / df[-1]) if tested else np.full(len(terms), np.nan)
        share = sum_sq / np.float64(total)
    p = scipy.stats.f.sf(f, df[:-1], df[-1])
    result = pd.DataFrame(
        {
            "term": [*names, "Residual"],
            "df": df,
            "sum_sq": sum_sq,
            "F": np.append(f, np.nan),
            "p": np.append(p, np.nan),
            "share": share,
        }
    )
    result.attrs["note"] = "" if tested else _why_untested(total, int(df[-1]))
    result.attrs["design"] = design
    return result


def _explained(
    means: NDArray[np.float64], counts: NDArray[np.int64], terms: list[tuple[int, ...]], kind: int, design: str
) -> list[tuple[float, int]]:
    if kind == 3:
        return type_3(means, counts.astype(np.float64), terms)
    if design == "unbalanced":
        return type_2(means, counts.astype(np.float64), terms)
    df = [math.prod(counts.shape[axis] - 1 for axis in term) for term in terms]
    return list(zip(_sums_of_squares(means, counts, terms), df, strict=True))


def _above(square: float, noise: float) -> float:
    return square if square > noise else 0.0


def _why_untested(total: float, residual_df: int) -> str:
    if total == 0:
        return "constant response"
    return "perfect fit" if residual_df > 0 else "no replicates"


def leave_one_category_out(
    table: pd.DataFrame,
    response: str = "auroc",
    factors: Sequence[str] = FACTORS,
    category: str = "ood_category",
    sums_of_squares: int = 2,
) -> pd.DataFrame:
    """Each term's share of the variance with all rows and without one category at a time (the paper's Table 4).

    Returns:
      Columns `term`, `all` and one `without <category>` per category, in order of appearance; shares are fractions.
    """
    require_columns(table, [category])
    whole = anova(table, response, factors, sums_of_squares)
    shares = {"term": whole["term"], "all": whole["share"]}
    if table[category].nunique() < 2:
        raise ValueError(f"leaving out a category takes two or more, got {table[category].unique().tolist()}")
    for name in table[category].unique():
        rest = table[table[category] != name]
        shares[f"without {name}"] = anova(rest, response, factors, sums_of_squares)["share"]
    return pd.DataFrame(shares)


def _sums_of_squares(
    means: NDArray[np.float64], counts: NDArray[np.int64], terms: list[tuple[int, ...]]
) -> list[float]:
    rows = counts.sum()
    axes = range(counts.ndim)
    weights = [counts.sum(axis=tuple(a for a in axes if a != axis)) / rows for axis in axes]
    sums = []
    for term in terms:
        effect = means
        for axis in axes:
            mean = np.average(effect, axis=axis, weights=weights[axis], keepdims=True)
            effect = effect - mean if axis in term else mean
        square = effect**2
        for axis in term:
            square = np.average(square, axis=axis, weights=weights[axis], keepdims=True)
        sums.append(float(rows * square.item()))
    return sums


def cells_of(table: pd.DataFrame, factors: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's cell, and the rows per cell with one axis per factor, levels in order of appearance."""
    coded = [pd.factorize(table[factor], use_na_sentinel=True) for factor in factors]
    for factor, (code, _) in zip(factors, coded, strict=True):
        if (code < 0).any():
            raise ValueError(f"{factor} is missing in {(code < 0).sum()} of {len(table)} rows")
    shape = tuple(len(levels) for _, levels in coded)
    codes = np.ravel_multi_index([code for code, _ in coded], shape)
    return codes, np.bincount(codes, minlength=math.prod(shape)).reshape(shape)


def _name(table: pd.DataFrame, factors: Sequence[str], cell: Sequence[int]) -> str:
    levels = [pd.factorize(table[factor])[1] for factor in factors]
    return ", ".join(f"{f}={names[i]!r}" for f, names, i in zip(factors, levels, cell, strict=True))


def _proportional(counts: NDArray[np.int64]) -> bool:
    rows = counts.sum()
    expected = np.full(counts.shape, float(rows))
    for axis in range(counts.ndim):
        others = tuple(a for a in range(counts.ndim) if a != axis)
        expected = expected * counts.sum(axis=others, keepdims=True) / rows
    return bool(np.abs(counts - expected).max() <= 1e-6)
