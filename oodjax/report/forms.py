"""Which page a study gets: of one model, of a few that are compared, or of many, whose training is the question."""

from __future__ import annotations

from collections.abc import Iterable

from oodjax.report.data import Results

FEW = 5  # recipes up to which each is shown by itself
_BY_ACCURACY = ("accuracy", "correlation", "calibration and", "architecture", "variance", "detectors over models")
# The picture that shows the answer: the first of these that can be drawn.
_PICTURES = {
    "one": ("fig08-detectors", "fig-roc-1"),
    "few": ("fig08-detectors", "fig01-accuracy"),
    "many": ("fig01-accuracy", "fig08-detectors"),
}


def form_of(study: Results) -> str:
    """one, few or many: by how many ways of training the study has, whatever the number of their seeds."""
    recipes = study.facts["recipe"].nunique() if "recipe" in study.facts else len(study.models)
    return "one" if recipes == 1 else "few" if recipes <= FEW else "many"


def asks(form: str, title: str) -> bool:
    """Whether a figure of this title answers a question of the form; one model has no trend over models."""
    return form != "one" or not any(word in title.lower() for word in _BY_ACCURACY)


def lacks(study: Results, title: str) -> str:
    """Why a figure of this title cannot be drawn, where the models' facts that it is by are not known."""
    by = {"accuracy": ("accuracy", "correlation"), "ece": ("calibration",)}
    for fact, words in by.items():
        if study.facts[fact].isna().all() and any(word in title.lower() for word in words):
            return f"The models' {fact} is not known: a column {fact} of the table, 0 to 1, would tell it."
    return ""


def picture(form: str, drawn: Iterable[str]) -> str | None:
    """The key of the figure for the first screen."""
    keys = set(drawn)
    return next((key for key in _PICTURES[form] if key in keys), None)
