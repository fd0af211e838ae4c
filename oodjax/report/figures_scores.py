"""Inside the models: feature spaces, maximal logits, activations, and the scores of chosen detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from oodjax import metrics
from oodjax.analysis import activation_profile, pca_embedding
from oodjax.report.data import CannotSay, Results, join
from oodjax.report.style import (
    ID_COLOUR,
    OOD_COLOUR,
    SMALL,
    SOFT,
    WIDE,
    Drawing,
    Mark,
    canvas,
    colour_of,
    dot,
    flow,
    heading,
    label_all,
    marks,
    name_rows,
    ticks,
)
from oodjax.report.wording import number

MEASURES = {
    "total_variance": "total variance",
    "participation_ratio": "particip. ratio",
    "sparsity": "share below 1e-3",
    "mean_norm": "mean norm",
    "std_norm": "std of norm",
}
_POINTS = 400


def feature_spaces(study: Results) -> Drawing:
    """Five measures of each model's features (Fig. 18)."""
    table = study.feature_measures
    figure, axes = canvas(WIDE, 0.75 + 0.145 * len(table), 1, len(MEASURES), sharey=True)
    drawn = marks(study)
    for ax, (column, label) in zip(axes[0], MEASURES.items(), strict=True):
        if study.baseline in table.index:
            ax.axvline(table.at[study.baseline, column], color=SOFT, lw=0.7, ls=":", zorder=1)
        for r, model in enumerate(table.index):
            if np.isfinite(table.at[model, column]):
                dot(ax, table.at[model, column], r, drawn[model], 4.2)
        heading(ax, label, room=1.05)
        ticks(ax, 3)
        ax.tick_params(axis="y", length=0)
    name_rows(axes[0, 0], list(table.index), 1.3)
    for ax in axes[0]:
        ax.grid(axis="y", visible=True)
    ratio = table["participation_ratio"]
    said = (
        f" The participation ratio, how many directions share the variance, runs from {number(ratio.min())} "
        f"({ratio.idxmin()}) to {number(ratio.max())} ({ratio.idxmax()})."
        if ratio.notna().any() and len(table) > 1
        else ""
    )
    line = f" Dotted: {study.baseline}." if study.baseline in table.index else ""
    return Drawing(figure, f"Features of the {study.id_test} ID test samples, one row per model.{said}{line}")


def max_logits(study: Results) -> Drawing:
    """Densities of the maximal logit, ID and OOD (Fig. 19)."""
    models, sets = study.examples(), _one_per_category(study)
    inside = {m: study.unit(m, study.id_test, "logits").max(1).astype(np.float64) for m in models}
    figure, axes = _grid(len(models), len(sets), sharex="row")
    rates: dict[str, list[float]] = {}
    for r, model in enumerate(models):
        for c, image_set in enumerate(sets):
            outside = study.unit(model, image_set, "logits").max(1).astype(np.float64)
            rate = 100 * float(metrics.fpr95(inside[model], outside))
            rates.setdefault(model, []).append(rate)
            _densities(axes[r, c], inside[model], outside)
            heading(axes[r, c], image_set if r == 0 else "", f"FPR95 {number(rate)}", 1.45, above=True)
        _name_row(axes[r, 0], study, model)
    label_all(figure, "Largest logit")
    said = join([f"{m} {number(float(np.mean(v)))}" for m, v in rates.items()])
    return Drawing(
        figure,
        f"Density of the largest logit on ID ({study.id_test}, grey) and OOD data (orange), for telling models and one "
        f"set per OOD category. Mean FPR95 of these sets: {said}.",
    )


