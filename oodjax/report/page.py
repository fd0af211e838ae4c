"""The page: verdicts, figures with captions, tables, and what the study was made with."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from oodjax._version import __version__
from oodjax.analysis import Statement, does_accuracy_predict
from oodjax.files import write_text
from oodjax.report import figures, tables
from oodjax.report.data import CannotSay, ReportError, Results, join, load
from oodjax.report.figures_tests import term_name
from oodjax.report.style import look, save

_PX_PER_INCH = 96


class Shown(NamedTuple):
    """A figure on the page; one that cannot be drawn has a reason and no file."""

    key: str
    label: str
    title: str
    section: str
    caption: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def write(folder: Path, out: Path | None = None, detectors: Sequence[str] = (), baseline: str | None = None) -> Path:
    """Writes the report of a results folder.

    Args:
      folder: holds results.csv and models.csv, and may hold run.json and the units it names.
      out: where to write; by default `folder/report`.
      detectors: those to draw ROC curves and score histograms of; by default the one with the best mean rank.
      baseline: the model that others are compared with; by default the one named or categorised `baseline`.

    Returns:
      The page, index.html, beside `figures` (SVG and PNG) and `tables` (CSV).

    Raises:
      ReportError: the tables are not what their columns promise, or a name is unknown.
    """
    folder = Path(folder)
    out = folder / "report" if out is None else Path(out)
    study = load(folder, baseline)
    unknown = [d for d in detectors if d not in study.detectors]
    if unknown:
        raise ReportError(f"unknown detector {join(unknown)}; the results have: {', '.join(study.detectors)}")
    if out.exists() and not out.is_dir():
        raise ReportError(f"cannot write to {out}: it is not a folder")
    for name in ("figures", "tables"):
        (out / name).mkdir(parents=True, exist_ok=True)
    former = {path for suffix in ("svg", "png") for path in (out / "figures").glob(f"fig*.{suffix}")}

    shown = _draw(study, detectors, out / "figures")
    views, absent = _tabulate(study, out / "tables")
    write_text(out / "tables" / "results.csv", (folder / "results.csv").read_text())
    page = _template().render(
        study=study,
        verdict=_verdict(study),
        sections=[(s, [f for f in shown if f.section == s]) for s in figures.SECTIONS],
        tables=views,
        absent_tables=absent,
        manifest=json.dumps(study.manifest, indent=2) if study.manifest else "",
        provenance=_provenance(study.manifest),
        data=study.manifest.get("data", []),
        version=__version__,
        style=_asset("style.css"),
        script=_asset("table.js"),
    )
    write_text(out / "index.html", page)
    drawn = {figure.key for figure in shown if not figure.reason}
    for path in former:
        if path.stem not in drawn:
            path.unlink()
    return out / "index.html"


def _draw(study: Results, detectors: Sequence[str], folder: Path) -> list[Shown]:
    shown = []
    with look():
        for entry in figures.entries(study, detectors):
            about = entry.key, entry.label, entry.title, entry.section
            try:
                drawing = entry.draw(study)
            except ValueError as error:
                shown.append(Shown(*about, reason=_sentence(error)))
                continue
            save(drawing, folder / entry.key)
            width, height = (round(_PX_PER_INCH * x) for x in drawing.figure.get_size_inches())
            shown.append(Shown(*about, drawing.caption, width, height))
            drawing.figure.clear()
    gc.collect()
    return shown


def _tabulate(study: Results, folder: Path) -> tuple[list[tables.View], list[tuple[str, str]]]:
    views, absent = [], []
    for entry in tables.entries(study):
        path = folder / f"{entry.key}.csv"
        path.unlink(missing_ok=True)
        try:
            view = entry.make()
        except ValueError as error:
            absent.append((entry.title, _sentence(error)))
            continue
        write_text(path, view.frame.to_csv(index=False))
        views.append(view)
    return views, absent


def _verdict(study: Results) -> list[Statement]:
    """The plain-language answer, numbers in percent."""
    try:
        rows = study.complete("auroc").rename(columns={"auroc": "AUROC"})
    except CannotSay as error:
        return [Statement(f"Nothing can be said: {error}.", "Other data may answer it.")]
    facts = study.facts[study.facts["model"].isin(rows["model"])]
    found = does_accuracy_predict(rows, facts, study.baseline or "(none)", "AUROC")
    return [Statement(*(_terms(text) for text in statement)) for statement in found]


def tie(text: str) -> str:
    """No line break within `p < 0.001` and its like."""
    return re.sub(r"(\S) ([=<]) (?=\S)", "\\1\u00a0\\2\u00a0", text).replace(" %", "\u00a0%")


def _terms(text: str) -> str:
    words = text.replace("models has 0 rows for the baseline '(none)', expected 1", "no model is the baseline")
    parts = words.split(" ")
    return " ".join(
        term_name(p) if ":" in p.strip(":;,.") else p.replace("ood_category", "OOD category") for p in parts
    )


def _sentence(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if not text.startswith(("auroc", "fpr95")) else f"{text}."


def _provenance(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The manifest's short facts as name and value."""
    facts = []
    for part in ("configuration", "device", "versions"):
        content = manifest.get(part)
        for name, value in content.items() if isinstance(content, dict) else ():
            text = f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else str(value)
            facts.append((name.replace("_", " "), text))
    return facts


@cache
def _asset(name: str) -> str:
    return (resources.files("oodjax.report") / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["tie"] = tie
    return environment.from_string(_asset("template.html"))
