"""The page's tables: what they show, and the CSV files behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from oodjax.analysis import anova, leave_one_category_out, mean_ranks, robustness, share_intervals
from oodjax.report import figures_scores
from oodjax.report.data import CannotSay, Results, paper, shared_with_paper
from oodjax.report.figures_tests import correlations, term_name
from oodjax.report.heat import warmth
from oodjax.report.style import LABELS, cast
from oodjax.report.tables_recipes import recipes, replicated, shown
from oodjax.report.wording import number

_NAMES = ("model", "recipe", "category", "detector")


class Cell(NamedTuple):
    """What a cell shows, and what it is sorted by (empty: last)."""

    text: str
    key: str
    heat: str = ""


class Column(NamedTuple):
    """A column of a table on the page: its heading, and the digits of its numbers (None for text)."""

    source: str
    heading: str
    digits: int | None = None
    scale: float = 1.0


class View(NamedTuple):
    """A table ready for the page; `names` says of each row which model, recipe, category or detector it is of."""

    key: str
    title: str
    note: str
    headings: list[tuple[str, bool]]
    rows: list[list[Cell]]
    names: list[dict[str, str]]
    frame: pd.DataFrame


class Entry(NamedTuple):
    """A table that can be asked for."""

    key: str
    title: str
    make: Callable[[], View]


def entries(study: Results) -> Iterator[Entry]:
    """Every table that suits the study; of one model none that compares models."""
    if replicated(study):
        yield Entry("recipes", "Recipes", lambda: _recipes(study))
    yield Entry("models", "Models", lambda: _models(study))
    if len(study.models) > 1:
        yield from _of_several(study)
    yield Entry("feature-space", "Feature spaces", lambda: _features(study.feature_measures))
    if shared_with_paper(study):
        yield Entry("paper", "Differences from the paper", lambda: _paper(study))


def _of_several(study: Results) -> Iterator[Entry]:
    yield Entry("detectors", "Detectors", lambda: _detectors(study))
    per = "recipe" if replicated(study) else "model"
    yield Entry("model-detector", f"Mean AUROC per {per} and detector", lambda: _matrix(study))
    yield Entry("anova", "Analysis of variance of AUROC", lambda: _anova(study))
    yield Entry("anova-categories", "Shares of variance without one OOD category", lambda: _leave_out(study))
    yield Entry("correlations", "Spearman's rank correlations", lambda: _correlations(study))


def _view(key: str, title: str, note: str, frame: pd.DataFrame, columns: Sequence[Column]) -> View:
    cells = [[_cell(row[c.source], c) for c in columns] for row in frame.to_dict("records")]
    headings = [(c.heading, c.digits is not None) for c in columns]
    return View(key, title, note, headings, cells, _row_names(frame), frame)


def with_recipes(study: Results, view: View) -> View:
    """The table, each row of a model also under the names of its recipe and its training category."""

    def complete(names: dict[str, str]) -> dict[str, str]:
        if "model" not in names:
            category = cast(study).category.get(names.get("recipe", ""))
            return {**names, "category": category} if category else names
        facts = study.facts.loc[names["model"]]
        return {**names, "recipe": str(facts.get("recipe", names["model"])), "category": str(facts["category"])}

    return view._replace(names=[complete(names) for names in view.names])


def _row_names(frame: pd.DataFrame) -> list[dict[str, str]]:
    named = frame.reindex(columns=[c for c in _NAMES if c in frame])
    if not {"model", "recipe", "detector"} & set(named):
        return [{} for _ in range(len(frame))]
    return [{str(k): str(v) for k, v in row.items()} for row in named.to_dict("records")]


def _cell(value: object, column: Column) -> Cell:
    if column.digits is None:
        text = "" if value is None or value is np.nan else str(value)
        return Cell(text or "–", text)
    figure = float(value) * column.scale  # type: ignore[arg-type]
    if not np.isfinite(figure):
        return Cell("–", "")
    small = column.heading == "p" and figure < 0.001
    return Cell("< 0.001" if small else number(figure, column.digits), repr(figure))


def _recipes(study: Results) -> View:
    frame = recipes(study)
    page, columns, note = shown(frame, study.baseline)
    view = _view("recipes", "Recipes", note, page, [Column(*column) for column in columns])
    return view._replace(frame=frame)


def _models(study: Results) -> View:
    frame = study.facts.loc[study.models, ["model", "category", "accuracy", "ece"]].copy()
    columns = [
        Column("model", "Model"),
        Column("category", "Category"),
        Column("accuracy", "Accuracy", 2),
        Column("ece", "ECE", 2),
    ]
    remarks = ""
    for metric in ("auroc", "fpr95"):
        try:
            groups = study.measured(metric).groupby("model")[metric]
        except CannotSay as error:
            remarks += f" No {metric}: {error}."
            continue
        frame[metric], frame[f"{metric}_std"] = groups.mean(), groups.std(ddof=0)
        columns += [Column(metric, LABELS[metric], 2), Column(f"{metric}_std", f"{LABELS[metric]} std", 2)]
        remarks += study.remark(metric)
    note = f"Percent; means and standard deviations (n) over detectors and sets.{remarks}"
    return _view("models", "Models", note, frame, columns)


def _detectors(study: Results) -> View:
    rows = study.measured("auroc")
    frame = robustness(rows, baseline=study.baseline if study.baseline in set(rows["model"]) else None)
    frame = frame.merge(mean_ranks(rows), on="detector", how="left")
    columns = [
        Column("detector", "Detector"),
        Column("mean", "Mean", 2),
        Column("std", "Std", 2),
        Column("best", "Best", 2),
        Column("best_model", "with"),
        Column("worst", "Worst", 2),
        Column("worst_model", "with"),
        Column("change", "From baseline", 2),
        Column("change_std", "Std", 2),
        Column("mean_rank", "Mean rank", 2),
        Column("ci_low", "95 % from", 2),
        Column("ci_high", "to", 2),
    ]
    if "detector_family" in study.results:
        families = study.results.drop_duplicates("detector").set_index("detector")["detector_family"]
        frame.insert(1, "detector_family", frame["detector"].map(families))
        columns.insert(1, Column("detector_family", "Family"))
    note = "AUROC in percent, mean over sets for each model, compared over models; the best worst case first. "
    note += "From baseline: mean change of the other models from the baseline, and its standard deviation (n − 1)."
    return _view("detectors", "Detectors", note + study.remark("auroc"), frame, columns)


def _matrix(study: Results) -> View:
    means = study.means("auroc", "detector").reindex(study.models).dropna(how="all")
    order = means.mean().sort_values(ascending=False, kind="stable").index
    key, unit = "model", "Percent, mean over sets"
    if replicated(study):
        key, unit = "recipe", "Percent, mean over seeds and sets"
        means = means.groupby(study.facts["recipe"].reindex(means.index), sort=False).mean()
    frame = means[order].rename_axis(columns=None).rename_axis(key).reset_index()
    columns = [Column(key, key.capitalize()), *(Column(d, d, 1) for d in order)]
    note = f"{unit}; best detector first.{study.remark('auroc')}"
    view = _view("model-detector", f"Mean AUROC per {key} and detector", note, frame, columns)
    return view._replace(rows=[[row[0], *(_warm(cell) for cell in row[1:])] for row in view.rows])


def _warm(cell: Cell) -> Cell:
    return cell._replace(heat=warmth("auroc", float(cell.key))) if cell.key else cell


def _anova(study: Results) -> View:
    rows = study.measured("auroc")
    factors = ["recipe" if "recipe" in rows else "model", "detector", "ood_category"]
    frame, intervals = anova(rows, factors=factors), share_intervals(rows, factors=factors)
    frame = frame.assign(low=intervals["low"], high=intervals["high"])
    shown = frame.assign(term=frame["term"].map(term_name))
    columns = [
        Column("term", "Term"),
        Column("df", "df", 0),
        Column("sum_sq", "Sum of squares", 0),
        Column("F", "F", 2),
        Column("p", "p", 3),
        Column("share", "Share (%)", 2, 100),
        Column("low", "95 % from", 2, 100),
        Column("high", "to", 2, 100),
    ]
    note = f"AUROC in percent; the sets of an OOD category are the replicates. {len(rows):,} rows"
    note += "." if frame.attrs["design"] == "proportional" else ", unbalanced: sums of squares of type II."
    note += f" Intervals of shares from leaving out {intervals.attrs['unit']} in turn; F and p take rows as "
    note += "independent, which they are not."
    return _view("anova", "Analysis of variance of AUROC", note, shown, columns)


def _leave_out(study: Results) -> View:
    frame = leave_one_category_out(study.measured("auroc"))
    frame["term"] = frame["term"].map(term_name)
    columns = [Column("term", "Term"), *(Column(c, c, 2, 100) for c in frame.columns[1:])]
    return _view(
        "anova-categories",
        "Shares of variance without one OOD category",
        "Shares of the variance of AUROC, in percent.",
        frame,
        columns,
    )


def _correlations(study: Results) -> View:
    frame = correlations(study)
    shown = frame.assign(
        x=frame["x"].map(LABELS),
        y=frame["y"].map(LABELS),
        subset=frame["subset"].str.replace("ood_category", "OOD category").str.replace("model_category", "training"),
    )
    columns = [
        Column("x", "Of"),
        Column("y", "with"),
        Column("subset", "Part"),
        Column("group", "Group"),
        Column("rho_models", "ρ", 2),
        Column("low", "95 % from", 2),
        Column("high", "to", 2),
        Column("p_models", "p", 3),
        Column("p_holm", "p, corrected", 3),
        Column("models", "Models", 0),
        Column("rho", "ρ over rows", 2),
        Column("p", "its p", 3),
        Column("n", "Rows", 0),
        Column("reason", "Remark"),
    ]
    note = "One value per model (or recipe); intervals from resampling them, p from permuting them, corrected by Holm "
    note += (
        "for the groups of one part. ρ over rows is the paper's; its p takes rows as independent, which they are not."
    )
    return _view("correlations", "Spearman's rank correlations", note, shown, columns)


def _features(table: pd.DataFrame) -> View:
    frame = table.rename_axis("model").reset_index()
    digits = {"sparsity": 3}
    columns = [Column("model", "Model")]
    columns += [Column(c, label.capitalize(), digits.get(c, 2)) for c, label in figures_scores.MEASURES.items()]
    return _view("feature-space", "Feature spaces", "Of the last features on the ID test set.", frame, columns)


def _paper(study: Results) -> View:
    published = paper()
    theirs = published.set_index("id")
    both = shared_with_paper(study)
    ours = study.facts.loc[both, ["accuracy", "ece"]].copy()
    for metric in ("auroc", "fpr95"):
        ours[metric] = study.means(metric).reindex(both) if metric in study.results else np.nan
    frame, columns = pd.DataFrame({"model": both}), [Column("model", "Model")]
    for name in ("accuracy", "ece", "auroc", "fpr95"):
        frame[name] = ours[name].to_numpy()
        frame[f"{name}_paper"] = theirs.loc[both, name].to_numpy(np.float64)
        frame[f"{name}_difference"] = frame[name] - frame[f"{name}_paper"]
        columns += [
            Column(name, LABELS[name], 2),
            Column(f"{name}_paper", "paper", 2),
            Column(f"{name}_difference", "difference", 2),
        ]
    note = "Percent and points, for checkpoints present in both; a difference is this study minus the paper."
    return _view("paper", "Differences from the paper", note, frame, columns)
