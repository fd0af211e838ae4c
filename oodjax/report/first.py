"""The first screen: the question, its answer, what to do and what is not known."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from oodjax.analysis import Statement, answer, does_accuracy_predict
from oodjax.report.data import CannotSay, Results, join
from oodjax.report.figures_tests import term_name
from oodjax.report.forms import form_of
from oodjax.report.leaderboard import Leaders, spoken
from oodjax.report.style import cast
from oodjax.report.wording import count, number

_QUESTIONS = {
    "one": "Which detector is safe with this model?",
    "few": "Which of these models, with which detector, knows what it does not know?",
    "many": "Does accuracy predict OOD detection?",
}


class First(NamedTuple):
    """What the first screen says."""

    question: str
    sentence: str
    interval: str
    advice: list[str]
    unknown: list[str]


def first_screen(study: Results) -> First:
    question = _QUESTIONS[form_of(study)]
    try:
        found = answer(*_asked(study), study.baseline, "AUROC", term_name)
    except CannotSay as error:
        return First(question, f"Nothing can be said: {error}.", "", [], study.notes)
    return First(question, found.sentence, "", found.advice, [*found.unknown, *study.notes])


def one_model(leaders: Leaders) -> First:
    """Which detector to use with the only model, as far as its images tell."""
    study, table, means = leaders.study, leaders.auroc, leaders.means
    best = str(table.index[0])
    hardest = str(table.loc[best].idxmin())
    sentence = (
        f"With {leaders.model}, {best} tells ID from OOD images best: mean AUROC {number(means[best])} over "
        f"{count(len(table.columns), 'OOD set')}{spoken(leaders.interval(best))}."
    )
    tied = leaders.tied()
    advice = [
        f"Use {best}." if not tied else f"Use {best}; these images do not tell it from {join(tied)}.",
        f"Its hardest set is {hardest}, with {number(table.at[best, hardest])}"
        f"{spoken(leaders.interval(best, hardest))}.",
        "Set its threshold on ID images that were held out, so that 95 % of them pass: the second leaderboard says "
        "what else passes.",
    ]
    if len(table) < 2:
        advice[0] = f"{best} is the only detector here; others may do better."
    unknown = ["Whether another training of this model, or another seed, would rank the detectors the same."]
    if leaders.scores is None:
        unknown.append("How far chance among the images moves these figures: their scores are not kept.")
    return First(_QUESTIONS["one"], sentence, "", advice, [*unknown, *study.notes])


def verdict(study: Results) -> list[Statement]:
    """The plain-language answers, numbers in percent."""
    try:
        return does_accuracy_predict(*_asked(study), study.baseline, "AUROC", term_name)
    except CannotSay as error:
        return [Statement(f"Nothing can be said: {error}.", "Other data may answer it.")]


def _asked(study: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows with an AUROC, missing cells being adjusted for, and the facts of their models."""
    if study.results["auroc"].isna().all():
        raise CannotSay("auroc is NaN in every row")
    rows = study.results[study.results["auroc"].notna()].rename(columns={"auroc": "AUROC"})
    return rows, study.facts[study.facts["model"].isin(rows["model"])]


def _models(study: Results) -> str:
    trained, drawn = count(len(study.models), "model"), cast(study)
    return f"{count(len(drawn.mark), 'recipe')} with several seeds, {trained}," if drawn.replicated else trained


def scope(study: Results) -> str:
    """How large the study is."""
    n = len(study.categories)
    parts = [
        f"{_models(study)} in {n} training {'category' if n == 1 else 'categories'}",
        count(len(study.detectors), "detector"),
        count(len(study.datasets), "OOD set"),
    ]
    return f"{', '.join(parts)}: {count(len(study.results), 'row')}. All figures in percent."
