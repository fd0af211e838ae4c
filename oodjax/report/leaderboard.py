"""One model's detectors on every set, with intervals over images where the scores are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodjax.report.data import Results
from oodjax.report.heat import warmth
from oodjax.report.intervals import auroc_interval, difference_interval, fpr_interval, threshold
from oodjax.report.kept import kept_column
from oodjax.report.reading import CannotSay
from oodjax.report.wording import number

_SIGNIFICANT = 4


class Place(NamedTuple):
    """A cell: its text, its interval's, what it is sorted by (empty: last), its colour."""

    text: str
    interval: str
    key: str
    heat: str
    best: bool = False


class Board(NamedTuple):
    """A leaderboard for the page.

    Attributes:
      key: unique on the page.
      metric: that the page's filter knows it by.
      title: above it.
      note: which numbers these are.
      sets: data set and its OOD category.
      first: heading of the column before the sets.
      rows: detector and its cells, the best mean AUROC first.
    """

    key: str
    metric: str
    title: str
    note: str
    sets: list[tuple[str, str]]
    first: str
    rows: list[tuple[str, list[Place]]]


@dataclass(eq=False)
class Leaders:
    """The detectors of one model.

    Attributes:
      study: of which it is one.
      model: its name.
      place: among the study's models, from 1.
    """

    study: Results
    model: str
    place: int = 1

    @cached_property
    def auroc(self) -> pd.DataFrame:
        """Detectors x sets, in percent, the best mean over the sets first."""
        return self._table("auroc")

    @property
    def means(self) -> pd.Series:
        return self.auroc.mean(axis=1)

    @cached_property
    def scores(self) -> tuple[NDArray[np.float64], Mapping[str, NDArray[np.float64]]] | None:
        """Images x detectors of the table: of the ID test set, and of each OOD set; None where they are not kept."""
        try:
            return self._scores_on(self.study.id_test), {s: self._scores_on(s) for s in self.study.datasets}
        except CannotSay:
            return None

    def interval(self, detector: str, dataset: str | None = None) -> tuple[float, float] | None:
        """Of the AUROC on a set, or of the mean over all, in percent; None where no scores are kept."""
        if self.scores is None:
            return None
        inside, *sets = self._of(detector, [dataset] if dataset else list(self.auroc.columns))
        low, high = auroc_interval(inside, sets)
        return 100 * low, 100 * high

    def tied(self) -> list[str]:
        """The detectors that these images cannot tell from the leader."""
        if self.scores is None:
            return []
        first, *others = self.auroc.index
        best, found = self._of(first, list(self.auroc.columns)), []
        for other in others:
            pairs = list(zip(best, self._of(other, list(self.auroc.columns)), strict=True))
            if difference_interval(pairs[0], pairs[1:])[0] <= 0:
                found.append(other)
        return found

    @property
    def id(self) -> str:
        """On the page."""
        return f"leaders-{self.place}"

    def boards(self) -> list[Board]:
        """AUROC; and, where the tables have it, what is accepted at the ID images' own threshold."""
        return [self._by_auroc(), *([self._at_threshold()] if "fpr95_id" in self.study.results else [])]

    def _by_auroc(self) -> Board:
        rows = []
        best = pd.concat([self.means.rename(""), self.auroc], axis=1).max()
        for detector, row in self.auroc.iterrows():
            values = [self.means[detector], *row]
            names = [None, *self.auroc.columns]
            rows.append(
                (
                    str(detector),
                    [
                        _place("auroc", v, self.interval(str(detector), s), v == best[s or ""])
                        for s, v in zip(names, values, strict=True)
                    ],
                )
            )
        note = "Percent; the best of each column in bold." + self._about_intervals()
        title = f"AUROC of each detector with {self.model}"
        return Board(f"leaders-{self.place}-auroc", "auroc", title, note, self._sets, "Mean", rows)

    def _at_threshold(self) -> Board:
        table = self._table("fpr95_id").reindex(self.auroc.index)
        best, rng, rows = table.min(), np.random.default_rng(0), []
        for detector, row in table.iterrows():
            kept = None if self.scores is None else self._of(str(detector), list(table.columns))
            intervals: list[tuple[float, float] | None] = [None] * len(row)
            at = Place("–", "", "", "")
            if kept is not None:
                found = [fpr_interval(kept[0], outside, rng) for outside in kept[1:]]
                intervals = [(100 * low, 100 * high) for low, high in found]
                value = threshold(kept[0])
                at = Place(f"{value:.{_SIGNIFICANT}g}".replace("-", "−"), "", repr(value), "")
            cells = [_place("fpr95_id", v, i, v == b) for v, i, b in zip(row, intervals, best[row.index], strict=True)]
            rows.append((str(detector), [at, *cells]))
        note = (
            "FPR95 (ID): percent of the OOD images that pass for ID at the threshold that accepts 95 % of the ID test "
            "images; lower is better, the best of each column in bold." + self._about_intervals()
        )
        title = f"OOD images accepted by each detector with {self.model}"
        return Board(f"leaders-{self.place}-threshold", "fpr95", title, note, self._sets, "Threshold", rows)

    @property
    def _sets(self) -> list[tuple[str, str]]:
        return list(self.study.datasets.items())

    def _about_intervals(self) -> str:
        if self.scores is None:
            return " No intervals: the scores of the images are not kept with these tables."
        return " Small: 95 % intervals over images."

    def _table(self, metric: str) -> pd.DataFrame:
        rows = self.study.results[self.study.results["model"] == self.model]
        table = rows.pivot(index="detector", columns="dataset", values=metric)
        table = table.reindex(index=self.study.detectors, columns=list(self.study.datasets)).dropna(how="all")
        return table.loc[table.mean(axis=1).sort_values(ascending=False, kind="stable").index]

    def _scores_on(self, dataset: str) -> NDArray[np.float64]:
        columns = [kept_column(self.study.folder, self.model, dataset, str(d)) for d in self.auroc.index]
        return self.study.unit(self.model, dataset, "scores")[:, columns].astype(np.float64)

    def _of(self, detector: str, sets: list[str]) -> list[NDArray[np.float64]]:
        """The scores of a detector: of the ID images, then of each set's."""
        assert self.scores is not None
        column = list(self.auroc.index).index(detector)
        inside, outside = self.scores
        return [inside[:, column], *(outside[s][:, column] for s in sets)]


def spoken(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """An interval in a sentence, with a leading space; empty where there is none."""
    if interval is None:
        return ""
    return f" (95 % interval over images {number(interval[0], digits)} to {number(interval[1], digits)})"


def _place(metric: str, value: float, interval: tuple[float, float] | None, best: bool) -> Place:
    if not np.isfinite(value):
        return Place("–", "", "", "")
    text = f"{number(interval[0])}–{number(interval[1])}" if interval else ""
    return Place(number(value), text, repr(float(value)), warmth(metric, value), bool(best))
