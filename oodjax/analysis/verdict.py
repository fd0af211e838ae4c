"""What the numbers say about training and detection, in sentences that follow from intervals."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from oodjax.analysis.anova import FACTORS
from oodjax.analysis.association import ClusterCorrelation, correlation_interval
from oodjax.analysis.clusters import RECIPE, SEED, cluster_values, counted, recipe_of
from oodjax.analysis.interval import Interval
from oodjax.analysis.resampling import FEWEST, check_level
from oodjax.analysis.seeds import differences
from oodjax.analysis.statement import Asked, Statement, answers_to, as_text, figure, listed, number, p_value, share
from oodjax.analysis.table import join_models, numbers_of, require_columns
from oodjax.analysis.verdict_detectors import best_per_model, interaction, leader, safest

NOTABLE = 0.3  # a rank correlation below it in size orders one pair of models in ten differently from chance


def does_accuracy_predict(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str | None = "baseline",
    response: str = "auroc",
    term_name: Callable[[str], str] = str,
    level: float = 0.95,
) -> list[Statement]:
    """Whether a more accurate classifier is a better detector, what else decides, and which detector is safe.

    Every sentence is about models (or recipes, where the table has a column `recipe`) like those of the table, and
    follows from an interval that resamples them, or the seeds of each recipe. A finding is claimed where its interval
    excludes 0; with nothing to find, each question's answer claims one in at most 1 - `level` of studies. Missing cells
    are adjusted for; sentences say so.

    Args:
      table: results with `model`, `detector`, `ood_category` and the response, which is better when higher.
      models: one row per model with `model`, `category`, `accuracy`, `ece`, and `recipe` and `seed` where there are.
      baseline: the model or recipe whose accuracy divides the accuracy range in two, and that others are compared with;
        None where there is none.
      response: the column to explain.
      term_name: what the sentences call a factor, or an interaction such as `model:detector`.
      level: of the intervals.

    Returns:
      In order: accuracy over the whole range; below and above the baseline; which recipe helps; the largest
      interaction; the worst case of detectors; the best detector on average; the best detector per model. What the
      table cannot answer is a statement that says so and why. Numbers are in the units of the tables.
    """
    asked = question_of(table, models, baseline, response, term_name, level)
    return answers_to(
        [
            (f"Whether accuracy predicts {response}", lambda: overall(asked)),
            ("Whether the baseline's accuracy is a turning point", lambda: _sides(asked)),
            ("Which recipe detects better than the baseline", lambda: recipes(asked)),
            ("Which interaction is largest", lambda: interaction(asked)),
            ("Which detector is safest", lambda: safest(asked)),
            ("Which detector is best on average", lambda: leader(asked)),
            ("Which detector suits which model", lambda: best_per_model(asked)),
        ]
    )


def question_of(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str | None = "baseline",
    response: str = "auroc",
    term_name: Callable[[str], str] = str,
    level: float = 0.95,
) -> Asked:
    """The checked arguments of `does_accuracy_predict`."""
    require_columns(table, [*FACTORS, response])
    joined = join_models(table, models)
    joined = joined[~np.isnan(numbers_of(joined, response).astype(np.float64))]
    if joined.empty:
        raise ValueError(f"{response} is NaN in every row")
    return Asked(joined, models, baseline, response, check_level(level), term_name)


def overall(asked: Asked) -> Statement:
    """Accuracy and the response, one value per model."""
    if asked.clusters < 2:
        raise ValueError(f"the only {asked.cluster} is {asked.joined[asked.cluster].iloc[0]!r}")
    found = correlation_interval(asked.joined, "accuracy", asked.response, level=asked.level)
    if np.isnan(found.rho):
        raise ValueError(found.reason)
    note = as_text(cluster_values(asked.joined, asked.response, asked.cluster)[1])
    if np.isnan(found.low):
        raise ValueError(f"{found.reason or 'resamples of the models do not vary'}; ρ = {number(found.rho, 2)}")
    said, interval = f"{_rho(found)}{note}", _interval(found)
    if found.excludes_zero:
        more = "higher" if found.rho > 0 else "lower"
        return Statement(
            f"More accurate {asked.cluster}s have {more} {asked.response}: {said}.",
            f"The interval of other such {asked.cluster}s held 0 or lay on its other side.",
            interval,
        )
    if max(-found.low, found.high) < NOTABLE:
        return Statement(
            f"Accuracy says little about {asked.response}: {said}.",
            f"The interval of other such {asked.cluster}s lay beyond {NOTABLE} in size.",
            interval,
        )
    return Statement(
        f"Whether more accurate {asked.cluster}s have higher {asked.response} is not settled: {said}.",
        f"The interval of more such {asked.cluster}s excluded 0, or stayed within {NOTABLE} of it.",
        interval,
    )


def _sides(asked: Asked) -> Statement:
    if asked.baseline is None:
        raise ValueError("no model is the baseline")
    cluster, name = asked.cluster, recipe_of(asked.joined, asked.baseline)
    facts = asked.joined.drop_duplicates("model").groupby(cluster, sort=False)["accuracy"].mean()
    if name not in facts.index:
        raise ValueError(f"there is no {cluster} {name!r}")
    limit = float(facts[name])
    of_row = asked.joined[cluster].map(facts)
    parts = {"below it": asked.joined[of_row < limit], "at or above it": asked.joined[of_row >= limit]}
    counts = {where: part[cluster].nunique() for where, part in parts.items()}
    tested = sum(n >= FEWEST for n in counts.values())
    if tested == 0:
        texts = [f"{counted(n, cluster)} {where}" for where, n in counts.items()]
        raise ValueError(f"{' and '.join(texts)}, at least {FEWEST} are needed on a side")
    texts, intervals = [], []
    for where, part in parts.items():
        if counts[where] < FEWEST:
            texts.append(f"{where} there are {counts[where]} {cluster}s, too few to say")
            continue
        found = correlation_interval(part, "accuracy", asked.response, level=1 - asked.alpha / tested)
        if np.isnan(found.low):
            texts.append(f"{where} nothing can be said ({found.reason or 'resamples of the models do not vary'})")
            continue
        intervals.append(_interval(found))
        moves = f"{asked.response} {'rises' if found.rho > 0 else 'falls'} with accuracy"
        texts.append(f"{where} {moves if found.excludes_zero else 'nothing is settled'} ({_rho(found)})")
    if not intervals:
        raise ValueError("; ".join(texts))
    both = "; the two intervals hold together" if len(intervals) > 1 else ""
    return Statement(
        f"Taking the accuracy {number(limit, 1 if limit > 1.5 else 3)} of {name!r} as the border, {'; '.join(texts)}"
        f"{both}.",
        "With the same border, an interval of other such models lay elsewhere: excluded 0 where it holds it here, or "
        "the other way round.",
        max(intervals, key=lambda i: abs(i.estimate)),
    )


def recipes(asked: Asked) -> Statement:
    """Differences from the baseline over seeds; without seeds what the table shows is no finding."""
    means, note = cluster_values(asked.joined, asked.response, asked.cluster)
    mean = means[asked.response].dropna()
    if len(mean) < 2:
        raise ValueError(f"the only {asked.cluster} is {mean.index[0]!r}")
    best = mean.idxmax()
    seen = f"the highest mean {asked.response} in this table is {asked.value(mean[best])}, of {best!r}"
    if asked.cluster != RECIPE or asked.joined.groupby(RECIPE)[SEED].nunique().max() < 2:
        raise ValueError(f"one network of each was trained, which no interval can be taken over ({seen})")
    name = recipe_of(asked.joined, asked.baseline)
    if name is None:
        raise ValueError(f"no recipe is the baseline ({seen})")
    table = differences(asked.joined, asked.models, name, asked.response, asked.level)
    if table["p"].isna().all():
        raise ValueError(f"no recipe has two seeds to compare with {name!r} ({seen})")
    tests = int(table["p"].notna().sum())
    real = table[(table["p_holm"] < asked.alpha) & ((table["low"] > 0) | (table["high"] < 0))]
    corrected = f"p corrected for {tests} comparisons by Holm" if tests > 1 else "one comparison"
    if len(real) == 0:
        row = table.loc[table["difference"].abs().where(table["p"].notna()).idxmax()]
        return Statement(
            f"No recipe is told apart from {name!r} ({corrected}). The largest difference in {asked.response} is that "
            f"of {row['recipe']}: {_difference(asked, row, 'its own ')}{as_text(note)}.",
            f"With more seeds, a corrected p were below {asked.alpha:.2g}.",
            _as_interval(asked, row),
        )
    texts = []
    for helps, part in (("better", real[real["difference"] > 0]), ("worse", real[real["difference"] < 0][::-1])):
        if len(part):
            said = [f"{row['recipe']} ({_difference(asked, row)})" for _, row in part.iterrows()]
            texts.append(f"{helps} than {name!r}: {listed(said)}")
    rest = tests - len(real)
    if rest:
        texts.append(f"{rest} of {tests} recipes are not told apart from it")
    return Statement(
        f"Mean {asked.response} over seeds is {'; '.join(texts)} ({corrected}{'; ' + note if note else ''}).",
        f"With other seeds, a corrected p of these recipes were {asked.alpha:.2g} or more.",
        _as_interval(asked, real.loc[real["difference"].abs().idxmax()]),
    )


def _difference(asked: Asked, row: pd.Series, own: str = "") -> str:
    interval = _as_interval(asked, row)
    low, high = figure(interval.low), figure(interval.high)
    return f"{figure(interval.estimate)}, {own}{share(asked.level)} interval {low} to {high}, {interval.unit}"


def _as_interval(asked: Asked, row: pd.Series) -> Interval:
    return Interval(row["difference"], row["low"], row["high"], asked.level, row["unit"])


def _rho(found: ClusterCorrelation) -> str:
    low, high = number(found.low, 2), number(found.high, 2)
    return (
        f"ρ = {number(found.rho, 2)}, {share(found.level)} interval {low} to {high} from resampling {found.unit}, "
        f"{p_value(found.p)} from permuting them"
    )


def _interval(found: ClusterCorrelation) -> Interval:
    return Interval(found.rho, found.low, found.high, found.level, found.unit)
