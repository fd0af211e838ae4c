"""What a report is made from: the tables of a results folder, its manifest and, where kept, its scores and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodjax.analysis import feature_space
from oodjax.analysis.clusters import cluster_values
from oodjax.analysis.table import join_models
from oodjax.metrics import COLUMNS as METRICS
from oodjax.report.given import ARCHITECTURE as ARCHITECTURE
from oodjax.report.given import Given, read_given
from oodjax.report.kept import kept_column, read_kept
from oodjax.report.reading import CannotSay, ReportError, image_sets, read_manifest
from oodjax.zoo import CATEGORIES, checkpoints

SPOKEN = {
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "auroc_correct_vs_ood": "AUROC of correct ID samples vs OOD",
    "auroc_incorrect_vs_ood": "AUROC of incorrect ID samples vs OOD",
    "auroc_correct_vs_incorrect": "AUROC of correct vs incorrect ID samples",
}
OOD_ORDER = ("near", "far", "extreme", "synthetic")
_NOT_KEPT = (
    "it takes scores and features of the images, which are not with these tables (run.json names none); the folder of "
    "the run has them in its store, and `python -m oodjax.report FOLDER` draws them from there"
)


@dataclass(eq=False)
class Results:
    """One study's results. Accuracies, calibration errors and figures of merit are in percent.

    Attributes:
      folder: where they were read from.
      results: a row per model, detector and data set, with `accuracy`, `ece` and `model_category` of the model.
      facts: a row per model that has results: model, category, accuracy, ece and whatever else models.csv holds.
      manifest: the content of run.json, {} if there is none.
      baseline: the model or recipe that others are compared with, None where there is none.
      source: results.csv as it was read.
      notes: what was found missing or left out.
    """

    folder: Path
    results: pd.DataFrame
    facts: pd.DataFrame
    manifest: dict[str, Any]
    baseline: str | None
    source: bytes = b""
    notes: list[str] = field(default_factory=list)
    _measured: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    @cached_property
    def models(self) -> list[str]:
        """By training category, in the order of the facts within each."""
        return [m for category in self.categories for m in self.facts.index[self.facts["category"] == category]]

    @cached_property
    def categories(self) -> list[str]:
        return ordered(self.facts["category"], CATEGORIES)

    @cached_property
    def ood_categories(self) -> list[str]:
        return ordered(self.results["ood_category"], OOD_ORDER)

    @cached_property
    def detectors(self) -> list[str]:
        return list(self.results["detector"].unique())

    @cached_property
    def datasets(self) -> dict[str, str]:
        """Data set -> OOD category, by category."""
        pairs = self.results[["dataset", "ood_category"]].drop_duplicates()
        return {
            str(row.dataset): category
            for category in self.ood_categories
            for row in pairs[pairs["ood_category"] == category].itertuples()
        }

    def datasets_of(self, ood_category: str) -> list[str]:
        return [name for name, category in self.datasets.items() if category == ood_category]

    def measured(self, metric: str) -> pd.DataFrame:
        """The rows that have a value; what compares models or detectors adjusts for those that have none (`means`)."""
        if metric not in self._measured:
            if metric not in self.results.columns:
                raise CannotSay(f"results.csv has no column {metric}")
            rows = self.results[self.results[metric].notna()]
            if rows.empty:
                raise CannotSay(f"{metric} is NaN in every row")
            self._measured[metric] = rows
        return self._measured[metric]

    def remark(self, *metrics: str) -> str:
        """What is missing and how it was dealt with, as a sentence with a leading space; empty where nothing is."""
        parts = []
        for metric in metrics:
            rows, name = self.measured(metric), SPOKEN.get(metric, metric)
            present = set(rows["model"].unique())
            absent = [m for m in self.models if m not in present]
            if absent:
                parts.append(f"{name} is undefined for {join(absent)}")
            cells = len(present) * len(self.results[["detector", "dataset"]].drop_duplicates())
            if len(rows) < cells:
                parts.append(
                    f"{name} is missing in {cells - len(rows):,} of {cells:,} cells of model, detector and set, which "
                    "means are adjusted for"
                )
        text = "; ".join(dict.fromkeys(parts))
        return f" {text}." if text else ""

    def means(self, metric: str, by: str | None = None) -> pd.DataFrame | pd.Series:
        """Mean of a metric per model (rows), or also per value of a column, missing cells adjusted for."""
        values, _ = cluster_values(self.measured(metric), metric, "model", by)
        return values[metric].rename(metric) if by is None else values.rename_axis(columns=by)

    def examples(self, most: int = 4) -> list[str]:
        """The models worth a closer look: baseline, best and worst detection, most accurate."""
        mean = self.means("auroc")
        accuracy = self.facts["accuracy"].reindex(mean.index)
        recipes = self.facts["recipe"] if "recipe" in self.facts else self.facts["model"]
        of_baseline = recipes.index[(recipes == self.baseline) | (recipes.index == self.baseline)]
        wanted = [*of_baseline[:1], mean.idxmax(), mean.idxmin(), accuracy.idxmax(), *self.models]
        return [str(m) for m in dict.fromkeys(wanted) if m is not None][:most]

    @cached_property
    def feature_measures(self) -> pd.DataFrame:
        """`feature_space` of every model on the ID test set (models as rows)."""
        return pd.DataFrame({m: feature_space(self.unit(m, self.id_test, "features")) for m in self.models}).T

    @cached_property
    def id_test(self) -> str:
        for entry in self.image_sets:
            if entry["role"] == "id_test":
                return str(entry["name"])
        raise CannotSay("run.json names no ID test set")

    @cached_property
    def image_sets(self) -> list[dict[str, Any]]:
        return image_sets(self.manifest)

    def unit(self, model: str, image_set: str, array: str) -> NDArray[Any]:
        """Logits, features or scores of a model on a set, as kept in the store; CannotSay where they are not."""
        kept = self.manifest.get("kept", {})
        if not kept:
            raise CannotSay(_NOT_KEPT)
        return read_kept(self.folder, model, image_set, kept.get(model, {}).get(image_set, {}), array)

    def scores(self, model: str, image_set: str, detector: str) -> NDArray[np.float64]:
        scores = self.unit(model, image_set, "scores")
        return scores[:, kept_column(self.folder, model, image_set, detector)].astype(np.float64)


def load(source: Path | Given, baseline: str | None = None) -> Results:
    """Reads the results, the models and run.json, where there is one.

    Args:
      source: a folder of results.csv and models.csv, a CSV file of results, or both and how they name things.
      baseline: the model or recipe that others are compared with; by default the one of that name or category.

    Raises:
      ReportError: a file is missing or does not hold what its columns promise.
    """
    given = source if isinstance(source, Given) else Given(source)
    folder = given.folder
    if not given.path.exists():
        raise ReportError(f"there is no {given.path}" if given.path.suffix else f"{given.path} is not a folder")
    results, facts, content, notes = read_given(given)
    _reject_duplicates(given.results_path, results, ["model", "detector", "dataset"])
    _reject_duplicates(given.models_path or given.results_path, facts, ["model"])
    several = results.groupby("dataset")["ood_category"].nunique()
    if (several > 1).any():
        raise ReportError(f"{given.results_path}: {several.idxmax()} belongs to more than one ood_category")
    unknown = sorted(set(results["model"]) - set(facts["model"]))
    if unknown:
        raise ReportError(f"{given.models_path} has no row for {join(unknown)}")
    joined = join_models(results, facts)
    manifest = read_manifest(given.manifest_path)
    if not manifest:
        notes.append("There is no run.json: what was run, and with which versions, is not known.")
    unused = sorted(set(facts["model"]) - set(results["model"]))
    if unused:
        notes.append(f"models.csv lists {join(unused)}, of which there are no results.")
        facts = facts[~facts["model"].isin(unused)]
    facts = facts.set_index("model", drop=False).rename_axis(None)
    study = Results(folder, joined, facts, manifest, _find_baseline(facts, baseline, notes), content, notes)
    _note_gaps(study)
    _note_run(study)
    return study


@cache
def paper() -> pd.DataFrame:
    """The paper's published figures, in percent, one row per checkpoint that has them."""
    names = ("id", "category", "accuracy", "ece", "auroc", "auroc_std", "fpr95", "fpr95_std")
    table = pd.DataFrame([{name: getattr(c, name) for name in names} for c in checkpoints()])
    return table[table["auroc"].notna()].reset_index(drop=True)


