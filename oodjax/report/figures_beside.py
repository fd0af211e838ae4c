"""Models beside others: the paper's, and those of another architecture."""

from __future__ import annotations

import numpy as np
import pandas as pd

from oodjax.analysis import spearman
from oodjax.report.data import ARCHITECTURE, Results, join, paper, shared_with_paper
from oodjax.report.figures_accuracy import outliers, points, single
from oodjax.report.panels import grid, key, rows, span
from oodjax.report.scene import Mark, Tag
from oodjax.report.style import CATEGORIES, LABELS, SHAPES, Drawing
from oodjax.report.wording import count, number, rho


def beside_the_paper(study: Results, x: str, y: str) -> Drawing:
    """The study's models on top of the paper's."""
    published = paper()
    means = study.means(y)
    facts = study.facts[x].reindex(means.index)
    panel = single(
        span([*published[x], *facts], 6), span([*published[y], *means], 6), f"{LABELS[x]} (%)", f"Mean {LABELS[y]} (%)"
    )
    for row in published.itertuples():
        at = float(getattr(row, x)), float(getattr(row, y))
        said = Tag(
            f"{row.id} in the paper: {LABELS[x]} {number(at[0])}, {LABELS[y]} {number(at[1])}",
            category=str(row.category),
        )
        panel.dot(*at, Mark(CATEGORIES.get(str(row.category), "soft"), "X"), 6, opacity=0.55, tag=said)
    points(panel, study, facts, means, 9, (LABELS[x], LABELS[y]), seeds=True)
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
        points(panel, study, facts, values, 8, ("Accuracy", "AUROC"), seeds=True)
        panel.title(name, count(len(values), "model"))
        parts.append(f"{name} {number(values.mean())} ({count(len(values), 'model')})")
    return Drawing(
        scene,
        f"Accuracy and mean AUROC per architecture. Means over models: {join(parts, 9)}."
        f"{outliers(across, facts, 'Accuracy')}{study.remark('auroc')}",
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
