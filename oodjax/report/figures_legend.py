"""The models of a study with their marks: one legend for all figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from oodjax.report.data import Results
from oodjax.report.panels import MARGIN
from oodjax.report.scene import Mark, Scene, text_width
from oodjax.report.style import SMALL, WIDTH, Drawing, cast, recipe_tag, shorten

_LINE, _MARK = 16.0, 15.0


class Line(NamedTuple):
    """A line of the legend: a category's name, which has no mark, or one of its recipes."""

    name: str
    mark: Mark | None


def legend(study: Results) -> Drawing:
    """Every recipe under the name of its training category."""
    columns = flow(lines(study), WIDTH)
    scene = Scene(WIDTH, _LINE * max(map(len, columns)) + 6)
    step = (WIDTH - 2 * MARGIN) / len(columns)
    for c, column in enumerate(columns):
        for r, (name, mark) in enumerate(column):
            x, y = MARGIN + c * step, (r + 1) * _LINE - 3
            if mark is None:
                scene.text(x, y, shorten(name, step - 12, SMALL), SMALL, bold=True)
                continue
            scene.dot(x + 5, y - 3.7, mark, 9, tag=recipe_tag(study, name, name))
            scene.text(x + _MARK, y, shorten(name, step - _MARK - 6, SMALL), SMALL)
    drawn = cast(study)
    unit = "recipe, of several models each" if drawn.replicated else "model"
    return Drawing(scene, f"In all figures colour is the training category and shape within it the {unit}.")


def lines(study: Results) -> list[Line]:
    """In the study's order."""
    drawn, found = cast(study), []
    for category in study.categories:
        found.append(Line(category, None))
        found += [Line(recipe, mark) for recipe, mark in drawn.mark.items() if drawn.category[recipe] == category]
    return found


def flow(entries: Sequence[Line], width: float) -> list[list[Line]]:
    """Lines in as many columns as their longest name allows; no heading ends a column."""
    longest = max(text_width(name[:40], SMALL) for name, _ in entries) + _MARK + 8
    count = max(1, min(len(entries), int((width - 2 * MARGIN) / longest)))
    rows = max(-(-len(entries) // count), 2)
    while True:
        columns: list[list[Line]] = [[]]
        for i, entry in enumerate(entries):
            stranded = entry.mark is None and len(columns[-1]) == rows - 1 and i + 1 < len(entries)
            if len(columns[-1]) >= rows or stranded:
                columns.append([])
            columns[-1].append(entry)
        if len(columns) <= count:
            return columns
        rows += 1
