"""What is kept -> the results tables: one row per model x detector x data set, and one per model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from oodjax import metrics
from oodjax.analysis import mean_interval
from oodjax.detectors.labels import parse
from oodjax.files import write_text
from oodjax.shelf import Shelf
from oodjax.store import Store
from oodjax.study import Study

ID_TEST = "ID test set"  # accuracy and ECE are of one set, as a row of `results` is


@dataclass(frozen=True)
class Tables:
    """The outcome of a study.

    Attributes:
      results: one row per model x detector x data set; figures of merit are fractions in 0..1.
      models: one row per model: model, category, accuracy, ece; of checkpoints the architecture.

    Where recipes are trained with several seeds, both have the columns recipe and seed behind the model.
    """

    results: pd.DataFrame
    models: pd.DataFrame

    def write(self, folder: Path) -> None:
        """results.csv and models.csv, each written whole."""
        write_text(folder / "results.csv", self.results.to_csv(index=False))
        write_text(folder / "models.csv", self.models.to_csv(index=False))


def with_kept(study: Study, store: Store) -> tuple[Study, list[str]]:
    """The study with every detector of which an earlier run kept scores, and the labels that say nothing here."""
    labels: dict[str, None] = {}
    for model in study.models:
        facts = model.facts()
        if facts is not None:
            labels |= dict.fromkeys(Shelf(study, store, model.name, facts).held_labels(study.id_test))
    known, unknown = [], []
    for label in labels:
        try:
            known.append(parse(label).label)
        except ValueError:  # a plugin that is not loaded, or an option that a detector no longer has
            unknown.append(label)
    return study.including(known), unknown


def tabulate(study: Study, store: Store) -> Tables:
    """Tables of everything of the study that is finished and current."""
    rows: list[pd.DataFrame] = []
    models = []
    for model in study.models:
        facts = model.facts()
        if facts is None:
            continue
        shelf = Shelf(study, store, model.name, facts)
        inside = shelf.columns(study.id_test)
        if not inside:
            continue
        kept = shelf.kept(study.id_test)
        logits = np.asarray(kept.take("logits"))
        which = dict(zip(("recipe", "seed"), study.replicates.get(model.name, ()), strict=False))
        correct = logits.argmax(axis=-1) == kept.labels
        models.append(
            {
                "model": model.name,
                **which,
                "category": model.category,
                "accuracy": metrics.accuracy(logits, kept.labels),
                "ece": metrics.ece(logits=logits, labels=kept.labels),
                **{name: facts[name] for name in ("architecture",) if name in facts},
            }
        )
        chosen = shelf.choices()
        for ood in study.ood_tests:
            outside = shelf.columns(ood)
            names = [name for name in study.detectors if name in inside and name in outside]
            if not names:
                continue
            id_scores, ood_scores = (np.stack([c[name] for name in names], axis=1) for c in (inside, outside))
            figures = metrics.evaluate(id_scores, ood_scores, correct)
            rows.append(
                pd.DataFrame(
                    {
                        "model": model.name,
                        **which,
                        "model_category": model.category,
                        "detector": names,
                        "detector_family": [parse(name).method.family for name in names],
                        "dataset": ood.name,
                        "ood_category": ood.category,
                        "hyperparameters": [json.dumps(c.options) for n in names if (c := chosen[n]) is not None],
                        "n_id": len(id_scores),
                        "n_ood": len(ood_scores),
                        **{name: np.atleast_1d(values) for name, values in figures.items()},
                    }
                )
            )
    places = {
        kind: {name: i for i, name in enumerate(names)}
        for kind, names in (
            ("model", [m.name for m in study.models]),
            ("detector", study.detectors),
        )
    }
    results = pd.concat(rows, ignore_index=True).sort_values(
        ["model", "detector"], key=lambda column: column.map(places[column.name]), kind="stable", ignore_index=True
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


def per_recipe(tables: Tables) -> pd.DataFrame:
    """Mean over seeds of a study with replicates, in percent, a row a recipe.

    Returns:
      Columns recipe, category, seeds, and accuracy, ece, auroc, fpr95 (the last two means over detectors and sets),
      each with the ends of its 95 % interval over seeds in NAME_low and NAME_high: `oodjax.analysis.mean_interval`.
    """
    found = tables.models.groupby("recipe", sort=False).agg(category=("category", "first"), seeds=("seed", "nunique"))
    of_models = tables.models.assign(dataset=ID_TEST)
    for name, table in (
        ("accuracy", of_models),
        ("ece", of_models),
        ("auroc", tables.results),
        ("fpr95", tables.results),
    ):
        means = mean_interval(table, by="recipe", response=name).set_index("recipe")
        for end, column in ((name, "mean"), (f"{name}_low", "low"), (f"{name}_high", "high")):
            found[end] = 100 * means[column]
    return found.reset_index()


def per_detector(tables: Tables, columns: Sequence[str] = ("auroc", "fpr95")) -> pd.DataFrame:
    """Mean of each column per detector over models and sets, in percent, best AUROC first."""
    means = 100 * tables.results.groupby("detector", sort=False)[list(columns)].mean()
    return means.sort_values(columns[0], ascending=False, kind="stable").reset_index()
