"""Distributions over models and sets: box plots of the AUROC kinds, per detector and per OOD category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from oodjax.report.data import CannotSay, Results, join
from oodjax.report.style import (
    INK,
    NARROW,
    SOFT,
    WIDE,
    Drawing,
    canvas,
    dot,
    freeze,
    heading,
    label_all,
    marks,
    model_legend,
    name_rows,
)
from oodjax.report.wording import count, number

KINDS = {
    "auroc": ("ID vs OOD", "#4a4a4a"),
    "auroc_correct_vs_ood": ("correct vs OOD", "#8a8a8a"),
    "auroc_incorrect_vs_ood": ("incorrect vs OOD", "#bdbdbd"),
    "auroc_correct_vs_incorrect": ("correct vs incorrect", "#ffffff"),
}
TELLING = ("msp", "knn", "gram")


def four_kinds(study: Results, everything: bool) -> Drawing:
    """Box plots of the four AUROC kinds, for three detectors (Fig. 4) or all of them (Fig. 12)."""
    means = {k: study.means(k, "detector") for k in KINDS if k in study.results and study.results[k].notna().any()}
    if "auroc" not in means or len(means) < 2:
        raise CannotSay("results.csv holds no AUROC of correctly or incorrectly classified samples")
    known = [d for d in study.detectors if all(d in table for table in means.values())]
    if not known:
        raise CannotSay("no detector has all kinds of AUROC for every model")
    detectors = known if everything else _three(known, means["auroc"])
    cols = min(3, len(detectors))
    rows = -(-len(detectors) // cols)
    figure, axes = canvas(WIDE, 0.45 + rows * (0.95 if rows > 1 else 1.2), rows, cols, sharex=True, sharey=True)
    for ax, detector in zip(axes.flat, detectors, strict=False):
        values = [table[detector].dropna().to_numpy() for table in means.values()]
        boxes(ax, values, [KINDS[k][1] for k in means])
        heading(ax, detector, room=1.6)
    _finish_grid(axes, len(detectors), [KINDS[k][0] for k in means])
    label_all(figure, "Mean AUROC over OOD sets (%)")
    medians = {d: {k: float(t[d].median()) for k, t in means.items()} for d in detectors}
    said = "; ".join(
        f"{d}: {', '.join(f'{KINDS[k][0]} {number(v)}' for k, v in m.items())}" for d, m in list(medians.items())[:3]
    )
    which = "the first three" if everything and len(detectors) > 3 else "these"
    return Drawing(
        figure,
        f"Distribution of four kinds of AUROC over {count(len(means['auroc']), 'model')}. Boxes hold the middle half, "
        f"whiskers reach to 1.5 times its width, circles lie beyond. Medians of {which}: "
        f"{said}.{study.remark(*means)}",
    )


def detector_spread(study: Results) -> Drawing:
    """Each detector's distribution over models, with the baseline marked (Fig. 8)."""
    means = study.means("auroc", "detector")
    order = means.median().sort_values(ascending=False, kind="stable").index
    shown = [m for m in study.models if m in means.index]
    figure, axes = canvas(WIDE, 0.6 + 0.26 * len(order), legend=model_legend(study, WIDE, shown))
    ax = axes[0, 0]
    boxes(ax, [means[d].to_numpy() for d in order], ["#ececec"] * len(order), fliers=False, width=0.8)
    drawn, spread = marks(study), np.linspace(-0.27, 0.27, len(shown)) if len(shown) > 1 else [0.0]
    for r, detector in enumerate(order):
        for model, shift in zip(shown, spread, strict=True):
            if model != study.baseline:
                dot(ax, means.at[model, detector], r + shift, drawn[model], 3.2)
        if study.baseline is not None and study.baseline in means.index:
            ax.plot([means.at[study.baseline, detector]] * 2, [r - 0.42, r + 0.42], color=INK, lw=1.6, zorder=5)
            dot(ax, means.at[study.baseline, detector], r, drawn[study.baseline], 4.5, zorder=6)
    name_rows(ax, list(order))
    ax.set_xlabel("Mean AUROC over OOD sets (%)")
    width = (means.max() - means.min()).sort_values(kind="stable")
    text = f"Mean AUROC of each detector over {count(len(shown), 'model')}, best median first."
    if study.baseline in means.index:
        beaten = int((means.loc[study.baseline] > means.median()).sum())
        text += f" The bar marks {study.baseline}, above the median model with {beaten} of {len(order)} detectors."
    if len(width) > 1 and len(shown) > 1:
        text += (
            f" {width.index[0]} moves least between models ({number(width.iloc[0])} points from worst to best), "
            f"{width.index[-1]} most ({number(width.iloc[-1])})."
        )
    return Drawing(figure, text + study.remark("auroc"))


