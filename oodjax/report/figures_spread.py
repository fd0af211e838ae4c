"""Distributions over models and sets: box plots of the AUROC kinds, per detector and per OOD category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from oodjax.analysis import mean_interval
from oodjax.report.data import CannotSay, Results, join
from oodjax.report.figures_relations import need_models
from oodjax.report.leaderboard import Leaders
from oodjax.report.panels import Panel, boxplot, grid, interval, key, lanes, rows, span
from oodjax.report.scene import Mark, Tag
from oodjax.report.style import SHAPES, Drawing, cast, colour_of, tag
from oodjax.report.wording import count, number

KINDS = {
    "auroc": ("ID vs OOD", "soft"),
    "auroc_correct_vs_ood": ("correct vs OOD", "id"),
    "auroc_incorrect_vs_ood": ("incorrect vs OOD", "grid"),
    "auroc_correct_vs_incorrect": ("correct vs incorrect", "paper"),
}
TELLING = ("msp", "knn", "gram")


def four_kinds(study: Results, everything: bool) -> Drawing:
    """Box plots of the four AUROC kinds, for three detectors (Fig. 4) or all of them (Fig. 12)."""
    means = {k: study.means(k, "detector") for k in KINDS if k in study.results and study.results[k].notna().any()}
    if "auroc" not in means or len(means) < 2:
        raise CannotSay("results.csv holds no AUROC of correctly or incorrectly classified samples")
    need_models(study, "A box plot over models")
    known = [d for d in study.detectors if all(d in table for table in means.values())]
    if not known:
        raise CannotSay("no detector has all kinds of AUROC for every model")
    detectors = known if everything else _three(known, means["auroc"])
    shown = np.concatenate([table[detectors].to_numpy().ravel() for table in means.values()])
    scene, panels = grid(
        detectors, 3, 62, span(shown, 3), lanes([KINDS[k][0] for k in means]), "Mean AUROC over OOD sets (%)"
    )
    for detector, panel in panels.items():
        for r, (kind, table) in enumerate(means.items()):
            boxplot(panel, r, table[detector].dropna().to_numpy(), KINDS[kind][1], 0.62)
        panel.title(detector)
    medians = {d: {k: float(t[d].median()) for k, t in means.items()} for d in detectors}
    said = "; ".join(
        f"{d}: {', '.join(f'{KINDS[k][0]} {number(v)}' for k, v in m.items())}" for d, m in list(medians.items())[:3]
    )
    which = "the first three" if everything and len(detectors) > 3 else "these"
    return Drawing(
        scene,
        f"Distribution of four kinds of AUROC over {count(len(means['auroc']), 'model')}. Boxes hold the middle half, "
        f"whiskers reach to 1.5 times its width, points lie beyond. Medians of {which}: {said}.{study.remark(*means)}",
    )


def detector_spread(study: Results) -> Drawing:
    """Each detector over all models, best mean first (Fig. 8); of a single model, over its data sets."""
    means = study.means("auroc", "detector")
    if len(means) == 1:
        return _leaderboard(study)
    found = _intervals(study)
    order = found.index
    drawn = cast(study)
    shown = [m for m in study.models if m in means.index]
    scene, (panel,) = rows(
        list(order), [span(means.to_numpy().ravel(), 6, pad=0.03)], 22, "Mean AUROC over OOD sets (%)"
    )
    shifts = np.linspace(-0.36, 0.36, len(shown))
    base = means.loc[[m for m in shown if drawn.of[m] == drawn.baseline]]
    for r, detector in enumerate(order):
        for model, shift in zip(shown, shifts, strict=True):
            value = float(means.at[model, detector])
            said = tag(study, model, f"{model}, {detector}: AUROC {number(value)}", detector=str(detector))
            mark = drawn.mark[drawn.of[model]]
            panel.dot(value, r + shift, mark, 6 if len(shown) <= 20 else 4.5, opacity=0.8, tag=said)
        if len(base):
            panel.line([float(base[detector].mean())] * 2, [r - 0.45, r + 0.45], "ink", 1.2)
        _mean_mark(panel, r, found.loc[detector])
    key(scene, [(c, Mark(role)) for c, role in colour_of(study).items()])
    width = (means.max() - means.min()).sort_values(kind="stable")
    text = (
        f"AUROC of each detector, mean over OOD sets, for {count(len(shown), 'model')}; best mean (diamond) first"
        f"{_unit(found)}. {_lead(found)}"
    )
    if len(base):
        beaten = int((base.mean() > means.median()).sum())
        text += f" The bar marks {drawn.baseline}, above the median model with {beaten} of {len(order)} detectors."
    if len(width) > 1:
        text += (
            f" {width.index[0]} moves least between models ({number(width.iloc[0])} points from worst to best), "
            f"{width.index[-1]} most ({number(width.iloc[-1])})."
        )
    return Drawing(scene, text + study.remark("auroc"))


def _leaderboard(study: Results) -> Drawing:
    """The detectors of one model: their mean over data sets, and each set."""
    table = study.measured("auroc")
    model = str(table["model"].iloc[0])
    found = _of_images(study, model)
    hues = {c: Mark(f"hue-{i % 10 + 1}", SHAPES[i % len(SHAPES)]) for i, c in enumerate(study.ood_categories)}
    shifts = dict(zip(hues, np.linspace(-0.27, 0.27, len(hues)) if len(hues) > 1 else [0.0], strict=True))
    scene, (panel,) = rows(list(found.index), [span(table["auroc"], 6, pad=0.03)], 22, "AUROC (%)")
    at = {detector: r for r, detector in enumerate(found.index)}
    for row in table.itertuples():
        said = f"{row.detector} on {row.dataset}: AUROC {number(row.auroc)}"
        spot = tag(study, model, said, detector=str(row.detector), dataset=str(row.dataset))
        panel.dot(
            row.auroc, at[row.detector] + shifts[row.ood_category], hues[row.ood_category], 7, opacity=0.75, tag=spot
        )
    for detector, row in found.iterrows():
        _mean_mark(panel, at[detector], row)
    key(scene, list(hues.items()))
    return Drawing(
        scene,
        f"AUROC of each detector with {model} on {count(table['dataset'].nunique(), 'OOD set')}, a point per set; best "
        f"mean (diamond) first{_unit(found)}. {_lead(found)}{study.remark('auroc')}",
    )


def _intervals(study: Results) -> pd.DataFrame:
    """Detector -> mean AUROC with its interval, best first."""
    table = mean_interval(study.measured("auroc"), by="detector").set_index("detector")
    return table.sort_values("mean", ascending=False, kind="stable")


def _of_images(study: Results, model: str) -> pd.DataFrame:
    """The same for one model: intervals are over images where their scores are kept, over sets elsewhere."""
    found, leaders = _intervals(study), Leaders(study, model)
    limits = [leaders.interval(str(d)) for d in found.index]
    if None not in limits:
        found[["low", "high"]] = limits
        found["unit"] = "images"
    return found


def _mean_mark(panel: Panel, at: float, row: pd.Series) -> None:
    interval(panel, at, row["low"], row["high"], "ood", 3)
    said = f"{row.name}: mean AUROC {number(row['mean'])}{_between(row)}"
    panel.dot(row["mean"], at, Mark("ood", "D"), 8, tag=Tag(said, detector=str(row.name)))


def _between(row: pd.Series) -> str:
    return f" ({number(row['low'])} to {number(row['high'])})" if np.isfinite(row["low"]) else ""


def _lead(found: pd.DataFrame) -> str:
    first = found.iloc[0]
    text = f"{first.name} leads with {number(first['mean'])}{_between(first)}"
    if len(found) > 1:
        second = found.iloc[1]
        text += f", then {second.name} with {number(second['mean'])}{_between(second)}"
    return f"{text}."


def _unit(found: pd.DataFrame) -> str:
    """What its intervals come from."""
    known = found[found["low"].notna()]
    return f", with its 95 % interval from resampling {known['unit'].iloc[0]}" if len(known) else ""


def detector_spread_by_category(study: Results) -> Drawing:
    """Box plots over models and sets of each OOD category (Fig. 15)."""
    table = study.measured("auroc")
    need_models(study, "A box plot over models")
    drawn = cast(study)
    categories = [c for c in study.ood_categories if c in set(table["ood_category"])]
    order = table.groupby("detector", sort=False)["auroc"].median().sort_values(ascending=False, kind="stable").index
    scene, panels = grid(
        categories, 2, 15.0 * len(order), span(table["auroc"], 4), lanes(list(order), 110), "AUROC (%)"
    )
    said = []
    for category, panel in panels.items():
        part = table[table["ood_category"] == category]
        groups = part.groupby("detector", sort=False)["auroc"]
        base = part[part["model"].map(drawn.of) == drawn.baseline].groupby("detector")["auroc"].mean()
        for r, detector in enumerate(order):
            if detector in groups.groups:
                boxplot(panel, r, groups.get_group(detector).to_numpy(), "wash", 0.66)
            if detector in base.index:
                panel.dot(float(base[detector]), r, Mark("ink", "D"), 5)
        medians = groups.median()
        panel.title(category, f"median {number(part['auroc'].median())}")
        best = f", best {medians.idxmax()} {number(medians.max())}" if len(medians) > 1 else ""
        said.append(f"{category} {number(part['auroc'].median())}{best}")
    base_text = f" Diamonds: mean of {drawn.baseline}." if drawn.baseline else ""
    return Drawing(
        scene,
        f"AUROC per detector and OOD category over models and sets.{base_text} Medians: {join(said, 9)}."
        f"{study.remark('auroc')}",
    )


def _three(detectors: Sequence[str], auroc: pd.DataFrame) -> list[str]:
    """The paper's three where they are, otherwise the best, the median and the worst on average."""
    if all(d in detectors for d in TELLING):
        return list(TELLING)
    order = auroc[list(detectors)].mean().sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
