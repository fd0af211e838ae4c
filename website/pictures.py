"""Pictures of the detectors' pages, as SVG inside the page: their ink is the text's, in light and dark."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from website.study import CATEGORIES

INK, DOTS, MARK = "#010203", "#4a7fc1", "#d9622b"


def strip(rows: pd.DataFrame, detector: str) -> str:
    """AUROC of a detector over the recipes of a study: a line of dots an OOD category, a bar at their mean."""
    own = rows[rows["detector"] == detector].groupby(["ood_category", "recipe"])["auroc"].mean()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": detector, "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(6.4, 1.9), layout="constrained")
        axes = figure.add_subplot()
        for line, category in enumerate(CATEGORIES):
            values = own[category].to_numpy()
            spread = 0.18 * np.sin(2.4 * np.arange(len(values)))  # so that dots of one value do not hide each other
            axes.plot(values, line + spread, "o", color=DOTS, alpha=0.7, markersize=4.5, markeredgewidth=0)
            axes.plot([values.mean()] * 2, [line - 0.33, line + 0.33], color=MARK, linewidth=2.2)
        room = 0.04 * (100 - float(own.min()))
        axes.set(xlabel="AUROC (%)", xlim=(float(own.min()) - room, 100 + room), ylim=(3.55, -0.55))
        axes.set_yticks(range(len(CATEGORIES)), CATEGORIES)
        if own.min() < 50:
            axes.axvline(50, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
        _plain(axes)
        return _inline(figure, f"AUROC of {detector} on each recipe of the digits study, by OOD category")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(colors=INK, length=2.5, width=0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set_color(INK)
    axes.set_facecolor("none")


def _inline(figure: Figure, label: str) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'height="[^"]*pt"', f'role="img" aria-label="{label}"', svg, count=1)
    line = re.sub(r"\s*\n\s*", " ", svg).strip()  # Markdown would end the block at an empty line
    return f'<div class="strip">{line}</div>'
