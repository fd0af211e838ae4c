"""Models as points: accuracy or calibration against detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from oodjax.analysis import ClusterCorrelation, spearman
from oodjax.report.data import Results, join
from oodjax.report.figures_relations import between_models, firm, need_models
from oodjax.report.panels import FOOT, MARGIN, STRIP, TITLE, Panel, Span, dotted, grid, key, span
from oodjax.report.scene import Mark, Scene
from oodjax.report.style import BODY, LABELS, WIDTH, Drawing, cast, colour_of, recipe_tag, tag
from oodjax.report.wording import count, dataset_count, number, relation, rho

_MANY = 30  # marks in a panel beyond which they are smaller


def overview(study: Results, x: str, y: str) -> Drawing:
    """Each model's mean over detectors and sets (Figs. 1, 9 and 16)."""
    table, means = study.measured(y), study.means(y)
    need_models(study, f"{LABELS[x]} against {LABELS[y]}")
    facts = study.facts[x].reindex(means.index)
    panel = single(span(facts, 6, trim=True), span(means, 6), f"{LABELS[x]} (%)", f"Mean {LABELS[y]} (%)")
    baseline_lines(panel, study, facts, means)
    points(panel, study, facts, means, 9, (LABELS[x], LABELS[y]), seeds=True)
    if (x, y) == ("accuracy", "auroc"):  # the picture that the page begins with, before the legend
        key(panel.scene, [(category, Mark(role)) for category, role in colour_of(study).items()])
    found = between_models(study, x, y)
    panel.title("", f"ρ = {relation(found)}" if np.isfinite(found.rho) else "ρ undefined")
    return Drawing(
        panel.scene,
        f"Mean {LABELS[y]} over {table['detector'].nunique()} detectors and {dataset_count(table)}, against the "
        f"{x_name(x)} of the model. {_range(means, LABELS[y])} {said_of(found)} Over all {len(table):,} rows, as in "
        f"the paper, {rho(spearman(table, x, y))}."
        f"{_lines(study)}{of_seeds(study)}{outliers(panel.x, facts, LABELS[x])}{study.remark(y)}",
    )


def by_panel(study: Results, x: str, y: str, by: str) -> Drawing:
    """The same in one panel per OOD category or detector (Figs. 2, 3 and 13)."""
    drawn = cast(study)
    means = drawn.mean(study.means(y, by))
    need_models(study, f"{LABELS[x]} against {LABELS[y]}")
    facts = drawn.mean(study.facts[x]).reindex(means.index)
    order = study.ood_categories if by == "ood_category" else study.detectors
    names = [n for n in order if n in means.columns]
    cols = 2 if len(names) in (2, 4) else 3
    across = span(facts, 3, trim=True)
    scene, panels = grid(
        names,
        cols,
        150 if cols == 2 else 88,
        across,
        span(means.to_numpy().ravel(), 4),
        f"{LABELS[x]} (%)",
        f"Mean {LABELS[y]} (%)",
    )
    found = {name: between_models(study, x, y, by, name) for name in names}
    sure = firm(found)
    for name, panel in panels.items():
        baseline_lines(panel, study, facts, means[name])
        points(
            panel,
            study,
            facts,
            means[name],
            7,
            (LABELS[x], LABELS[y]),
            detector=name if by == "detector" else "",
            where=name,
        )
        panel.title(name, short(found[name]), faded=not sure[name])
    return Drawing(
        scene,
        f"Mean {LABELS[y]} against {x_name(x)}, one panel per {by.replace('ood_category', 'OOD category')}; panels "
        f"share their axes.{of_means(study)} {_extremes(found)} ρ is over {found[names[0]].unit}; it is grey "
        f"where p is 0.05 or more by permutation of them, Holm-corrected for {count(len(names), 'panel')}."
        f"{outliers(across, facts, LABELS[x])}{study.remark(y)}",
    )


def x_name(x: str) -> str:
    return {"accuracy": "accuracy", "ece": "calibration error (ECE)"}[x]


