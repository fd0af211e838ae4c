"""One look for all figures: colour is the training category, the marker is the model."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator

from oodjax.files import write_whole
from oodjax.report.data import Results, singular

NARROW, WIDE = 4.4, 6.8
SMALL = 7.0
INK, SOFT, FAINT = "#1b1b1b", "#6f6f6f", "#d9d9d9"
ID_COLOUR, OOD_COLOUR = "#8a8a8a", "#c2500a"
COLOURS = {
    "baseline": INK,
    "adversarial": "#c8323f",
    "augmentation": "#1f6fb4",
    "ssl": "#2f8f46",
    "improved": "#8250a8",
    "freezing": "#c07a00",
    "vit": "#0b8a8f",
}
SPARE = ("#b0307c", "#5f6b00", "#7a4a2b", "#4a5a9c", "#e0693a", "#3d7f7a")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "d")
FILLS = ("full", "none", "left")
LABELS = {
    "accuracy": "Accuracy",
    "ece": "ECE",
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "auroc_correct_vs_ood": "AUROC, correct ID vs OOD",
    "auroc_incorrect_vs_ood": "AUROC, incorrect ID vs OOD",
    "auroc_correct_vs_incorrect": "AUROC, correct vs incorrect ID",
}
_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial", "sans-serif"],
    "font.size": 8.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e9e9e9",
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "oodjax",
    "savefig.facecolor": "white",
}
_ROW, _GAP, _MARKER, _EDGE, _STRIP = 0.135, 0.1, 0.17, 0.05, 0.17
_DPI = 160
_LONGEST = 300  # characters that a line of a figure could hold; longer texts are not measured


class Mark(NamedTuple):
    """How a model is drawn."""

    colour: str
    shape: str
    fill: str


class Drawing(NamedTuple):
    """A finished figure and what it says, in words and numbers."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Legend:
    """Entries (label, mark; a heading has none) in columns, and the height they take in inches."""

    columns: tuple[tuple[tuple[str, Any], ...], ...]
    height: float


def look() -> AbstractContextManager[None]:
    """The style, for as long as figures are made and saved."""
    return matplotlib.rc_context(_RC)  # type: ignore[arg-type]


def colour_of(study: Results) -> dict[str, str]:
    """Training category -> colour; those the paper does not have take the spare ones in turn."""
    spare, colours = list(SPARE), {}
    for category in study.categories:
        known = COLOURS.get(singular(category))
        colours[category] = known or (spare.pop(0) if spare else SOFT)
    return colours


