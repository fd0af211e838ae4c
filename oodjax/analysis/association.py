"""Rank correlation between models, with what resampling the models says about it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from oodjax.analysis.clusters import cluster_column, cluster_values, counted
from oodjax.analysis.correlation import correlate, spearman_table, subsets
from oodjax.analysis.resampling import (
    FEWEST,
    REPLICATES,
    Statistic,
    bca,
    check_level,
    draw,
    evaluate,
    holm,
    permutation_of_scores,
)
from oodjax.analysis.table import join_models, numbers_of, require_columns, tied


class ClusterCorrelation(NamedTuple):
    """Spearman's rho with its interval from resampling `n` models (or recipes), and p by permutation of them.

    `unit` says what was resampled ("17 models"); low, high and p are NaN with a `reason` where there is too little.
    """

    rho: float
    low: float
    high: float
    p: float
    n: int
    level: float
    unit: str
    reason: str = ""

    @property
    def excludes_zero(self) -> bool:
        return bool(self.low > 0 or self.high < 0)


def correlation_interval(
    joined: pd.DataFrame,
    x: str = "accuracy",
    y: str = "auroc",
    over: str = "clusters",
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ClusterCorrelation:
    """Rank correlation of a property of the models with a response, its interval from resampling whole models.

    Where the table has a column `recipe`, recipes are resampled: seeds of one recipe are no new evidence about recipes.
    The interval is the bias-corrected and accelerated bootstrap, stretched to 0 where the permutation test, which is
    exact with any number of models, does not refuse it; with fewer than 5 there is none.

    Args:
      joined: results with `model`, `x` (one value per model) and `y`, as of `join_models`.
      x: a column of the models, such as accuracy.
      y: a column of the rows, such as auroc.
      over: "clusters" correlates one value per model (or recipe), the mean over detectors and sets, adjusted for
        missing cells. "rows" is the paper's figure over all rows of the table, much smaller in size as every
        detector's and set's own level is in it as noise.
      level: between 0 and 1.
      replicates: the number of resamples.
      seed: of the draws.
    """
    level = check_level(level)
    if over not in ("clusters", "rows"):
        raise ValueError(f'over must be "clusters" or "rows", got {over!r}')
    require_columns(joined, ["model", x, y])
    cluster = cluster_column(joined)
    means = cluster_values(joined, y, cluster)[0][y]
    return _interval_of(joined, means, cluster, x, y, over, level, replicates, seed)


def _interval_of(
    joined: pd.DataFrame,
    means: pd.Series,
    cluster: str,
    x: str,
    y: str,
    over: str = "clusters",
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ClusterCorrelation:
    """`correlation_interval` from the clusters' mean responses."""
    facts = joined.drop_duplicates("model").assign(**{x: lambda t: numbers_of(t, x).astype(np.float64)})
    property_of = facts.groupby(cluster, sort=False)[x].mean().reindex(means.index)
    keep = (means.notna() & property_of.notna()).to_numpy()
    names, n = means.index[keep], int(keep.sum())
    if over == "rows":
        rows = joined[joined[cluster].isin(names) & joined[y].notna()]
        a, b = numbers_of(rows, x).astype(np.float64), numbers_of(rows, y).astype(np.float64)
        codes = pd.Index(names).get_indexer(rows[cluster])
    else:
        a, b, codes = property_of.to_numpy()[keep], means.to_numpy()[keep], np.arange(n)
    plain = correlate(a, b, x, y)
    if plain.reason or n < FEWEST:
        reason = plain.reason or f"{counted(n, cluster)}, at least {FEWEST} are needed for an interval"
        return ClusterCorrelation(plain.rho, np.nan, np.nan, np.nan, n, level, counted(n, cluster), reason)
    of_counts = weighted_spearman(tied(a), tied(b), codes)
    drawn = evaluate(of_counts, draw([0] * n, replicates, seed), len(a))
    low, high = bca(plain.rho, drawn, of_counts(1 - np.eye(n)), level, widen=False)
    scores = scipy.stats.rankdata(tied(a)), scipy.stats.rankdata(tied(b))
    first, second = (np.bincount(codes, s, n) / np.bincount(codes, minlength=n) for s in scores)
    p = permutation_of_scores(first, second, seed=seed)
    if p >= 1 - level:  # the exact test leaves 0 standing, and so does the interval
        low, high = min(low, 0.0), max(high, 0.0)
    return ClusterCorrelation(plain.rho, low, high, p, n, level, counted(n, cluster))


def correlation_table(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str | None = "baseline",
    responses: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """`spearman_table`, which is over rows, with the correlation of models beside it.

    Returns:
      The columns of `spearman_table`, then `rho_models, low, high, p_models, p_holm, models` of `correlation_interval`.
      `p_holm` is corrected by Holm for the groups of one kind, such as all detectors; both are NaN for fewer than 5
      models.
    """
    level = check_level(level)
    found = spearman_table(table, models, baseline, responses)
    joined = join_models(table, models)
    parts = {(kind, group): rows for kind, group, rows in subsets(joined, models, baseline)}
    cluster, added = cluster_column(joined), []
    means: dict[tuple[str, str, str], pd.Series] = {}  # which accuracy and ECE share
    for row in found.itertuples():
        rows, key = parts[row.subset, row.group], (row.subset, row.group, row.y)
        if rows.empty:  # no model is less accurate than the baseline
            added.append((np.nan, np.nan, np.nan, np.nan, 0))
            continue
        if key not in means:
            means[key] = cluster_values(rows, row.y, cluster)[0][row.y]
        one = _interval_of(rows, means[key], cluster, row.x, row.y, level=level)
        added.append((one.rho, one.low, one.high, one.p, one.n))
    result = found.join(pd.DataFrame(added, columns=["rho_models", "low", "high", "p_models", "models"]))
    corrected = result.groupby(["x", "y", "subset"])["p_models"].transform(lambda p: holm(p.to_numpy()))
    result.insert(len(result.columns) - 1, "p_holm", corrected)
    return result


def weighted_spearman(a: np.ndarray, b: np.ndarray, codes: np.ndarray) -> Statistic:
    """Spearman's rho of rows that occur as often as their cluster is drawn."""

    def ranks(values: np.ndarray) -> Statistic:
        order = np.argsort(values, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
        group = np.searchsorted(values[order][ends], values)

        def of_weights(weights: np.ndarray) -> np.ndarray:
            up_to = np.cumsum(weights[:, order], axis=1)[:, ends]
            middle = (up_to + np.concatenate([np.zeros((len(weights), 1)), up_to[:, :-1]], axis=1)) / 2
            return middle[:, group]

        return of_weights

    first, second = ranks(a), ranks(b)

    def of_counts(counts: np.ndarray) -> np.ndarray:
        weights = counts[:, codes]
        total = weights.sum(axis=1, keepdims=True)
        x, y = (r(weights) - total / 2 for r in (first, second))  # ranks average to half the weight
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
            return np.where(spread > 0, (weights * x * y).sum(axis=1) / spread, np.nan)

    return of_counts
