"""Rank correlation between what a classifier is good at and what its detectors are good at."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from oodjax.analysis.table import join_models, numbers_of, require_columns, tied
from oodjax.arrays import host_array

RESPONSES = ("auroc", "auroc_correct_vs_ood", "auroc_incorrect_vs_ood", "fpr95")


class Correlation(NamedTuple):
    """Spearman's rho and its two-sided p over `n` rows; NaN with a `reason` where it is undefined."""

    rho: float
    p: float
    n: int
    reason: str = ""


@overload
def spearman(table: pd.DataFrame, x: str = "accuracy", y: str = "auroc", by: None = None) -> Correlation: ...
@overload
def spearman(table: pd.DataFrame, x: str = "accuracy", y: str = "auroc", *, by: str) -> pd.DataFrame: ...
@overload
def spearman(table: ArrayLike, x: ArrayLike) -> tuple[float, float]: ...


def spearman(table, x="accuracy", y="auroc", by=None):
    """Spearman's rank correlation of two columns of a table, or of two arrays.

    Rows where either value is NaN are left out (a metric is NaN where it is undefined, such as that of incorrectly
    classified samples of a model without mistakes); `n` counts the rows used. Values that differ by rounding tie.
    The correlation of a constant, or of fewer than three rows, is NaN and says why. p takes rows as independent,
    which rows of one model are not.

    Args:
      table: a DataFrame, or the first of two arrays.
      x: a column, or the second of two arrays.
      y: a column.
      by: a column whose every value gets its own correlation.

    Returns:
      For a table a `Correlation`, or with `by` a DataFrame with columns `<by>, rho, p, n, reason`. For two arrays
      `(rho, p)`.
    """
    if not isinstance(table, pd.DataFrame):
        a = host_array(table, "the first array").astype(np.float64)
        b = host_array(x, "the second array").astype(np.float64)
        if a.ndim != 1 or a.shape != b.shape:
            raise ValueError(f"expected two arrays of shape (n,), got {a.shape} and {b.shape}")
        return correlate(a, b, "the first array", "the second array")[:2]
    require_columns(table, [x, y] if by is None else [x, y, by])
    if by is None:
        return _of_rows(table, x, y)
    groups = table.groupby(by, sort=False, observed=True)
    return pd.DataFrame([{by: name, **_of_rows(group, x, y)._asdict()} for name, group in groups])


def spearman_table(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str | None = "baseline",
    responses: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The study's correlations of accuracy and of calibration error with detection, whole and in parts.

    Args:
      table: results with `model`, `detector`, `ood_category` and the responses.
      models: one row per model with `model`, `category`, `accuracy`, `ece`.
      baseline: the model whose accuracy divides the models in those below and those at or above; None for no division.
      responses: columns to correlate with; by default those of `RESPONSES` that the table has.

    Returns:
      Columns `x` (accuracy or ece), `y` (a response), `subset` (overall, below baseline, at or above baseline,
      model_category, detector, ood_category), `group`, `rho, p, n, reason`.
    """
    wanted = [r for r in RESPONSES if r in table.columns] if responses is None else list(responses)
    require_columns(table, ["model", "detector", "ood_category", *wanted])
    if not wanted:
        raise ValueError(f"table has none of the responses {list(RESPONSES)}; it has {list(table.columns)}")
    joined = join_models(table, models)
    parts = list(subsets(joined, models, baseline))
    rows = [
        {"x": x, "y": y, "subset": subset, "group": group, **_of_rows(part, x, y)._asdict()}
        for x in ("accuracy", "ece")
        for y in wanted
        for subset, group, part in parts
    ]
    return pd.DataFrame(rows)


def split_at_baseline(
    joined: pd.DataFrame, models: pd.DataFrame, baseline: str
) -> tuple[float, pd.DataFrame, pd.DataFrame]:
    """The baseline's accuracy, and the rows of models below it and of those at or above it.

    The accuracy of a recipe is the mean of its seeds.
    """
    of_recipe = models["recipe"] == baseline if "recipe" in models.columns else models["model"].isna()
    accuracy = models.loc[of_recipe if of_recipe.any() else models["model"] == baseline, "accuracy"]
    if len(accuracy) == 0 or len(accuracy) > 1 and not of_recipe.any():
        raise ValueError(f"models has {len(accuracy)} rows for the baseline {baseline!r}, expected 1")
    limit = float(accuracy.mean())
    return limit, joined[joined["accuracy"] < limit], joined[joined["accuracy"] >= limit]


def subsets(
    joined: pd.DataFrame, models: pd.DataFrame, baseline: str | None
) -> Iterable[tuple[str, str, pd.DataFrame]]:
    """The parts that correlations are taken of: (kind, group, rows)."""
    yield "overall", "", joined
    if baseline is not None:
        _, below, above = split_at_baseline(joined, models, baseline)
        yield "below baseline", "", below
        yield "at or above baseline", "", above
    for column in ("model_category", "detector", "ood_category"):
        for name, rows in joined.groupby(column, sort=False, observed=True):
            yield column, str(name), rows


def _of_rows(rows: pd.DataFrame, x: str, y: str) -> Correlation:
    return correlate(numbers_of(rows, x).astype(np.float64), numbers_of(rows, y).astype(np.float64), x, y)


def correlate(a: np.ndarray, b: np.ndarray, *names: str) -> Correlation:
    keep = ~(np.isnan(a) | np.isnan(b))
    a, b = tied(a[keep]), tied(b[keep])
    if len(a) < 3:
        return Correlation(np.nan, np.nan, len(a), f"{len(a)} rows, at least 3 are needed")
    for name, values in zip(names, (a, b), strict=True):
        if np.all(values == values[0]):
            return Correlation(np.nan, np.nan, len(a), f"{name} is constant")
    result = scipy.stats.spearmanr(a, b)
    return Correlation(float(result.statistic), float(result.pvalue), len(a))