def marks(study: Results) -> dict[str, Mark]:
    """Model -> colour of its category and a marker of its own within it."""
    colours, found = colour_of(study), {}
    for category in study.categories:
        for i, model in enumerate(m for m in study.models if study.facts.at[m, "category"] == category):
            fill = FILLS[(i // len(SHAPES)) % len(FILLS)]
            found[model] = Mark(colours[category], SHAPES[i % len(SHAPES)], fill)
    return found


def model_legend(study: Results, width: float, shown: Collection[str]) -> Legend:
    return flow(model_entries(study, shown), width)


def model_entries(study: Results, shown: Collection[str]) -> list[tuple[str, Any]]:
    """The models shown with their markers, in the study's order, under the names of their categories."""
    drawn = marks(study)
    entries: list[tuple[str, Any]] = []
    for category in study.categories:
        members = [m for m in study.models if m in shown and study.facts.at[m, "category"] == category]
        if members:
            entries += [(category, None), *((m, drawn[m]) for m in members)]
    return entries


def flow(entries: Sequence[tuple[str, Any]], width: float) -> Legend:
    """Entries in as many columns as their longest label allows; no heading ends a column."""
    longest = min(max(text_width(label[:_LONGEST], SMALL) for label, _ in entries) + _MARKER + 0.1, width - 0.3)
    count = max(1, min(len(entries), int((width - 0.3) / longest)))
    rows = max(-(-len(entries) // count), 2 if any(mark is None for _, mark in entries) else 1)
    while True:
        columns: list[list[tuple[str, Any]]] = [[]]
        for i, entry in enumerate(entries):
            last_row = len(columns[-1]) == rows - 1
            full = len(columns[-1]) >= rows or (entry[1] is None and last_row and i + 1 < len(entries) and rows > 1)
            if full:
                columns.append([])
            columns[-1].append(entry)
        if len(columns) <= count:
            return Legend(tuple(tuple(c) for c in columns), rows * _ROW + _GAP)
        rows += 1


def canvas(
    width: float, height: float, rows: int = 1, cols: int = 1, legend: Legend | None = None, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """A figure whose axes take `height` inches, with the legend below them; the axes as an array of (rows, cols)."""
    below = legend.height if legend else 0.0
    figure = Figure(figsize=(width, height + below), layout="constrained")
    engine: Any = figure.get_layout_engine()
    edge = _EDGE / width, _EDGE / (height + below)
    rect = edge[0], below / (height + below) + edge[1], 1 - 2 * edge[0], height / (height + below) - 2 * edge[1]
    engine.set(rect=rect, w_pad=0.06, h_pad=0.03)
    if legend:
        _draw_legend(figure, legend)
    return figure, figure.subplots(rows, cols, squeeze=False, **shared)


def _draw_legend(figure: Figure, legend: Legend) -> None:
    width, height = figure.get_size_inches()
    ax = figure.add_axes((0, 0, 1, legend.height / height))
    ax.set(xlim=(0, width), ylim=(0, legend.height))
    ax.axis("off")
    step = (width - 0.3) / len(legend.columns)
    for c, column in enumerate(legend.columns):
        for r, (label, mark) in enumerate(column):
            x, y = 0.2 + c * step, legend.height - (r + 0.5) * _ROW - _GAP / 2
            room = step - 0.08 - (0 if mark is None else _MARKER)
            text = shorten(label, room, SMALL)
            if mark is None:
                ax.text(x, y, text, size=SMALL, weight="bold", va="center_baseline")
                continue
            if isinstance(mark, Mark):
                dot(ax, x + 0.05, y, mark, 4.2)
            else:
                ax.plot([x + 0.05], [y], marker="s", ms=6, color=mark, mec=SOFT, mew=0.4, ls="none")
            ax.text(x + _MARKER, y, text, size=SMALL, va="center_baseline")


def dot(ax: Axes, x: float, y: float, mark: Mark, size: float = 5.0, alpha: float = 1.0, zorder: float = 3) -> None:
    """One model's marker."""
    edge = "white" if mark.fill == "full" else mark.colour
    (line,) = ax.plot(
        [x],
        [y],
        marker=mark.shape,
        ms=size * (1.25 if mark.shape == "*" else 1),
        ls="none",
        color=mark.colour,
        fillstyle=mark.fill,
        mec=edge,
        mew=0.4 if mark.fill == "full" else 0.9,
        markerfacecoloralt="white",
        alpha=alpha,
        zorder=zorder,
    )
    line.set_in_layout(False)


def label_all(figure: Figure, x: str, y: str = "") -> None:
    """Labels that all panels share, in strips of their own; the lower one stands above the legend."""
    engine: Any = figure.get_layout_engine()
    left, bottom, width, height = engine.get()["rect"]
    strips = [_STRIP / size if text else 0.0 for size, text in zip(figure.get_size_inches(), (y, x), strict=True)]
    inner = left + strips[0], bottom + strips[1], width - strips[0], height - strips[1]
    engine.set(rect=inner)
    figure.text(inner[0] + inner[2] / 2, bottom, x, size=8, ha="center", va="bottom")
    figure.text(left, inner[1] + inner[3] / 2, y, size=8, rotation=90, ha="left", va="center")


def freeze(axes: np.ndarray) -> None:
    """Settles limits and ticks of panels that share both, which drawing would otherwise work out once per panel."""
    ax = axes.flat[0]
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        low, high = sorted(limits)
        at = [t for t in axis.get_majorticklocs() if low <= t <= high]
        axis.set_ticks(at, axis.get_major_formatter().format_ticks(at))
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())


def ticks(ax: Axes, x: int = 5, y: int = 5) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(x))
    ax.yaxis.set_major_locator(MaxNLocator(y))


def name_rows(ax: Axes, names: Sequence[str], room: float = 1.4) -> None:
    """One named row per entry, first on top."""
    ax.set_yticks(range(len(names)), [shorten(name, room, SMALL) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def heading(ax: Axes, left: str, right: str = "", room: float = 1.7, faded: bool = False, above: bool = False) -> None:
    """A panel's name at its left, or in a line above, and a finding at its right; cut where they would meet."""
    taken = text_width(right, SMALL) + 0.1 if right and not above else 0
    ax.set_title(shorten(left, room - taken, 8.0) + ("\n" if above and left else ""), loc="left", pad=3)
    if right:
        ax.set_title(right, loc="right", pad=3, size=SMALL, color=SOFT if faded else INK)


@cache
def text_width(text: str, size: float) -> float:
    """Inches."""
    font = get_font(findfont("DejaVu Sans"))
    font.set_size(size, 72)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        font.set_text(text)
    return font.get_width_height()[0] / 64 / 72


def shorten(text: str, room: float, size: float) -> str:
    """The text, its middle replaced by an ellipsis where it is wider than `room` inches; at least a letter is left."""
    if len(text) <= _LONGEST and text_width(text, size) <= room:
        return text

    def cut(keep: int) -> str:
        return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"

    kept = range(1, min(len(text), _LONGEST + 1))
    return cut(max(1, bisect_right(kept, room, key=lambda keep: text_width(cut(keep), size))))


def save(drawing: Drawing, stem: Path) -> None:
    """stem.svg and stem.png. The canvases write directly, for `savefig` would lay out and draw everything again."""
    figure = drawing.figure
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.set_dpi(_DPI)
        engine: Any = figure.get_layout_engine()
        engine.execute(figure)
        figure.set_layout_engine("none")
        write_whole(stem.with_suffix(".png"), FigureCanvasAgg(figure).print_png)
        write_whole(stem.with_suffix(".svg"), partial(FigureCanvasSVG(figure).print_svg, metadata={"Date": None}))