def profiles(study: Results) -> Drawing:
    """Mean activation per unit, ID against OOD (Fig. 20)."""
    models, sets = study.examples(), _one_per_category(study)
    figure, axes = _grid(len(models), len(sets), sharex="row", sharey="row")
    ratios: dict[str, list[float]] = {}
    for r, model in enumerate(models):
        inside = study.unit(model, study.id_test, "features")
        for c, image_set in enumerate(sets):
            found = activation_profile(inside, study.unit(model, image_set, "features"))
            at = np.arange(len(found.units))
            axes[r, c].plot(at, found.ood_mean, color=OOD_COLOUR, lw=0.5)
            axes[r, c].plot(at, found.id_mean, color=ID_COLOUR, lw=1.3)
            total = float(found.id_mean.sum())
            ratio = float(found.ood_mean.sum()) / total if total else float("nan")
            ratios.setdefault(model, []).append(ratio)
            heading(axes[r, c], image_set if r == 0 else "", f"OOD/ID {number(ratio, 2)}", 1.45, above=True)
            ticks(axes[r, c], 3, 3)
        _name_row(axes[r, 0], study, model)
    label_all(figure, "Unit, by its mean activation on ID data")
    said = join([f"{m} {number(float(np.mean(v)), 2)}" for m, v in ratios.items()])
    return Drawing(
        figure,
        "Mean activation of each unit of the last features, on ID (grey) and OOD data (orange), units sorted by their "
        f"mean on ID data. Total activation on OOD relative to ID data, mean over these sets: {said}.",
    )


