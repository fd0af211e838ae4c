"""One recipe trained with several seeds: what a difference between recipes is worth."""

import math

import numpy as np
import pandas as pd
import scipy.stats

from oodjax.analysis.clusters import RECIPE, SEED, cluster_values, counted, with_recipes
from oodjax.analysis.interval import Interval
from oodjax.analysis.resampling import check_level, holm, student
from oodjax.analysis.table import require_columns


def difference(
    table: pd.DataFrame,
    models: pd.DataFrame,
    recipe: str,
    baseline: str = "baseline",
    response: str = "auroc",
    level: float = 0.95,
) -> Interval:
    """Mean response of a recipe minus the baseline's, with its interval over seeds.

    Seeds that both have are paired, as they share the initial weights and the order of the data, and the interval is
    Student's t of the differences; without two shared seeds it is Welch's of both. One seed alone gives no interval
    (NaN): nothing then tells a better recipe from a lucky seed. Seeds are few, so that no bootstrap is used.

    Args:
      table: results with `model` and the response.
      models: one row per model; `recipe` and `seed` are read from it where `table` lacks them.
      recipe: a recipe, or a model in tables without recipes.
      baseline: the recipe it is compared with.
      response: the column to compare.
      level: between 0 and 1.
    """
    level = check_level(level)
    mine, theirs = (_of_recipe(_all_seeds(table, models, response)[0], name) for name in (recipe, baseline))
    return compare(mine, theirs, level)[0]


def differences(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str = "baseline",
    response: str = "auroc",
    level: float = 0.95,
) -> pd.DataFrame:
    """Every recipe's `difference` from the baseline, with p-values corrected for their number (Holm).

    Returns:
      Columns `recipe, difference, low, high, p, p_holm, unit`, largest difference first. p is Student's (paired) or
      Welch's; intervals are each at `level`. `attrs["note"]` says what was adjusted for.
    """
    level = check_level(level)
    values, note = _all_seeds(table, models, response)
    theirs = _of_recipe(values, baseline)
    rows = []
    for name in values.index.get_level_values(0).unique():
        if name != baseline:
            found, p = compare(_of_recipe(values, name), theirs, level)
            rows.append((name, found.estimate, found.low, found.high, p, found.unit))
    result = pd.DataFrame(rows, columns=[RECIPE, "difference", "low", "high", "p", "unit"])
    result.insert(5, "p_holm", holm(result["p"].to_numpy(np.float64)))
    result = result.sort_values("difference", ascending=False, kind="stable", ignore_index=True)
    result.attrs["note"] = note
    return result


def _all_seeds(table: pd.DataFrame, models: pd.DataFrame, response: str) -> tuple[pd.Series, str]:
    require_columns(table, ["model", response])
    require_columns(models, ["model"], "models")
    table = with_recipes(table, models)
    if RECIPE not in table.columns:
        table = table.assign(**{RECIPE: table["model"], SEED: 0})
    return seeds_of(table, response)


def _of_recipe(values: pd.Series, name: str) -> pd.Series:
    if name not in values.index.get_level_values(0):
        raise ValueError(f"there is no recipe {name!r}; there are {values.index.get_level_values(0).unique().tolist()}")
    return values.loc[name]


def compare(mine: pd.Series, theirs: pd.Series, level: float) -> tuple[Interval, float]:
    shared = mine.index.intersection(theirs.index)
    n = len(shared)
    if n > 1:
        gaps = (mine.loc[shared] - theirs.loc[shared]).to_numpy()
        low, high = student(gaps[:, None], level)
        p = _p_of_t(gaps.mean(), gaps.std(ddof=1) / math.sqrt(n), n - 1)
        return Interval(float(gaps.mean()), float(low[0]), float(high[0]), level, f"{n} seeds of each recipe"), p
    estimate = float(mine.mean() - theirs.mean())
    if min(len(mine), len(theirs)) < 2:
        few = min(len(mine), len(theirs))
        return Interval(estimate, math.nan, math.nan, level, f"{counted(few, SEED)} of a recipe"), math.nan
    errors = np.array([v.var(ddof=1) / len(v) for v in (mine, theirs)])
    total = float(errors.sum())
    df = total**2 / float(np.sum(errors**2 / [len(mine) - 1, len(theirs) - 1])) if total > 0 else 1.0
    half = float(scipy.stats.t.isf((1 - level) / 2, df)) * math.sqrt(total)
    unit = f"{len(mine)} and {len(theirs)} seeds, unpaired"
    return Interval(estimate, estimate - half, estimate + half, level, unit), _p_of_t(estimate, math.sqrt(total), df)


def _p_of_t(estimate: float, error: float, df: float) -> float:
    if error == 0:
        return 1.0 if estimate == 0 else 0.0
    return float(2 * scipy.stats.t.sf(abs(estimate) / error, df))


def seeds_of(table: pd.DataFrame, response: str) -> tuple[pd.Series, str]:
    """Mean response per recipe and seed, over the same detectors and sets."""
    require_columns(table, [RECIPE, SEED, "model", response])
    values, note = cluster_values(table, response, "model")
    keys = table.drop_duplicates("model").set_index("model")[[RECIPE, SEED]].reindex(values.index)
    twice = keys.duplicated()
    if twice.any():
        recipe, seed = keys[twice].iloc[0]
        raise ValueError(f"recipe {recipe!r} has more than one model of seed {seed}")
    return values[response].set_axis(pd.MultiIndex.from_frame(keys)).dropna(), note
