"""Figures of merit of out-of-distribution scores, exact with ties.

Scores are higher for samples that look more in-distribution (ID). Every function of scores takes one detector,
`(n,)` and `(k,)`, and returns a float, or many at once, `(n, m)` and `(k, m)`, and returns `(m,)`. The computation is
in float64 on the host. What cannot be ranked (an empty set, NaN or infinite scores, unequal columns) is a ValueError.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Value: TypeAlias = float | Floats

RECALL = 0.95
COLUMNS = (
    "auroc",
    "aupr_in",
    "aupr_out",
    "fpr95",
    "fpr95_id",
    "auroc_correct_vs_ood",
    "auroc_incorrect_vs_ood",
    "auroc_correct_vs_incorrect",
)
"""The columns of a results table that `evaluate` fills."""


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> Value:
    """The chance that an ID sample scores above an OOD sample, ties counting half (Mann-Whitney midranks)."""
    return _per_column(lambda ood, id_: _auroc(ood, id_), id_scores, ood_scores)


def fpr95(id_scores: ArrayLike, ood_scores: ArrayLike) -> Value:
    """Share of ID samples flagged by the first threshold that flags at least 95 % of the OOD samples.

    OOD is the positive class, as in OpenOOD. Every distinct score is a threshold, that is scikit-learn's `roc_curve`
    with `drop_intermediate=False`; its default may skip thresholds inside runs of ties and then gives a higher rate.
    """
    return _per_column(lambda ood, id_: _false_positive_rate(ood, id_), id_scores, ood_scores)


def fpr95_id(id_scores: ArrayLike, ood_scores: ArrayLike) -> Value:
    """Share of OOD samples accepted by the first threshold that accepts at least 95 % of the ID samples."""
    return _per_column(lambda ood, id_: _false_positive_rate(_from_above(id_), _from_above(ood)), id_scores, ood_scores)


def aupr_in(id_scores: ArrayLike, ood_scores: ArrayLike) -> Value:
    """Area under the precision-recall curve with ID as the positive class, by the trapezoidal rule.

    The curve is scikit-learn's `precision_recall_curve`, its area `sklearn.metrics.auc`; not the average precision.
    """
    return _per_column(lambda ood, id_: _aupr(_from_above(id_), _from_above(ood)), id_scores, ood_scores)


def aupr_out(id_scores: ArrayLike, ood_scores: ArrayLike) -> Value:
    """Area under the precision-recall curve with OOD as the positive class; see `aupr_in`."""
    return _per_column(lambda ood, id_: _aupr(ood, id_), id_scores, ood_scores)


def split_auroc(id_scores: ArrayLike, correct: ArrayLike, ood_scores: ArrayLike) -> dict[str, Value]:
    """AUROC of correctly and of incorrectly classified ID samples against OOD, and against each other.

    Args:
      id_scores: `(n,)` or `(n, m)`.
      correct: `(n,)`, true where the model's prediction was right; the same for every detector.
      ood_scores: `(k,)` or `(k, m)`.

    Returns:
      `auroc_correct_vs_ood`, `auroc_incorrect_vs_ood` and `auroc_correct_vs_incorrect` (correct samples should score
      higher). A value is NaN where one of its sides is empty: the model made no mistake, or nothing but mistakes.
    """
    values = evaluate(id_scores, ood_scores, correct)
    return {name: value for name, value in values.items() if name.startswith("auroc_")}


def evaluate(id_scores: ArrayLike, ood_scores: ArrayLike, correct: ArrayLike) -> dict[str, Value]:
    """Every metric of `COLUMNS` for one pair of ID and OOD sets, from one sort per detector.

    Args and NaN rule as in `split_auroc`.

    Returns:
      One entry per name in `COLUMNS`, each a float or `(m,)`.
    """
    inside, outside, single = _checked(id_scores, ood_scores)
    right = _checked_correct(correct, len(inside))
    rows = []
    for column in range(inside.shape[1]):
        ood, good, bad = _cumulative(outside[:, column], inside[right, column], inside[~right, column])
        id_ = good + bad
        id_above, ood_above = _from_above(id_), _from_above(ood)
        rows.append(
            (
                _auroc(ood, id_),
                _aupr(id_above, ood_above),
                _aupr(ood, id_),
                _false_positive_rate(ood, id_),
                _false_positive_rate(id_above, ood_above),
                _auroc(ood, good),
                _auroc(ood, bad),
                _auroc(bad, good),
            )
        )
    values = np.asarray(rows, np.float64).reshape(-1, len(COLUMNS)).T
    return {name: float(v[0]) if single else v for name, v in zip(COLUMNS, values, strict=True)}


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples whose largest logit is the label's; `logits` `(n, c)`, `labels` `(n,)` in 0 to c - 1."""
    logits, labels = _checked_logits(logits, labels)
    return float(np.mean(logits.argmax(-1) == labels))


