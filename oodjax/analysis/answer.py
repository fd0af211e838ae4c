"""The first thing that a reader is to know: the question, its answer, what to do, and what is not known."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from oodjax.analysis.clusters import RECIPE, SEED, counted
from oodjax.analysis.interval import Interval
from oodjax.analysis.resampling import FEWEST
from oodjax.analysis.statement import Asked, Statement, answers_to
from oodjax.analysis.verdict import overall, question_of, recipes
from oodjax.analysis.verdict_detectors import leader, safest


class Answer(NamedTuple):
    """The first screen's words; `interval` is the one that `sentence` speaks from, None where nothing can be said."""

    question: str
    sentence: str
    interval: Interval | None
    advice: list[str]
    unknown: list[str]


def answer(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str | None = "baseline",
    response: str = "auroc",
    term_name: Callable[[str], str] = str,
    level: float = 0.95,
) -> Answer:
    """The question that a table of one model, of a few or of many can answer, and what follows.

    With more than 5 models (or recipes) it is whether accuracy predicts detection; with 2 to 5, which detector to take
    for them; with one, which detector to take for it, intervals then being over the OOD sets. The arguments are those
    of `does_accuracy_predict`.
    """
    asked = question_of(table, models, baseline, response, term_name, level)
    n = asked.clusters
    detectors = ("Which detector is best on average", lambda: leader(asked))
    worst = ("Which detector is safest", lambda: safest(asked))
    helps = ("Which recipe helps", lambda: recipes(asked))
    if n == 1:
        question, first, advice = "Which detector is safe with this model?", detectors, [_of_one(asked)]
    elif n <= FEWEST:
        question, first = "Which detector is safe with these models?", detectors
        advice = [s.text for s in answers_to([worst, helps])]
    else:
        question = f"Does accuracy predict OOD detection ({response})?"
        first = (f"Whether accuracy predicts {response}", lambda: overall(asked))
        advice = [s.text for s in answers_to([worst, detectors, helps])]
    found: Statement = answers_to([first])[0]
    return Answer(question, found.text, found.interval, advice, _unknown(asked))


def _of_one(asked: Asked) -> str:
    """The detector with the best worst set; nothing else is known of one model."""
    sets = "dataset" if "dataset" in asked.joined.columns else "ood_category"
    means = asked.joined.pivot_table(index=sets, columns="detector", values=asked.response, sort=False)
    means = means.dropna(axis=1)
    if means.empty:
        return "No detector has a value on every OOD set, so that their worst cases do not compare."
    best = means.min().idxmax()
    return (
        f"Take {best}: of all detectors its lowest {asked.response} over the {counted(len(means), sets)} is the "
        f"highest, {asked.value(means[best].min())} (on {means[best].idxmin()})."
    )


def _unknown(asked: Asked) -> list[str]:
    """What no number here tells."""
    n = asked.clusters
    lines = []
    if n == 1:
        lines.append("How other models fare, and whether training or accuracy matters: there is one model.")
    elif n < FEWEST:
        lines.append(f"Whether accuracy matters: {asked.unit} give no interval, {FEWEST} are needed.")
    seeds = asked.joined.groupby(RECIPE)[SEED].nunique() if {RECIPE, SEED} <= set(asked.joined.columns) else None
    if seeds is None or seeds.max() < 2:
        lines.append("What another seed would give: each network was trained once, so that no recipe is known to help.")
    elif seeds.min() < 2:
        once = int((seeds < 2).sum())
        lines.append(f"What another seed would give {counted(once, RECIPE)}: trained once.")
    if asked.joined["dataset" if "dataset" in asked.joined.columns else "ood_category"].nunique() < 20:
        lines.append(
            "How other OOD sets would turn out: those here are taken as given, and only models are resampled."
            if n > 1
            else "How other architectures and in-distribution data would turn out."
        )
    return lines
