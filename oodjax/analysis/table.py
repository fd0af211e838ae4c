"""What every analysis asks of a results table: columns, finite numbers, complete designs, ties that are ties."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodjax.arrays import describe

# Sums over ten thousand rows were seen to leave 0.4 eps of the largest value; real differences are far above 8.
ROUNDING = 8

_NUMERIC = ("floating", "integer", "mixed-integer-float", "boolean", "decimal")


def rounding(values: NDArray[Any]) -> float:
    """The largest difference between values of this size and type that may be nothing but rounding."""
    eps = np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).eps
    return float(ROUNDING * eps * np.abs(values[np.isfinite(values)]).max(initial=0.0))


def tied(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, those that differ by rounding alone made equal: the order of summation is no difference."""
    order = np.argsort(values, axis=None)
    ascending = values.ravel()[order]
    # negated, so that NaN, which sorts last, ties with nothing
    with np.errstate(invalid="ignore"):  # inf - inf
        steps = ~(np.diff(ascending, prepend=ascending[:1]) <= rounding(values))
    first = np.maximum.accumulate(np.where(steps, np.arange(values.size), 0))
    result = np.empty(values.size)
    result[order] = ascending[first]
    return result.reshape(values.shape)


def require_columns(table: pd.DataFrame, columns: Sequence[str], name: str = "table") -> None:
    """Raises unless it is a DataFrame that has rows and, each once, all of the columns.

    Raises:
      TypeError: no DataFrame.
      ValueError: no rows, or columns that are missing or there twice; they are named.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name} must be a pandas DataFrame, got {describe(table)}")
    missing = [column for column in columns if column not in list(table.columns)]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}; it has {list(table.columns)}")
    twice = [column for column in columns if not isinstance(table[column], pd.Series)]
    if twice:
        raise ValueError(f"{name} has more than one column named {twice[0]!r}")
    if len(table) == 0:
        raise ValueError(f"{name} has no rows")


def numbers_of(table: pd.DataFrame, column: str) -> NDArray[Any]:
    """A column as floating-point numbers, its own type where it has one, NaN where a value is missing.

    Raises:
      ValueError: text, dates, categories or complex numbers; the first is shown.
    """
    values = table[column]
    if values.dtype.kind == "f" and isinstance(values.dtype, np.dtype):
        return values.to_numpy()
    found = pd.api.types.infer_dtype(values.astype(object), skipna=True)
    if found not in _NUMERIC and not values.isna().all():
        first = values.dropna().iloc[0]
        raise ValueError(f"{column} must be a column of real numbers, got {found}, the first being {describe(first)}")
    return values.astype(object).where(values.notna(), np.nan).to_numpy(np.float64)


def require_finite(table: pd.DataFrame, column: str) -> NDArray[Any]:
    """A column's numbers; a ValueError names the first row whose value is NaN or infinite."""
    values = numbers_of(table, column)
    bad = ~np.isfinite(values)
    if bad.any():
        row = table.loc[bad].iloc[0].to_dict()
        raise ValueError(f"{column} is NaN or infinite in {bad.sum()} of {len(table)} rows, the first being {row}")
    return values


def join_models(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The results with each model's accuracy, ECE and training category (`model_category`) beside them.

    The columns `recipe` and `seed` of `models` come along where the table lacks them.

    Args:
      table: results with a column `model`.
      models: one row per model, with columns `model`, `category`, `accuracy` and `ece`.
    """
    require_columns(table, ("model",))
    require_columns(models, ("model", "category", "accuracy", "ece"), "models")
    if models["model"].duplicated().any():
        raise ValueError(f"models lists {models.loc[models['model'].duplicated(), 'model'].unique().tolist()} twice")
    unknown = sorted(set(table["model"]) - set(models["model"]), key=str)
    if unknown:
        raise ValueError(f"models has no row for {unknown}")
    trained = [c for c in ("recipe", "seed") if c in models.columns and c not in table.columns]
    facts = models[["model", "category", "accuracy", "ece", *trained]].rename(columns={"category": "model_category"})
    kept = table.drop(columns=["accuracy", "ece", "model_category"], errors="ignore")
    return kept.merge(facts, on="model", how="left", validate="many_to_one")
