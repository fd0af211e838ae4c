"""Sentences that can turn out false, and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from oodjax.analysis.clusters import cluster_column, counted
from oodjax.analysis.interval import Interval


class Statement(NamedTuple):
    """A sentence, the finding that would make it false, and the interval that it speaks from, where there is one."""

    text: str
    falsified_if: str
    interval: Interval | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """What the sentences are about.

    Attributes:
      joined: results with the models' facts, rows without a value left out.
      models: the models' facts.
      baseline: the model or recipe that others are compared with, None where there is none.
      response: the column that is explained, better when higher.
      level: of every interval.
      term_name: what a factor or an interaction is called.
    """

    joined: pd.DataFrame
    models: pd.DataFrame
    baseline: str | None
    response: str
    level: float
    term_name: Callable[[str], str]

    @property
    def cluster(self) -> str:
        return cluster_column(self.joined)

    @property
    def clusters(self) -> int:
        return int(self.joined[self.cluster].nunique())

    @property
    def unit(self) -> str:
        return counted(self.clusters, self.cluster)

    @property
    def alpha(self) -> float:
        return 1 - self.level

    def value(self, value: float) -> str:
        """A value of the response: one decimal in percent, three as a fraction."""
        return number(value, 1 if self.joined[self.response].abs().max() > 1.5 else 3)

    def bounded(self, interval: Interval) -> Interval:
        """An interval of a mean, cut where no value can lie: shares in 0 to 1 or in percent."""
        least, most = self.joined[self.response].min(), self.joined[self.response].max()
        if least < 0 or most > 100:
            return interval
        top = 1.0 if most <= 1 else 100.0
        return interval._replace(low=max(interval.low, 0.0), high=min(interval.high, top))

    def between(self, interval: Interval) -> str:
        """ "95 % interval 1.2 to 3.4"."""
        return f"{share(interval.level)} interval {self.value(interval.low)} to {self.value(interval.high)}"


def number(value: float, digits: int) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "−")


def figure(value: float) -> str:
    """Three significant digits, so that an end that is not 0 does not look like it."""
    text = f"{value:.3g}"
    return f"{value:.0f}".replace("-", "−") if "e+" in text else text.replace("-", "−")


def share(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def p_value(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def listed(names: Iterable[object], most: int = 5) -> str:
    """Names in a sentence, long lists cut."""
    found = [str(name) for name in names]
    if len(found) > most:
        return f"{', '.join(found[: most - 1])} and {len(found) - most + 1} more"
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def as_text(note: str) -> str:
    """What was adjusted for, as the end of a sentence."""
    return f" ({note})" if note else ""


def cannot_be_said(question: str, why: str) -> Statement:
    return Statement(f"{question} cannot be said: {why}.", "Nothing was found; other data may answer it.")


def answers_to(asked: Sequence[tuple[str, Callable[[], Statement]]]) -> list[Statement]:
    """The answer to each question; what the table cannot answer is said, with the reason."""
    found = []
    for question, answer in asked:
        try:
            found.append(answer())
        except ValueError as error:
            found.append(cannot_be_said(question, str(error)))
    return found