def embeddings(study: Results) -> Drawing:
    """The two leading principal components of the ID features."""
    models, sets = study.examples(), _one_per_category(study)
    figure, axes = _grid(len(models), len(sets), sharex="row", sharey="row", height=1.3)
    said = []
    for r, model in enumerate(models):
        outside = [study.unit(model, image_set, "features") for image_set in sets]
        found = pca_embedding(study.unit(model, study.id_test, "features"), np.concatenate(outside))
        ends = np.cumsum([len(features) for features in outside])
        for c, (image_set, ood) in enumerate(zip(sets, np.split(found.ood, ends[:-1]), strict=True)):
            for points, colour in ((found.id, ID_COLOUR), (ood, OOD_COLOUR)):
                shown = points[:: max(1, len(points) // _POINTS)]
                axes[r, c].plot(*shown.T, ls="none", marker="o", ms=1.6, mew=0, color=colour, alpha=0.6)
            heading(axes[r, c], image_set if r == 0 else "", room=1.45)
            ticks(axes[r, c], 3, 3)
        said.append(f"{model} {number(100 * float(found.explained.sum()))} %")
        _name_row(axes[r, 0], study, model)
    label_all(figure, "First principal component (rows: second)")
    return Drawing(
        figure,
        "Features of ID (grey) and OOD samples (orange) along the two leading principal components of the ID features; "
        f"at most about {_POINTS} points of each are drawn. Share of the ID variance that they hold: {join(said)}.",
    )


def roc_curves(study: Results, detector: str) -> Drawing:
    """ROC curves of one detector, a panel per OOD set and a line per model."""
    colours = colour_of(study)
    inside = {m: study.scores(m, study.id_test, detector) for m in study.models}
    entries = [(category, colours[category]) for category in study.categories]
    sets = list(study.datasets)
    cols = min(4, len(sets))
    rows = -(-len(sets) // cols)
    figure, axes = canvas(WIDE, 0.5 + rows * 1.62, rows, cols, flow(entries, WIDE), sharex=True, sharey=True)
    areas = {}
    for ax, image_set in zip(axes.flat, sets, strict=False):
        values = []
        for model in study.models:
            outside = study.scores(model, image_set, detector)
            values.append(100 * float(metrics.auroc(inside[model], outside)))
            base = model == study.baseline
            width, alpha, order = (1.8, 1.0, 4) if base else (0.8, 0.65, 2)
            colour = colours[study.facts.at[model, "category"]]
            ax.plot(*roc_points(inside[model], outside), color=colour, lw=width, alpha=alpha, zorder=order)
        ax.plot([0, 1], [0, 1], color=SOFT, lw=0.6, ls=":")
        areas[image_set] = float(np.mean(values))
        heading(ax, image_set, f"{areas[image_set]:.1f}", (WIDE - 0.6) / cols - 0.12)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    for i, ax in enumerate(axes.flat):
        if i >= len(sets):
            ax.axis("off")
        elif i + cols >= len(sets):
            ax.tick_params(labelbottom=True)
    label_all(figure, "Share of OOD samples accepted", "Share of ID samples accepted")
    low, high = min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__)
    thick = f" The thick line is {study.baseline}." if study.baseline else ""
    return Drawing(
        figure,
        f"ROC curves of {detector}, a line per model, and the mean AUROC over models per set: from "
        f"{number(areas[low])} ({low}) to {number(areas[high])} ({high}).{thick}",
    )


def score_histograms(study: Results, detector: str) -> Drawing:
    """Scores of one detector on ID and OOD data, a panel per set, for the baseline or the best model."""
    model = study.examples(1)[0]
    inside = study.scores(model, study.id_test, detector)
    sets = list(study.datasets)
    cols = min(4, len(sets))
    rows = -(-len(sets) // cols)
    figure, axes = _grid(rows, cols, 1.15, sharex=True)
    areas = {}
    for ax, image_set in zip(axes.flat, sets, strict=False):
        outside = study.scores(model, image_set, detector)
        areas[image_set] = 100 * float(metrics.auroc(inside, outside))
        _densities(ax, inside, outside)
        heading(ax, image_set, number(areas[image_set]), (WIDE - 0.4) / cols - 0.12)
    for i, ax in enumerate(axes.flat):
        if i >= len(sets):
            ax.axis("off")
        elif i + cols >= len(sets):
            ax.tick_params(labelbottom=True)
    label_all(figure, f"Score of {detector} (higher is more ID; the outer 0.5 % are off the plot)")
    low, high = min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__)
    return Drawing(
        figure,
        f"Scores that {detector} gives ID ({study.id_test}, grey) and OOD samples (orange) with {model}; at the "
        f"right of each name its AUROC, from {number(areas[low])} ({low}) to {number(areas[high])} ({high}).",
    )


def _densities(ax: Any, inside: NDArray[np.float64], outside: NDArray[np.float64]) -> None:
    both = np.concatenate([inside, outside])
    if not np.isfinite(both).all():
        raise CannotSay(f"{np.count_nonzero(~np.isfinite(both))} scores are NaN or infinite")
    low, high = np.quantile(both, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 41)
    for values, colour, filled in ((inside, ID_COLOUR, True), (outside, OOD_COLOUR, False)):
        heights = np.histogram(values, edges)[0] / len(values)
        ax.stairs(heights, edges, fill=filled, color=colour, alpha=0.55 if filled else 1, lw=1.1)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ticks(ax, 3)  # type: ignore[arg-type]
    ax.set_yticks([])


def roc_points(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Shares of OOD and of ID samples accepted, at up to 200 thresholds."""
    is_id = np.repeat([1, 0], [len(inside), len(outside)])
    accepted_ood, accepted_id, _ = roc_curve(is_id, np.concatenate([inside, outside]))
    shown = np.unique(np.linspace(0, len(accepted_id) - 1, 200).astype(int))
    return accepted_ood[shown], accepted_id[shown]


def _grid(rows: int, cols: int, height: float = 1.05, **shared: Any) -> tuple[Any, np.ndarray]:
    """Panels of ID against OOD data, with the legend that says so."""
    return canvas(WIDE, 0.5 + rows * height, rows, cols, flow([("ID", ID_COLOUR), ("OOD", OOD_COLOUR)], WIDE), **shared)


def _name_row(ax: Any, study: Results, model: str) -> None:
    mark: Mark = marks(study)[model]
    ax.set_ylabel(model if len(model) < 18 else f"{model[:16]}…", color=mark.colour, size=SMALL)


def _one_per_category(study: Results) -> list[str]:
    """The first set of each OOD category, four at most."""
    return list({category: name for name, category in reversed(study.datasets.items())}.values())[::-1][:4]
