"""Which files a report is made from, and how they name and measure things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from oodjax.analysis.columns import models_of
from oodjax.files import sha256
from oodjax.metrics import COLUMNS as METRICS
from oodjax.report.reading import ReportError, headings, parse_table, read_bytes

KEYS = ("model", "detector", "dataset", "ood_category")
FACTS = ("model", "category", "accuracy", "ece")
ARCHITECTURE = ("architecture", "arch")
OTHERS = ("ood_category", "category", "model_category", "recipe")


@dataclass(frozen=True)
class Given:
    """The tables of a study.

    Attributes:
      path: a folder of results.csv and models.csv, or a CSV file of results of any name.
      models: the table of models; by default models.csv in the folder, and of a file that lies in none the columns of
        the results.
      columns: our names -> the tables' headings, where they differ.
      unit: of every share, "fraction" or "percent"; by default as it is found.
    """

    path: Path
    models: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def results_path(self) -> Path:
        return self.path / "results.csv" if self.path.is_dir() else self.path

    @property
    def models_path(self) -> Path | None:
        if self.models is not None or not self.path.is_dir():
            return self.models
        return self.path / "models.csv"

    @property
    def out(self) -> Path:
        """Where the report is written if nothing is said."""
        return self.path / "report" if self.path.is_dir() else self.path.with_name(f"{self.path.stem}-report")

    @property
    def manifest_path(self) -> Path:
        """run.json, which tells of the results.csv beside it, and of no other table."""
        return self.folder / ("run.json" if self.results_path.name == "results.csv" else f"{self.path.stem}.run.json")

    def facts(self) -> list[str]:
        """What decides how the tables are read."""
        files = [sha256(path) for path in (self.results_path, self.models_path) if path is not None]
        return [
            *map(str, files),
            *(f"{ours}={theirs}" for ours, theirs in sorted(self.columns.items())),
            self.unit or "",
        ]


def read_given(given: Given) -> tuple[pd.DataFrame, pd.DataFrame, bytes, list[str]]:
    """Results and models in percent, the results as they lie on the disk, and what was assumed."""
    assumed: list[str] = []
    alone, name = given.models_path is None, given.results_path.name
    source = read_bytes(given.results_path)
    optional = ("detector_family", *OTHERS) if alone else ("detector_family",)
    shares = (*METRICS, *FACTS[2:]) if alone else METRICS
    keys = KEYS if given.path.is_dir() else KEYS[:3]
    results = parse_table(
        given.results_path, source, keys, ("auroc",), shares, optional, given.columns, given.unit, assumed
    )
    known = headings(source)
    if KEYS[3] not in results:
        results[KEYS[3]] = "OOD"
        assumed.append(f"{name} does not say which OOD category a set is of: all are taken for one.")
    if given.models_path is None:
        facts = _facts_of(given, results, assumed)
        results = results.drop(columns=[c for c in FACTS[1:] if c in results])
    else:
        content = read_bytes(given.models_path)
        facts = parse_table(
            given.models_path,
            content,
            FACTS[:2],
            FACTS[2:],
            FACTS[2:],
            ARCHITECTURE,
            given.columns,
            given.unit,
            assumed,
        )
        known |= headings(content)
        if facts[["accuracy", "ece"]].isna().any(axis=None):
            raise ReportError(f"{given.models_path}: accuracy or ece is missing for some model")
    for ours, theirs in given.columns.items():
        if theirs not in known:
            raise ReportError(f"no table has a column {theirs!r} to be {ours}; there are {', '.join(sorted(known))}")
    return results, facts, source, assumed


def _facts_of(given: Given, results: pd.DataFrame, assumed: list[str]) -> pd.DataFrame:
    try:
        models, more = models_of(results)
    except ValueError as error:
        raise ReportError(f"{given.results_path}: {error}") from error
    assumed += [f"{line[:1].upper()}{line[1:]}." for line in more]
    return models
