"""All figures in the page's order, each with the paper's number where it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from oodjax.analysis import mean_ranks
from oodjax.report import figures_accuracy as accuracy
from oodjax.report import figures_scores as scores
from oodjax.report import figures_spread as spread
from oodjax.report import figures_tests as tests
from oodjax.report.data import Results
from oodjax.report.style import Drawing


class Entry(NamedTuple):
    """A figure that can be asked for: its file name, number and title, and what draws it (or says why it cannot)."""

    key: str
    label: str
    title: str
    section: str
    draw: Callable[[Results], Drawing]


def entries(study: Results, detectors: Sequence[str] = ()) -> Iterator[Entry]:
    """Every figure of the study, those of scores for the detectors named (by default the one with the best rank)."""
    overview, panel = accuracy.overview, accuracy.by_panel
    inside, among = "Accuracy and detection", "Detectors"
    feature, beside = "Inside the models", "Beside the paper"

    def numbered(number: int, name: str, title: str, section: str, draw: Callable[[Results], Drawing]) -> Entry:
        return Entry(f"fig{number:02d}-{name}", f"Fig. {number}", title, section, draw)

    yield numbered(1, "accuracy", "Accuracy and AUROC", inside, partial(overview, x="accuracy", y="auroc"))
    yield numbered(
        2,
        "accuracy-ood",
        "Accuracy and AUROC per OOD category",
        inside,
        partial(panel, x="accuracy", y="auroc", by="ood_category"),
    )
    yield numbered(
        3,
        "accuracy-detector",
        "Accuracy and AUROC per detector",
        inside,
        partial(panel, x="accuracy", y="auroc", by="detector"),
    )
    yield numbered(
        4, "kinds", "Four kinds of AUROC, three detectors", among, partial(spread.four_kinds, everything=False)
    )
    yield numbered(5, "splits", "Correct and incorrect ID samples", inside, accuracy.correct_against_incorrect)
    yield numbered(6, "variance", "Where the variance comes from", among, tests.variance_shares)
    yield numbered(7, "ranks", "Mean ranks of the detectors", among, tests.ranks)
    yield numbered(8, "detectors", "Detectors over models", among, spread.detector_spread)
    yield numbered(9, "accuracy-fpr95", "Accuracy and FPR95", inside, partial(overview, x="accuracy", y="fpr95"))
    yield numbered(
        10,
        "accuracy-splits",
        "Accuracy and AUROC of correct and incorrect ID samples",
        inside,
        accuracy.accuracy_of_splits,
    )
    yield numbered(
        11, "splits-detector", "Correct and incorrect ID samples per detector", inside, accuracy.splits_by_detector
    )
    yield numbered(
        12, "kinds-all", "Four kinds of AUROC, all detectors", among, partial(spread.four_kinds, everything=True)
    )
    yield numbered(
        13,
        "fpr95-detector",
        "Accuracy and FPR95 per detector",
        inside,
        partial(panel, x="accuracy", y="fpr95", by="detector"),
    )
    yield numbered(14, "correlations", "Rank correlations", inside, tests.correlation_bars)
    yield numbered(15, "detectors-ood", "Detectors per OOD category", among, spread.detector_spread_by_category)
    yield numbered(16, "ece", "Calibration and AUROC", inside, partial(overview, x="ece", y="auroc"))
    yield numbered(17, "correlation-table", "Correlations by training category", inside, tests.correlation_matrix)
    yield numbered(18, "feature-space", "Feature spaces", feature, scores.feature_spaces)
    yield numbered(19, "max-logit", "Largest logits", feature, scores.max_logits)
    yield numbered(20, "activations", "Activation profiles", feature, scores.profiles)
    yield Entry("fig-embedding", "Figure", "Features in two dimensions", feature, scores.embeddings)
    yield numbered(21, "architectures", "Architectures", inside, accuracy.by_architecture)
    yield numbered(
        22, "architectures-detectors", "Detectors per architecture", among, accuracy.detectors_by_architecture
    )
    for i, detector in enumerate(detectors or _leader(study)):
        yield Entry(
            f"fig-roc-{i + 1}",
            "Figure",
            f"ROC curves of {detector}",
            feature,
            partial(scores.roc_curves, detector=detector),
        )
        yield Entry(
            f"fig-scores-{i + 1}",
            "Figure",
            f"Scores of {detector}",
            feature,
            partial(scores.score_histograms, detector=detector),
        )
    yield Entry(
        "fig01-paper",
        "Fig. 1, overlaid",
        "Accuracy and AUROC beside the paper's",
        beside,
        partial(accuracy.beside_the_paper, x="accuracy", y="auroc"),
    )
    yield Entry(
        "fig16-paper",
        "Fig. 16, overlaid",
        "Calibration and AUROC beside the paper's",
        beside,
        partial(accuracy.beside_the_paper, x="ece", y="auroc"),
    )


SECTIONS = ("Accuracy and detection", "Detectors", "Inside the models", "Beside the paper")


def _leader(study: Results) -> list[str]:
    try:
        return [str(mean_ranks(study.complete("auroc"))["detector"].iloc[0])]
    except ValueError:
        return study.detectors[:1]
