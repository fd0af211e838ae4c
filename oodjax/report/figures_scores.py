"""Inside the models: feature spaces, maximal logits, activations, and the scores of chosen detectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodjax import metrics
from oodjax.analysis import activation_profile, pca_embedding
from oodjax.report.data import CannotSay, Results, join
from oodjax.report.panels import Panel, Span, dotted, grid, key, matrix, rows, span
from oodjax.report.scene import Mark
from oodjax.report.style import Drawing, cast, colour_of, recipe_tag, tag
from oodjax.report.wording import number

MEASURES = {
    "total_variance": "total variance",
    "participation_ratio": "particip. ratio",
    "sparsity": "share below 1e-3",
    "mean_norm": "mean norm",
    "std_norm": "std of norm",
}
_SHORT = ("variance", "particip.", "< 1e-3", "norm", "norm sd")
_POINTS = 200
_SIDES = (("ID", Mark("id", "s")), ("OOD", Mark("ood", "s")))


def feature_spaces(study: Results) -> Drawing:
    """Five measures of each model's features (Fig. 18)."""
    table, drawn = study.feature_measures, cast(study)
    means = drawn.mean(table)
    spans = [span(table[column], 2, pad=0.1) for column in MEASURES]
    scene, panels = rows(list(means.index), spans, 15, titles=_SHORT)
    line = drawn.baseline if drawn.baseline in means.index else None
    for panel, (column, label) in zip(panels, MEASURES.items(), strict=True):
        digits = 3 if column == "sparsity" else 1
        if line:
            dotted(panel, x=float(means.at[line, column]))
        for r, recipe in enumerate(means.index):
            members = [m for m in table.index if drawn.of[m] == recipe]
            for model in members if len(members) > 1 else ():
                value = float(table.at[model, column])
                shown = tag(study, model, f"{model}: {label} {number(value, digits)}")
                panel.dot(value, r, drawn.mark[recipe], 5, opacity=0.35, tag=shown)
            value = float(means.at[recipe, column])
            if np.isfinite(value):
                shown = recipe_tag(study, recipe, f"{recipe}: {label} {number(value, digits)}")
                panel.dot(value, r, drawn.mark[recipe], 8, tag=shown)
    ratio = table["participation_ratio"]
    said = (
        f" The participation ratio, how many directions share the variance, runs from {number(ratio.min())} "
        f"({ratio.idxmin()}) to {number(ratio.max())} ({ratio.idxmax()})."
        if ratio.notna().any() and len(table) > 1
        else ""
    )
    dots = f" Dotted: {line}." if line else ""
    return Drawing(
        scene,
        f"Features of the {study.id_test} ID test samples, one row per {'recipe' if drawn.replicated else 'model'}: "
        f"total variance, participation ratio, share of activations below 1e-3, mean and deviation of the norm."
        f"{said}{dots}",
    )


def max_logits(study: Results) -> Drawing:
    """Densities of the maximal logit, ID and OOD (Fig. 19)."""
    models, sets = study.examples(), _one_per_category(study)
    logits = {m: [_largest(study, m, name) for name in (study.id_test, *sets)] for m in models}
    pairs = {m: [_density(inside, outside) for outside in others] for m, (inside, *others) in logits.items()}
    spans = [
        (_across(found), Span(0, 1.05 * max(max(f.ood.max(), f.id.max()) for f in found), ()))
        for found in pairs.values()
    ]
    scene, panels = matrix(_names(study, models), sets, spans, 52, "Largest logit")
    rates = {}
    for line, model in zip(panels, models, strict=True):
        inside, *others = logits[model]
        found = [100 * float(metrics.fpr95(inside, outside)) for outside in others]
        rates[model] = float(np.mean(found))
        for panel, density, rate in zip(line, pairs[model], found, strict=True):
            _draw_density(panel, density)
            panel.title("", f"FPR95 {number(rate)}")
    key(scene, _SIDES)
    said = join([f"{m} {number(rate)}" for m, rate in rates.items()])
    return Drawing(
        scene,
        f"Density of the largest logit on ID ({study.id_test}, grey) and OOD data (orange), for telling models and one "
        f"set per OOD category. Mean FPR95 of these sets: {said}.",
    )


