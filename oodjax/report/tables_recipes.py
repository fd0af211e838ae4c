"""Tables of a study whose recipes were trained with several seeds: a row a recipe, with what its seeds say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from oodjax.analysis import differences, mean_interval
from oodjax.report.data import CannotSay, Results
from oodjax.report.style import LABELS, cast
from oodjax.report.wording import number

MEASURES = ("accuracy", "ece", "auroc", "fpr95")


def recipes(study: Results) -> pd.DataFrame:
    """A row per recipe, in the order of the models.

    Returns:
      recipe, category, seeds; each measure's mean over seeds in percent, with the ends of its 95 % interval over seeds
      in NAME_low and NAME_high; and where there is a baseline `difference` of the mean AUROC from it, in points, with
      its interval and p after Holm's correction.
    """
    drawn = cast(study)
    facts = study.facts.groupby("recipe", sort=False)
    frame = pd.DataFrame({"recipe": list(drawn.mark)})
    frame["category"] = frame["recipe"].map(drawn.category)
    frame["seeds"] = frame["recipe"].map(facts["seed"].nunique())
    for name in MEASURES:
        try:
            rows = study.facts if name in study.facts else study.measured(name)
            found = mean_interval(rows, by="recipe", response=name).set_index("recipe").reindex(frame["recipe"])
        except CannotSay:
            continue
        frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = (
            found[column].to_numpy(np.float64) for column in ("mean", "low", "high")
        )
    if drawn.baseline is not None and len(frame) > 1 and "auroc" in frame:
        found = differences(study.measured("auroc"), study.facts, drawn.baseline).set_index("recipe")
        found = found.reindex(frame["recipe"])
        for column in ("difference", "low", "high", "p_holm"):
            name = column if column == "difference" else f"difference_{column.removesuffix('_holm')}"
            frame[name] = found[column].to_numpy(np.float64)
    return frame


def shown(frame: pd.DataFrame, baseline: str | None) -> tuple[pd.DataFrame, list[tuple[str, str, int | None]], str]:
    """The same with intervals as text: a frame for the page, its columns as (source, heading, digits), and a note."""
    page, columns = frame.copy(), [("recipe", "Recipe", None), ("category", "Category", None), ("seeds", "Seeds", 0)]
    for name in (*MEASURES, "difference"):
        if name not in frame:
            continue
        page[f"{name}_interval"] = [
            f"{number(low)} to {number(high)}" if np.isfinite([low, high]).all() else ""
            for low, high in zip(frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        ]
        heading = f"From {baseline}" if name == "difference" else LABELS[name]
        columns += [(name, heading, 2), (f"{name}_interval", "95 %", None)]
    note = "Percent; means over the seeds of each recipe, with 95 % intervals over seeds."
    if "difference" in frame:
        columns.append(("difference_p", "p", 3))
        note += f" From {baseline}: of the mean AUROC, in points, seeds paired where both have them; p by Holm."
    return page, columns, note


def replicated(study: Results) -> bool:
    """Whether some recipe has several models."""
    return cast(study).replicated and "seed" in study.facts