def shared_with_paper(study: Results) -> list[str]:
    """The models that are the paper's checkpoints: by id, unless the manifest names another study than ImageNet's.

    The small studies have a `baseline` and a `mixup` too, so one common `baseline` alone is no checkpoint of the paper.
    """
    preset = study.manifest.get("configuration", {}).get("preset", "imagenet")
    both = [m for m in study.models if m in set(paper()["id"])] if preset == "imagenet" else []
    return [] if both == ["baseline"] and len(study.models) > 1 else both


def ordered(values: pd.Series, known: Sequence[str]) -> list[str]:
    """The distinct values, known ones first and in their order; a plural counts as its singular."""
    found = [str(v) for v in values.unique()]
    return sorted(found, key=lambda v: known.index(singular(v)) if singular(v) in known else len(known))


def singular(category: str) -> str:
    name = category.strip().lower()
    return name.removesuffix("s") if name.endswith(("ions", "ings")) else name


def join(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence, long lists cut."""
    shown = [str(n) for n in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _reject_duplicates(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    twice = table.duplicated(columns)
    if twice.any():
        first = ", ".join(f"{c} {table.loc[twice, c].iloc[0]}" for c in columns)
        raise ReportError(f"{path} has more than one row for {first}")


def _find_baseline(facts: pd.DataFrame, name: str | None, notes: list[str]) -> str | None:
    recipes = facts["recipe"] if "recipe" in facts else facts["model"]
    known = {*facts.index, *recipes}
    if name is not None:
        if name not in known:
            raise ReportError(f"the baseline {name} is not among the models {join(list(facts.index), 60)}")
        return name
    if "baseline" in known:
        return "baseline"
    of_category = recipes[facts["category"].map(singular) == "baseline"].unique()
    if len(of_category) == 1:
        return str(of_category[0])
    notes.append("No model is the baseline, so nothing is compared with one; name one with --baseline.")
    return None


def _note_run(study: Results) -> None:
    """What the manifest says that the tables do not: no search, images left out, doubts about the data."""
    if study.manifest.get("configuration", {}).get("searched") is False:
        study.notes.append(
            "No hyper-parameters were searched, as an ID or an OOD validation set is lacking: each detector has its "
            "defaults."
        )
    for name, images in study.manifest.get("images_left_out", {}).items():
        study.notes.append(f"{len(images):,} images of {name} could not be read and are left out; run.json lists them.")
    study.notes.extend(f"{line}." for line in study.manifest.get("warnings", []))


def _note_gaps(study: Results) -> None:
    possible = len(study.models) * len(study.detectors) * len(study.datasets)
    if len(study.results) < possible:
        study.notes.append(
            f"{possible - len(study.results):,} of {possible:,} combinations of model, detector and set have no row."
        )
    for metric in METRICS:
        if metric not in study.results.columns:
            study.notes.append(f"results.csv has no column {metric}.")
        elif missing := int(study.results[metric].isna().sum()):
            study.notes.append(f"{metric} is undefined in {missing:,} of {len(study.results):,} rows.")
