"""Analysis of variance of a proportional factorial design, in closed form."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from oodjax.analysis.table import require_columns, require_finite, rounding

FACTORS = ("model", "detector", "ood_category")


def anova(table: pd.DataFrame, response: str = "auroc", factors: Sequence[str] = FACTORS) -> pd.DataFrame:
    """Full factorial analysis of variance: main effects and all interactions, rows of one cell being replicates.

    The design has to be proportional: the size of every cell is the product of the shares of its levels. It is when
    every model and detector was run on the same data sets, however many of them a category has. Effects are then
    orthogonal, and sums of squares of types I, II and III coincide with those of the weighted marginal means:
    `SS(T) = N * sum of w * effect(T)^2`, where `effect(T)` of the cell means takes the mean over every factor outside T
    and the deviation from the mean over every factor in T.

    Args:
      table: one row per observation.
      response: a numeric column without NaN.
      factors: one or more columns, taken as categories.

    Returns:
      Columns `term, df, sum_sq, F, p, share`: one row per term ("model", "model:detector", ...), the last being
      "Residual", whose F and p are NaN. `share` is the fraction of the total sum of squares. F and p are NaN where
      there is nothing to test: no replicates, a factor with a single level, a constant response; shares are NaN for a
      constant response. A sum of squares that may be rounding alone is 0, for F would divide it by other rounding.
      `attrs["note"]` says why nothing is tested: "no replicates", "perfect fit" (each row equals the mean of its
      cell) or "constant response"; it is empty otherwise.

    Raises:
      TypeError: the table is no DataFrame, or `factors` is one text.
      ValueError: a column is missing, a value is no finite number, or a cell is empty or out of proportion; it is
        named.
    """
    if isinstance(factors, str):
        raise TypeError(f"factors must be a list of columns, got {factors!r}: write [{factors!r}]")
    factors = list(factors)
    if not factors or len(set(factors)) != len(factors) or response in factors:
        raise ValueError(f"factors must be one or more different columns other than the response, got {factors}")
    require_columns(table, [response, *factors])
    values = require_finite(table, response)
    noise = len(table) * rounding(values) ** 2
    values = values.astype(np.float64)
    centred = values - values.mean()
    codes, counts = _cells(table, factors)
    means = np.bincount(codes, centred, minlength=counts.size).reshape(counts.shape) / counts
    residual = float(np.sum((centred - means.ravel()[codes]) ** 2))
    total = _above(float(np.sum(centred**2)), noise)

    terms = [t for size in range(1, len(factors) + 1) for t in itertools.combinations(range(len(factors)), size)]
    names = [":".join(factors[axis] for axis in term) for term in terms]
    df = np.array([math.prod(counts.shape[axis] - 1 for axis in term) for term in terms] + [len(table) - counts.size])
    sum_sq = np.array([_above(s, noise) if total else 0.0 for s in (*_sums_of_squares(means, counts, terms), residual)])
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
    return result


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
) -> pd.DataFrame:
    """Each term's share of the variance with all rows and without one category at a time (the paper's Table 4).

    Returns:
      Columns `term`, `all` and one `without <category>` per category, in order of appearance; shares are fractions.
    """
    require_columns(table, [category])
    whole = anova(table, response, factors)
    shares = {"term": whole["term"], "all": whole["share"]}
    if table[category].nunique() < 2:
        raise ValueError(f"leaving out a category takes two or more, got {table[category].unique().tolist()}")
    for name in table[category].unique():
        shares[f"without {name}"] = anova(table[table[category] != name], response, factors)["share"]
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


def _cells(table: pd.DataFrame, factors: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's cell and the rows per cell; ValueError for an empty cell or one out of proportion."""
    coded = [pd.factorize(table[factor], use_na_sentinel=True) for factor in factors]
    for factor, (code, _) in zip(factors, coded, strict=True):
        if (code < 0).any():
            raise ValueError(f"{factor} is missing in {(code < 0).sum()} of {len(table)} rows")
    shape = tuple(len(levels) for _, levels in coded)

    def name(cell: Sequence[int]) -> str:
        return ", ".join(f"{f}={levels[i]!r}" for f, (_, levels), i in zip(factors, coded, cell, strict=True))

    present = set(zip(*(code.tolist() for code, _ in coded), strict=True))
    if len(present) < math.prod(shape):
        absent = next(cell for cell in np.ndindex(*shape) if cell not in present)
        raise ValueError(f"no row for {name(absent)} ({math.prod(shape) - len(present)} combinations are missing)")
    codes = np.ravel_multi_index([code for code, _ in coded], shape)
    counts = np.bincount(codes, minlength=math.prod(shape)).reshape(shape)
    expected = np.full(shape, float(len(table)))
    for axis in range(len(shape)):
        others = tuple(a for a in range(len(shape)) if a != axis)
        expected = expected * counts.sum(axis=others, keepdims=True) / len(table)
    gap = np.abs(counts - expected)
    if gap.max() > 1e-6:
        worst = np.unravel_index(gap.argmax(), shape)
        raise ValueError(
            f"the design is not proportional: {name([int(i) for i in worst])} has {counts[worst]} rows where the other "
            f"cells ask for {expected[worst]:.3g}; every combination needs the same data sets"
        )
    return codes, counts
