"""Which rows of a results table belong together: models of one recipe, rows of one model, and their means."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodjax.analysis.table import numbers_of, require_columns, tied

RECIPE, SEED = "recipe", "seed"
_PLURAL = {"dataset": "OOD sets", "ood_category": "OOD categories"}


def cluster_column(table: pd.DataFrame) -> str:
    """What is resampled: recipes where the table has them, as networks of one recipe are alike; models otherwise."""
    require_columns(table, [])
    return RECIPE if RECIPE in table.columns else "model"


def counted(n: int, column: str) -> str:
    """ "17 models", "1 recipe", "8 OOD sets"."""
    plural = _PLURAL.get(column, f"{column}s")
    singular = plural.removesuffix("ies") + "y" if plural.endswith("ies") else plural.removesuffix("s")
    return f"{n:,} {singular if n == 1 else plural}"


def with_recipes(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns `recipe` and `seed` of `models`, where only that one has them."""
    absent = [c for c in (RECIPE, SEED) if c in models.columns and c not in table.columns]
    if not absent:
        return table
    return table.merge(models[["model", *absent]], on="model", how="left", validate="many_to_one")


def recipe_of(table: pd.DataFrame, name: str | None) -> str | None:
    """A model's recipe where the table has recipes; the name of a recipe, and any other name, stays as it is."""
    if name is None or RECIPE not in table.columns or (table[RECIPE] == name).any():
        return name
    mine = table.loc[table["model"] == name, RECIPE]
    return name if mine.empty else str(mine.iloc[0])


def adjusted_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row of `(n, cells)`, as if no cell were missing.

    Cells differ, so that the mean of those a row has would favour the row that lacks the hard ones. Missing cells (NaN)
    take the value of the additive model row + cell, fitted by least squares to the cells that are there; a complete
    array has its plain means. NaN for a row without values, or one that shares no cell with the others.
    """
    seen = ~np.isnan(values)
    if seen.all():
        return values.mean(axis=1)
    values, seen = values[:, seen.any(axis=0)], seen[:, seen.any(axis=0)]
    result = np.full(len(values), np.nan)
    rows = _linked(seen)
    if not rows.any():
        return result
    values, seen = values[rows], seen[rows].astype(np.float64)
    known = np.where(seen > 0, values, 0.0)
    per_cell = np.maximum(seen.sum(axis=0), 1)
    # the cells' effects are eliminated: what is left is one equation per row
    matrix = np.diag(seen.sum(axis=1)) - (seen / per_cell) @ seen.T
    right = known.sum(axis=1) - seen @ (known.sum(axis=0) / per_cell)
    effect = np.linalg.lstsq(matrix, right, rcond=None)[0]
    cells = (known.sum(axis=0) - effect @ seen) / per_cell
    filled = np.where(seen > 0, values, effect[:, None] + cells)
    filled[:, seen.sum(axis=0) == 0] = np.nan
    result[rows] = np.nanmean(filled, axis=1)
    return result


def _linked(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows that share cells with one another, directly or through others: the largest such group."""
    shared = (seen.astype(np.int64) @ seen.T.astype(np.int64)) > 0
    best: NDArray[np.bool_] = np.zeros(len(seen), bool)
    left: NDArray[np.bool_] = np.any(seen, axis=1)
    while left.any():
        group = np.zeros(len(seen), bool)
        group[np.flatnonzero(left)[0]] = True
        while (grown := np.any(shared[:, group], axis=1)).sum() > group.sum():
            group = grown
        best = group if group.sum() > best.sum() else best
        left[group] = False
    return best


def cluster_values(table: pd.DataFrame, response: str, cluster: str, by: str | None = None) -> tuple[pd.DataFrame, str]:
    """Mean response per cluster (rows) and value of `by` (columns; one named after the response without it).

    Means are `adjusted_means` over the detectors and sets of each column, so that a missing cell moves no comparison. A
    recipe's is the mean of its models. A cluster without a comparable value is NaN.

    Returns:
      The means in order of appearance, and what was filled in: a sentence's part, empty for a complete table.
    """
    require_columns(table, [response, cluster] if by is None else [response, cluster, by])
    if cluster == RECIPE and "model" in table.columns and by != "model":
        values, note = cluster_values(table, response, "model", by)
        recipe = table.drop_duplicates("model").set_index("model")[RECIPE].reindex(values.index)
        means = values.groupby(recipe.to_numpy(), sort=False).mean().rename_axis(RECIPE)
        return pd.DataFrame(tied(means.to_numpy()), means.index, means.columns), note
    of_set = "dataset" if "dataset" in table.columns else "ood_category"
    inner = [c for c in ("detector", of_set) if c in table.columns and c not in (cluster, by)]
    read = [c for c in (cluster, by, *inner) if c is not None]
    numbers = table[read].assign(**{response: numbers_of(table, response).astype(np.float64)})
    if (infinite := np.isinf(numbers[response])).any():
        raise ValueError(f"{response} is infinite in {infinite.sum()} of {len(table)} rows")
    numbers = numbers[numbers[response].notna()]
    clusters = pd.Index(table[cluster].unique(), name=cluster)
    if "dataset" not in table.columns:
        _require_equal_counts(numbers, [cluster] if by is None else [cluster, by])
    groups = [(response, numbers)] if by is None else list(numbers.groupby(by, sort=False, observed=True))
    columns, missing, cells_in_all = {}, 0, 0
    for name, rows in groups:
        cells = _pivot(rows, response, cluster, inner).reindex(clusters)
        missing, cells_in_all = missing + int(cells.isna().to_numpy().sum()), cells_in_all + cells.size
        columns[name] = adjusted_means(cells.to_numpy())
    order = [response] if by is None else [v for v in table[by].unique() if v in columns]
    result = pd.DataFrame(columns, index=clusters)[order]
    result = pd.DataFrame(tied(result.to_numpy()), result.index, result.columns)
    note = f"{missing:,} of {cells_in_all:,} cells are missing and adjusted for" if missing else ""
    return result, note


def _require_equal_counts(table: pd.DataFrame, keys: list[str]) -> None:
    """Without a column of data sets nothing tells which are missing, so that none may be."""
    counts = table.groupby(keys, sort=False, observed=True).size()
    short = counts[counts != counts.max()]
    if len(short):
        name = short.index[0] if isinstance(short.index[0], tuple) else (short.index[0],)
        where = ", ".join(f"{key}={value!r}" for key, value in zip(keys, name, strict=True))
        raise ValueError(
            f"{where} has {short.iloc[0]} rows where others have {counts.max()} ({len(short)} such combinations), and "
            "there is no column dataset to say which are missing"
        )


def _pivot(rows: pd.DataFrame, response: str, cluster: str, inner: Sequence[str]) -> pd.DataFrame:
    if not inner:
        return rows.groupby(cluster, sort=False, observed=True)[[response]].mean()
    means = rows.groupby([cluster, *inner], sort=False, observed=True)[response].mean()
    return means.unstack(list(inner))
