"""Models as points: accuracy or calibration against detection, and correct against incorrect ID samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from oodjax.analysis import Correlation, spearman
from oodjax.report.data import ARCHITECTURE, CannotSay, Results, join, paper, shared_with_paper
from oodjax.report.style import (
    COLOURS,
    INK,
    LABELS,
    NARROW,
    SOFT,
    WIDE,
    Drawing,
    Mark,
    canvas,
    dot,
    flow,
    freeze,
    heading,
    label_all,
    marks,
    model_entries,
    model_legend,
    name_rows,
    shorten,
    ticks,
)
from oodjax.report.wording import count, dataset_count, number, rho, rho_p

CORRECT, INCORRECT = "auroc_correct_vs_ood", "auroc_incorrect_vs_ood"


def overview(study: Results, x: str, y: str) -> Drawing:
    """Each model's mean over detectors and sets (Figs. 1, 9 and 16)."""
    rows, means = study.complete(y), study.means(y)
    legend = model_legend(study, NARROW, means.index)
    figure, axes = canvas(NARROW, 3.1, legend=legend)
    ax = axes[0, 0]
    _points(ax, study, study.facts[x], means, 6)
    _baseline_lines(ax, study, x, means)
    found = spearman(rows, x, y)
    heading(ax, "", rho_p(found), NARROW - 0.8)
    ax.set(xlabel=f"{LABELS[x]} (%)", ylabel=f"Mean {LABELS[y]} (%)")
    ticks(ax, 6, 6)
    return Drawing(
        figure,
        f"Mean {LABELS[y]} over {rows['detector'].nunique()} detectors and {dataset_count(rows)}, against the "
        f"{x_name(x)} of the model. {_range(means, LABELS[y])} Spearman over all {len(rows):,} rows: {rho(found)}."
        f"{_lines(study, means)}{study.remark(y)}",
    )


def by_panel(study: Results, x: str, y: str, by: str) -> Drawing:
    """The same in one panel per OOD category or detector (Figs. 2, 3 and 13)."""
    rows, means = study.complete(y), study.means(y, by)
    order = study.ood_categories if by == "ood_category" else study.detectors
    names = [n for n in order if n in means.columns]
    legend = model_legend(study, WIDE, means.index)
    figure, panels = _panels(names, legend)
    found = {name: spearman(rows[rows[by] == name], x, y) for name in names}
    for name, ax in panels.items():
        _points(ax, study, study.facts[x], means[name], 4)
        _baseline_lines(ax, study, x, means[name])
        heading(ax, name, rho(found[name]), ax_room(panels), faded=not found[name].p < 0.05)
    freeze(np.array(list(panels.values())))
    label_all(figure, f"{LABELS[x]} (%)", f"Mean {LABELS[y]} (%)")
    return Drawing(
        figure,
        f"Mean {LABELS[y]} against {x_name(x)}, one panel per {by.replace('ood_category', 'OOD category')}; panels "
        f"share their axes. {_extremes(found)} Correlations with p of 0.05 or more are grey.{study.remark(y)}",
    )


def correct_against_incorrect(study: Results) -> Drawing:
    """Whether a detector finds OOD data or mistakes (Fig. 5)."""
    rows = _split_rows(study)
    means = rows.groupby("model", sort=False)[[CORRECT, INCORRECT]].mean()
    legend = model_legend(study, NARROW, means.index)
    figure, axes = canvas(NARROW, 3.3, legend=legend)
    ax = axes[0, 0]
    _points(ax, study, means[CORRECT], means[INCORRECT], 6)
    _diagonal(ax)
    found = spearman(rows, CORRECT, INCORRECT)
    heading(ax, "", rho_p(found), NARROW - 0.8)
    ax.set(xlabel=f"Mean {LABELS[CORRECT]} (%)", ylabel=f"Mean {LABELS[INCORRECT]} (%)")
    ticks(ax, 6, 6)
    gap = float((rows[CORRECT] - rows[INCORRECT]).mean())
    return Drawing(
        figure,
        f"Mean AUROC of incorrectly against that of correctly classified ID samples, both against OOD; the dotted line "
        f"is equality. Correct samples are told from OOD data better by {number(gap)} points on average. Spearman over "
        f"all {len(rows):,} rows: {rho(found)}.{study.remark(CORRECT, INCORRECT)}",
    )


