"""The page: verdicts, figures with captions, tables, and what the study was made with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from oodjax._version import __version__
from oodjax.files import fingerprint, sha256, write_text, write_whole
from oodjax.fingerprints import package_code
from oodjax.listing import read_listing, staging
from oodjax.report import figures, record, tables
from oodjax.report.data import ReportError, Results, join, load
from oodjax.report.explain import detector_words, glossary
from oodjax.report.first import first_screen, scope, verdict
from oodjax.report.forms import FEW, asks, form_of, lacks, picture
from oodjax.report.given import Given
from oodjax.report.heat import heat_tables, numbers
from oodjax.report.inline import fitting, inlined
from oodjax.report.leaderboard import Leaders
from oodjax.report.reading import read_manifest
from oodjax.report.render import render
from oodjax.report.style import cast, css, save

LISTING, MAKER = "report.json", "oodjax.report"
# What run.json says of the last run alone: a run that finds everything finished leaves the report as it is.
_LOOKS = (".html", ".css", ".js")
LEGEND = "legend"
_BEFORE = (("answer", "Answer"), ("heat", "Detectors and sets"))
_AFTER = (
    ("verdict", "Findings"),
    ("tables", "Tables"),
    ("data", "Data sets"),
    ("glossary", "Glossary"),
    ("run", "The run"),
)
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
    metric: str = ""
    markup: str = ""


def write(
    folder: Path | Given, out: Path | None = None, detectors: Sequence[str] = (), baseline: str | None = None
) -> Path:
    """Writes the report of a results folder, or of a table.

    Args:
      folder: holds results.csv and models.csv, and may hold run.json and the units it names; or a CSV file of results;
        or `Given`, which says how the tables name and measure things.
      out: where to write; by default `folder/report`, or `NAME-report` beside a file NAME.csv.
      detectors: those to draw ROC curves and score histograms of; by default the one with the best mean rank.
      baseline: the model that others are compared with; by default the one named or categorised `baseline`.

    Returns:
      The page, index.html, beside `figures` (SVG and PNG) and `tables` (CSV).

    Raises:
      ReportError: the tables are not what their columns promise, or a name is unknown.
      ForeignFile: something in `out` that no earlier report has listed would be replaced.
      OSError: the report cannot be written. In all three cases `out` is as it was.
    """
    given = folder if isinstance(folder, Given) else Given(Path(folder))
    out = given.out if out is None else Path(out)
    study = load(given, baseline)
    wanted = _named(study, detectors)
    listing = read_listing(out, LISTING, MAKER)
    listing.check(_planned(study, wanted))
    with staging(out) as staged:
        shown = _draw(study, wanted, staged / "figures")
        views, absent = _tabulate(study, staged / "tables")
        write_whole(staged / "tables" / "results.csv", lambda file: file.write(study.source))
        write_text(staged / "index.html", _render(study, shown, views, absent))
        listing.publish(staged, {"made_from": made_from(given)})
    return out / "index.html"


def _named(study: Results, detectors: Sequence[str]) -> list[str]:
    """The detectors of the tables that are asked for, each once."""
    if not detectors:
        return []
    from oodjax.detectors.labels import among, closest  # which imports jax

    found = {text: among(text, study.detectors) for text in detectors}
    unknown = [text for text, label in found.items() if label is None]
    if unknown:
        near = closest(unknown[0], study.detectors)
        hint = "" if near is None else f". Did you mean {near!r}?"
        raise ReportError(f"unknown detector {join(unknown)}; the results have: {join(study.detectors, 60)}{hint}")
    return list(dict.fromkeys(label for label in found.values() if label is not None))


def up_to_date(folder: Path) -> bool:
    """Whether `folder/report` holds all its files unaltered, made by this code from the tables that are there now."""
    listing = read_listing(folder / "report", LISTING, MAKER)
    return listing.whole() and listing.facts.get("made_from") == made_from(Given(folder))


def made_from(given: Given) -> str:
    """Fingerprint of what decides a report."""
    inputs = given.facts()
    manifest = {k: v for k, v in read_manifest(given.manifest_path).items() if k not in _OF_ONE_RUN}
    looks = [sha256(path) for path in sorted(Path(__file__).parent.rglob("*")) if path.suffix in _LOOKS]
    return fingerprint([*inputs, manifest, package_code("report", "analysis", "zoo"), *looks])


def _planned(study: Results, detectors: Sequence[str]) -> list[str]:
    """Every path below the report's folder that may be written."""
    drawings = [f"figures/{e.key}.{kind}" for e in figures.entries(study, detectors) for kind in ("svg", "png")]
    return ["index.html", "tables/results.csv", *drawings, *(f"tables/{e.key}.csv" for e in tables.entries(study))]