def single(x: Span, y: Span, label_x: str, label_y: str, square: bool = False) -> Panel:
    left, top = MARGIN + STRIP + 36, TITLE
    width = WIDTH - MARGIN - 4 - left
    height = width if square else round(0.66 * width)
    scene = Scene(WIDTH, top + height + FOOT + STRIP + 4)
    panel = Panel(scene, (left, top, width, height), x, y)
    panel.axes()
    scene.text(left + width / 2, scene.height - 6, label_x, BODY, anchor="middle")
    scene.text(MARGIN + 9, top + height / 2, label_y, BODY, anchor="middle", angle=-90)
    return panel


def points(
    panel: Panel,
    study: Results,
    x: pd.Series,
    y: pd.Series,
    size: float,
    labels: Sequence[str],
    seeds: bool = False,
    detector: str = "",
    where: str = "",
) -> None:
    """A mark per recipe; with `seeds`, values are of models, whose marks stand pale behind their recipe's mean."""
    drawn = cast(study)

    def say(name: str, at: tuple[float, float]) -> str:
        return f"{name}{', ' if where else ''}{where}: {labels[0]} {number(at[0])}, {labels[1]} {number(at[1])}"

    if seeds and drawn.replicated:
        for model, recipe in drawn.of.items():
            if model in y.index and np.isfinite(at := (float(x[model]), float(y[model]))).all():
                said = tag(study, model, say(model, at), detector)
                panel.dot(*at, drawn.mark[recipe], 0.7 * size, opacity=0.35, tag=said)
    if seeds:
        x, y = drawn.mean(x), drawn.mean(y)
    size = size if len(y) <= _MANY else 0.8 * size
    for recipe, mark in sorted(drawn.mark.items(), key=lambda item: item[0] == drawn.baseline):
        if recipe in y.index and np.isfinite(at := (float(x[recipe]), float(y[recipe]))).all():
            panel.dot(*at, mark, size, tag=recipe_tag(study, recipe, say(recipe, at), detector))


def baseline_lines(panel: Panel, study: Results, x: pd.Series, means: pd.Series) -> None:
    """Dotted lines through the baseline; values are of recipes, or of models where the index holds those."""
    drawn = cast(study)
    members = [name for name in means.index if drawn.of.get(name, name) == drawn.baseline]
    if members:
        dotted(panel, float(x[members].mean()), float(means[members].mean()))


def _lines(study: Results) -> str:
    baseline = cast(study).baseline
    return "" if baseline is None else f" The dotted lines mark {baseline}."


def of_seeds(study: Results) -> str:
    return " Pale marks are single models, full ones the means of their recipes." if cast(study).replicated else ""


def of_means(study: Results) -> str:
    return " Each mark is the mean of a recipe's models." if cast(study).replicated else ""


def outliers(shown: Span, values: pd.Series, label: str) -> str:
    """Says which values stand in the margin instead of on the axis."""
    outer = values[(values < shown.low) | (values > shown.high)] if shown.below or shown.above else values[:0]
    if outer.empty:
        return ""
    named = join([f"{name} ({number(value)})" for name, value in outer.items()])
    return f" The axis leaves out {named}, drawn in the margin, so that the others can be told apart."


def _range(means: pd.Series, label: str) -> str:
    if means.max() == means.min():
        return f"It is {number(means.iloc[0])} for all {len(means)} models."
    return (
        f"It runs from {number(means.min())} ({means.idxmin()}) to {number(means.max())} ({means.idxmax()}) over "
        f"{len(means)} models."
    )


def _extremes(found: dict[str, ClusterCorrelation]) -> str:
    known = {name: c for name, c in found.items() if np.isfinite(c.rho)}
    if not known:
        return f"No panel has a rank correlation: {next(iter(found.values())).reason}."
    low, high = min(known, key=lambda n: known[n].rho), max(known, key=lambda n: known[n].rho)
    if low == high or len(known) == 1:
        return f"Spearman's ρ is {relation(known[low])}."
    return f"Spearman's ρ runs from {number(known[low].rho, 2)} ({low}) to {number(known[high].rho, 2)} ({high})."


def said_of(found: ClusterCorrelation) -> str:
    if np.isfinite(found.rho):
        return f"Spearman's ρ over {found.unit} with its 95 % interval from resampling them: {relation(found)}."
    return f"Spearman's ρ is {relation(found)}."


def short(found: ClusterCorrelation) -> str:
    return f"ρ {number(found.rho, 2)}" if np.isfinite(found.rho) else "ρ undefined"