def accuracy_of_splits(study: Results) -> Drawing:
    """Accuracy against both (Fig. 10)."""
    _split_rows(study)
    means = {metric: study.means(metric) for metric in (CORRECT, INCORRECT)}
    shown = means[CORRECT].index.union(means[INCORRECT].index)
    figure, axes = canvas(WIDE, 2.5, 1, 2, model_legend(study, WIDE, shown), sharex=True, sharey=True)
    found = {metric: spearman(study.complete(metric), "accuracy", metric) for metric in means}
    for ax, (metric, values) in zip(axes[0], means.items(), strict=True):
        _points(ax, study, study.facts["accuracy"], values, 5)
        _baseline_lines(ax, study, "accuracy", values)
        heading(ax, LABELS[metric].removeprefix("AUROC, "), rho(found[metric]), 2.8, not found[metric].p < 0.05)
        ticks(ax)
    label_all(figure, "Accuracy (%)")
    axes[0, 0].set_ylabel("Mean AUROC (%)")
    return Drawing(
        figure,
        f"Mean AUROC of correctly (left) and incorrectly (right) classified ID samples against OOD, over the model's "
        f"accuracy. Spearman: {rho(found[CORRECT])} for correct, {rho(found[INCORRECT])} for incorrect samples."
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def splits_by_detector(study: Results) -> Drawing:
    """Fig. 5 per detector (Fig. 11)."""
    rows = _split_rows(study)
    means = rows.groupby(["detector", "model"], sort=False)[[CORRECT, INCORRECT]].mean()
    names = [d for d in study.detectors if d in means.index.get_level_values(0)]
    legend = model_legend(study, WIDE, set(rows["model"]))
    figure, panels = _panels(names, legend)
    gaps = {}
    for name, ax in panels.items():
        values = means.loc[name]
        gaps[name] = float((values[CORRECT] - values[INCORRECT]).mean())
        _points(ax, study, values[CORRECT], values[INCORRECT], 4)
        heading(ax, name, f"gap {number(gaps[name])}", ax_room(panels))
    for ax in panels.values():
        _diagonal(ax)
    freeze(np.array(list(panels.values())))
    label_all(figure, f"Mean {LABELS[CORRECT]} (%)", f"Mean {LABELS[INCORRECT]} (%)")
    most, least = max(gaps, key=gaps.__getitem__), min(gaps, key=gaps.__getitem__)
    spread = (
        f" It is widest for {most} ({number(gaps[most])} points) and narrowest for {least} ({number(gaps[least])})."
        if len(gaps) > 1
        else ""
    )
    return Drawing(
        figure,
        "Mean AUROC of incorrectly against that of correctly classified ID samples, per detector; the dotted line is "
        f"equality, the gap the mean distance from it in points.{spread}{study.remark(CORRECT, INCORRECT)}",
    )


def beside_the_paper(study: Results, x: str, y: str) -> Drawing:
    """The study's models on top of the paper's."""
    published = paper()
    means = study.means(y)
    pale = {category: COLOURS.get(category, SOFT) for category in published["category"].unique()}
    theirs_drawn = [("The paper", None), *((name, Mark(colour, "+", "none")) for name, colour in pale.items())]
    legend = flow([*theirs_drawn, *model_entries(study, means.index)], NARROW)
    figure, axes = canvas(NARROW, 3.1, legend=legend)
    ax = axes[0, 0]
    for row in published.itertuples():
        dot(ax, getattr(row, x), getattr(row, y), Mark(pale[str(row.category)], "+", "none"), 4.2, 0.6, 2)
    _points(ax, study, study.facts[x], means, 6)
    theirs = spearman(published, x, y)
    ours = pd.DataFrame({x: study.facts[x].reindex(means.index), y: means})
    mine = spearman(ours, x, y)
    ax.set(xlabel=f"{LABELS[x]} (%)", ylabel=f"Mean {LABELS[y]} (%)")
    ticks(ax, 6, 6)
    both = len(set(means.index) & set(shared_with_paper(study)))
    second = f"{rho(mine)} over this study's {len(ours)}" if not mine.reason else f"this study's {mine.reason}"
    return Drawing(
        figure,
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
    figure, axes = canvas(WIDE, 2.5, 1, len(names), model_legend(study, WIDE, means.index), sharex=True, sharey=True)
    parts = []
    for ax, name in zip(axes[0], names, strict=True):
        values = means[means.index.map(kinds) == name]
        _points(ax, study, study.facts["accuracy"], values, 5)
        heading(ax, name, count(len(values), "model"), (WIDE - 0.5) / len(names) - 0.1)
        ticks(ax)
        parts.append(f"{name} {number(values.mean())} ({count(len(values), 'model')})")
    label_all(figure, "Accuracy (%)")
    axes[0, 0].set_ylabel("Mean AUROC (%)")
    return Drawing(figure, f"Accuracy and mean AUROC per architecture. Means over models: {join(parts, 9)}.")


def detectors_by_architecture(study: Results) -> Drawing:
    """Mean AUROC of each detector per architecture (Fig. 22)."""
    kinds = architectures(study)
    names = list(dict.fromkeys(kinds))
    table = study.means("auroc", "detector").groupby(lambda m: kinds[m]).mean().reindex(names)
    order = table.iloc[0].sort_values(ascending=False).index
    shades = [INK, "#c2500a", "#1f6fb4", "#2f8f46", "#8250a8", SOFT]
    style = {n: Mark(shades[i % 6], "osD^vP"[i % 6], "full") for i, n in enumerate(names)}
    figure, axes = canvas(NARROW, 0.7 + 0.17 * len(order), legend=flow(list(style.items()), NARROW))
    for r, detector in enumerate(order):
        axes[0, 0].plot([table[detector].min(), table[detector].max()], [r, r], color="#c9c9c9", lw=1)
        for name in names:
            dot(axes[0, 0], table.at[name, detector], r, style[name], 5)
    name_rows(axes[0, 0], list(order))
    axes[0, 0].set_xlabel("Mean AUROC (%)")
    change = (table.loc[names[1]] - table.loc[names[0]]).sort_values()
    return Drawing(
        figure,
        f"Mean AUROC of each detector per architecture. From {names[0]} to {names[1]}, {change.index[-1]} changes by "
        f"{number(change.iloc[-1])} and {change.index[0]} by {number(change.iloc[0])} points.",
    )


def architectures(study: Results) -> pd.Series:
    """Model -> architecture, from a column of models.csv or from the category `vit`."""
    column = next((c for c in ARCHITECTURE if c in study.facts.columns), None)
    if column is not None:
        kinds = study.facts[column].replace("", "not named")
    else:
        kinds = pd.Series(np.where(study.facts["category"] == "vit", "ViT", "others"), study.facts.index)
    if kinds.nunique() < 2:
        raise CannotSay("all models are of one architecture, or models.csv has no column architecture that tells")
    return kinds


def ax_room(panels: dict[str, Axes]) -> float:
    """The width of a panel in inches, about."""
    return (WIDE - 0.7) / min(len(panels), 2 if len(panels) in (2, 4) else 3) - 0.12


def x_name(x: str) -> str:
    return {"accuracy": "accuracy", "ece": "calibration error (ECE)"}[x]


def _panels(names: Sequence[str], legend: Any) -> tuple[Any, dict[str, Axes]]:
    cols = min(len(names), 2 if len(names) in (2, 4) else 3)
    rows = -(-len(names) // cols)
    height = 0.5 + rows * (1.14 if rows > 3 else 1.7)
    figure, axes = canvas(WIDE, height, rows, cols, legend, sharex=True, sharey=True)  # type: ignore[arg-type]
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for c in range(cols):
        lowest = max(r for r in range(rows) if r * cols + c < len(names))
        axes[lowest, c].tick_params(labelbottom=True)
    for ax in axes.flat[: len(names)]:
        ticks(ax, 5, 4)
    return figure, dict(zip(names, axes.flat, strict=False))


def _points(ax: Axes, study: Results, x: pd.Series, y: pd.Series, size: float) -> None:
    drawn = marks(study)
    for model in study.models:
        if model in y.index and np.isfinite(y[model]):
            dot(ax, float(x[model]), float(y[model]), drawn[model], size, zorder=4 if model == study.baseline else 3)


def _baseline_lines(ax: Axes, study: Results, x: str, means: pd.Series) -> None:
    if study.baseline in means.index:
        ax.axvline(study.facts.at[study.baseline, x], color=SOFT, lw=0.7, ls=":", zorder=1)
        ax.axhline(means[study.baseline], color=SOFT, lw=0.7, ls=":", zorder=1)


def _diagonal(ax: Axes) -> None:
    low, high = min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])
    limits = ax.get_xlim(), ax.get_ylim()
    ax.plot([low, high], [low, high], color=SOFT, lw=0.7, ls=":", zorder=1)
    ax.set(xlim=limits[0], ylim=limits[1])


def _lines(study: Results, means: pd.Series) -> str:
    if study.baseline is None or study.baseline not in means.index:
        return ""
    return f" The dotted lines mark {shorten(study.baseline, 9, 8)}."


def _range(means: pd.Series, label: str) -> str:
    if len(means) == 1:
        return f"It is {number(means.iloc[0])} for the only model, {means.index[0]}."
    if means.max() == means.min():
        return f"It is {number(means.iloc[0])} for all {len(means)} models."
    return (
        f"It runs from {number(means.min())} ({means.idxmin()}) to {number(means.max())} ({means.idxmax()}) over "
        f"{len(means)} models."
    )


def _extremes(found: dict[str, Correlation]) -> str:
    known = {name: c for name, c in found.items() if not c.reason}
    if not known:
        return f"No panel has a rank correlation: {next(iter(found.values())).reason}."
    low, high = min(known, key=lambda n: known[n].rho), max(known, key=lambda n: known[n].rho)
    if low == high or len(known) == 1:
        return f"Spearman: {rho(known[low])}."
    return f"Spearman runs from {rho(known[low])} ({low}) to {rho(known[high])} ({high})."


def _split_rows(study: Results) -> pd.DataFrame:
    """The rows where both AUROCs are known for every model that makes mistakes."""
    good, bad = study.complete(CORRECT), study.complete(INCORRECT)
    rows = good[good.index.isin(bad.index)]
    if rows.empty:
        raise CannotSay("no row has both the AUROC of correct and that of incorrect samples")
    return rows
