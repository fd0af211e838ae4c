"""What the tests say: shares of variance, mean ranks, rank correlations."""

from __future__ import annotations

import matplotlib
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
from oodjax.report.style import (
    INK,
    LABELS,
    NARROW,
    SMALL,
    SOFT,
    WIDE,
    Drawing,
    canvas,
    colour_of,
    flow,
    heading,
    name_rows,
    ticks,
)
from oodjax.report.wording import number, p_value

TERM_COLOURS = {
    "model": "#1f6fb4",
    "detector": "#c07a00",
    "ood_category": "#2f8f46",
    "model:detector": "#8aa9c9",
    "model:ood_category": "#7cc0bd",
    "detector:ood_category": "#c9c07a",
    "model:detector:ood_category": "#c3b3d3",
    "Residual": "#d5d5d5",
}


def term_name(term: str) -> str:
    return term.replace("ood_category", "OOD category").replace(":", " × ")


def variance_shares(study: Results) -> Drawing:
    """ANOVA shares, whole and without one OOD category at a time (Fig. 6)."""
    rows = study.complete("auroc")
    whole = anova(rows)
    if whole["share"].isna().any():
        raise CannotSay("AUROC is constant, so there is no variance to share out")
    parts = leave_one_category_out(rows) if rows["ood_category"].nunique() > 1 else None
    shares = whole[["term", "share"]].rename(columns={"share": "all"}) if parts is None else parts
    shares = shares.set_index("term").dropna(axis=1)
    colours = {term_name(t): TERM_COLOURS[t] for t in shares.index}
    figure, axes = canvas(WIDE, 0.55 + 0.3 * shares.shape[1], legend=flow(list(colours.items()), WIDE))
    ax = axes[0, 0]
    for r, (_, column) in enumerate(shares.items()):
        left = 0.0
        for term, share in column.items():
            width = 100 * float(share)
            ax.barh(r, width, left=left, height=0.78, color=TERM_COLOURS[str(term)], edgecolor="white", linewidth=0.5)
            if width >= 4:
                light = str(term) in ("model", "ood_category")
                ax.text(
                    left + width / 2,
                    r,
                    f"{width:.0f}",
                    ha="center",
                    va="center_baseline",
                    size=SMALL,
                    color="white" if light else INK,
                )
            left += width
    name_rows(ax, list(shares.columns))
    ax.set(xlim=(0, 100), xlabel="Share of the variance of AUROC (%)")
    ax.grid(visible=False)
    top = whole.sort_values("share", ascending=False).iloc[0]
    test = whole.set_index("term")
    said = ", ".join(f"{term_name(str(t))} {number(100 * s)} %" for t, s in test["share"].items())
    return Drawing(
        figure,
        f"Three-way analysis of variance of AUROC over {len(rows):,} rows: {said}. The largest share is that of "
        f"{term_name(top['term'])}{_f(top)}. Rows below the first leave out one OOD category each."
        f"{study.remark('auroc')}",
    )


def ranks(study: Results) -> Drawing:
    """Mean ranks with confidence intervals and groups that Nemenyi's test does not tell apart (Fig. 7)."""
    rows = study.complete("auroc")
    if rows["detector"].nunique() < 2:
        raise CannotSay(f"the only detector is {rows['detector'].iloc[0]}, and ranks take two or more")
    table = mean_ranks(rows)
    n = rows["model"].nunique()
    cd = critical_difference(len(table), n)
    groups = cd_groups(table, cd)
    figure, axes = canvas(NARROW, 0.6 + 0.18 * len(table))
    ax = axes[0, 0]
    at = {name: r for r, name in enumerate(table["detector"])}
    for r, row in enumerate(table.itertuples()):
        if np.isfinite(row.ci_low):
            ax.plot([row.ci_low, row.ci_high], [r, r], color="#8a8a8a", lw=2.2, solid_capstyle="butt", zorder=2)
        ax.plot(row.mean_rank, r, marker="o", ms=5, color=INK, mec="white", mew=0.5, ls="none", zorder=3)
    right = float(np.nanmax([table["ci_high"].max(), table["mean_rank"].max()]))
    step = (right - min(1.0, float(table["mean_rank"].min()))) * 0.025
    for i, group in enumerate(groups):
        x = right + step * (2 + i)
        ax.plot([x, x], [at[group[0]] - 0.2, at[group[-1]] + 0.2], color="#c2500a", lw=1.6, solid_capstyle="butt")
    name_rows(ax, list(table["detector"]))
    ax.set_xlabel("Mean rank over models (1 is best)")
    first, second = table.iloc[0], table.iloc[1]
    text = f"Mean rank of each detector over {n} model{'s' * (n > 1)}"
    text += " with 95 % confidence intervals." if n > 1 else "; one model gives no confidence interval."
    text += f" {first['detector']} leads with {number(first['mean_rank'], 2)}{_interval(first)}, then "
    text += f"{second['detector']} with {number(second['mean_rank'], 2)}{_interval(second)}."
    text += f" Bars at the right join detectors less than Nemenyi's critical difference of {number(cd, 2)} apart."
    if len(table) > 2:
        test = friedman(rows)
        said = test.reason or f"chi² = {number(test.statistic)}, {p_value(test.p)}"
        text += f" Friedman's test: {said}."
    return Drawing(figure, text + study.remark("auroc"))


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
    table = correlations(study)
    table = table[table["y"] == "auroc"]
    if table["rho"].isna().all():
        raise CannotSay(table["reason"].iloc[0] if len(table) else "there is no AUROC to correlate with")
    colours = colour_of(study)
    one = table[table["x"] == "accuracy"].reset_index(drop=True)
    labels = [row.subset if row.group == "" else row.group for row in one.itertuples()]
    breaks = [i for i in range(1, len(one)) if one["subset"][i] != one["subset"][i - 1] and one["group"][i] != ""]
    figure, axes = canvas(WIDE, 0.7 + 0.155 * len(one), 1, 2, sharex=True, sharey=True)
    for ax, x in zip(axes[0], ("accuracy", "ece"), strict=True):
        for r, row in enumerate(table[table["x"] == x].itertuples()):
            colour = colours[row.group] if row.subset == "model_category" else "#5a6b7c"
            if np.isnan(row.rho):
                ax.text(0.02, r, "undefined", size=6, color=SOFT, va="center_baseline")
            else:
                ax.barh(r, row.rho, height=0.7, color=colour, alpha=1.0 if row.p < 0.05 else 0.28)
        for i in breaks:
            ax.axhline(i - 0.5, color=SOFT, lw=0.5)
        ax.axvline(0, color=SOFT, lw=0.7)
        heading(ax, f"{LABELS[x]} with AUROC", room=2.6)
        ax.set_xlabel("Spearman's ρ")
        ticks(ax)
        name_rows(ax, labels)
    weak = int((table["p"] >= 0.05).sum())
    whole = table[table["subset"] == "overall"].set_index("x")["rho"]
    return Drawing(
        figure,
        f"Spearman's rank correlation of accuracy (left; overall {number(whole['accuracy'], 2)}) and ECE (right; "
        f"overall {number(whole['ece'], 2)}) with AUROC, over all rows and over the parts named at left. Pale bars, "
        f"{weak} of {len(table)}, have p of 0.05 or more.{study.remark('auroc')}",
    )


