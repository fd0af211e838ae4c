"""Correctly against incorrectly classified ID samples: whether a detector finds OOD data or mistakes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from oodjax.analysis import correlation_interval
from oodjax.report.data import CannotSay, Results
from oodjax.report.figures_accuracy import baseline_lines, of_means, of_seeds, outliers, points, said_of, short, single
from oodjax.report.figures_relations import between_models, firm, need_models
from oodjax.report.panels import Panel, grid, span
from oodjax.report.style import LABELS, Drawing, cast
from oodjax.report.wording import number, relation

CORRECT, INCORRECT = "auroc_correct_vs_ood", "auroc_incorrect_vs_ood"
_SPLITS = "AUROC of correct samples", "of incorrect ones"


def correct_against_incorrect(study: Results) -> Drawing:
    """Whether a detector finds OOD data or mistakes (Fig. 5)."""
    need_models(study, "Correct against incorrect samples")
    means = pd.DataFrame({metric: study.means(metric) for metric in (CORRECT, INCORRECT)}).dropna()
    both = span(means.to_numpy().ravel(), 6)
    panel = single(both, both, f"Mean {LABELS[CORRECT]} (%)", f"Mean {LABELS[INCORRECT]} (%)", square=True)
    _diagonal(panel)
    points(panel, study, means[CORRECT], means[INCORRECT], 9, _SPLITS, seeds=True)
    found = correlation_interval(_of_models(study, means), CORRECT, INCORRECT)
    panel.title("", f"ρ = {relation(found)}" if np.isfinite(found.rho) else "ρ undefined")
    gap = float((means[CORRECT] - means[INCORRECT]).mean())
    return Drawing(
        panel.scene,
        f"Mean AUROC of incorrectly against that of correctly classified ID samples, both against OOD, on equal axes; "
        f"the dotted line is equality. Correct samples are told from OOD data better by {number(gap)} points on "
        f"average. {said_of(found)}{of_seeds(study)}"
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def accuracy_of_splits(study: Results) -> Drawing:
    """Accuracy against both (Fig. 10)."""
    need_models(study, "Accuracy against the AUROC of correct and incorrect samples")
    means = {metric: study.means(metric).dropna() for metric in (CORRECT, INCORRECT)}
    drawn = cast(study)
    facts = drawn.mean(study.facts["accuracy"].reindex(means[CORRECT].index.union(means[INCORRECT].index)))
    across = span(facts, 4, trim=True)
    titles = {metric: LABELS[metric].removeprefix("AUROC, ") for metric in means}
    values = {metric: drawn.mean(series) for metric, series in means.items()}
    scene, panels = grid(
        list(titles.values()),
        2,
        160,
        across,
        span(np.concatenate(list(values.values())), 5),
        "Accuracy (%)",
        "Mean AUROC (%)",
    )
    found = {metric: between_models(study, "accuracy", metric) for metric in means}
    sure = firm(found)
    for metric, title in titles.items():
        baseline_lines(panels[title], study, facts, values[metric])
        points(panels[title], study, facts, values[metric], 8, ("Accuracy", "AUROC"), where=title)
        panels[title].title(title, short(found[metric]), faded=not sure[metric])
    return Drawing(
        scene,
        f"Mean AUROC of correctly (left) and incorrectly (right) classified ID samples against OOD, over the model's "
        f"accuracy.{of_means(study)} Spearman's ρ over {found[CORRECT].unit}: {relation(found[CORRECT])} for "
        f"correct, {relation(found[INCORRECT])} for incorrect samples.{outliers(across, facts, 'Accuracy')}"
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def splits_by_detector(study: Results) -> Drawing:
    """Fig. 5 per detector (Fig. 11)."""
    need_models(study, "Correct against incorrect samples per detector")
    good, bad = (cast(study).mean(study.means(metric, "detector")) for metric in (CORRECT, INCORRECT))
    both_known = (good * bad).notna().any()
    names = [d for d in study.detectors if both_known.get(d, False)]
    if not names:
        raise CannotSay("no detector has both the AUROC of correct and that of incorrect samples")
    both = span(np.concatenate([good[names].to_numpy().ravel(), bad[names].to_numpy().ravel()]), 4)
    cols = 2 if len(names) in (2, 4) else 3
    scene, panels = grid(names, cols, None, both, both, f"Mean {LABELS[CORRECT]} (%)", f"Mean {LABELS[INCORRECT]} (%)")
    gaps = {}
    for name, panel in panels.items():
        gaps[name] = float((good[name] - bad[name]).mean())
        _diagonal(panel)
        points(panel, study, good[name], bad[name], 7, _SPLITS, detector=name, where=name)
        panel.title(name, f"gap {number(gaps[name])}")
    most, least = max(gaps, key=gaps.__getitem__), min(gaps, key=gaps.__getitem__)
    spread = (
        f" It is widest for {most} ({number(gaps[most])} points) and narrowest for {least} ({number(gaps[least])})."
        if len(gaps) > 1
        else ""
    )
    return Drawing(
        scene,
        "Mean AUROC of incorrectly against that of correctly classified ID samples, per detector, on equal axes; the "
        f"dotted line is equality, the gap the mean distance from it in points.{of_means(study)}{spread}"
        f"{study.remark(CORRECT, INCORRECT)}",
    )


def _diagonal(panel: Panel) -> None:
    low, high = max(panel.x.low, panel.y.low), min(panel.x.high, panel.y.high)
    panel.line([low, high], [low, high], "soft", 1, dashed=True)


def _of_models(study: Results, means: pd.DataFrame) -> pd.DataFrame:
    """Means per model as a table that an analysis takes."""
    known = [c for c in ("recipe", "seed") if c in study.facts]
    return means.join(study.facts[known]).rename_axis("model").reset_index()
