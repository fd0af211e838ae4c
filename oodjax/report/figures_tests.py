"""What the tests say: shares of variance, mean ranks, rank correlations."""

from __future__ import annotations

import numpy as np
import pandas as pd

from oodjax.analysis import (
    anova,
    cd_groups,
    critical_difference,
    friedman,
    leave_one_category_out,
    mean_ranks,
    spearman_table,
)
from oodjax.report.data import CannotSay, Results
from oodjax.report.figures_accuracy import need_models
from oodjax.report.panels import MARGIN, STRIP, Span, interval, key, rows, span
from oodjax.report.scene import Mark, Scene, Tag, text_width
from oodjax.report.style import BODY, LABELS, SMALL, WIDTH, Drawing, colour_of, shorten
from oodjax.report.wording import number, p_value

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
    results = study.complete("auroc")
    whole = anova(results)
    if whole["share"].isna().any():
        raise CannotSay("AUROC is constant, so there is no variance to share out")
    parts = leave_one_category_out(results) if results["ood_category"].nunique() > 1 else None
    shares = whole[["term", "share"]].rename(columns={"share": "all"}) if parts is None else parts
    shares = shares.set_index("term").dropna(axis=1)
    scene, (panel,) = rows(
        list(shares.columns), [Span(0, 100, (0, 25, 50, 75, 100))], 26, "Share of the variance of AUROC (%)"
    )
    for r, (name, column) in enumerate(shares.items()):
        left = 0.0
        for term, share in column.items():
            right, role = left + 100 * float(share), TERM_COLOURS[str(term)]
            corners = panel.at([left, right], [r - 0.4, r + 0.4])
            shown = Tag(f"{term_name(str(term))}, {name}: {number(right - left)} %")
            scene.box(corners, role, edge="paper", tag=shown)
            if right - left >= 5:
                panel.text((left + right) / 2, r, f"{right - left:.0f}", role="paper", anchor="middle", bold=True)
            left = right
    key(scene, [(term_name(t), Mark(TERM_COLOURS[t], "s")) for t in shares.index])
    top = whole.sort_values("share", ascending=False).iloc[0]
    test = whole.set_index("term")
    said = ", ".join(f"{term_name(str(t))} {number(100 * s)} %" for t, s in test["share"].items())
    return Drawing(
        scene,
        f"Three-way analysis of variance of AUROC over {len(results):,} rows: {said}. The largest share is that of "
        f"{term_name(top['term'])}{_f(top)}. Rows below the first leave out one OOD category each."
        f"{study.remark('auroc')}",
    )


