"""Rank correlations between models: of accuracy and calibration with detection, in every part of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from oodjax.analysis import ClusterCorrelation, holm
from oodjax.analysis.clusters import cluster_column, counted
from oodjax.report.data import CannotSay, Results
from oodjax.report.figures_tests import every_correlation
from oodjax.report.panels import MARGIN, STRIP, Span, interval, rows
from oodjax.report.scene import Mark, Scene, Tag, text_width
from oodjax.report.style import BODY, LABELS, SMALL, WIDTH, Drawing, cast, colour_of, shorten
from oodjax.report.wording import number, relation

FEWEST = 4
RESPONSES = ("auroc", "auroc_correct_vs_ood", "auroc_incorrect_vs_ood", "fpr95")
_SHORT = {"auroc": "AUROC", "fpr95": "FPR95", "auroc_correct_vs_ood": "correct", "auroc_incorrect_vs_ood": "incorr."}


def need_models(study: Results, what: str) -> None:
    """CannotSay where there are too few models, or recipes of several each, to show how they relate or spread."""
    drawn = cast(study)
    if len(drawn.mark) < FEWEST:
        unit = "recipe" if drawn.replicated else "model"
        raise CannotSay(
            f"{what} takes {FEWEST} or more {unit}s, and this study has {len(drawn.mark)}: add more and run it again"
        )


def between_models(study: Results, x: str, y: str, subset: str = "overall", group: str = "") -> ClusterCorrelation:
    """Rank correlation over models (recipes, where the study has several seeds) in a part of the table."""
    row = _found(study).get((x, y, subset, group))
    unit = cluster_column(study.results)
    if row is None:
        return ClusterCorrelation(np.nan, np.nan, np.nan, np.nan, 0, 0.95, counted(0, unit), "no rows")
    said = counted(row.models, unit)
    reason = row.reason or (f"{said} are too few for an interval" if np.isnan(row.low) else "")
    return ClusterCorrelation(row.rho_models, row.low, row.high, row.p_models, row.models, 0.95, said, reason)


@lru_cache(maxsize=4)
def _found(study: Results) -> dict[tuple[str, str, str, str], Any]:
    return {(row.x, row.y, row.subset, row.group): row for row in every_correlation(study).itertuples()}


def firm(found: Mapping[str, ClusterCorrelation]) -> dict[str, bool]:
    """Which correlations are there by p below 0.05, corrected for their number (Holm)."""
    return dict(zip(found, (holm([c.p for c in found.values()]) < 0.05).tolist(), strict=True))


def correlation_bars(study: Results) -> Drawing:
    """Rank correlations of accuracy and ECE with AUROC in every part of the table (Fig. 14)."""
    table = study.measured("auroc")
    need_models(study, "A rank correlation with accuracy")
    parts = list(_parts(study, table))
    names = [name for name, _, _ in parts]
    found = {
        x: [between_models(study, x, "auroc", subset, group) for _, subset, group in parts] for x in ("accuracy", "ece")
    }
    if not np.isfinite([c.rho for c in found["accuracy"] + found["ece"]]).any():
        raise CannotSay(found["accuracy"][0].reason or "no rank correlation is defined")
    colours, across = colour_of(study), Span(-1, 1, (-1, 0, 1))
    titles = [f"{LABELS[x]} with AUROC" for x in found]
    scene, panels = rows(names, [across, across], 15, "Spearman's ρ between models", titles)
    for panel, (x, correlations) in zip(panels, found.items(), strict=True):
        sure = firm({str(i): c for i, c in enumerate(correlations)})
        for r, ((name, column, _), c) in enumerate(zip(parts, correlations, strict=True)):
            if np.isnan(c.rho):
                panel.text(0, r, "undefined", SMALL - 1, dx=3, role="soft")
                continue
            role = colours[name] if column == "model_category" else "ink"
            opacity = 1.0 if sure[str(r)] else 0.4
            interval(panel, r, c.low, c.high, role, 2.5, opacity=0.5 * opacity)
            said = Tag(
                f"{name}: ρ of {LABELS[x]} with AUROC {relation(c)}",
                category=name if column == "model_category" else "",
                detector=name if column == "detector" else "",
            )
            panel.dot(c.rho, r, Mark(role), 7, opacity=opacity, tag=said)
        for i in range(1, len(parts)):
            if parts[i][1] != parts[i - 1][1] and parts[i][1] != "at or above baseline":
                panel.line([-1, 1], [i - 0.5, i - 0.5], "soft", 0.8)
        panel.line([0, 0], [-0.5, len(parts) - 0.5], "soft", 1)
    weak = sum(not s for c in found.values() for s in firm({str(i): f for i, f in enumerate(c)}).values())
    return Drawing(
        scene,
        f"Rank correlation of accuracy (left) and ECE (right) with AUROC over {found['accuracy'][0].unit}, and in the "
        f"parts named at left. Overall it is {relation(found['accuracy'][0])} for accuracy and "
        f"{relation(found['ece'][0])} for ECE. Bars are 95 % intervals from resampling. Pale ones, {weak} of "
        f"{2 * len(parts)}, have p of 0.05 or more by permutation, Holm-corrected for all parts of a column."
        f"{study.remark('auroc')}",
    )


def correlation_matrix(study: Results) -> Drawing:
    """Correlations by training category (Fig. 17)."""
    need_models(study, "A rank correlation with accuracy")
    responses = [y for y in RESPONSES if y in study.results and study.results[y].notna().any()]
    names = ["overall", *study.categories]
    found: dict[tuple[str, str, str], ClusterCorrelation] = {}
    for y in responses:
        try:
            present = set(study.measured(y)["model_category"])
        except CannotSay:
            continue
        for name in names:
            for x in ("accuracy", "ece"):
                if name in present or name == "overall":
                    part = ("overall", "") if name == "overall" else ("model_category", name)
                    found[name, x, y] = between_models(study, x, y, *part)
    known = {" ".join(cell): c for cell, c in found.items() if np.isfinite(c.rho)}
    if not known:
        raise CannotSay("no rank correlation is defined in any training category")
    sure = firm(known)
    scene = _cells(found, sure, names, responses)
    strong = {cell: c for cell, c in found.items() if cell[0] != "overall" and sure.get(" ".join(cell))}
    said = " None of a single category has p below 0.05."
    if strong:
        (name, x, y), top = max(strong.items(), key=lambda item: abs(item[1].rho))
        said = f" The strongest is {number(top.rho, 2)}, of {LABELS[x]} with {LABELS[y]} in {name}."
    return Drawing(
        scene,
        "Spearman's rank correlations between models by training category, blue where positive, orange where negative; "
        "correct and incorr.: with the AUROC of ID samples that are classified so."
        f"{said} Grey numbers have p of 0.05 or more by permutation of models, Holm-corrected for all cells; a dash "
        "means that it is undefined, as with one or two models.",
    )


def _parts(study: Results, table: pd.DataFrame) -> Iterable[tuple[str, str, str]]:
    """Name of a part, and its subset and group in the table of correlations."""
    yield "overall", "overall", ""
    if cast(study).baseline is not None:
        yield "below baseline", "below baseline", ""
        yield "at or above baseline", "at or above baseline", ""
    for column in ("model_category", "detector", "ood_category"):
        known = study.categories if column == "model_category" else study.ood_categories
        present = set(table[column])
        for name in study.detectors if column == "detector" else known:
            if name in present:
                yield name, column, name


def _cells(
    found: Mapping[tuple[str, str, str], ClusterCorrelation],
    sure: Mapping[str, bool],
    names: list[str],
    responses: list[str],
) -> Scene:
    """A cell per category and pair, coloured by the correlation where it is sure."""
    shown = [shorten(name, 100, SMALL) for name in names]
    left = MARGIN + max(text_width(name, SMALL, bold=True) for name in shown) + 8
    gap, step, top = 10.0, 20.0, 2 * STRIP + 4
    width = (WIDTH - MARGIN - left - gap) / 2 / len(responses)
    scene = Scene(WIDTH, top + step * len(names) + MARGIN)
    for r, name in enumerate(shown):
        scene.text(left - 6, top + (r + 0.5) * step + 3.7, name, SMALL, anchor="end", bold=r == 0)
    for i, x in enumerate(("accuracy", "ece")):
        start = left + i * (len(responses) * width + gap)
        scene.text(start + len(responses) * width / 2, STRIP - 5, f"{LABELS[x]} with", BODY, anchor="middle", bold=True)
        for c, y in enumerate(responses):
            middle = start + (c + 0.5) * width
            scene.text(middle, 2 * STRIP - 3, shorten(_SHORT[y], width, SMALL - 1), SMALL - 1, anchor="middle")
            for r, name in enumerate(names):
                cell, corner = found.get((name, x, y)), (start + c * width, top + r * step)
                rho = np.nan if cell is None else cell.rho
                bold = sure.get(f"{name} {x} {y}", False)
                if bold and cell is not None:
                    said = f"{name}: ρ of {LABELS[x]} with {LABELS[y]} {relation(cell)}"
                    tag = Tag(said, category="" if r == 0 else name)
                    end = corner[0] + width - 1.5, corner[1] + step - 1.5
                    scene.box([corner, end], "hue-2" if rho > 0 else "ood", opacity=0.65 * abs(rho), tag=tag)
                text = "–" if np.isnan(rho) else number(rho, 2)
                scene.text(middle, corner[1] + 13, text, SMALL, "ink" if bold else "soft", anchor="middle")
    return scene