def profiles(study: Results) -> Drawing:
    """Mean activation per unit, ID against OOD (Fig. 20)."""
    models, sets = study.examples(), _one_per_category(study)
    found = {}
    for model in models:
        inside = study.unit(model, study.id_test, "features")
        found[model] = [activation_profile(inside, study.unit(model, name, "features")) for name in sets]
    spans = [
        (
            span([0, len(f[0].units) - 1], 2, pad=0),
            span(np.concatenate([[0.0], *(p.ood_mean for p in f), f[0].id_mean]), 3),
        )
        for f in found.values()
    ]
    scene, panels = matrix(
        _names(study, models), sets, spans, 60, "Unit, by its mean activation on ID data", name_y=True
    )
    ratios = {}
    for line, (model, parts) in zip(panels, found.items(), strict=True):
        totals = [float(part.id_mean.sum()) for part in parts]
        shares = [float(p.ood_mean.sum()) / t if t else float("nan") for p, t in zip(parts, totals, strict=True)]
        ratios[model] = float(np.mean(shares))
        for panel, part, share in zip(line, parts, shares, strict=True):
            at = np.arange(len(part.units))
            panel.line(at, part.ood_mean, "ood", 0.8)
            panel.line(at, part.id_mean, "id", 1.6)
            panel.title("", f"OOD/ID {number(share, 2)}")
    key(scene, _SIDES)
    said = join([f"{m} {number(ratio, 2)}" for m, ratio in ratios.items()])
    return Drawing(
        scene,
        "Mean activation of each unit of the last features, on ID (grey) and OOD data (orange), units sorted by their "
        f"mean on ID data. Total activation on OOD relative to ID data, mean over these sets: {said}.",
    )


def embeddings(study: Results) -> Drawing:
    """The two leading principal components of the ID features."""
    models, sets = study.examples(), _one_per_category(study)
    found, said = {}, []
    for model in models:
        outside = [study.unit(model, name, "features") for name in sets]
        plane = pca_embedding(study.unit(model, study.id_test, "features"), np.concatenate(outside))
        ends = np.cumsum([len(features) for features in outside])[:-1]
        found[model] = [_thin(points) for points in (plane.id, *np.split(plane.ood, ends))]
        said.append(f"{model} {number(100 * float(plane.explained.sum()))} %")
    both = [np.concatenate(f) for f in found.values()]
    spans = [(span(points[:, 0], 3), span(points[:, 1], 3)) for points in both]
    scene, panels = matrix(
        _names(study, models), sets, spans, 84, "First principal component (upwards: second)", name_y=True
    )
    for line, (inside, *rest) in zip(panels, found.values(), strict=True):
        for panel, beyond in zip(line, rest, strict=True):
            for points, role in ((inside, "id"), (beyond, "ood")):
                scene.cloud(panel.at(*points.T), role, 2.4, 0.6)
    key(scene, _SIDES)
    return Drawing(
        scene,
        "Features of ID (grey) and OOD samples (orange) along the two leading principal components of the ID features; "
        f"at most about {_POINTS} points of each are drawn. Share of the ID variance that they hold: {join(said)}.",
    )


def roc_curves(study: Results, detector: str) -> Drawing:
    """ROC curves of one detector, a panel per OOD set and a line per model."""
    colours, drawn = colour_of(study), cast(study)
    inside = {m: study.scores(m, study.id_test, detector) for m in study.models}
    sets = list(study.datasets)
    whole = Span(-0.02, 1.02, (0, 0.5, 1))
    scene, panels = grid(
        sets,
        3 if len(sets) > 4 else 2,
        None,
        whole,
        whole,
        "Share of OOD samples accepted",
        "Share of ID samples accepted",
    )
    few = len(inside) <= 20
    areas, faint = {}, 0.65 if few else 0.4
    for image_set, panel in panels.items():
        panel.line([0, 1], [0, 1], "soft", 1, dashed=True)
        values = []
        for model in sorted(study.models, key=lambda m: drawn.of[m] == drawn.baseline):
            outside = study.scores(model, image_set, detector)
            area = 100 * float(metrics.auroc(inside[model], outside))
            values.append(area)
            base = drawn.of[model] == drawn.baseline
            width, opacity = (2.2, 1.0) if base else (1.0, faint)
            said = tag(study, model, f"{model} on {image_set}: AUROC {number(area)}", detector, image_set)
            role = colours[study.facts.at[model, "category"]]
            panel.line(*roc_points(inside[model], outside, 200 if few else 50), role, width, opacity=opacity, tag=said)
        areas[image_set] = float(np.mean(values))
        panel.title(image_set, number(areas[image_set]))
    if len(colours) > 1:
        key(scene, [(category, Mark(role, "s")) for category, role in colours.items()])
    low, high = min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__)
    thick = f" The thick line is {drawn.baseline}." if drawn.baseline and len(inside) > 1 else ""
    lines = (
        f"a line per model, and the mean AUROC over {len(inside)} models per set" if len(inside) > 1 else "with AUROC"
    )
    return Drawing(
        scene,
        f"ROC curves of {detector}, {lines}: from {number(areas[low])} ({low}) to {number(areas[high])} ({high})."
        f"{thick}",
    )


