"""What the tests say: shares of variance and mean ranks; the paper's table of correlations."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from oodjax.analysis import (
    cd_groups,
    correlation_table,
    critical_difference,
    leave_one_category_out,
    mean_ranks,
    share_intervals,
    skillings_mack,
)
from oodjax.analysis.clusters import cluster_column
from oodjax.report.data import CannotSay, Results
from oodjax.report.panels import Span, interval, key, rows
from oodjax.report.scene import Mark, Tag
from oodjax.report.style import Drawing
from oodjax.report.wording import count, number, p_value

TERM_COLOURS = {
    "model": "hue-2",
    "detector": "hue-5",
    "ood_category": "hue-3",
    "model:detector": "hue-9",
    "model:ood_category": "hue-6",
    "detector:ood_category": "hue-10",
    "model:detector:ood_category": "hue-7",
    "Residual": "soft",
}


def term_name(term: str) -> str:
    return term.replace("ood_category", "OOD category").replace(":", " × ")


def variance_shares(study: Results) -> Drawing:
    """ANOVA shares, whole and without one OOD category at a time (Fig. 6)."""
    results = study.measured("auroc")
    factors = [cluster_column(results), "detector", "ood_category"]
    whole = share_intervals(results, factors=factors)
    if whole["share"].isna().any():
        raise CannotSay("AUROC is constant, so there is no variance to share out")
    parts = leave_one_category_out(results, factors=factors) if results["ood_category"].nunique() > 1 else None
    shares = whole[["term", "share"]].rename(columns={"share": "all"}) if parts is None else parts
    shares = shares.set_index("term").dropna(axis=1)
    scene, (panel,) = rows(
        list(shares.columns), [Span(0, 100, (0, 25, 50, 75, 100))], 26, "Share of the variance of AUROC (%)"
    )
    for r, (name, column) in enumerate(shares.items()):
        left = 0.0
        for term, share in column.items():
            right, role = left + 100 * float(share), TERM_COLOURS[_of_model(str(term))]
            corners = panel.at([left, right], [r - 0.4, r + 0.4])
            shown = Tag(f"{term_name(str(term))}, {name}: {number(right - left)} %")
            scene.box(corners, role, edge="paper", tag=shown)
            if right - left >= 5:
                panel.text((left + right) / 2, r, f"{right - left:.0f}", role="paper", anchor="middle", bold=True)
            left = right
    key(scene, [(term_name(t), Mark(TERM_COLOURS[_of_model(t)], "s")) for t in shares.index])
    said = ", ".join(f"{term_name(str(r.term))} {number(100 * r.share)} %{_percent(r)}" for r in whole.itertuples())
    unit = whole.attrs["unit"]
    limits = f", with 95 % intervals from leaving out one of {unit} at a time" if _percent(whole.iloc[0]) else ""
    return Drawing(
        scene,
        f"Three-way analysis of variance of AUROC over {len(results):,} rows. Shares{limits}: {said}. Rows below the "
        f"first leave out one OOD category each.{study.remark('auroc')}",
    )


def ranks(study: Results) -> Drawing:
    """Mean ranks with confidence intervals and groups that Nemenyi's test does not tell apart (Fig. 7)."""
    results = study.measured("auroc")
    if results["detector"].nunique() < 2:
        raise CannotSay(f"the only detector is {results['detector'].iloc[0]}, and ranks take two or more")
    table = mean_ranks(results)
    unit = cluster_column(results)
    n = results[unit].nunique()
    cd = critical_difference(len(table), n)
    groups = cd_groups(table, cd)
    at = {name: r for r, name in enumerate(table["detector"])}
    step = -(-len(table) // 8) if len(table) < 16 else 5 * -(-len(table) // 40)
    across = Span(0.5, len(table) + 0.5, tuple(dict.fromkeys([1, *range(step, len(table) + 1, step)])))
    scene, (panel,) = rows(list(at), [across], 18, f"Mean rank over {unit}s (1 is best)", gutter=10 + 6.0 * len(groups))
    for r, row in enumerate(table.itertuples()):
        interval(panel, r, max(1, row.ci_low), min(len(table), row.ci_high), "id", 4)
        shown = Tag(f"{row.detector}: mean rank {number(row.mean_rank, 2)}", detector=str(row.detector))
        panel.dot(row.mean_rank, r, Mark("ink"), 7, tag=shown)
    for i, group in enumerate(groups):
        ends = panel.at(0.5, [at[group[0]] - 0.25, at[group[-1]] + 0.25])[:, 1]
        x = panel.left + panel.width + 10 + 6 * i
        scene.line([(x, ends[0]), (x, ends[1])], "ood", 2.2)
    first, second = table.iloc[0], table.iloc[1]
    text = f"Mean rank of each detector over {count(n, unit)}"
    text += " with 95 % confidence intervals." if n > 1 else f"; one {unit} gives no confidence interval."
    text += f" {first['detector']} leads with {number(first['mean_rank'], 2)}{_interval(first)}, then "
    text += f"{second['detector']} with {number(second['mean_rank'], 2)}{_interval(second)}."
    text += f" Bars at the right join detectors less than Nemenyi's critical difference of {number(cd, 2)} apart."
    if len(table) > 2:
        test = skillings_mack(results, block=unit)  # Friedman's where nothing is missing
        said = test.reason or f"chi² = {number(test.statistic)}, {p_value(test.p)}"
        text += f" {'Skillings and Mack' if table.attrs['note'] else 'Friedman'}'s test: {said}."
    return Drawing(scene, text + study.remark("auroc"))


def correlations(study: Results) -> pd.DataFrame:
    """`correlation_table` on the rows of each response.

    Raises:
      CannotSay: no correlation is defined.
    """
    table = every_correlation(study)
    if table["rho"].isna().all():
        raise CannotSay(f"no rank correlation is defined: {table['reason'].iloc[0]}")
    return table


@lru_cache(maxsize=4)
def every_correlation(study: Results) -> pd.DataFrame:
    """The same, also where none is defined."""
    parts = []
    for metric in ("auroc", "auroc_correct_vs_ood", "auroc_incorrect_vs_ood", "fpr95"):
        try:
            rows = study.measured(metric)
        except CannotSay:
            continue
        facts = study.facts[study.facts["model"].isin(rows["model"])]
        known = {*facts.index, *facts.get("recipe", [])}
        baseline = study.baseline if study.baseline in known else None
        parts.append(correlation_table(rows, facts, baseline, [metric]))
    if not parts:
        raise CannotSay("no metric has a value")
    return pd.concat(parts, ignore_index=True)


def _of_model(term: str) -> str:
    """Recipes, where a study has them, take the place of models."""
    return term.replace("recipe", "model")


def _percent(row: Any) -> str:
    return f" ({number(100 * row.low)} to {number(100 * row.high)})" if np.isfinite(row.low) else ""


def _interval(row: pd.Series) -> str:
    if np.isnan(row["ci_low"]):
        return ""
    return f" ({number(row['ci_low'], 2)} to {number(row['ci_high'], 2)})"
