"""Intervals that know which rows belong together: of means and of any statistic."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from oodjax.analysis.clusters import RECIPE, SEED, cluster_column, cluster_values, counted
from oodjax.analysis.interval import Interval
from oodjax.analysis.resampling import (
    REPLICATES,
    Values,
    bca,
    check_level,
    draw,
    evaluate,
    studentised,
)
from oodjax.analysis.seeds import seeds_of
from oodjax.analysis.table import require_columns, require_finite


def bootstrap(
    table: pd.DataFrame,
    statistic: str | Callable[[pd.DataFrame], float],
    cluster: str = "model",
    strata: str | None = None,
    replicates: int = REPLICATES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of a statistic from resampling whole clusters of rows, which depend on one another within.

    It is the bias-corrected and accelerated one, widened for few clusters (Efron 1987; Hesterberg 2015).

    Args:
      table: one row per observation.
      statistic: a column, for the mean over all rows (thousands of resamples in a fraction of a second); or a function
        of a table, which is called once per resample. In its table a cluster that was drawn twice has two names.
      cluster: the column whose values are drawn, such as `model`, or `recipe` where there are several seeds.
      strata: a column that is the same throughout a cluster, such as `model_category`; each value keeps its number of
        clusters in every resample.
      replicates: the number of resamples, 100 or more.
      level: between 0 and 1.
      seed: of the draws.

    Raises:
      ValueError: a column is missing, a cluster lies in two strata, or there are fewer than 3 clusters.
    """
    level = check_level(level)
    require_columns(table, [c for c in (cluster, strata) if c is not None])
    codes, names = pd.factorize(table[cluster])
    if (codes < 0).any():
        raise ValueError(f"{cluster} is missing in {(codes < 0).sum()} of {len(table)} rows")
    if len(names) < 3:
        raise ValueError(f"a bootstrap takes 3 or more to draw from, got {counted(len(names), cluster)}")
    n = len(names)
    counts = draw(_strata(table, strata, cluster, codes, n), replicates, seed)
    leave_out = 1 - np.eye(n)
    of_counts: Callable[[Values], Values]
    if isinstance(statistic, str):
        of_counts = _mean_of(_finite(table, statistic), codes, n)
    elif callable(statistic):
        of_counts = _called(table, statistic, cluster, codes, names)
    else:
        raise TypeError(f"statistic must be a column or a function of a table, got {statistic!r}")
    estimate = float(of_counts(np.ones((1, n)))[0])
    low, high = bca(estimate, evaluate(of_counts, counts, n), of_counts(leave_out), level)
    return Interval(estimate, low, high, level, counted(n, cluster))


def _finite(table: pd.DataFrame, column: str) -> Values:
    require_columns(table, [column])
    return require_finite(table, column).astype(np.float64)


def _strata(table: pd.DataFrame, strata: str | None, cluster: str, codes: Values, n: int) -> list[int]:
    if strata is None:
        return [0] * n
    of_row, _ = pd.factorize(table[strata], use_na_sentinel=False)
    several = pd.Series(of_row).groupby(codes).nunique()
    if (several > 1).any():
        name = table.loc[codes == several.idxmax(), cluster].iloc[0]
        raise ValueError(f"{cluster} {name!r} lies in more than one value of {strata}")
    first = np.zeros(n, np.int64)
    first[codes] = of_row
    return first.tolist()


def _mean_of(values: Values, codes: Values, n: int) -> Callable[[Values], Values]:
    centre = values.mean()
    sums, sizes = np.bincount(codes, values - centre, n), np.bincount(codes, minlength=n)
    return lambda counts: centre + counts @ sums / (counts @ sizes)


def _called(
    table: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], cluster: str, codes: Values, names: pd.Index
) -> Callable[[Values], Values]:
    rows = [np.flatnonzero(codes == i) for i in range(len(names))]

    def one(counts: Values) -> float:
        drawn = [(i, copy) for i, times in enumerate(counts.astype(int)) for copy in range(times)]
        part = table.iloc[np.concatenate([rows[i] for i, _ in drawn])]
        labels = [names[i] if copy == 0 else f"{names[i]} ({copy + 1})" for i, copy in drawn]
        sizes = [len(rows[i]) for i, _ in drawn]
        return float(statistic(part.assign(**{cluster: np.repeat(np.array(labels, object), sizes)})))

    return lambda counts: np.array([one(row) for row in counts])


def mean_interval(
    table: pd.DataFrame, by: str = "detector", response: str = "auroc", level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The mean of each detector (or of each value of another column) with its interval.

    What is resampled depends on what the mean is to hold for:

    * `by="detector"`, or another column that every model has, such as `dataset`: the models; recipes where there are
      several seeds; the OOD sets where there is one model, whose interval says nothing about other models.
    * `by="recipe"`: the seeds of each recipe.
    * `by="model"`: the OOD sets, as one network has nothing else; use `recipe` to compare ways of training.

    With 8 or more to resample it is the bootstrap-t interval, which holds for skewed values; Student's t below. Missing
    cells are adjusted for (`adjusted_means`).

    Returns:
      Columns `<by>, mean, low, high, n, unit`, in order of appearance. `attrs["note"]` says what was adjusted for.
    """
    level = check_level(level)
    require_columns(table, [by, response])
    if by == RECIPE:
        values, note = seeds_of(table, response)
        rows = [_row(by, name, v.to_numpy(), level, seed, SEED) for name, v in values.groupby(level=0, sort=False)]
        result = pd.DataFrame(rows)
        result.attrs["note"] = note
        return result
    cluster = cluster_column(table)
    if by in ("model", cluster) or table[cluster].nunique() < 2:
        cluster = "dataset"
    values, note = cluster_values(table, response, cluster, by)
    if values.isna().to_numpy().any():
        rows = [_row(by, c, values[c].dropna().to_numpy(), level, seed, cluster) for c in values]
    else:
        low, high = studentised(values.to_numpy(), level, seed=seed)
        n = len(values)
        columns = {by: values.columns, "mean": values.mean().to_numpy(), "low": low, "high": high, "n": n}
        rows = pd.DataFrame({**columns, "unit": counted(n, cluster)}).to_dict("records")
    result = pd.DataFrame(rows)
    result.attrs["note"] = note
    return result


def _row(by: str, name: object, values: Values, level: float, seed: int, unit: str) -> dict[str, object]:
    low, high = studentised(values[:, None], level, seed=seed)
    n = len(values)
    return {by: name, "mean": values.mean(), "low": low[0], "high": high[0], "n": n, "unit": counted(n, unit)}
