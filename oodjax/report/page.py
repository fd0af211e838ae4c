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
from oodjax.files import fingerprint, sha256, write_text, write_whole
from oodjax.fingerprints import package_code
from oodjax.listing import read_listing, staging
from oodjax.report import figures, tables
from oodjax.report.data import CannotSay, ReportError, Results, join, load
from oodjax.report.figures_tests import term_name
from oodjax.report.reading import read_manifest, visible
from oodjax.report.style import look, save

_PX_PER_INCH = 96
LISTING, MAKER = "report.json", "oodjax.report"
# What run.json says of the last run alone: a run that finds everything finished leaves the report as it is.
_LOOKS = (".html", ".css", ".js")
_FACTS = {
    ("device", "kind"): "devices",
    ("device", "count"): "number of devices",
    ("device", "cpus"): "processors of the host",
    ("configuration", "searched"): "hyper-parameters searched",
}
_OF_ONE_RUN = ("asked", "stages", "decoded_images", "forward_passes", "odin_passes")


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
      ForeignFile: something in `out` that no earlier report has listed would be replaced.
      OSError: the report cannot be written. In all three cases `out` is as it was.
    """
    folder = Path(folder)
    out = folder / "report" if out is None else Path(out)
    study = load(folder, baseline)
    unknown = [d for d in detectors if d not in study.detectors]
    if unknown:
        raise ReportError(f"unknown detector {join(unknown)}; the results have: {join(study.detectors, 60)}")
    wanted = list(dict.fromkeys(detectors))
    listing = read_listing(out, LISTING, MAKER)
    listing.check(_planned(study, wanted))
    with staging(out) as staged:
        shown = _draw(study, wanted, staged / "figures")
        views, absent = _tabulate(study, staged / "tables")
        write_whole(staged / "tables" / "results.csv", lambda file: file.write(study.source))
        write_text(staged / "index.html", _render(study, shown, views, absent))
        listing.publish(staged, {"made_from": made_from(folder)})
    return out / "index.html"


def up_to_date(folder: Path) -> bool:
    """Whether `folder/report` holds all its files unaltered, made by this code from the tables that are there now."""
    listing = read_listing(folder / "report", LISTING, MAKER)
    return listing.whole() and listing.facts.get("made_from") == made_from(folder)


def made_from(folder: Path) -> str:
    """Fingerprint of what decides a report."""
    inputs = [sha256(folder / name) for name in ("results.csv", "models.csv")]
    manifest = {k: v for k, v in read_manifest(folder / "run.json").items() if k not in _OF_ONE_RUN}
    looks = [sha256(path) for path in sorted(Path(__file__).parent.iterdir()) if path.suffix in _LOOKS]
    return fingerprint([*inputs, manifest, package_code("report", "analysis", "zoo"), *looks])


def _planned(study: Results, detectors: Sequence[str]) -> list[str]:
    """Every path below the report's folder that may be written."""
    drawings = [f"figures/{e.key}.{kind}" for e in figures.entries(study, detectors) for kind in ("svg", "png")]
    return ["index.html", "tables/results.csv", *drawings, *(f"tables/{e.key}.csv" for e in tables.entries(study))]


def _render(study: Results, shown: list[Shown], views: list[tables.View], absent: list[tuple[str, str]]) -> str:
    return _template().render(
        study=study,
        verdict=_verdict(study),
        sections=[(s, [f for f in shown if f.section == s]) for s in figures.SECTIONS],
        tables=views,
        absent_tables=absent,
        manifest=json.dumps(study.manifest, indent=2) if study.manifest else "",
        provenance=_provenance(study.manifest),
        data=study.image_sets,
        version=__version__,
        style=_asset("style.css"),
        script=_asset("table.js"),
    )


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
        try:
            view = entry.make()
        except ValueError as error:
            absent.append((entry.title, _sentence(error)))
            continue
        write_text(folder / f"{entry.key}.csv", view.frame.to_csv(index=False))
        views.append(view)
    return views, absent


def _verdict(study: Results) -> list[Statement]:
    """The plain-language answer, numbers in percent."""
    try:
        rows = study.complete("auroc").rename(columns={"auroc": "AUROC"})
    except CannotSay as error:
        return [Statement(f"Nothing can be said: {error}.", "Other data may answer it.")]
    facts = study.facts[study.facts["model"].isin(rows["model"])]
    return does_accuracy_predict(rows, facts, study.baseline, "AUROC", term_name)


def tie(text: str) -> str:
    """No line break within `p < 0.001` and its like."""
    return re.sub(r"(\S) ([=<]) (?=\S)", "\\1\u00a0\\2\u00a0", text).replace(" %", "\u00a0%")


def _sentence(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _provenance(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The manifest's short facts as name and value."""
    facts = []
    for part in ("configuration", "device", "versions"):
        content = manifest.get(part, {})
        for name, value in content.items():
            text = f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else str(value)
            facts.append(
                (_FACTS.get((part, name), name.replace("_", " ")), {"True": "yes", "False": "no"}.get(text, text))
            )
    return facts


def _safe(value: Any) -> Any:
    return visible(value) if type(value) is str else value  # markup is our own


@cache
def _asset(name: str) -> str:
    return (resources.files("oodjax.report") / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_safe
    )
    environment.filters["tie"] = tie
    return environment.from_string(_asset("template.html"))
