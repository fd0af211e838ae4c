"""What the numbers say about training and detection, in sentences that can turn out false."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from oodjax.analysis.anova import FACTORS, anova
from oodjax.analysis.correlation import Correlation, spearman, split_at_baseline
from oodjax.analysis.ranking import mean_ranks, robustness
from oodjax.analysis.table import join_models, mean_table, require_columns

ALPHA = 0.05
NOTABLE = 0.3


class Statement(NamedTuple):
    """A sentence, and the finding that would make it false."""

    text: str
    falsified_if: str


def does_accuracy_predict(
    table: pd.DataFrame,
    models: pd.DataFrame,
    baseline: str | None = "baseline",
    response: str = "auroc",
    term_name: Callable[[str], str] = str,
) -> list[Statement]:
    """Whether a more accurate classifier is a better detector, what else decides, and which detector is safe.

    Args:
      table: results with `model`, `detector`, `ood_category` and the response, which is better when higher.
      models: one row per model with `model`, `category`, `accuracy`, `ece`.
      baseline: the model whose accuracy divides the accuracy range in two; None where there is none.
      response: the column to explain.
      term_name: what the sentences call a factor, or an interaction such as `model:detector`.

    Returns:
      In order: accuracy over the whole range, below and above the baseline, and where the best model lies; the
      strongest interaction; the safest detector and the best on average; the best detector per model. What the table
      cannot answer is a statement that says so and why. Numbers are in the units of the tables.
    """
    require_columns(table, [*FACTORS, response])
    joined = join_models(table, models)
    questions: list[tuple[str, Callable[[], list[Statement]]]] = [
        (f"Whether accuracy predicts {response}", lambda: [_overall(joined, response)]),
        ("Whether the baseline's accuracy is a turning point", lambda: [_sides(joined, models, baseline, response)]),
        ("Which model detects best", lambda: [_peak(joined, response)]),
        ("Which interaction is strongest", lambda: [_interaction(joined, response, term_name)]),
        ("Which detector is safest", lambda: _safest(joined, response)),
        ("Which detector suits which model", lambda: [_best_per_model(joined, response)]),
    ]
    statements = []
    for question, answer in questions:
        try:
            statements.extend(answer())
        except ValueError as error:
            statements.append(
                Statement(f"{question} cannot be said: {error}.", "Nothing was found; other data may answer it.")
            )
    return statements


def _overall(joined: pd.DataFrame, response: str) -> Statement:
    found = _defined(spearman(joined, "accuracy", response))
    where = f"over {found.n:,} rows of {joined['model'].nunique()} models"
    if abs(found.rho) < NOTABLE or found.p >= ALPHA:
        return Statement(
            f"Accuracy says little about {response} {where}: {_rho(found)}.",
            f"Their rank correlation were {NOTABLE} or more in size, with p below {ALPHA}.",
        )
    more = "higher" if found.rho > 0 else "lower"
    return Statement(
        f"More accurate models have {more} {response} {where}: {_rho(found)}.",
        f"Their rank correlation were below {NOTABLE} in size, had the other sign, or p were {ALPHA} or more.",
    )


def _sides(joined: pd.DataFrame, models: pd.DataFrame, baseline: str | None, response: str) -> Statement:
    if baseline is None:
        raise ValueError("no model is the baseline")
    limit, *sides = split_at_baseline(joined, models, baseline)
    names = ("below", "at or above")
    texts, conditions = [], []
    for name, rows in zip(names, sides, strict=True):
        found = _side(rows, response)
        if found.reason:
            texts.append(f"{name} it nothing can be said ({found.reason})")
        elif found.p >= ALPHA:
            texts.append(f"{name} it {response} neither rises nor falls with accuracy ({_rho(found)})")
            conditions.append(f"p were below {ALPHA} {name} it")
        else:
            texts.append(f"{name} it {response} {'rises' if found.rho > 0 else 'falls'} with accuracy ({_rho(found)})")
            conditions.append(f"ρ had the other sign, or p were {ALPHA} or more, {name} it")
    if not conditions:
        raise ValueError("; ".join(texts))
    return Statement(
        f"Taking the accuracy {limit:.4g} of {baseline!r} as the border, {'; '.join(texts)}.",
        f"With the same border, {'; or '.join(conditions)}.",
    )


def _side(rows: pd.DataFrame, response: str) -> Correlation:
    models = rows["model"].nunique()
    if models < 2:
        return Correlation(
            np.nan, np.nan, len(rows), f"{models} model{'s' * (models != 1)} there, at least 2 are needed"
        )
    return spearman(rows, "accuracy", response)


def _peak(joined: pd.DataFrame, response: str) -> Statement:
    means = mean_table(joined, response)
    mean = means.mean(axis=1)
    if len(mean) < 2:
        raise ValueError(f"the only model is {mean.index[0]!r}")
    if mean.max() == mean.min():
        raise ValueError(f"all {len(mean)} models have the same mean {response}, {mean.max():.4g}")
    accuracy = joined.groupby("model", observed=True)["accuracy"].first().reindex(mean.index)
    best, top = int(mean.argmax()), int(accuracy.argmax())
    (best_name, top_name), (best_mean, top_mean) = mean.index[[best, top]], mean.iloc[[best, top]]
    best_is = f"accuracy {accuracy.iloc[best]:.4g}, mean {response} {best_mean:.4g}"
    if accuracy.iloc[best] == accuracy.iloc[top]:
        text = f"The model that detects best, {best_name!r} ({best_is}), is also the most accurate."
        return Statement(text, f"A less accurate model had a mean {response} above {best_mean:.4g}.")
    return Statement(
        f"The model that detects best is {best_name!r} ({best_is}), not the most accurate, {top_name!r} "
        f"(accuracy {accuracy.iloc[top]:.4g}, mean {response} {top_mean:.4g}).",
        f"{top_name!r} had a mean {response} above {best_mean:.4g}.",
    )


def _interaction(joined: pd.DataFrame, response: str, term_name: Callable[[str], str]) -> Statement:
    factors = [factor for factor in FACTORS if joined[factor].nunique() > 1]
    if len(factors) < 2:
        raise ValueError(
            "an interaction takes two factors with two levels each, got "
            f"{_names([term_name(f) for f in factors]) or 'none'}"
        )
    result = anova(joined, response, factors)
    note = result.attrs["note"]
    if note == "constant response":
        raise ValueError(f"{response} is constant")
    terms = result[result["term"].str.contains(":")].sort_values("share", ascending=False, kind="stable")
    terms = terms.assign(term=terms["term"].map(term_name))
    if note and terms["share"].iloc[0] == 0:
        raise ValueError(f"no interaction is left of {response}, and no residual to test it against")
    if note:
        why = "without replicates" if note == "no replicates" else "with replicates that do not differ"
        return Statement(
            f"The largest interaction is {_share(terms.iloc[0], response)}; {why} it cannot be tested.",
            "It were no larger than expected by chance, which takes several data sets per category to tell.",
        )
    real = terms[terms["p"] < ALPHA]
    if len(real) == 0:
        return Statement(
            f"No interaction is significant; the largest is {_share(terms.iloc[0], response)}.",
            f"p of an interaction were below {ALPHA}.",
        )
    rivals = f"; the next is {_share(real.iloc[1], response)}" if len(real) > 1 else ""
    return Statement(
        f"The strongest significant interaction is {_share(real.iloc[0], response)}.",
        f"Another significant interaction had a larger share{rivals}; or p of this one were {ALPHA} or more.",
    )


def _share(term: pd.Series, response: str) -> str:
    test = "" if np.isnan(term["p"]) else f" (F = {term['F']:.4g}, {p_value(term['p'])})"
    return f"{term['term']}, with {100 * term['share']:.3g} % of the variance of {response}{test}"


def _safest(joined: pd.DataFrame, response: str) -> list[Statement]:
    table = robustness(joined, response, baseline=None)
    if len(table) < 2:
        raise ValueError(f"the only detector is {table['detector'].iloc[0]!r}")
    models = joined["model"].nunique()
    if models < 2:
        raise ValueError(f"the only model is {joined['model'].iloc[0]!r}")
    first, second = table.iloc[0], table.iloc[1]
    if first["worst"] == second["worst"]:
        tied = table.loc[table["worst"] == first["worst"], "detector"].tolist()
        who = f"all {len(tied)} detectors" if len(tied) == len(table) else _names(tied)
        safest = Statement(
            f"No detector is safest: {who} share the best worst case, a mean {response} of "
            f"{first['worst']:.4g} over {models} models.",
            "Their worst cases differed.",
        )
    else:
        safest = Statement(
            f"The safest detector over all {models} models is {first['detector']}: its mean {response} never falls "
            f"below {first['worst']:.4g} (with {first['worst_model']!r}).",
            f"A model brought it to {second['worst']:.4g} or less, the worst case of {second['detector']}, or another "
            f"detector's worst case were above {first['worst']:.4g}.",
        )
    ranks = mean_ranks(joined, response)
    top = ranks[ranks["mean_rank"] == ranks["mean_rank"].min()]
    if len(top) == len(ranks):
        return [safest, Statement("No detector ranks above another on average.", "Their mean ranks differed.")]
    row, rival = top.iloc[0], ranks.iloc[len(top)]
    return [
        safest,
        Statement(
            f"The best mean rank over models is {row['mean_rank']:.3g} (95 % interval {row['ci_low']:.3g} to "
            f"{row['ci_high']:.3g}), of {_names(top['detector'].tolist())}.",
            f"{rival['detector']}, next with {rival['mean_rank']:.3g}, or another detector ranked as high or higher.",
        ),
    ]


def _best_per_model(joined: pd.DataFrame, response: str) -> Statement:
    means = mean_table(joined, response)
    if means.shape[1] < 2:
        raise ValueError(f"the only detector is {means.columns[0]!r}")
    leads = means.eq(means.max(axis=1), axis=0)
    if leads.to_numpy().all():
        raise ValueError(f"all detectors have the same mean {response} with every model")
    best = {model: means.columns[row].tolist() for model, row in zip(means.index, leads.to_numpy(), strict=True)}
    if len(best) <= 8:
        text = "; ".join(f"{_names(names)} with {model!r}" for model, names in best.items())
        return Statement(f"The best detectors are: {text}.", f"Another had a higher mean {response} with that model.")
    wins = leads.sum().sort_values(ascending=False, kind="stable")
    wins = wins[wins > 0]
    text = ", ".join(f"{name} {count}" for name, count in wins.items())
    return Statement(
        f"{len(wins)} of {means.shape[1]} detectors are the best for some of the {len(means)} models: {text}.",
        f"One detector had the highest mean {response} with every model."
        if len(wins) > 1
        else f"Another detector had a higher mean {response} with any model.",
    )


def _defined(found: Correlation) -> Correlation:
    if found.reason:
        raise ValueError(found.reason)
    return found


def _rho(found: Correlation) -> str:
    return f"ρ = {found.rho:.2f}, {p_value(found.p)}"


def p_value(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def _names(names: list) -> str:
    return ", ".join(str(name) for name in names)
