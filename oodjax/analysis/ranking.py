"""Detectors compared over models: ranks, their significance, and what a change of model costs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from oodjax.analysis.clusters import cluster_column, cluster_values, counted, recipe_of
from oodjax.analysis.resampling import check_level
from oodjax.analysis.table import numbers_of, require_columns
from oodjax.arrays import describe, host_array, is_number, is_whole


class Friedman(NamedTuple):
    """Friedman's statistic and p over `blocks` models and `treatments` detectors; NaN with a `reason`.

    That is where all values tie, and for a single model: its statistic is the same whatever the values.
    """

    statistic: float
    p: float
    blocks: int
    treatments: int
    reason: str = ""


def friedman(
    table: pd.DataFrame, response: str = "auroc", block: str | None = None, treatment: str = "detector"
) -> Friedman:
    """Friedman's test that the treatments do not differ, on their mean response in each block.

    Blocks are models, or recipes where the table has them. Means are adjusted for missing sets; where a block has no
    value at all of a treatment, `skillings_mack` is the test.
    """
    block = block or cluster_column(table)
    means, _ = cluster_values(table, response, block, treatment)
    gaps = np.argwhere(means.isna().to_numpy())
    if len(gaps):
        row, column = means.index[gaps[0][0]], means.columns[gaps[0][1]]
        raise ValueError(
            f"{block}={row!r}, {treatment}={column!r} has no value that compares ({len(gaps)} such combinations): "
            "Friedman's test takes complete tables, skillings_mack does not"
        )
    blocks, treatments = means.shape
    if treatments < 3:
        raise ValueError(f"Friedman's test takes at least 3 of {treatment}, got {list(means.columns)}")
    values = means.to_numpy()
    tie = bool((values == values[:, :1]).all())
    if tie or blocks < 2:
        return Friedman(np.nan, np.nan, blocks, treatments, "all values tie" if tie else f"one {block}")
    result = scipy.stats.friedmanchisquare(*values.T)
    return Friedman(float(result.statistic), float(result.pvalue), blocks, treatments)


def mean_ranks(
    table: pd.DataFrame,
    response: str = "auroc",
    block: str | None = None,
    treatment: str = "detector",
    higher_is_better: bool = True,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Each detector's rank (1 is best, ties share the mean rank) by mean response, averaged over the models.

    Where the table has a column `recipe`, each recipe counts once, by the mean of its seeds. Means are adjusted for
    missing sets. A model that lacks a detector altogether ranks the others, its ranks stretched to 1 to k.

    Returns:
      Columns `detector` (named after `treatment`), `mean_rank`, `ci_low`, `ci_high`, best first. The interval is
      Student's t over the models; NaN with one model. `attrs["unit"]` says what it was taken over, such as "17
      models", `attrs["note"]` what was missing.
    """
    check_level(confidence, "confidence")
    block = block or cluster_column(table)
    means, note = cluster_values(table, response, block, treatment)
    ranks = _full_ranks(means, higher_is_better)
    mean, n = ranks.mean(), ranks.notna().sum()
    half = scipy.stats.t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1)) * ranks.std(ddof=1) / np.sqrt(n)
    columns = {"mean_rank": mean, "ci_low": mean - half, "ci_high": mean + half}
    result = pd.DataFrame(columns).rename_axis(treatment).reset_index()
    result = result.sort_values("mean_rank", kind="stable", ignore_index=True)
    result.attrs.update(note=note, unit=counted(len(means), block))
    return result


def _full_ranks(means: pd.DataFrame, higher_is_better: bool) -> pd.DataFrame:
    """Ranks within each row, those of a row with gaps stretched to the range of a full one."""
    ranks = means.rank(axis=1, ascending=not higher_is_better)
    present, k = means.notna().sum(axis=1), means.shape[1]
    if (present == k).all():
        return ranks
    ranks = ranks.mask(present < 2)  # a single one has no rival
    return (ranks - 1).mul((k - 1) / np.maximum(present - 1, 1), axis=0) + 1


