"""The first screen: the question, its answer, what to do and what is not known."""

from __future__ import annotations

from typing import NamedTuple

from oodjax.analysis import Statement, does_accuracy_predict
from oodjax.report.data import CannotSay, Results
from oodjax.report.figures_tests import term_name
from oodjax.report.forms import form_of
from oodjax.report.wording import count

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


def first_screen(study: Results, verdict: list[Statement]) -> First:
    form = form_of(study)
    lines = [s.text for s in verdict]
    return First(_QUESTIONS[form], lines[0], "", lines[4:6], study.notes or ["Nothing is missing from these tables."])


def verdict(study: Results) -> list[Statement]:
    """The plain-language answers, numbers in percent."""
    try:
        rows = study.complete("auroc").rename(columns={"auroc": "AUROC"})
    except CannotSay as error:
        return [Statement(f"Nothing can be said: {error}.", "Other data may answer it.")]
    facts = study.facts[study.facts["model"].isin(rows["model"])]
    return does_accuracy_predict(rows, facts, study.baseline, "AUROC", term_name)


def scope(study: Results) -> str:
    """How large the study is."""
    n = len(study.categories)
    parts = [
        f"{count(len(study.models), 'model')} in {n} training {'category' if n == 1 else 'categories'}",
        count(len(study.detectors), "detector"),
        count(len(study.datasets), "OOD set"),
    ]
    return f"{', '.join(parts)}: {count(len(study.results), 'row')}. All figures in percent."