def _render(study: Results, shown: list[Shown], views: list[tables.View], absent: list[tuple[str, str]]) -> str:
    form = form_of(study)
    statements = verdict(study)
    if form == "one":  # most questions are about several models
        statements = [s for s in statements if " cannot be said: " not in s.text]
    leaders = [Leaders(study, m, i) for i, m in enumerate(study.models, 1)] if len(study.models) <= FEW else []
    top = picture(form, [f.key for f in shown if not f.reason])
    sections: list[tuple[str, str, list[Shown], list[tuple[str, str]]]] = []
    for title in figures.SECTIONS:
        here = [f for f in shown if f.section == title]
        missing = _by_reason([(f.title, f.reason) for f in here if f.reason])
        drawn = [f for f in here if not f.reason and f.key not in (top, LEGEND)]
        if drawn or missing:
            sections.append((f"section-{len(sections) + 1}", title, drawn, missing))
    words = detector_words(study.detectors, study.manifest.get("explained", {}))
    return render(
        "page.html",
        study=study,
        answer=first_screen(study),
        scope=scope(study),
        picture=next((f for f in shown if f.key == top), None),
        heat=heat_tables(study),
        leaders=leaders,
        recipes=list(cast(study).mark) if cast(study).replicated else [],
        legend=next((f for f in shown if f.key == LEGEND and f.markup), None),
        numbers=numbers(study),
        verdict=statements,
        sections=sections,
        contents=[
            *_BEFORE,
            *((id, title) for id, title, _, _ in sections),
            *(_AFTER if statements or study.notes else _AFTER[1:]),
        ],
        tables=views,
        absent_tables=_by_reason(absent),
        detectors=words,
        glossary=glossary(words),
        thumbnails=record.thumbnails(study.folder, study.manifest),
        no_thumbnails=record.no_thumbnails(study.manifest),
        data=study.image_sets,
        runs=record.runs(study.manifest),
        manifest=json.dumps(study.manifest, indent=2) if study.manifest else "",
        provenance=record.provenance(study.manifest),
        version=__version__,
        palette=css(),
    )


def _draw(study: Results, detectors: Sequence[str], folder: Path) -> list[Shown]:
    shown, form = [], form_of(study)
    for entry in figures.entries(study, detectors):
        if not asks(form, entry.title):
            continue
        about = entry.key, entry.label, entry.title, entry.section
        if reason := lacks(study, entry.title):
            shown.append(Shown(*about, reason=reason))
            continue
        try:
            drawing = entry.draw(study)
        except ValueError as error:
            shown.append(Shown(*about, reason=_sentence(error)))
            continue
        save(drawing, folder / entry.key, entry.title)
        shown.append(Shown(*about, drawing.caption, drawing.width, drawing.height, metric=_metric(entry.title)))
    return _into_the_page(shown, folder)


def _into_the_page(shown: list[Shown], folder: Path) -> list[Shown]:
    """The figures with their markup, as many as a page can hold."""
    markup = {
        f.key: inlined((folder / f"{f.key}.svg").read_text(encoding="utf-8"), f.title, f.width)
        for f in shown
        if not f.reason
    }
    kept = fitting({key: len(text.encode()) for key, text in markup.items()})
    return [f._replace(markup=markup[f.key]) if f.key in kept else f for f in shown]


def _metric(title: str) -> str:
    """The metric that a figure is of; empty where it is of none."""
    return "fpr95" if "FPR95" in title else "auroc" if "AUROC" in title else ""


def _tabulate(study: Results, folder: Path) -> tuple[list[tables.View], list[tuple[str, str]]]:
    views, absent = [], []
    for entry in tables.entries(study):
        try:
            view = tables.with_recipes(study, entry.make())
        except ValueError as error:
            absent.append((entry.title, _sentence(error)))
            continue
        write_text(folder / f"{entry.key}.csv", view.frame.to_csv(index=False))
        views.append(view)
    return views, absent


def _by_reason(absent: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Titles and reasons, each reason once with all titles that it keeps away."""
    titles: dict[str, list[str]] = {}
    for title, reason in absent:
        titles.setdefault(reason, []).append(title)
    return [(join(names, 60), reason) for reason, names in titles.items()]


def _sentence(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
