"""The table detector x set as coloured cells, and the numbers by which the page fills it for a choice of models."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from oodjax.report.data import Results
from oodjax.report.style import LABELS
from oodjax.report.wording import count, number

METRICS = ("auroc", "fpr95")


class Tile(NamedTuple):
    """A cell: its text, what it is sorted by (empty: last), and its colour."""

    text: str
    key: str
    heat: str
    best: bool = False


class Row(NamedTuple):
    """A detector: the mean over the sets, then each set."""

    detector: str
    tiles: list[Tile]


class Heat(NamedTuple):
    """A heat table for one metric.

    Attributes:
      metric: column of the results.
      label: what the page calls it.
      note: which numbers these are.
      sets: data set and its OOD category, in the order of the columns after the mean.
      rows: the best mean first.
    """

    metric: str
    label: str
    note: str
    sets: list[tuple[str, str]]
    rows: list[Row]


def heat_tables(study: Results) -> list[Heat]:
    """One for each metric that the results have."""
    return [_heat(study, m) for m in METRICS if m in study.results and study.results[m].notna().any()]


def warmth(metric: str, value: float) -> str:
    """The colour of a cell as CSS: `--h` percent of one hue, of the other (`--l`) where it is worse than guessing."""
    if not np.isfinite(value):
        return ""
    good = 100 - value if metric.startswith("fpr") else 2 * (value - 50)
    return f"--h: {good:.0f}" if good >= 0 else f"--l: {-good:.0f}"


def numbers(study: Results) -> str:
    """All values as JSON for the page's script: per metric, models x detectors x sets, null where there is none."""
    models, sets = study.models, list(study.datasets)
    cells: dict[str, Any] = {}
    for metric in (m for m in METRICS if m in study.results):
        wide = study.results.pivot(index=["model", "detector"], columns="dataset", values=metric)
        wide = wide.reindex(index=pd.MultiIndex.from_product([models, study.detectors]), columns=sets)
        values = wide.to_numpy(np.float64).reshape(len(models), len(study.detectors), len(sets))
        cells[metric] = [[[_short(v) for v in row] for row in model] for model in values]
    content = {
        "models": models,
        "recipes": [str(r) for r in study.facts.loc[models, "recipe"]] if "recipe" in study.facts else models,
        "categories": [str(c) for c in study.facts.loc[models, "category"]],
        "detectors": study.detectors,
        "sets": sets,
        **cells,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _short(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


def _heat(study: Results, metric: str) -> Heat:
    sets = study.datasets
    table = study.results.groupby(["detector", "dataset"], sort=False)[metric].mean().unstack()[list(sets)]
    falls = metric.startswith("fpr")
    table.insert(0, "", table.mean(axis=1))
    table = table.sort_values("", ascending=falls, kind="stable")
    best = table.min() if falls else table.max()
    rows = [
        Row(str(detector), [_tile(metric, value, value == best.iloc[i]) for i, value in enumerate(values)])
        for detector, values in zip(table.index, table.to_numpy(), strict=True)
    ]
    models = count(len(study.models), "model")
    note = f"{LABELS[metric]} in percent, mean over {models}; the best of each column in bold."
    if falls:
        note += " Lower is better."
    if study.results[metric].notna().sum() < len(study.models) * len(study.detectors) * len(sets):
        note += " Some cells are of fewer models, as values are missing."
    return Heat(metric, LABELS[metric], note, list(sets.items()), rows)


def _tile(metric: str, value: float, best: bool) -> Tile:
    if not np.isfinite(value):
        return Tile("–", "", "")
    return Tile(number(value, 1), repr(float(value)), warmth(metric, value), bool(best))
