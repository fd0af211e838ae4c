"""Models as points: accuracy or calibration against detection, and correct against incorrect ID samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from oodjax.analysis import ClusterCorrelation, correlation_interval, spearman
from oodjax.report.data import ARCHITECTURE, CannotSay, Results, join, paper, shared_with_paper
from oodjax.report.figures_relations import between_models, firm, need_models
from oodjax.report.panels import FOOT, MARGIN, STRIP, TITLE, Panel, Span, dotted, grid, key, rows, span
from oodjax.report.scene import Mark, Scene, Tag
from oodjax.report.style import BODY, CATEGORIES, LABELS, SHAPES, WIDTH, Drawing, cast, colour_of, recipe_tag, tag
from oodjax.report.wording import count, dataset_count, number, relation, rho

_MANY = 30  # marks in a panel beyond which they are smaller
CORRECT, INCORRECT = "auroc_correct_vs_ood", "auroc_incorrect_vs_ood"
_SPLITS = "AUROC of correct samples", "of incorrect ones"


def overview(study: Results, x: str, y: str) -> Drawing:
    """Each model's mean over detectors and sets (Figs. 1, 9 and 16)."""
    table, means = study.measured(y), study.means(y)
    need_models(study, f"{LABELS[x]} against {LABELS[y]}")
    facts = study.facts[x].reindex(means.index)
    panel = _single(span(facts, 6, trim=True), span(means, 6), f"{LABELS[x]} (%)", f"Mean {LABELS[y]} (%)")
    _baseline_lines(panel, study, facts, means)
    _points(panel, study, facts, means, 9, (LABELS[x], LABELS[y]), seeds=True)
    if (x, y) == ("accuracy", "auroc"):  # the picture that the page begins with, before the legend
        key(panel.scene, [(category, Mark(role)) for category, role in colour_of(study).items()])
    found = between_models(study, x, y)
    panel.title("", f"ρ = {relation(found)}" if np.isfinite(found.rho) else "ρ undefined")
    return Drawing(
        panel.scene,
        f"Mean {LABELS[y]} over {table['detector'].nunique()} detectors and {dataset_count(table)}, against the "
        f"{x_name(x)} of the model. {_range(means, LABELS[y])} {_said(found)} Over all {len(table):,} rows, as in the "
        f"paper, {rho(spearman(table, x, y))}."
        f"{_lines(study)}{_seeds(study)}{_outliers(panel.x, facts, LABELS[x])}{study.remark(y)}",
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
        _baseline_lines(panel, study, facts, means[name])
        _points(
            panel,
            study,
            facts,
            means[name],
            7,
            (LABELS[x], LABELS[y]),
            detector=name if by == "detector" else "",
            where=name,
        )
        panel.title(name, _short(found[name]), faded=not sure[name])
    return Drawing(
        scene,
        f"Mean {LABELS[y]} against {x_name(x)}, one panel per {by.replace('ood_category', 'OOD category')}; panels "
        f"share their axes.{_means_of_seeds(study)} {_extremes(found)} ρ is over {found[names[0]].unit}; it is grey "
        f"where p is 0.05 or more by permutation of them, Holm-corrected for {count(len(names), 'panel')}."
        f"{_outliers(across, facts, LABELS[x])}{study.remark(y)}",
    )


def correct_against_incorrect(study: Results) -> Drawing:
    """Whether a detector finds OOD data or mistakes (Fig. 5)."""
    need_models(study, "Correct against incorrect samples")
    means = pd.DataFrame({metric: study.means(metric) for metric in (CORRECT, INCORRECT)}).dropna()
    both = span(means.to_numpy().ravel(), 6)
    panel = _single(both, both, f"Mean {LABELS[CORRECT]} (%)", f"Mean {LABELS[INCORRECT]} (%)", square=True)
    _diagonal(panel)
    _points(panel, study, means[CORRECT], means[INCORRECT], 9, _SPLITS, seeds=True)
    found = correlation_interval(_of_models(study, means), CORRECT, INCORRECT)
    panel.title("", f"ρ = {relation(found)}" if np.isfinite(found.rho) else "ρ undefined")
    gap = float((means[CORRECT] - means[INCORRECT]).mean())
    return Drawing(
        panel.scene,
        f"Mean AUROC of incorrectly against that of correctly classified ID samples, both against OOD, on equal axes; "
        f"the dotted line is equality. Correct samples are told from OOD data better by {number(gap)} points on "
        f"average. {_said(found)}{_seeds(study)}"
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def accuracy_of_splits(study: Results) -> Drawing:
    """Accuracy against both (Fig. 10)."""
    need_models(study, "Accuracy against the AUROC of correct and incorrect samples")
    means = {metric: study.means(metric).dropna() for metric in (CORRECT, INCORRECT)}
    drawn = cast(study)
    facts = drawn.mean(study.facts["accuracy"].reindex(means[CORRECT].index.union(means[INCORRECT].index)))
    across = span(facts, 4, trim=True)
    titles = {metric: LABELS[metric].removeprefix("AUROC, ") for metric in means}
    values = {metric: drawn.mean(series) for metric, series in means.items()}
    scene, panels = grid(
        list(titles.values()),
        2,
        160,
        across,
        span(np.concatenate(list(values.values())), 5),
        "Accuracy (%)",
        "Mean AUROC (%)",
    )
    found = {metric: between_models(study, "accuracy", metric) for metric in means}
    sure = firm(found)
    for metric, title in titles.items():
        _baseline_lines(panels[title], study, facts, values[metric])
        _points(panels[title], study, facts, values[metric], 8, ("Accuracy", "AUROC"), where=title)
        panels[title].title(title, _short(found[metric]), faded=not sure[metric])
    return Drawing(
        scene,
        f"Mean AUROC of correctly (left) and incorrectly (right) classified ID samples against OOD, over the model's "
        f"accuracy.{_means_of_seeds(study)} Spearman's ρ over {found[CORRECT].unit}: {relation(found[CORRECT])} for "
        f"correct, {relation(found[INCORRECT])} for incorrect samples.{_outliers(across, facts, 'Accuracy')}"
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def splits_by_detector(study: Results) -> Drawing:
    """Fig. 5 per detector (Fig. 11)."""
    need_models(study, "Correct against incorrect samples per detector")
    good, bad = (cast(study).mean(study.means(metric, "detector")) for metric in (CORRECT, INCORRECT))
    both_known = (good * bad).notna().any()
    names = [d for d in study.detectors if both_known.get(d, False)]
    if not names:
        raise CannotSay("no detector has both the AUROC of correct and that of incorrect samples")
    both = span(np.concatenate([good[names].to_numpy().ravel(), bad[names].to_numpy().ravel()]), 4)
    cols = 2 if len(names) in (2, 4) else 3
    scene, panels = grid(names, cols, None, both, both, f"Mean {LABELS[CORRECT]} (%)", f"Mean {LABELS[INCORRECT]} (%)")
    gaps = {}
    for name, panel in panels.items():
        gaps[name] = float((good[name] - bad[name]).mean())
        _diagonal(panel)
        _points(panel, study, good[name], bad[name], 7, _SPLITS, detector=name, where=name)
        panel.title(name, f"gap {number(gaps[name])}")
    most, least = max(gaps, key=gaps.__getitem__), min(gaps, key=gaps.__getitem__)
    spread = (
        f" It is widest for {most} ({number(gaps[most])} points) and narrowest for {least} ({number(gaps[least])})."
        if len(gaps) > 1
        else ""
    )
    return Drawing(
        scene,
        "Mean AUROC of incorrectly against that of correctly classified ID samples, per detector, on equal axes; the "
        f"dotted line is equality, the gap the mean distance from it in points.{_means_of_seeds(study)}{spread}"
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def beside_the_paper(study: Results, x: str, y: str) -> Drawing:
    """The study's models on top of the paper's."""
    published = paper()
    means = study.means(y)
    facts = study.facts[x].reindex(means.index)
    panel = _single(
        span([*published[x], *facts], 6), span([*published[y], *means], 6), f"{LABELS[x]} (%)", f"Mean {LABELS[y]} (%)"
    )
    for row in published.itertuples():
        at = float(getattr(row, x)), float(getattr(row, y))
        said = Tag(
            f"{row.id} in the paper: {LABELS[x]} {number(at[0])}, {LABELS[y]} {number(at[1])}",
            category=str(row.category),
        )
        panel.dot(*at, Mark(CATEGORIES.get(str(row.category), "soft"), "X"), 6, opacity=0.55, tag=said)
    _points(panel, study, facts, means, 9, (LABELS[x], LABELS[y]), seeds=True)
    theirs = spearman(published, x, y)
    mine = spearman(pd.DataFrame({x: facts, y: means}), x, y)
    both = len(set(means.index) & set(shared_with_paper(study)))
    second = f"{rho(mine)} over this study's {len(means)}" if not mine.reason else f"this study's {mine.reason}"
    return Drawing(
        panel.scene,
        f"The {len(published)} published ResNet-50 of the paper (crosses, ImageNet-1k) and this study's "
        f"{len(means)} models. Spearman over models' means: {rho(theirs)} for the paper; {second}. "
        f"{both if both else 'No'} checkpoint{'s are' if both != 1 else ' is'} in both"
        + ("." if both else ", so that only the shapes compare, not the levels.")
        + study.remark(y),
    )


def by_architecture(study: Results) -> Drawing:
    """Accuracy against AUROC with the architectures apart (Fig. 21)."""
    kinds = architectures(study)
    names = list(dict.fromkeys(kinds))
    means = study.means("auroc")
    facts = study.facts["accuracy"].reindex(means.index)
    across = span(facts, 4, trim=True)
    scene, panels = grid(names, min(3, len(names)), 160, across, span(means, 5), "Accuracy (%)", "Mean AUROC (%)")
    parts = []
    for name, panel in panels.items():
        values = means[means.index.map(kinds) == name]
        _points(panel, study, facts, values, 8, ("Accuracy", "AUROC"), seeds=True)
        panel.title(name, count(len(values), "model"))
        parts.append(f"{name} {number(values.mean())} ({count(len(values), 'model')})")
    return Drawing(
        scene,
        f"Accuracy and mean AUROC per architecture. Means over models: {join(parts, 9)}."
        f"{_outliers(across, facts, 'Accuracy')}{study.remark('auroc')}",
    )


def detectors_by_architecture(study: Results) -> Drawing:
    """Mean AUROC of each detector per architecture (Fig. 22)."""
    kinds = architectures(study)
    names = list(dict.fromkeys(kinds))
    table = study.means("auroc", "detector").groupby(lambda m: kinds[m]).mean().reindex(names)
    order = table.iloc[0].sort_values(ascending=False).index
    hues = ["ink", "ood", "hue-2", "hue-3", "hue-4", "soft"]
    style = {n: Mark(hues[i % 6], SHAPES[i % 6]) for i, n in enumerate(names)}
    scene, (panel,) = rows(list(order), [span(table.to_numpy().ravel(), 6)], 17, "Mean AUROC (%)")
    for r, detector in enumerate(order):
        panel.line([table[detector].min(), table[detector].max()], [r, r], "soft", 1, opacity=0.6)
        for name in names:
            value = float(table.at[name, detector])
            panel.dot(
                value, r, style[name], 8, tag=Tag(f"{detector}, {name}: AUROC {number(value)}", detector=str(detector))
            )
    key(scene, list(style.items()))
    change = (table.loc[names[1]] - table.loc[names[0]]).sort_values()
    return Drawing(
        scene,
        f"Mean AUROC of each detector per architecture. From {names[0]} to {names[1]}, {change.index[-1]} changes by "
        f"{number(change.iloc[-1])} and {change.index[0]} by {number(change.iloc[0])} points.",
    )


def architectures(study: Results) -> pd.Series:
    """Model -> architecture, from a column of models.csv or from the category `vit`."""
    column = next((c for c in ARCHITECTURE if c in study.facts.columns), None)
    if column is not None:
        return study.facts[column].replace("", "not named")
    return pd.Series(np.where(study.facts["category"] == "vit", "ViT", "others"), study.facts.index)


def x_name(x: str) -> str:
    return {"accuracy": "accuracy", "ece": "calibration error (ECE)"}[x]


def _single(x: Span, y: Span, label_x: str, label_y: str, square: bool = False) -> Panel:
    left, top = MARGIN + STRIP + 36, TITLE
    width = WIDTH - MARGIN - 4 - left
    height = width if square else round(0.66 * width)
    scene = Scene(WIDTH, top + height + FOOT + STRIP + 4)
    panel = Panel(scene, (left, top, width, height), x, y)
    panel.axes()
    scene.text(left + width / 2, scene.height - 6, label_x, BODY, anchor="middle")
    scene.text(MARGIN + 9, top + height / 2, label_y, BODY, anchor="middle", angle=-90)
    return panel


def _points(
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


def _baseline_lines(panel: Panel, study: Results, x: pd.Series, means: pd.Series) -> None:
    """Dotted lines through the baseline; values are of recipes, or of models where the index holds those."""
    drawn = cast(study)
    members = [name for name in means.index if drawn.of.get(name, name) == drawn.baseline]
    if members:
        dotted(panel, float(x[members].mean()), float(means[members].mean()))


def _diagonal(panel: Panel) -> None:
    low, high = max(panel.x.low, panel.y.low), min(panel.x.high, panel.y.high)
    panel.line([low, high], [low, high], "soft", 1, dashed=True)


def _lines(study: Results) -> str:
    baseline = cast(study).baseline
    return "" if baseline is None else f" The dotted lines mark {baseline}."


def _seeds(study: Results) -> str:
    return " Pale marks are single models, full ones the means of their recipes." if cast(study).replicated else ""


def _means_of_seeds(study: Results) -> str:
    return " Each mark is the mean of a recipe's models." if cast(study).replicated else ""


def _outliers(shown: Span, values: pd.Series, label: str) -> str:
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


def _said(found: ClusterCorrelation) -> str:
    if np.isfinite(found.rho):
        return f"Spearman's ρ over {found.unit} with its 95 % interval from resampling them: {relation(found)}."
    return f"Spearman's ρ is {relation(found)}."


def _short(found: ClusterCorrelation) -> str:
    return f"ρ {number(found.rho, 2)}" if np.isfinite(found.rho) else "ρ undefined"


def _of_models(study: Results, means: pd.DataFrame) -> pd.DataFrame:
    """Means per model as a table that an analysis takes."""
    known = [c for c in ("recipe", "seed") if c in study.facts]
    return means.join(study.facts[known]).rename_axis("model").reset_index()
