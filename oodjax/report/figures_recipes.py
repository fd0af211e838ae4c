"""Recipes against the baseline, with what their seeds say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from oodjax.analysis import differences
from oodjax.report.data import CannotSay, Results
from oodjax.report.panels import interval, rows, span
from oodjax.report.style import Drawing, cast, recipe_tag, tag
from oodjax.report.wording import number, p_value


def recipe_differences(study: Results) -> Drawing:
    """Mean AUROC of each recipe minus the baseline's, best first, with intervals over seeds."""
    drawn, table = cast(study), study.measured("auroc")
    if drawn.baseline is None:
        raise CannotSay("no recipe is the baseline: name one with --baseline")
    found = differences(table, study.facts, drawn.baseline).set_index("recipe")
    if found.empty:
        raise CannotSay(f"{drawn.baseline} is the only recipe: train another to compare it with")
    means = study.means("auroc")
    gaps = means - float(drawn.mean(means)[drawn.baseline])
    single = gaps if drawn.replicated else gaps[:0]
    across = span([0.0, *found["difference"], *found["low"], *found["high"], *single], 6)
    scene, (panel,) = rows(list(found.index), [across], 16, f"Mean AUROC minus that of {drawn.baseline} (points)")
    panel.line([0, 0], [-0.5, len(found) - 0.5], "soft", 1.2)
    for r, (recipe, row) in enumerate(found.iterrows()):
        mark, gap = drawn.mark[str(recipe)], float(row["difference"])
        for model in (m for m, name in drawn.of.items() if name == recipe and m in single.index):
            said = f"{model}: {number(means[model])}, {number(gaps[model])} points from the mean of {drawn.baseline}"
            panel.dot(gaps[model], r, mark, 5, opacity=0.35, tag=tag(study, model, said))
        interval(panel, r, row["low"], row["high"], mark.colour, 2, opacity=1.0 if row["p_holm"] < 0.05 else 0.45)
        label = f"{recipe}: {number(gap)} points from {drawn.baseline}{_between(row)}"
        panel.dot(gap, r, mark, 8, tag=recipe_tag(study, str(recipe), label))
    return Drawing(scene, _caption(found, drawn.baseline) + study.remark("auroc"))


def _between(row: pd.Series) -> str:
    if not np.isfinite(row["low"]):
        return ""
    return f" ({number(row['low'])} to {number(row['high'])}), {p_value(row['p_holm'])} after Holm"


def _caption(found: pd.DataFrame, baseline: str) -> str:
    best, worst = found.iloc[0], found.iloc[-1]
    text = (
        f"Mean AUROC over detectors and sets, each recipe minus {baseline}: from {number(worst['difference'])} points "
    )
    text += f"({worst.name}) to {number(best['difference'])} ({best.name})."
    known = found[found["low"].notna()]
    if known.empty:
        return text + " One seed of each tells no difference from luck: several, as of --seeds 3, give intervals."
    sure = [str(name) for name in known.index[known["p_holm"] < 0.05]]
    text += f" Bars are 95 % intervals over {known['unit'].iloc[0]}, pale marks single seeds. "
    if not sure:
        return text + f"None of {len(found)} differs with p below 0.05 after Holm's correction."
    return text + f"With p below 0.05 after Holm's correction for {len(found)} recipes: {', '.join(sure)}."