def ranks(study: Results) -> Drawing:
    """Mean ranks with confidence intervals and groups that Nemenyi's test does not tell apart (Fig. 7)."""
    results = study.complete("auroc")
    if results["detector"].nunique() < 2:
        raise CannotSay(f"the only detector is {results['detector'].iloc[0]}, and ranks take two or more")
    table = mean_ranks(results)
    n = results["model"].nunique()
    cd = critical_difference(len(table), n)
    groups = cd_groups(table, cd)
    at = {name: r for r, name in enumerate(table["detector"])}
    step = -(-len(table) // 8) if len(table) < 16 else 5 * -(-len(table) // 40)
    across = Span(0.5, len(table) + 0.5, tuple(dict.fromkeys([1, *range(step, len(table) + 1, step)])))
    scene, (panel,) = rows(list(at), [across], 18, "Mean rank over models (1 is best)", gutter=10 + 6.0 * len(groups))
    for r, row in enumerate(table.itertuples()):
        interval(panel, r, max(1, row.ci_low), min(len(table), row.ci_high), "id", 4)
        shown = Tag(f"{row.detector}: mean rank {number(row.mean_rank, 2)}", detector=str(row.detector))
        panel.dot(row.mean_rank, r, Mark("ink"), 7, tag=shown)
    for i, group in enumerate(groups):
        ends = panel.at(0.5, [at[group[0]] - 0.25, at[group[-1]] + 0.25])[:, 1]
        x = panel.left + panel.width + 10 + 6 * i
        scene.line([(x, ends[0]), (x, ends[1])], "ood", 2.2)
    first, second = table.iloc[0], table.iloc[1]
    text = f"Mean rank of each detector over {n} model{'s' * (n > 1)}"
    text += " with 95 % confidence intervals." if n > 1 else "; one model gives no confidence interval."
    text += f" {first['detector']} leads with {number(first['mean_rank'], 2)}{_interval(first)}, then "
    text += f"{second['detector']} with {number(second['mean_rank'], 2)}{_interval(second)}."
    text += f" Bars at the right join detectors less than Nemenyi's critical difference of {number(cd, 2)} apart."
    if len(table) > 2:
        test = friedman(results)
        said = test.reason or f"chi² = {number(test.statistic)}, {p_value(test.p)}"
        text += f" Friedman's test: {said}."
    return Drawing(scene, text + study.remark("auroc"))


def correlations(study: Results) -> pd.DataFrame:
    """`spearman_table` on the complete rows of each response."""
    parts = []
    for metric in ("auroc", "auroc_correct_vs_ood", "auroc_incorrect_vs_ood", "fpr95"):
        try:
            rows = study.complete(metric)
        except CannotSay:
            continue
        facts = study.facts[study.facts["model"].isin(rows["model"])]
        baseline = study.baseline if study.baseline in facts.index else None
        parts.append(spearman_table(rows, facts, baseline, [metric]))
    if not parts:
        raise CannotSay("no metric has complete rows")
    table = pd.concat(parts, ignore_index=True)
    if table["rho"].isna().all():
        raise CannotSay(f"no rank correlation is defined: {table['reason'].iloc[0]}")
    return table


def correlation_bars(study: Results) -> Drawing:
    """Rank correlations of accuracy and ECE with AUROC in every part of the table (Fig. 14)."""
    need_models(len(study.models), "A rank correlation with accuracy")
    table = correlations(study)
    table = table[table["y"] == "auroc"]
    if table["rho"].isna().all():
        raise CannotSay(table["reason"].iloc[0] if len(table) else "there is no AUROC to correlate with")
    colours = colour_of(study)
    one = table[table["x"] == "accuracy"].reset_index(drop=True)
    labels = [row.subset if row.group == "" else row.group for row in one.itertuples()]
    breaks = [i for i in range(1, len(one)) if one["subset"][i] != one["subset"][i - 1] and one["group"][i] != ""]
    titles = [f"{LABELS[x]} with AUROC" for x in ("accuracy", "ece")]
    across = span([*table["rho"], 0.0], 4)
    scene, panels = rows(labels, [across, across], 15, "Spearman's ρ", titles)
    for panel, x in zip(panels, ("accuracy", "ece"), strict=True):
        for r, row in enumerate(table[table["x"] == x].itertuples()):
            role = colours[row.group] if row.subset == "model_category" else "soft"
            if np.isnan(row.rho):
                panel.text(0, r, "undefined", SMALL - 2, dx=3, role="soft")
                continue
            corners = panel.at([0, row.rho], [r - 0.36, r + 0.36])
            said = Tag(
                f"{labels[r]}: ρ of {LABELS[x]} with AUROC {number(row.rho, 2)}, {p_value(row.p)}",
                category=row.group if row.subset == "model_category" else "",
                detector=row.group if row.subset == "detector" else "",
            )
            scene.box(corners, role, opacity=1.0 if row.p < 0.05 else 0.3, tag=said)
        for i in breaks:
            panel.line([across.low, across.high], [i - 0.5, i - 0.5], "soft", 0.8)
        panel.line([0, 0], [-0.5, len(one) - 0.5], "soft", 1)
    weak = int((table["p"] >= 0.05).sum())
    whole = table[table["subset"] == "overall"].set_index("x")["rho"]
    return Drawing(
        scene,
        f"Spearman's rank correlation of accuracy (left; overall {number(whole['accuracy'], 2)}) and ECE (right; "
        f"overall {number(whole['ece'], 2)}) with AUROC, over all rows and over the parts named at left. Pale bars, "
        f"{weak} of {len(table)}, have p of 0.05 or more.{study.remark('auroc')}",
    )


def correlation_matrix(study: Results) -> Drawing:
    """Correlations by training category (Fig. 17)."""
    need_models(len(study.models), "A rank correlation with accuracy")
    table = correlations(study)
    part = table[(table["subset"] == "model_category") | (table["subset"] == "overall")]
    names = ["overall", *[c for c in study.categories if c in set(part["group"])]]
    responses = list(dict.fromkeys(part["y"]))
    scene = _correlation_cells(part, names, responses)
    strong = part[(part["subset"] == "model_category") & (part["p"] < 0.05)]
    said = " None of a single category has p below 0.05."
    if len(strong):
        top = strong.loc[strong["rho"].abs().idxmax()]
        y = LABELS[top["y"]]
        said = f" The strongest is {number(top['rho'], 2)}, of {LABELS[top['x']]} with {y} in {top['group']}."
    return Drawing(
        scene,
        f"Spearman's rank correlations by training category, blue where positive, orange where negative."
        f"{said} Grey numbers have p of 0.05 or more; a dash means "
        "that it is undefined, as with a single model.",
    )


_SHORT = {
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "auroc_correct_vs_ood": "correct",
    "auroc_incorrect_vs_ood": "incorrect",
}


def _correlation_cells(part: pd.DataFrame, names: list[str], responses: list[str]) -> Scene:
    """A cell per category and pair, coloured by the correlation where its p is below 0.05."""
    shown = [shorten(name, 100, SMALL) for name in names]
    left = MARGIN + max(text_width(name, SMALL) for name in shown) + 8
    gap, step, top = 10.0, 20.0, 2 * STRIP + 4
    width = (WIDTH - MARGIN - left - gap) / 2 / len(responses)
    scene = Scene(WIDTH, top + step * len(names) + MARGIN)
    for r, name in enumerate(shown):
        scene.text(left - 6, top + (r + 0.5) * step + 3.7, name, SMALL, anchor="end", bold=r == 0)
    found = {(row.group or "overall", row.x, row.y): row for row in part.itertuples()}
    for i, x in enumerate(("accuracy", "ece")):
        start = left + i * (len(responses) * width + gap)
        scene.text(start + len(responses) * width / 2, STRIP - 5, f"{LABELS[x]} with", BODY, anchor="middle", bold=True)
        for c, y in enumerate(responses):
            middle = start + (c + 0.5) * width
            scene.text(middle, 2 * STRIP - 3, shorten(_SHORT[y], width, SMALL - 1), SMALL - 1, anchor="middle")
            for r, name in enumerate(names):
                row = found.get((name, x, y))
                rho, firm = (np.nan, False) if row is None else (float(row.rho), bool(row.p < 0.05))
                at = start + c * width, top + r * step
                if firm:
                    role = "hue-2" if rho > 0 else "ood"
                    said = Tag(
                        f"{name}: ρ of {LABELS[x]} with {LABELS[y]} {number(rho, 2)}", category="" if r == 0 else name
                    )
                    scene.box([at, (at[0] + width - 1.5, at[1] + step - 1.5)], role, opacity=0.65 * abs(rho), tag=said)
                text = "–" if np.isnan(rho) else number(rho, 2)
                scene.text(middle, at[1] + step / 2 + 3.2, text, SMALL, "ink" if firm else "soft", anchor="middle")
    return scene


def _f(row: pd.Series) -> str:
    return "" if np.isnan(row["F"]) else f" (F = {number(row['F'], 2)}, {p_value(row['p'])})"


def _interval(row: pd.Series) -> str:
    if np.isnan(row["ci_low"]):
        return ""
    return f" ({number(row['ci_low'], 2)} to {number(row['ci_high'], 2)})"
