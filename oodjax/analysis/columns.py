"""Tables of others: their own names of columns, percents, and facts of the models in the table of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodjax.analysis.table import numbers_of, require_columns
from oodjax.arrays import describe
from oodjax.metrics import COLUMNS as METRICS

NAMES = ("model", "detector", "dataset", "ood_category", "category", "recipe", "seed", "accuracy", "ece", *METRICS)
UNITS = ("fraction", "percent")
SHARES = ("accuracy", "ece", *METRICS)


class Tables(NamedTuple):
    """Results and models with our columns, shares as fractions, and what was assumed to make them so."""

    results: pd.DataFrame
    models: pd.DataFrame
    assumed: list[str]


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """`["model=Model,auroc=AUROC"]` as our name -> the table's heading. A heading may hold spaces, but no comma."""
    columns: dict[str, str] = {}
    for part in (p for text in texts for p in text.split(",") if p.strip()):
        ours, sign, theirs = (piece.strip() for piece in part.partition("="))
        if not sign or not ours or not theirs:
            raise ValueError(f"columns are given as NAME=HEADING, such as model=Model, got {part.strip()!r}")
        if ours not in NAMES:
            raise ValueError(f"there is no column {ours!r} to name; there are {', '.join(NAMES)}")
        if ours in columns:
            raise ValueError(f"the column {ours} is given twice, as {columns[ours]!r} and {theirs!r}")
        columns[ours] = theirs
    return columns


def renamed(table: pd.DataFrame, columns: Mapping[str, str], name: str, some: bool = False) -> pd.DataFrame:
    """The table with our names; a column that it has under our name and that another one is to be is left out.

    Args:
      table: as it was read.
      columns: our name -> the table's heading.
      name: what errors call the table.
      some: whether headings may be missing, as those of results are in a table of models.
    """
    absent = [theirs for theirs in columns.values() if theirs not in table.columns]
    if absent and not some:
        raise ValueError(f"{name} has no column {absent[0]!r}; it has {', '.join(map(str, table.columns))}")
    mine = {theirs: ours for ours, theirs in columns.items() if theirs in table.columns}
    replaced = [ours for theirs, ours in mine.items() if ours in table.columns and ours != theirs]
    return table.drop(columns=replaced).rename(columns=mine)


def in_percent(values: NDArray[np.float64], unit: str | None = None) -> bool:
    """Whether shares are percents: as `unit` says, else where more than half of those that are not 0 lie above 1."""
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unit must be fraction or percent, got {describe(unit)}")
    if unit is not None:
        return unit == "percent"
    given = values[np.isfinite(values) & (values != 0)]
    return len(given) > 0 and float(np.mean(given > 1)) > 0.5


def models_of(results: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One row per model from columns of the results: category (or `model_category`), accuracy, ece, recipe, seed."""
    require_columns(results, ["model"], "results")
    table = results
    if "category" not in table.columns and "model_category" in table.columns:
        table = table.rename(columns={"model_category": "category"})
    columns = [c for c in ("model", "category", "accuracy", "ece", "recipe", "seed") if c in table.columns]
    models = table[columns].drop_duplicates(ignore_index=True)
    twice = models["model"].duplicated()
    if twice.any():
        name = models.loc[twice, "model"].iloc[0]
        rows = models[models["model"] == name]
        moving = next(c for c in columns[1:] if rows[c].nunique(dropna=False) > 1)
        raise ValueError(f"results give model {name!r} more than one {moving}: {rows[moving].unique().tolist()}")
    assumed = []
    if "category" not in models.columns:
        models["category"] = np.where(models["model"] == "baseline", "baseline", "model")
        assumed.append("no column says how models were trained, so that all are of one category")
    for column in ("accuracy", "ece"):
        if column not in models.columns:
            models[column] = np.nan
            assumed.append(f"no column holds the models' {column}")
    return models, assumed


def read_tables(
    results: str | Path | pd.DataFrame,
    models: str | Path | pd.DataFrame | None = None,
    columns: Mapping[str, str] | str | None = None,
    unit: str | None = None,
) -> Tables:
    """Results and models as the other functions of this module take them, from a CSV file or table of any origin.

    Args:
      results: a CSV file or a table; one row per model, detector and data set.
      models: one row per model; by default from columns of `results`, where facts that are not there are NaN.
      columns: our name -> the table's heading, such as `{"model": "Model"}` or `"model=Model,auroc=AUROC"`; others keep
        their names.
      unit: "fraction" or "percent", for every share; by default a column is in percent where more than half of its
        values that are not 0 lie above 1.

    Returns:
      Shares are fractions. `assumed` says what was taken for granted: percents, one OOD category, missing facts.

    Raises:
      ValueError: a column is missing, or a share lies outside of its range; the message names it.
    """
    names = parse_columns([columns]) if isinstance(columns, str) else dict(columns or {})
    table, assumed = renamed(_read(results), names, "results", some=models is not None), []
    require_columns(table, ["model", "detector"], "results")
    if "ood_category" not in table.columns:
        table = table.assign(ood_category="OOD")
        assumed.append("no column says which OOD category a set is of, so that all are of one")
    if models is None:
        facts, more = models_of(table)
        assumed += more
    else:
        facts = renamed(_read(models), names, "models", some=True)
    table = _in_fractions(table, "results", unit, assumed)
    return Tables(table, _in_fractions(facts, "models", unit, assumed), assumed)


def _read(table: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table
    try:
        return pd.read_csv(table, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{table} cannot be read as a CSV table: {str(error).strip()}") from error


def _in_fractions(table: pd.DataFrame, name: str, unit: str | None, assumed: list[str]) -> pd.DataFrame:
    changed = {}
    for column in (c for c in SHARES if c in table.columns):
        values = numbers_of(table, column).astype(np.float64)
        percent = in_percent(values, unit)
        top = 100.0 if percent else 1.0
        bad = (values < 0) | (values > top)
        if bad.any():
            raise ValueError(
                f"{name}: {column} must be in 0 to {top:.0f}, got {values[bad][0]:g} in {bad.sum()} of {len(table)} "
                "rows; the unit may be given as fraction or percent"
            )
        if percent:
            changed[column] = values / 100
            if unit is None:
                assumed.append(said_percent(name, column, values))
    return table.assign(**changed)


def said_percent(name: str, column: str, values: NDArray[np.float64]) -> str:
    """What is said of a column that was recognised as percents."""
    return f"{column} of {name} is taken for percent, as its values go up to {np.nanmax(values):g}"
