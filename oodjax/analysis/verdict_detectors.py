"""What the numbers say about detectors: interactions, the worst case, the best on average and with each model."""

import itertools

import numpy as np
import pandas as pd
import scipy.stats

from oodjax.analysis.anova import FACTORS
from oodjax.analysis.clusters import cluster_values, counted
from oodjax.analysis.interval import Interval
from oodjax.analysis.intervals import mean_interval
from oodjax.analysis.ranking import robustness
from oodjax.analysis.resampling import FEWEST, draw, holm
from oodjax.analysis.shares import share_intervals
from oodjax.analysis.statement import Asked, Statement, as_text, listed, share
from oodjax.analysis.table import rounding


def interaction(asked: Asked) -> Statement:
    """The largest interaction: whether it is more than noise, and more than the next."""
    factors = [factor for factor in FACTORS if asked.joined[factor].nunique() > 1]
    if len(factors) < 2:
        names = ", ".join(asked.term_name(f) for f in factors) or "none"
        raise ValueError(f"an interaction takes two factors with two levels each, got {names}")
    tests = 2 ** len(factors) - 1 - len(factors)
    table = share_intervals(asked.joined, asked.response, factors, 1 - asked.alpha / tests)
    note = table.attrs["note"]
    if note == "constant response":
        raise ValueError(f"{asked.response} is constant")
    by = "effect" if table["effect"].notna().any() else "share"
    terms = table[table["term"].str.contains(":")].sort_values(by, ascending=False, kind="stable")
    top = terms.iloc[0]
    if note and top["share"] == 0:
        raise ValueError(f"no interaction is left of {asked.response}, and no residual to test it against")
    if asked.clusters < FEWEST:
        raise ValueError(
            f"{asked.unit}, at least {FEWEST} are needed for an interval; the largest in this table is "
            f"{_term(asked, top)}"
        )
    of = f"{_term(asked, top)}, {share(table_level(asked, tests))} interval {_percent(top['low'])} to "
    of += f"{_percent(top['high'])} % from leaving out {table.attrs['unit']} in turn, {table.attrs['rows']:,} rows"
    interval = Interval(top["share"], top["low"], top["high"], table_level(asked, tests), table.attrs["unit"])
    if note:
        why = "without replicates" if note == "no replicates" else "with replicates that do not differ"
        return Statement(
            f"The largest interaction is {of}; {why} it cannot be told from noise.",
            "It were no larger than noise, which takes several data sets per category to tell.",
            interval,
        )
    if not top["effect_low"] > 0:
        return Statement(
            f"No interaction is told apart from noise; the largest is {of}.",
            "With more models, an interval without the noise's share excluded 0.",
            interval,
        )
    return Statement(
        f"The largest interaction is {of}, more than noise{_rival(asked, table, terms)}.",
        "An interval of other such models, without the noise's share, held 0.",
        interval,
    )


def table_level(asked: Asked, tests: int) -> float:
    return 1 - asked.alpha / tests


def _rival(asked: Asked, table: pd.DataFrame, terms: pd.DataFrame) -> str:
    if len(terms) < 2:
        return ""
    gap, low, high = (100 * x for x in table.attrs["gap"])
    larger = "and larger than" if low > 0 else "and not told apart from"
    between = f"{gap:.2g} points, {low:.2g} to {high:.2g}".replace("-", "−")
    return f", {larger} the next, {asked.term_name(terms['term'].iloc[1])} ({between}, noise taken off)"


def _term(asked: Asked, term: pd.Series) -> str:
    return f"{asked.term_name(term['term'])}, with {_percent(term['share'])} % of the variance of {asked.response}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g}" if fraction < 0.995 else "100"


def safest(asked: Asked) -> Statement:
    """The best worst case, and how many further models it holds for."""
    table = robustness(asked.joined, asked.response, baseline=None)
    table = table[table["worst"].notna()]
    if len(table) < 2:
        raise ValueError(f"the only detector is {table['detector'].iloc[0]!r}")
    n, detectors = asked.clusters, len(table)
    if n < 2:
        raise ValueError(f"the only {asked.cluster} is {asked.joined[asked.cluster].iloc[0]!r}")
    first, second = table.iloc[0], table.iloc[1]
    note = as_text(table.attrs["note"])
    if first["worst"] == second["worst"]:
        tied = table.loc[table["worst"] == first["worst"], "detector"].tolist()
        who = f"all {len(tied)} detectors" if len(tied) == detectors else listed(tied)
        return Statement(
            f"No detector is safest: {who} share the best worst case over {asked.unit}, a mean {asked.response} of "
            f"{asked.value(first['worst'])}{note}.",
            "Their worst cases differed.",
        )
    # every model is as likely to be the worst as a further one (Wilks 1941), for all detectors at once (Bonferroni)
    above = (asked.alpha / detectors) ** (1 / n)
    again = _chosen_again(asked)
    return Statement(
        f"The best worst case over these {asked.unit} is that of {first['detector']}: its mean {asked.response} never "
        f"falls below {asked.value(first['worst'])} (with {first['worst_model']!r}){note}; the next is "
        f"{second['detector']}, {asked.value(second['worst'])}. With {share(asked.level)} confidence at least "
        f"{share(above)} of further {asked.cluster}s like these stay above it, whichever detector is chosen. "
        f"{first['detector']} is chosen again in {share(again)} of resamples of the {asked.unit}.",
        f"More than {share(1 - above)} of further {asked.cluster}s like these fell below "
        f"{asked.value(first['worst'])}.",
    )