def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of the mean ranks of `k` detectors over `n` models (Demsar 2006)."""
    if not (is_whole(k) and is_whole(n) and is_number(alpha)) or k < 2 or n < 1 or not 0 < alpha < 1:
        given = f"k={describe(k)}, n={describe(n)}, alpha={describe(alpha)}"
        raise ValueError(f"expected k >= 2, n >= 1 and 0 < alpha < 1, k and n whole numbers, got {given}")
    q = scipy.stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(k * (k + 1) / (6 * n)))


def cd_groups(ranks: pd.DataFrame | Sequence[float], cd: float) -> list[list]:
    """The largest sets of detectors whose mean ranks lie within the critical difference: the bars of a CD diagram.

    Args:
      ranks: the result of `mean_ranks`, whose first column names the detectors, or plain mean ranks.
      cd: the critical difference.

    Returns:
      Groups of two or more names (positions for plain ranks), best first; no group is part of another.
    """
    if isinstance(ranks, pd.DataFrame):
        require_columns(ranks, ["mean_rank"], "ranks")
        names, values = ranks.iloc[:, 0].to_numpy(), numbers_of(ranks, "mean_rank").astype(np.float64)
    else:
        values = host_array(ranks, "ranks").astype(np.float64)
        names = np.arange(len(values))
    if not is_number(cd) or not cd >= 0:
        raise ValueError(f"cd must be a critical difference, 0 or more, got {describe(cd)}")
    if np.isnan(values).any():
        raise ValueError(f"ranks has {np.isnan(values).sum()} values that are NaN")
    order = np.argsort(values, kind="stable")
    ends = np.searchsorted(values[order], values[order] + cd, side="right")
    groups, covered = [], 0
    for start, end in enumerate(ends):
        if end > covered and end - start > 1:
            groups.append(names[order[start:end]].tolist())
            covered = end
    return groups


def robustness(
    table: pd.DataFrame, response: str = "auroc", baseline: str | None = "baseline", higher_is_better: bool = True
) -> pd.DataFrame:
    """How far each detector's mean response moves with the model.

    Args:
      table: results with `model`, `detector` and the response. Where it has a column `recipe`, recipes are compared,
        each by the mean of its seeds: their names are then in `best_model` and `worst_model`. Means are adjusted for
        missing sets.
      response: the column to compare.
      baseline: the model or recipe that the change is counted from; None leaves `change` and `change_std` NaN.
      higher_is_better: decides which models are `best` and `worst`.

    Returns:
      Per detector, the best worst case first: `detector, mean, std, best, best_model, worst, worst_model, change,
      change_std`. `change` is the mean over the other models of their value minus the baseline's: negative AUROC is a
      drop. Standard deviations have n - 1 in the denominator, and are NaN for one value. `attrs["unit"]` says what was
      compared, such as "17 models", `attrs["note"]` what was missing.
    """
    require_columns(table, ("model",))
    cluster = cluster_column(table)
    means, note = cluster_values(table, response, cluster, "detector")
    baseline = recipe_of(table, baseline)
    if baseline is not None and baseline not in means.index:
        raise ValueError(f"the baseline {baseline!r} is not among the models {means.index.tolist()}")
    high, low = (means.max(), means.idxmax()), (means.min(), means.idxmin())
    (best, best_model), (worst, worst_model) = (high, low) if higher_is_better else (low, high)
    change = means * np.nan if baseline is None else means.drop(index=baseline) - means.loc[baseline]
    result = pd.DataFrame(
        {
            "mean": means.mean(),
            "std": means.std(ddof=1),
            "best": best,
            "best_model": best_model,
            "worst": worst,
            "worst_model": worst_model,
            "change": change.mean(),
            "change_std": change.std(ddof=1),
        }
    )
    result = result.rename_axis("detector").reset_index()
    result = result.sort_values("worst", ascending=not higher_is_better, kind="stable", ignore_index=True)
    result.attrs.update(note=note, unit=counted(len(means), cluster))
    return result