def correlation_matrix(study: Results) -> Drawing:
    """Correlations by training category (Fig. 17)."""
    table = correlations(study)
    part = table[(table["subset"] == "model_category") | (table["subset"] == "overall")]
    columns = sorted(dict.fromkeys(zip(part["x"], part["y"], strict=True)), key=lambda pair: pair[0])
    rows = ["overall", *[c for c in study.categories if c in set(part["group"])]]
    figure, axes = canvas(WIDE, 1.15 + 0.26 * len(rows))
    ax = axes[0, 0]
    short = {
        "auroc": "AUROC",
        "fpr95": "FPR95",
        "auroc_correct_vs_ood": "correct\nvs OOD",
        "auroc_incorrect_vs_ood": "incorrect\nvs OOD",
    }
    grid = np.full((len(rows), len(columns)), np.nan)
    faint = np.zeros(grid.shape, bool)
    for row in part.itertuples():
        cell = rows.index(row.group or "overall"), columns.index((row.x, row.y))
        grid[cell], faint[cell] = row.rho, not row.p < 0.05
    colours = matplotlib.colormaps["RdBu"].with_extremes(bad="#f4f4f4")
    ax.imshow(np.where(faint, np.nan, grid), cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for (r, c), value in np.ndenumerate(grid):
        colour = SOFT if faint[r, c] or np.isnan(value) else ("white" if abs(value) > 0.65 else INK)
        text = "–" if np.isnan(value) else number(value, 2)
        ax.text(c, r, text, ha="center", va="center_baseline", size=SMALL, color=colour)
    ax.set_xticks(range(len(columns)), [short[y] for _, y in columns])
    ax.set_yticks(range(len(rows)), [r if len(r) < 22 else f"{r[:20]}…" for r in rows])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    for x in ("accuracy", "ece"):
        at = [i for i, (a, _) in enumerate(columns) if a == x]
        ax.annotate(
            f"{LABELS[x]} with",
            ((at[0] + at[-1] + 1) / 2 / len(columns), 1),
            xycoords="axes fraction",
            xytext=(0, 30),
            textcoords="offset points",
            ha="center",
            size=8,
            weight="bold",
        )
    edge = len(columns) / 2 - 0.5
    ax.axvline(edge, color="white", lw=3)
    ax.axhline(0.5, color="white", lw=2)
    strong = part[(part["subset"] == "model_category") & (part["p"] < 0.05)]
    said = " None of a single category has p below 0.05."
    if len(strong):
        top = strong.loc[strong["rho"].abs().idxmax()]
        y = LABELS[top["y"]]
        said = f" The strongest is {number(top['rho'], 2)}, of {LABELS[top['x']]} with {y} in {top['group']}."
    return Drawing(
        figure,
        f"Spearman's rank correlations by training category.{said} Grey numbers have p of 0.05 or more; a dash means "
        "that it is undefined, as with a single model.",
    )


def _f(row: pd.Series) -> str:
    return "" if np.isnan(row["F"]) else f" (F = {number(row['F'], 2)}, {p_value(row['p'])})"


def _interval(row: pd.Series) -> str:
    if np.isnan(row["ci_low"]):
        return ""
    return f" ({number(row['ci_low'], 2)} to {number(row['ci_high'], 2)})"
