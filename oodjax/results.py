"""Units -> the results tables: one row per model x detector x data set, and one per model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from oodjax import metrics
from oodjax.detectors import families
from oodjax.files import write_text
from oodjax.study import Study


@dataclass(frozen=True)
class Tables:
    """The outcome of a study.

    Attributes:
      results: one row per model x detector x data set; figures of merit are fractions in 0..1.
      models: one row per model: model, category, accuracy, ece.
    """

    results: pd.DataFrame
    models: pd.DataFrame

    def write(self, folder: Path) -> None:
        """results.csv and models.csv, each written whole."""
        write_text(folder / "results.csv", self.results.to_csv(index=False))
        write_text(folder / "models.csv", self.models.to_csv(index=False))


def tabulate(study: Study) -> Tables:
    """Tables of the study's finished units."""
    rows: list[pd.DataFrame] = []
    models = []
    family = families()
    for model in study.models:
        choice = study.choice(model)
        columns = [choice.selected[name] for name in study.detectors]
        id_test, *oods = study.test_sets
        unit = study.unit(model, id_test)
        correct = unit.logits.argmax(axis=-1) == unit.labels
        category = study.preset.models[model]
        models.append(
            {
                "model": model,
                "category": category,
                "accuracy": metrics.accuracy(unit.logits, unit.labels),
                "ece": metrics.ece(logits=unit.logits, labels=unit.labels),
            }
        )
        for ood in oods:
            figures = metrics.evaluate(unit.scores[:, columns], study.unit(model, ood).scores[:, columns], correct)
            rows.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "model_category": category,
                        "detector": list(study.detectors),
                        "detector_family": [family[name] for name in study.detectors],
                        "dataset": ood.name,
                        "ood_category": ood.category,
                        "hyperparameters": [json.dumps(choice.points[c][1]) for c in columns],
                        **{name: np.atleast_1d(values) for name, values in figures.items()},
                    }
                )
            )
    order = {name: i for i, name in enumerate(study.detectors)}
    results = pd.concat(rows, ignore_index=True)
    results = results.sort_values(
        ["model", "detector"],
        key=lambda column: column.map({m: i for i, m in enumerate(study.models)} if column.name == "model" else order),
        kind="stable",
        ignore_index=True,
    )
    return Tables(results, pd.DataFrame(models))


def per_model(tables: Tables) -> pd.DataFrame:
    """Table 2 of the paper: accuracy, ECE, mean and std of AUROC and FPR95 over detectors and sets; all in percent."""
    groups = tables.results.groupby("model", sort=False)
    summary = pd.DataFrame(
        {
            "model": tables.models["model"],
            "category": tables.models["category"],
            "accuracy": 100 * tables.models["accuracy"],
            "ece": 100 * tables.models["ece"],
        }
    ).set_index("model")
    for name in ("auroc", "fpr95"):
        summary[name] = 100 * groups[name].mean()
        summary[f"{name}_std"] = 100 * groups[name].std(ddof=0)
    return summary.reset_index()


def per_detector(tables: Tables, columns: Sequence[str] = ("auroc", "fpr95")) -> pd.DataFrame:
    """Mean of each column per detector over models and sets, in percent, best AUROC first."""
    means = 100 * tables.results.groupby("detector", sort=False)[list(columns)].mean()
    return means.sort_values(columns[0], ascending=False, kind="stable").reset_index()
