"""The first screen: the question, its answer, what to do and what is not known."""

from __future__ import annotations

import pandas as pd

from oodjax.analysis import Answer, Interval, Statement, answer, does_accuracy_predict
from oodjax.report.data import CannotSay, Results, join
from oodjax.report.figures_tests import term_name
from oodjax.report.leaderboard import Leaders, spoken
from oodjax.report.style import cast
from oodjax.report.wording import count, number


def first_screen(study: Results) -> Answer:
    """What can be concluded; of one model whose scores are kept, with intervals over its images."""
    try:
        found = answer(*_asked(study), study.baseline, "AUROC", term_name)
    except CannotSay as error:
        return Answer("Which detector is safe?", f"Nothing can be said: {error}.", None, [], study.notes)
    found = found._replace(unknown=[*found.unknown, *study.notes])
    leaders = Leaders(study, study.models[0])
    return _of_images(found, leaders) if len(study.models) == 1 and leaders.scores is not None else found


def _of_images(found: Answer, leaders: Leaders) -> Answer:
    """The answer about one model, from its images."""
    table, mean = leaders.auroc, leaders.means.iloc[0]
    best = str(table.index[0])
    hardest, interval, tied = str(table.loc[best].idxmin()), leaders.interval(best), leaders.tied()
    sentence = (
        f"With {leaders.model}, {best} tells ID from OOD images best: mean AUROC {number(mean)} over "
        f"{count(len(table.columns), 'OOD set')}{spoken(interval)}."
    )
    others = f"these images do not tell it from {join(tied)}" if tied else "these images tell it from all others"
    advice = [
        f"Use {best}: {others}." if len(table) > 1 else f"{best} is the only detector here; others may do better.",
        f"Its hardest set is {hardest}: AUROC {number(table.at[best, hardest])}"
        f"{spoken(leaders.interval(best, hardest))}.",
        *found.advice,
        "Set its threshold on held-out ID images, so that 95 % of them pass; the second leaderboard says what else "
        "does.",
    ]
    over = Interval(mean, *interval, 0.95, "images") if interval else None
    return Answer(found.question, sentence, over, advice, found.unknown)


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
