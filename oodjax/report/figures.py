"""All figures in reading order, each with the paper's number where it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from oodjax.analysis import mean_ranks
from oodjax.report import figures_accuracy as accuracy
from oodjax.report import figures_beside as beside
from oodjax.report import figures_relations as relations
from oodjax.report import figures_scores as scores
from oodjax.report import figures_splits as splits
from oodjax.report import figures_spread as spread
from oodjax.report import figures_tests as tests
from oodjax.report.data import Results, shared_with_paper
from oodjax.report.figures_legend import legend
from oodjax.report.figures_recipes import recipe_differences
from oodjax.report.style import Drawing, cast

ANSWER, INSIDE, AMONG = "What to use", "Accuracy and detection", "Detectors"
FEATURE, BESIDE = "Inside the models", "Beside the paper"
SECTIONS = (ANSWER, INSIDE, AMONG, FEATURE, BESIDE)


class Entry(NamedTuple):
    """A figure that can be asked for: its file name, the paper's number, title, and what draws it or says why not."""

    key: str
    label: str
    title: str
    section: str
    draw: Callable[[Results], Drawing]


def entries(study: Results, detectors: Sequence[str] = ()) -> Iterator[Entry]:
    """The figures that suit the study in reading order; those of scores for the detectors named, or the best one.

    One model or recipe has neither a legend nor anything that compares models; architectures are compared where there
    are two.
    """
    several = len(cast(study).mark) > 1
    if several:
        yield _numbered(8, "detectors", "Detectors over models", ANSWER, spread.detector_spread)
        yield Entry("legend", "Legend", "Models and their marks", ANSWER, legend)
        yield Entry("fig-recipes", "Figure", "Recipes against the baseline", ANSWER, recipe_differences)
        yield _numbered(7, "ranks", "Mean ranks of the detectors", ANSWER, tests.ranks)
        yield from _of_accuracy(study)
        yield from _of_detectors(study)
    else:
        yield Entry("fig08-detectors", "Figure", "Detectors", ANSWER, spread.detector_spread)
    yield from _of_features(study, detectors or _leader(study), several)
    if several or shared_with_paper(study):
        for number, x, title in ((1, "accuracy", "Accuracy and AUROC"), (16, "ece", "Calibration and AUROC")):
            draw = partial(beside.beside_the_paper, x=x, y="auroc")
            yield Entry(
                f"fig{number:02d}-paper", f"{_paper(number)}, overlaid", f"{title} beside the paper's", BESIDE, draw
            )


def _of_accuracy(study: Results) -> Iterator[Entry]:
    overview, panel = accuracy.overview, accuracy.by_panel
    yield _numbered(1, "accuracy", "Accuracy and AUROC", INSIDE, partial(overview, x="accuracy", y="auroc"))
    title = "Accuracy and AUROC per OOD category"
    yield _numbered(2, "accuracy-ood", title, INSIDE, partial(panel, x="accuracy", y="auroc", by="ood_category"))
    title = "Accuracy and AUROC per detector"
    yield _numbered(3, "accuracy-detector", title, INSIDE, partial(panel, x="accuracy", y="auroc", by="detector"))
    yield _numbered(14, "correlations", "Rank correlations", INSIDE, relations.correlation_bars)
    yield _numbered(17, "correlation-table", "Correlations by training category", INSIDE, relations.correlation_matrix)
    yield _numbered(16, "ece", "Calibration and AUROC", INSIDE, partial(overview, x="ece", y="auroc"))
    yield _numbered(9, "accuracy-fpr95", "Accuracy and FPR95", INSIDE, partial(overview, x="accuracy", y="fpr95"))
    title = "Accuracy and FPR95 per detector"
    yield _numbered(13, "fpr95-detector", title, INSIDE, partial(panel, x="accuracy", y="fpr95", by="detector"))
    yield _numbered(5, "splits", "Correct and incorrect ID samples", INSIDE, splits.correct_against_incorrect)
    title = "Accuracy and AUROC of correct and incorrect ID samples"
    yield _numbered(10, "accuracy-splits", title, INSIDE, splits.accuracy_of_splits)
    title = "Correct and incorrect ID samples per detector"
    yield _numbered(11, "splits-detector", title, INSIDE, splits.splits_by_detector)
    if beside.architectures(study).nunique() > 1:
        yield _numbered(21, "architectures", "Architectures", INSIDE, beside.by_architecture)


def _of_detectors(study: Results) -> Iterator[Entry]:
    yield _numbered(6, "variance", "Where the variance comes from", AMONG, tests.variance_shares)
    yield _numbered(15, "detectors-ood", "Detectors per OOD category", AMONG, spread.detector_spread_by_category)
    title = "Four kinds of AUROC, three detectors"
    yield _numbered(4, "kinds", title, AMONG, partial(spread.four_kinds, everything=False))
    title = "Four kinds of AUROC, all detectors"
    yield _numbered(12, "kinds-all", title, AMONG, partial(spread.four_kinds, everything=True))
    if beside.architectures(study).nunique() > 1:
        title = "Detectors per architecture"
        yield _numbered(22, "architectures-detectors", title, AMONG, beside.detectors_by_architecture)


def _of_features(study: Results, detectors: Sequence[str], several: bool) -> Iterator[Entry]:
    for i, detector in enumerate(detectors):
        draw = partial(scores.roc_curves, detector=detector)
        yield Entry(f"fig-roc-{i + 1}", "Figure", f"ROC curves of {detector}", FEATURE, draw)
        draw = partial(scores.score_histograms, detector=detector)
        yield Entry(f"fig-scores-{i + 1}", "Figure", f"Scores of {detector}", FEATURE, draw)
    if several:
        yield _numbered(18, "feature-space", "Feature spaces", FEATURE, scores.feature_spaces)
    yield _numbered(19, "max-logit", "Largest logits", FEATURE, scores.max_logits)
    yield _numbered(20, "activations", "Activation profiles", FEATURE, scores.profiles)
    yield Entry("fig-embedding", "Figure", "Features in two dimensions", FEATURE, scores.embeddings)


def _numbered(number: int, name: str, title: str, section: str, draw: Callable[[Results], Drawing]) -> Entry:
    return Entry(f"fig{number:02d}-{name}", _paper(number), title, section, draw)


def _paper(number: int) -> str:
    return f"Paper’s Fig. {number}"


def _leader(study: Results) -> list[str]:
    """The detector with the best mean rank."""
    try:
        return [str(mean_ranks(study.measured("auroc"))["detector"].iloc[0])]
    except ValueError:
        return study.detectors[:1]