def _chosen_again(asked: Asked) -> float:
    """In how many resamples of the models the same detector has the best worst case."""
    means = cluster_values(asked.joined, asked.response, asked.cluster, "detector")[0].dropna(axis=1, how="all")
    values = means.to_numpy()
    chosen = int(np.nanmin(values, axis=0).argmax())
    filled = np.where(np.isnan(values), np.inf, values)
    drawn = draw([0] * len(values)) > 0
    worst = np.stack([np.where(drawn, column, np.inf).min(axis=1) for column in filled.T], axis=1)
    return float(np.mean(worst.argmax(axis=1) == chosen))


def leader(asked: Asked) -> Statement:
    """The best detector on average, and from which others it is told apart: over models, or sets for one model."""
    means = mean_interval(asked.joined, "detector", asked.response, asked.level)
    if len(means) < 2:
        raise ValueError(f"the only detector is {means['detector'].iloc[0]!r}")
    means = means.sort_values("mean", ascending=False, kind="stable")
    top = means.iloc[0]
    if means["mean"].max() - means["mean"].min() <= rounding(means["mean"].to_numpy()):
        raise ValueError(f"all {len(means)} detectors have the same mean {asked.response}")
    if np.isnan(top["low"]):
        raise ValueError(
            f"there is one {'OOD set' if asked.clusters == 1 else asked.cluster}, over which no interval can be taken; "
            f"the highest mean {asked.response} in this table is {asked.value(top['mean'])}, of {top['detector']}"
        )
    apart, tests = told_apart(asked, top["detector"])
    others = [d for d in means["detector"] if d != top["detector"]]
    rest = [d for d in others if d not in apart]
    interval = asked.bounded(Interval(top["mean"], top["low"], top["high"], asked.level, top["unit"]))
    where = "with this model" if asked.clusters == 1 else "on average"
    corrected = f"paired differences, p corrected for all {tests} pairs by Holm"
    if not apart:
        told = f"but is told apart from none of the {len(others)} others ({corrected})"
    elif not rest:
        told = f"and is told apart from all {len(others)} others ({corrected})"
    else:
        told = f"and is told apart from {len(apart)} of {len(others)} others, not from {listed(rest)} ({corrected})"
    return Statement(
        f"{top['detector']} has the highest mean {asked.response} {where}, {asked.value(top['mean'])} "
        f"({asked.between(interval)} from resampling {top['unit']}), {told}{as_text(means.attrs['note'])}.",
        "Another detector's mean were higher, or other pairs were told apart, with other such "
        f"{'sets' if asked.clusters == 1 else asked.cluster + 's'}.",
        interval,
    )


def told_apart(asked: Asked, detector: str) -> tuple[list[str], int]:
    """The detectors that are below this one by Student's paired test, and the number of pairs tested.

    The detector is chosen for being best, so that all pairs are corrected for, not only its own.
    """
    unit = "dataset" if asked.clusters == 1 else asked.cluster
    means = cluster_values(asked.joined, asked.response, unit, "detector")[0]
    pairs = list(itertools.combinations(means.columns, 2))
    corrected = holm([_paired_p((means[a] - means[b]).dropna().to_numpy()) for a, b in pairs])
    found = []
    for (a, b), p in zip(pairs, corrected, strict=True):
        if detector in (a, b) and p < asked.alpha:
            other = b if a == detector else a
            if (means[detector] - means[other]).mean() > 0:
                found.append(other)
    return found, len(pairs)


def _paired_p(gaps: np.ndarray) -> float:
    n = len(gaps)
    if n < 2:
        return float("nan")
    error = gaps.std(ddof=1) / np.sqrt(n)
    if error <= 1e-12 * np.abs(gaps).max():
        return 1.0 if gaps.mean() == 0 else 0.0
    return float(2 * scipy.stats.t.sf(abs(gaps.mean()) / error, n - 1))


def best_per_model(asked: Asked) -> Statement:
    """With which models each detector is the best, and for what share of such models that holds."""
    means = cluster_values(asked.joined, asked.response, asked.cluster, "detector")[0]
    if means.shape[1] < 2:
        raise ValueError(f"the only detector is {means.columns[0]!r}")
    leads = means.eq(means.max(axis=1), axis=0)
    if leads.to_numpy().all():
        raise ValueError(f"all detectors have the same mean {asked.response} with every {asked.cluster}")
    n = len(means)
    if n < 2:
        raise ValueError(f"the only {asked.cluster} is {means.index[0]!r}")
    if n < FEWEST:
        best = {name: means.columns[row].tolist() for name, row in zip(means.index, leads.to_numpy(), strict=True)}
        text = "; ".join(f"{listed(names)} with {name!r}" for name, names in best.items())
        return Statement(
            f"In this table the best detectors are: {text}; {asked.unit} say nothing of others.",
            f"Another had a higher mean {asked.response} with that {asked.cluster}.",
        )
    wins = leads.sum().sort_values(ascending=False, kind="stable")
    wins = wins[wins > 0]
    count = int(wins.iloc[0])
    exact = scipy.stats.binomtest(count, n).proportion_ci(asked.level, method="exact")
    interval = Interval(count / n, float(exact.low), float(exact.high), asked.level, counted(n, asked.cluster))
    rest = ", ".join(f"{name} {times}" for name, times in wins.iloc[1:].items())
    return Statement(
        f"{wins.index[0]} is the best with {count} of {asked.unit} ({share(count / n)}, {share(asked.level)} interval "
        f"{share(exact.low)} to {share(exact.high)} of such {asked.cluster}s)"
        f"{'; the others go to ' + rest if rest else ''}.",
        f"The share of such {asked.cluster}s lay outside of the interval.",
        interval,
    )