def score_histograms(study: Results, detector: str) -> Drawing:
    """Scores of one detector on ID and OOD data, a panel per set, for the baseline or the best model."""
    model = study.examples(1)[0]
    inside = study.scores(model, study.id_test, detector)
    sets = list(study.datasets)
    outside = {name: study.scores(model, name, detector) for name in sets}
    found = {name: _density(inside, values) for name, values in outside.items()}
    highest = max(max(f.ood.max(), f.id.max()) for f in found.values())
    scene, panels = grid(
        sets,
        3,
        58,
        _across(list(found.values())),
        Span(0, 1.05 * highest, ()),
        f"Score of {detector} (higher is more ID)",
    )
    areas = {name: 100 * float(metrics.auroc(inside, values)) for name, values in outside.items()}
    for name, panel in panels.items():
        _draw_density(panel, found[name])
        panel.title(name, number(areas[name]))
    key(scene, _SIDES)
    low, high = min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__)
    return Drawing(
        scene,
        f"Scores that {detector} gives ID ({study.id_test}, grey) and OOD samples (orange) with {model}, the outer "
        f"0.5 % left off; at the right of each name its AUROC, from {number(areas[low])} ({low}) to "
        f"{number(areas[high])} ({high}).",
    )


class Density(NamedTuple):
    """Shares of samples between edges."""

    edges: NDArray[np.float64]
    id: NDArray[np.float64]
    ood: NDArray[np.float64]


def _density(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> Density:
    both = np.concatenate([inside, outside])
    if not np.isfinite(both).all():
        raise CannotSay(f"{np.count_nonzero(~np.isfinite(both))} scores are NaN or infinite")
    low, high = np.quantile(both, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 41)
    return Density(edges, *(np.histogram(values, edges)[0] / len(values) for values in (inside, outside)))


def _across(found: list[Density]) -> Span:
    return span(np.concatenate([f.edges[[0, -1]] for f in found]), 3, pad=0.02)


def _draw_density(panel: Panel, found: Density) -> None:
    at = np.repeat(found.edges, 2)
    for heights, filled in ((found.id, True), (found.ood, False)):
        points = panel.at(at, np.concatenate([[0.0], np.repeat(heights, 2), [0.0]]))
        if filled:
            panel.scene.area(points, "id", opacity=0.55)
        else:
            panel.scene.line(points, "ood", 1.5)


def roc_points(inside: NDArray[np.float64], outside: NDArray[np.float64], most: int = 200) -> tuple[NDArray, NDArray]:
    """Shares of OOD and of ID samples accepted, at up to `most` thresholds."""
    thresholds = np.unique(np.concatenate([inside, outside]))
    ood, id_ = (
        np.append(len(s) - np.searchsorted(np.sort(s), thresholds, side="left"), 0)[::-1] for s in (outside, inside)
    )
    turns = np.concatenate([[True], (np.diff(ood, 2) != 0) | (np.diff(id_, 2) != 0), [True]])
    ood, id_ = ood[turns] / len(outside), id_[turns] / len(inside)
    shown = np.unique(np.linspace(0, len(id_) - 1, most).astype(int))
    return ood[shown], id_[shown]


def _largest(study: Results, model: str, name: str) -> NDArray[np.float64]:
    return study.unit(model, name, "logits").max(1).astype(np.float64)


def _names(study: Results, models: list[str]) -> list[tuple[str, str]]:
    """Rows' names in the colours of their categories."""
    drawn = cast(study)
    return [(model, drawn.mark[drawn.of[model]].colour) for model in models]


def _thin(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[:: max(1, len(points) // _POINTS)]


def _one_per_category(study: Results) -> list[str]:
    """The first set of each OOD category, four at most."""
    return list({category: name for name, category in reversed(study.datasets.items())}.values())[::-1][:4]
