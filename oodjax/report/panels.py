"""Panels with axes: spans and their ticks, grids of panels that share axes, and charts of named rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from oodjax.report.scene import Mark, Scene, text_width
from oodjax.report.style import BODY, SMALL, WIDTH, shorten
from oodjax.report.wording import MINUS, number

MARGIN, STRIP, TITLE, FOOT = 6.0, 17.0, 18.0, 20.0
_MARGIN_OF_OUTLIERS = 24.0


class Span(NamedTuple):
    """What an axis shows: its ends, its ticks, and the values beyond them, which stand in a margin of their own."""

    low: float
    high: float
    ticks: tuple[float, ...]
    below: tuple[float, ...] = ()
    above: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def labels(self) -> Sequence[str]:
        """One per tick."""
        return self.names or tick_labels(self.ticks)


def lanes(names: Sequence[str], room: float = 120.0) -> Span:
    """The axis of named rows, first on top: row i has its middle at i."""
    shown = tuple(shorten(name, room, SMALL) for name in names)
    return Span(len(names) - 0.5, -0.5, tuple(range(len(names))), names=shown)


def span(values: Iterable[float], ticks: int = 5, pad: float = 0.06, trim: bool = False) -> Span:
    """The axis that shows these values; with `trim`, not those few that would take more than half of it.

    Args:
      values: those that are NaN are left out.
      ticks: at most about so many.
      pad: room at both ends, as a share of the range.
      trim: whether outliers, a tenth of the values or one, go to the margin where the others then have twice the room.
    """
    finite = np.sort(np.array([v for v in values if np.isfinite(v)], np.float64))
    if finite.size == 0:
        finite = np.array([0.0, 1.0])
    core = _core(finite) if trim else finite
    low, high = float(core[0]), float(core[-1])
    room = pad * (high - low) if high > low else 0.5
    low, high = low - room, high + room
    at = MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    shown = tuple(round(float(t), 10) for t in at if low <= t <= high)
    return Span(low, high, shown, tuple(finite[finite < low].tolist()), tuple(finite[finite > high].tolist()))


def _core(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorted values without the few at one end that take up most of the range."""
    most = max(1, len(values) // 10)
    if len(values) < 5:
        return values
    for count in range(1, most + 1):
        for core in (values[count:], values[:-count]):
            if core[-1] - core[0] < 0.5 * (values[-1] - values[0]):
                return core
    return values


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """As few decimals as tell all of them exactly."""
    digits = next((d for d in range(8) if all(abs(round(t, d) - t) < 1e-9 for t in ticks)), 8)
    return [f"{t + 0.0:,.{digits}f}".replace("-", MINUS) for t in ticks]


class Panel:
    """A rectangle of a scene with an x and a y axis."""

    def __init__(self, scene: Scene, box: tuple[float, float, float, float], x: Span, y: Span) -> None:
        """`box`: left, top, width, height."""
        self.scene, self.x, self.y = scene, x, y
        self.left, self.top, self.width, self.height = box
        self._start = self.left + _MARGIN_OF_OUTLIERS * bool(x.below)
        self._end = self.left + self.width - _MARGIN_OF_OUTLIERS * bool(x.above)

    def at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Pixels (n, 2); an x beyond an axis that has a margin for it stands in the middle of that."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        across = self._start + (x - self.x.low) / (self.x.high - self.x.low) * (self._end - self._start)
        if self.x.below:
            across = np.where(x < self.x.low, self.left + _MARGIN_OF_OUTLIERS / 2, across)
        if self.x.above:
            across = np.where(x > self.x.high, self.left + self.width - _MARGIN_OF_OUTLIERS / 2, across)
        down = self.top + self.height * (self.y.high - y) / (self.y.high - self.y.low)
        return np.stack(np.broadcast_arrays(across, down), -1).reshape(-1, 2)

    def axes(self, name_x: bool = True, name_y: bool = True, lines: str = "xy") -> None:
        """Grid, ticks and the lines at the left and at the bottom."""
        bottom, right = self.top + self.height, self.left + self.width
        places = self.at(self.x.ticks, self.y.low)[:, 0].tolist() if self.x.ticks else []
        if "x" in lines:
            for at in places:
                self.scene.line([(at, self.top), (at, bottom)], "grid", 0.8)
        if name_x:
            self._name_ticks(places)
        for t, label in zip(self.y.ticks, self.y.labels, strict=True):
            at = self.at(self.x.low, t)[0, 1]
            if "y" in lines and not self.y.names:
                self.scene.line([(self.left, at), (right, at)], "grid", 0.8)
            if name_y:
                self.scene.text(self.left - 5, at + 3.7, label, SMALL, anchor="end")
        self.scene.line([(self.left, self.top), (self.left, bottom), (right, bottom)], "soft", 0.8)
        for at in [self._start] * bool(self.x.below) + [self._end] * bool(self.x.above):
            for shift in (-2, 2):  # two strokes: the axis is broken here
                self.scene.line([(at + shift - 2, bottom + 4), (at + shift + 2, bottom - 4)], "soft", 0.8)

    def _name_ticks(self, places: list[float]) -> None:
        """Labels below the panel, as many as have room: all of them, or every second, third or so on."""
        half = _MARGIN_OF_OUTLIERS / 2
        for outer, middle in ((self.x.below, self._start - half), (self.x.above, self._end + half)):
            if outer:
                self._name(middle, f"{'≤' if len(outer) > 1 else ''}{number(max(outer))}")
        # A label goes little beyond its panel, and leaves the label of a margin its room.
        low = self._start + (8 if self.x.below else -3)
        high = self._end - (8 if self.x.above else -3)
        widths = [text_width(label, SMALL) for label in self.x.labels]
        middles = [min(max(at, low + w / 2), high - w / 2) for at, w in zip(places, widths, strict=True)]
        for step in range(1, len(places) + 1):
            shown = list(range(0, len(places), step))
            if all(middles[b] - middles[a] > (widths[a] + widths[b]) / 2 + 4 for a, b in pairwise(shown)):
                break
        for i in shown if places else ():
            self._name(middles[i], self.x.labels[i])

    def _name(self, middle: float, label: str) -> None:
        self.scene.text(middle, self.top + self.height + 13, label, SMALL, anchor="middle")

    def title(self, left: str, right: str = "", faded: bool = False) -> None:
        """A name at the left and a finding at the right, above the panel."""
        taken = text_width(right, SMALL) + 5 if right else 0.0
        self.scene.text(self.left, self.top - 5, shorten(left, self.width - taken, SMALL), SMALL)
        self.scene.text(self.left + self.width, self.top - 5, right, SMALL, "soft" if faded else "ink", anchor="end")

    def dot(self, x: float, y: float, mark: Mark, size: float, **more: Any) -> None:
        """A marker; nothing where a value is missing."""
        place = self.at(x, y)[0]
        if not np.isfinite(place).all():
            return
        self.scene.dot(place[0], place[1], mark, size, **more)

    def line(self, x: ArrayLike, y: ArrayLike, role: str, width: float = 1.0, **more: Any) -> None:
        self.scene.line(self.at(x, y), role, width, **more)

    def text(
        self, x: float, y: float, text: str, size: float = SMALL, dx: float = 0, dy: float = 3.7, **more: Any
    ) -> None:
        place = self.at(x, y)[0]
        self.scene.text(place[0] + dx, place[1] + dy, text, size, **more)


def dotted(panel: Panel, x: float | None = None, y: float | None = None) -> None:
    """Dotted lines across the panel."""
    if x is not None:
        panel.line([x, x], [panel.y.low, panel.y.high], "soft", 1, dashed=True)
    if y is not None:
        panel.line([panel.x.low, panel.x.high], [y, y], "soft", 1, dashed=True)


def grid(
    names: Sequence[str],
    cols: int,
    height: float | None,
    x: Span,
    y: Span,
    label_x: str,
    label_y: str = "",
) -> tuple[Scene, dict[str, Panel]]:
    """A panel per name, all with the same axes, named at the left and below; square ones where there is no height."""
    cols = min(cols, len(names))
    rows = -(-len(names) // cols)
    start = MARGIN + (STRIP if label_y else 0) + _label_room(y)
    gap = 12.0
    width = (WIDTH - MARGIN - start - gap * (cols - 1)) / cols
    height = width if height is None else height
    step = height + TITLE + 5
    total = rows * step + FOOT + (STRIP if label_x else 0) + 2
    scene, panels = Scene(WIDTH, total), {}
    for i, name in enumerate(names):
        r, c = divmod(i, cols)
        panel = Panel(scene, (start + c * (width + gap), r * step + TITLE, width, height), x, y)
        panel.axes(name_x=i + cols >= len(names), name_y=c == 0)
        panels[name] = panel
    if label_x:
        scene.text(start + (WIDTH - MARGIN - start) / 2, total - 6, label_x, BODY, anchor="middle")
    if label_y:
        scene.text(MARGIN + 9, (rows * step) / 2, label_y, BODY, anchor="middle", angle=-90)
    return scene, panels


def _label_room(y: Span) -> float:
    return max((text_width(label, SMALL) for label in y.labels), default=0.0) + 7


def rows(
    names: Sequence[str],
    columns: Sequence[Span],
    step: float,
    label_x: str = "",
    titles: Sequence[str] = (),
    gutter: float = 0.0,
) -> tuple[Scene, list[Panel]]:
    """A chart with a row of `step` pixels per name, in columns side by side; some room may stay free at the right."""
    y = lanes(names)
    start, gap = MARGIN + _label_room(y), 14.0
    width = (WIDTH - MARGIN - 4 - gutter - start - gap * (len(columns) - 1)) / len(columns)
    top, height = (TITLE if titles else 5.0), step * len(names)
    scene = Scene(WIDTH, top + height + FOOT + (STRIP if label_x else 0) + 2)
    panels = []
    for i, x in enumerate(columns):
        panel = Panel(scene, (start + i * (width + gap), top, width, height), x, y)
        panel.axes(name_y=i == 0)
        if titles:
            panel.title(titles[i])
        panels.append(panel)
    if label_x:
        scene.text(start + (WIDTH - MARGIN - gutter - start) / 2, scene.height - 6, label_x, BODY, anchor="middle")
    return scene, panels


def matrix(
    names: Sequence[tuple[str, str]],
    titles: Sequence[str],
    spans: Sequence[tuple[Span, Span]],
    height: float,
    label_x: str,
    name_y: bool = False,
) -> tuple[Scene, list[list[Panel]]]:
    """Rows of panels, each row with axes of its own; above every panel is room for a finding.

    Args:
      names: of the rows, with the role of their colour.
      titles: of the columns.
      spans: x and y of each row.
      height: of a panel.
      label_x: of all panels.
      name_y: whether ticks of y are named.
    """
    start = MARGIN + STRIP + (max(_label_room(y) for _, y in spans) if name_y else 0)
    gap, step = 10.0, height + TITLE + FOOT
    width = (WIDTH - MARGIN - 4 - start - gap * (len(titles) - 1)) / len(titles)
    scene, panels = Scene(WIDTH, TITLE + step * len(names) + STRIP + 2), []
    for c, title in enumerate(titles):
        scene.text(start + c * (width + gap), TITLE - 5, shorten(title, width, BODY), BODY)
    for r, ((name, role), (x, y)) in enumerate(zip(names, spans, strict=True)):
        line = []
        for c in range(len(titles)):
            panel = Panel(scene, (start + c * (width + gap), TITLE + r * step + TITLE - 2, width, height), x, y)
            panel.axes(name_y=name_y and c == 0, lines="xy" if name_y else "")
            line.append(panel)
        panels.append(line)
        middle = line[0].top + height / 2
        scene.text(MARGIN + 9, middle, shorten(name, height + 30, SMALL), SMALL, role, anchor="middle", angle=-90)
    scene.text(start + (WIDTH - MARGIN - start) / 2, scene.height - 6, label_x, BODY, anchor="middle")
    return scene, panels


def key(scene: Scene, entries: Sequence[tuple[str, Mark]]) -> None:
    """Names with their marks in lines below all else; the scene grows by their height."""
    x, y = MARGIN, scene.height + 12
    for name, mark in entries:
        text = shorten(name, WIDTH - 40, SMALL)
        width = 14 + text_width(text, SMALL) + 14
        if x > MARGIN and x + width - 14 > WIDTH - MARGIN:
            x, y = MARGIN, y + 15
        scene.dot(x + 5, y - 3.7, mark, 8)
        scene.text(x + 14, y, text, SMALL)
        x += width
    scene.height = y + 6


def boxplot(
    panel: Panel, row: float, values: NDArray[np.float64], role: str, height: float, fliers: bool = True
) -> None:
    """Box of the middle half, line at the median, whiskers to the last value within 1.5 times the box."""
    if values.size == 0:
        return
    low, middle, high = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    h = height / 2
    for a, b in ((min(low, inside.min()), low), (high, max(high, inside.max()))):
        panel.line([a, b], [row, row], "soft")
    corners = panel.at([low, high], [row - h, row + h])
    panel.scene.box(corners, role, edge="soft")
    panel.line([middle, middle], [row - h, row + h], "ood", 1.6)
    if fliers:
        outer = values[(values < low - reach) | (values > high + reach)]
        if outer.size:
            panel.scene.cloud(panel.at(outer, np.full(outer.shape, row)), "soft", 2.4, 0.8)


def interval(
    panel: Panel, row: float, low: float, high: float, role: str = "ink", width: float = 2.0, **more: Any
) -> None:
    """A horizontal bar from low to high, as far as the axis goes."""
    if np.isfinite(low) and np.isfinite(high):
        panel.line(np.clip([low, high], panel.x.low, panel.x.high), [row, row], role, width, **more)