def detector_spread_by_category(study: Results) -> Drawing:
    """Box plots over models and sets of each OOD category (Fig. 15)."""
    rows = study.complete("auroc")
    categories = [c for c in study.ood_categories if c in set(rows["ood_category"])]
    order = rows.groupby("detector", sort=False)["auroc"].median().sort_values(ascending=False, kind="stable").index
    cols = min(4, len(categories))
    lines = -(-len(categories) // cols)
    figure, axes = canvas(
        WIDE if cols > 1 else NARROW, lines * (0.6 + 0.16 * len(order)), lines, cols, sharex=True, sharey=True
    )
    said = []
    for ax, category in zip(axes.flat, categories, strict=False):
        part = rows[rows["ood_category"] == category]
        groups = part.groupby("detector", sort=False)["auroc"]
        values = {str(d): g.to_numpy() for d, g in groups}
        boxes(ax, [values.get(d, np.empty(0)) for d in order], ["#c9c9c9"] * len(order))
        base = part[part["model"] == study.baseline].groupby("detector")["auroc"].mean()
        for r, detector in enumerate(order):
            if detector in base.index:
                ax.plot(base[detector], r, marker="D", ms=3.2, color=INK, mec="white", mew=0.4, zorder=5)
        medians = groups.median()
        heading(ax, category, f"median {number(part['auroc'].median())}", (WIDE - 1) / cols)
        best = f", best {medians.idxmax()} {number(medians.max())}" if len(medians) > 1 else ""
        said.append(f"{category} {number(part['auroc'].median())}{best}")
    _finish_grid(axes, len(categories), list(order))
    label_all(figure, "AUROC (%)")
    base_text = f" Diamonds: mean of {study.baseline}." if study.baseline else ""
    return Drawing(
        figure,
        f"AUROC per detector and OOD category over models and sets.{base_text} Medians: {join(said, 9)}."
        f"{study.remark('auroc')}",
    )


def boxes(
    ax: Axes, values: Sequence[np.ndarray], colours: Sequence[str], fliers: bool = True, width: float = 0.62
) -> None:
    """Horizontal box plots, the first on top."""
    lines: dict[str, Any] = {"color": "#4a4a4a", "lw": 0.7}
    drawn = ax.boxplot(
        list(values),
        positions=range(len(values)),
        orientation="horizontal",
        widths=width,
        patch_artist=True,
        showfliers=fliers,
        manage_ticks=False,
        medianprops={"color": "#c2500a", "lw": 1.1},
        whiskerprops=lines,
        capprops=lines,
        boxprops={"edgecolor": "#4a4a4a", "lw": 0.7},
        flierprops={"marker": "o", "ms": 2, "mfc": "none", "mec": SOFT, "mew": 0.5},
    )
    for box, colour in zip(drawn["boxes"], colours, strict=True):
        box.set_facecolor(colour)


def _finish_grid(axes: np.ndarray, used: int, names: Sequence[str]) -> None:
    cols = axes.shape[1]
    for ax in axes.flat[used:]:
        ax.axis("off")
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(4))
    name_rows(axes[0, 0], names, 1.3)
    freeze(axes)
    for i, ax in enumerate(axes.flat[:used]):
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        if i + cols >= used:
            ax.tick_params(labelbottom=True)


def _three(detectors: Sequence[str], auroc: pd.DataFrame) -> list[str]:
    """The paper's three where they are, otherwise the best, the median and the worst on average."""
    if all(d in detectors for d in TELLING):
        return list(TELLING)
    order = auroc[list(detectors)].mean().sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
