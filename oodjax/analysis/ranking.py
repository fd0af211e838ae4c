"""Detectors compared over models: ranks, their significance, and what a change of model costs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from oodjax.analysis.table import mean_table, numbers_of, require_columns
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
    table: pd.DataFrame, response: str = "auroc", block: str = "model", treatment: str = "detector"
) -> Friedman:
    """Friedman's test that the treatments do not differ, on their mean response in each block."""
    means = mean_table(table, response, block, treatment)
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
    block: str = "model",
    treatment: str = "detector",
    higher_is_better: bool = True,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Each detector's rank (1 is best, ties share the mean rank) by mean response, averaged over the models.

    Returns:
      Columns `detector` (named after `treatment`), `mean_rank`, `ci_low`, `ci_high`, best first. The interval is
      Student's t over the models; NaN with one model.
    """
    if not is_number(confidence) or not 0 < confidence < 1:
        raise ValueError(f"confidence must be a share between 0 and 1, such as 0.95, got {describe(confidence)}")
    means = mean_table(table, response, block, treatment)
    ranks = means.rank(axis=1, ascending=not higher_is_better).to_numpy()
    n = len(ranks)
    mean = ranks.mean(0)
    half = np.full_like(mean, np.nan)
    if n > 1:
        half = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * ranks.std(0, ddof=1) / np.sqrt(n)
    result = pd.DataFrame({treatment: means.columns, "mean_rank": mean, "ci_low": mean - half, "ci_high": mean + half})
    return result.sort_values("mean_rank", kind="stable", ignore_index=True)


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
      table: results with `model`, `detector` and the response.
      response: the column to compare.
      baseline: the model that the change is counted from; None leaves `change` and `change_std` NaN.
      higher_is_better: decides which models are `best` and `worst`.

    Returns:
      Per detector, the best worst case first: `detector, mean, std, best, best_model, worst, worst_model, change,
      change_std`. `change` is the mean over the other models of their value minus the baseline's: negative AUROC is a
      drop. Standard deviations have n - 1 in the denominator, and are NaN for one value.
    """
    require_columns(table, ("model",))
    means = mean_table(table, response)
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
    return result.sort_values("worst", ascending=not higher_is_better, kind="stable", ignore_index=True)