def ece(probs_or_logits: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over equal-width bins, as a fraction.

    Guo et al. 2017 (arXiv 1706.04599), equation 3. Bins are open below and closed above, on the confidence (the largest
    probability).

    Args:
      probs_or_logits: `(n, c)`. Taken as probabilities if no entry is negative and every row sums to 1 within 1e-3,
        otherwise as logits, which go through a softmax.
      labels: `(n,)` class indices in 0 to c - 1.
      bins: how many bins divide the range 0 to 1.
    """
    values, labels = _checked_logits(probs_or_logits, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if values.min() < 0 or np.abs(values.sum(-1) - 1).max() > 1e-3:
        values = np.exp(values - values.max(-1, keepdims=True))
        values /= values.sum(-1, keepdims=True)
    confidence = np.minimum(values.max(-1), 1.0)
    gap = (values.argmax(-1) == labels) - confidence
    index = np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left")
    return float(np.abs(np.bincount(index, gap)).sum() / len(labels))


def _per_column(metric: Callable[[Counts, Counts], float], id_scores: ArrayLike, ood_scores: ArrayLike) -> Value:
    inside, outside, single = _checked(id_scores, ood_scores)
    columns = zip(outside.T, inside.T, strict=True)
    values = np.asarray([metric(*_cumulative(ood, id_)) for ood, id_ in columns], np.float64)
    return float(values[0]) if single else values


def _cumulative(*groups: Floats) -> list[Counts]:
    """Per group, how many of its scores lie at or below each distinct score of all groups, after a leading zero."""
    scores = np.concatenate(groups)
    order = np.argsort(scores)
    scores = scores[order]
    last_of_ties = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    member = np.repeat(np.arange(len(groups), dtype=np.int8), [len(g) for g in groups])[order]
    counts = (np.cumsum(member == g, dtype=np.int64)[last_of_ties] for g in range(len(groups)))
    return [np.append(np.int64(0), c) for c in counts]


def _from_above(cumulative: Counts) -> Counts:
    return cumulative[-1] - cumulative[::-1]


def _auroc(low: Counts, high: Counts) -> float:
    """Trapezoids in whole numbers, so that exchanging the sets gives one minus the value."""
    pairs = int(low[-1]) * int(high[-1])
    if pairs == 0:
        return float("nan")
    twice = int(np.dot(np.diff(high), low[1:] + low[:-1]))
    return twice / (2 * pairs)


def _false_positive_rate(positive: Counts, negative: Counts) -> float:
    first = np.argmax(positive / positive[-1] >= RECALL)
    return float(negative[first] / negative[-1])


def _aupr(positive: Counts, negative: Counts) -> float:
    recall = positive / positive[-1]
    precision = np.append(1.0, positive[1:] / (positive[1:] + negative[1:]))
    return float(np.dot(np.diff(recall), precision[1:] + precision[:-1]) / 2)


def _checked(id_scores: ArrayLike, ood_scores: ArrayLike) -> tuple[Floats, Floats, bool]:
    inside, outside = np.asarray(id_scores, np.float64), np.asarray(ood_scores, np.float64)
    for name, scores in (("id_scores", inside), ("ood_scores", outside)):
        if scores.ndim not in (1, 2):
            raise ValueError(f"{name} must be (n,) or (n, m), got shape {scores.shape}")
        if len(scores) == 0:
            raise ValueError(f"{name} is empty, shape {scores.shape}")
        bad = scores.size - np.count_nonzero(np.isfinite(scores))
        if bad:
            raise ValueError(f"{name} has {bad} of {scores.size} values that are NaN or infinite")
    if inside.shape[1:] != outside.shape[1:]:
        raise ValueError(f"id_scores and ood_scores need the same columns, got {inside.shape} and {outside.shape}")
    single = inside.ndim == 1
    return (inside[:, None], outside[:, None], True) if single else (inside, outside, False)


def _checked_correct(correct: ArrayLike, n: int) -> NDArray[np.bool_]:
    values = np.asarray(correct)
    if values.shape != (n,):
        raise ValueError(f"correct must be ({n},) like id_scores, got shape {values.shape}")
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"correct must hold true or false, got {values.dtype} with other values")
    return values.astype(bool)


def _checked_logits(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.integer]]:
    values, classes = np.asarray(logits, np.float64), np.asarray(labels)
    if values.ndim != 2 or values.size == 0 or classes.shape != values.shape[:1]:
        raise ValueError(f"expected logits (n, c) and labels (n,), n >= 1, got {values.shape} and {classes.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"logits have {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= values.shape[1]:
        raise ValueError(
            f"labels must be integers in 0 to {values.shape[1] - 1}, got {classes.dtype} with "
            f"values from {classes.min()} to {classes.max()}"
        )
    return values, classes
