"""What every analysis asks of a results table: columns, finite numbers, complete designs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def require_columns(table: pd.DataFrame, columns: Sequence[str], name: str = "table") -> None:
    """ValueError unless the table has rows and all of the columns."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}; it has {list(table.columns)}")
    if len(table) == 0:
        raise ValueError(f"{name} has no rows")


def require_finite(table: pd.DataFrame, column: str) -> None:
    """ValueError that names the first row whose value is NaN or infinite."""
    bad = ~np.isfinite(table[column].to_numpy(np.float64))
    if bad.any():
        row = table.loc[bad].iloc[0].to_dict()
        raise ValueError(f"{column} is NaN or infinite in {bad.sum()} of {len(table)} rows, the first being {row}")


def mean_table(table: pd.DataFrame, response: str, rows: str = "model", columns: str = "detector") -> pd.DataFrame:
    """Mean response per combination of two factors, such as models by detectors, in order of appearance.

    Every combination must be there with the same number of rows, for otherwise means over different data sets would be
    compared.
    """
    require_columns(table, (response, rows, columns))
    require_finite(table, response)
    groups = table.groupby([rows, columns], sort=False, observed=True)[response]
    index, names = pd.Index(table[rows].unique()), pd.Index(table[columns].unique())
    counts = groups.size().unstack(fill_value=0).reindex(index=index, columns=names)
    most = int(counts.to_numpy().max())
    short = np.argwhere(counts.to_numpy() != most)
    if len(short):
        row, column = short[0]
        raise ValueError(
            f"{rows}={counts.index[row]!r}, {columns}={counts.columns[column]!r} has {counts.iloc[row, column]} rows "
            f"where others have {most} ({len(short)} such combinations)"
        )
    return groups.mean().unstack().reindex(index=index, columns=names)


def join_models(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The results with each model's accuracy, ECE and training category (`model_category`) beside them.

    Args:
      table: results with a column `model`.
      models: one row per model, with columns `model`, `category`, `accuracy` and `ece`.
    """
    require_columns(table, ("model",))
    require_columns(models, ("model", "category", "accuracy", "ece"), "models")
    if models["model"].duplicated().any():
        raise ValueError(f"models lists {models.loc[models['model'].duplicated(), 'model'].unique().tolist()} twice")
    unknown = sorted(set(table["model"]) - set(models["model"]))
    if unknown:
        raise ValueError(f"models has no row for {unknown}")
    facts = models[["model", "category", "accuracy", "ece"]].rename(columns={"category": "model_category"})
    kept = table.drop(columns=["accuracy", "ece", "model_category"], errors="ignore")
    return kept.merge(facts, on="model", how="left", validate="many_to_one")
