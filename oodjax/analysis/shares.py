"""Shares of variance with intervals from leaving models out."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from oodjax.analysis.anova import FACTORS, anova
from oodjax.analysis.clusters import cluster_column, counted
from oodjax.analysis.resampling import FEWEST, check_level
from oodjax.analysis.table import numbers_of, require_columns

# beyond it models are left out several at a time, which costs little precision; without a closed form each takes longer
_GROUPS = {"proportional": 20, "unbalanced": 10}


def share_intervals(
    table: pd.DataFrame,
    response: str = "auroc",
    factors: Sequence[str] = FACTORS,
    level: float = 0.95,
    sums_of_squares: int = 2,
) -> pd.DataFrame:
    """Each term's share of the variance with its interval, from leaving out one model (or recipe) at a time.

    A share counts noise as well: a term of many degrees of freedom has one even where nothing is there. `effect` is the
    share without what noise alone would give, `(SS - df * MS of the residual) / total SS`, which may fall below 0; a
    term is there where its interval excludes 0. Intervals are jackknife intervals of Student's t (Tukey 1958): those of
    shares, on the scale of log odds, hold for studies of as many models, those of effects for ever more of them. A
    bootstrap would count a model drawn twice as two that agree.

    Args:
      table: one row per observation, with `model` or `recipe`; rows without a value are left out.
      response: a numeric column.
      factors: those of the analysis; `model` is replaced by `recipe` where the table has it.
      level: between 0 and 1.
      sums_of_squares: 2 or 3, as in `anova`.

    Returns:
      Columns `term, share, low, high, effect, effect_low, effect_high`. Effects are NaN without replicates, limits with
      fewer than 5 models, and the limits of the models' own effect: few models tell little of their variance.
      `attrs["unit"]` says what was left out, `attrs["note"]` is that of `anova`, and `attrs["rows"]` the number of rows
      used. `attrs["gap"]` is `(estimate, low, high)` of the largest interaction's effect minus the next one's, or of
      their shares without replicates; NaN with fewer than two interactions.
    """
    level = check_level(level)
    require_columns(table, [response, *factors])
    cluster = cluster_column(table)
    factors = [cluster if factor == "model" else factor for factor in factors]
    rows = table[~np.isnan(numbers_of(table, response).astype(np.float64))]
    whole = anova(rows, response, factors, sums_of_squares)
    codes, names = pd.factorize(rows[cluster])
    n = len(names)
    estimate = _both(whole)
    top = _largest_interactions(whole, estimate)
    if n >= FEWEST:
        groups = min(n, _GROUPS[whole.attrs["design"]])
        left = [rows[codes % groups != g] for g in range(groups)]
        parts = np.array([_both(anova(part, response, factors, sums_of_squares)) for part in left])
    else:
        parts = np.full((2, *estimate.shape), np.nan)
    odds, half = _log_odds(estimate[0]), _pseudo(_log_odds(estimate[0]), _log_odds(parts[:, 0]), level)[1]
    middle, width = _pseudo(estimate[1], parts[:, 1], level)
    width[whole["term"] == cluster] = np.nan
    result = pd.DataFrame(
        {
            "term": whole["term"],
            "share": estimate[0],
            "low": _share_of(odds - half),
            "high": _share_of(odds + half),
            "effect": estimate[1],
            "effect_low": middle - width,
            "effect_high": middle + width,
        }
    )
    result.attrs.update(unit=counted(n, cluster), note=whole.attrs["note"], rows=len(rows), gap=(math.nan,) * 3)
    if top is not None:
        kind, first, second = top
        gap, of_parts = estimate[kind, first] - estimate[kind, second], parts[:, kind, first] - parts[:, kind, second]
        centre, spread = (float(v[0]) for v in _pseudo(np.array([gap]), of_parts[:, None], level))
        result.attrs["gap"] = float(gap), centre - spread, centre + spread
    return result


def _both(table: pd.DataFrame) -> NDArray[np.float64]:
    """Shares and effects of every term `(2, terms)`."""
    share, df = table["share"].to_numpy(), table["df"].to_numpy()
    if df[-1] == 0 or table.attrs["note"] == "perfect fit":
        return np.array([share, np.full(len(share), np.nan)])
    effect = share - df * share[-1] / df[-1]
    effect[-1] = np.nan
    return np.array([share, effect])


def _largest_interactions(whole: pd.DataFrame, estimate: NDArray[np.float64]) -> tuple[int, int, int] | None:
    """Whether effects (1) or shares (0) are compared, and the places of the two largest interactions."""
    places = np.flatnonzero(whole["term"].str.contains(":"))
    kind = 0 if np.isnan(estimate[1]).all() else 1
    places = places[~np.isnan(estimate[kind, places])]
    if len(places) < 2:
        return None
    first, second = places[np.argsort(-estimate[kind, places], kind="stable")[:2]]
    return kind, int(first), int(second)


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(share) - np.log1p(-np.minimum(share, 1.0))


def _share_of(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


def _pseudo(
    estimate: NDArray[np.float64], parts: NDArray[np.float64], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the jackknife's pseudo-values and Student's half width, column by column."""
    n = len(parts)
    with np.errstate(invalid="ignore"):
        pseudo = n * estimate - (n - 1) * parts
        half = scipy.stats.t.isf((1 - level) / 2, n - 1) * pseudo.std(axis=0, ddof=1) / math.sqrt(n)
    return pseudo.mean(axis=0), half
