"""Figures of merit of out-of-distribution scores, exact with ties.

Scores are higher for samples that look more in-distribution (ID). Every function of scores takes one detector,
`(n,)` and `(k,)`, and returns a float, or many at once, `(n, m)` and `(k, m)`, and returns `(m,)`. The computation is
in float64 on the host. What cannot be ranked (an empty set, NaN or infinite scores, unequal columns) is a ValueError.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from oodjax.arrays import class_indices, describe, host_array, is_whole

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Value: TypeAlias = float | Floats

RECALL = 0.95
MOST_BINS = 1_000_000
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
    values, classes = _checked_logits(logits, labels, "logits")
    return float(np.mean(values.argmax(-1) == classes))


def ece(
    values: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    bins: int = 15,
    *,
    logits: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over equal-width bins, as a fraction.

    Guo et al. 2017 (arXiv 1706.04599), equation 3. Bins are open below and closed above, on the confidence (the largest
    probability).

    Args:
      values: `(n, c)` that are plainly one or the other: logits with an entry outside 0 to 1, or probabilities whose
        rows sum to 1 within 1e-3. All else, such as probabilities in few digits, is refused: name it instead.
      labels: `(n,)` class indices in 0 to c - 1.
      bins: how many bins divide the range 0 to 1.
      logits: `(n, c)` instead of `values`; they go through a softmax.
      probabilities: `(n, c)` instead of `values`; in 0 to 1, with rows that sum to 1 up to three decimals an entry.
    """
    given = {"values": values, "logits": logits, "probabilities": probabilities}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1 or labels is None:
        raise TypeError(f"ece takes one of logits= and probabilities=, and labels; got {', '.join(names) or 'neither'}")
    (name,) = names
    p, classes = _checked_logits(given[name], labels, name)
    if not is_whole(bins) or not 1 <= bins <= MOST_BINS:
        raise ValueError(f"bins must be at least 1 and whole, and at most {MOST_BINS}, got {describe(bins)}")
    if name == "probabilities":
        _check_probabilities(p)
    elif name == "logits" or _are_logits(p):
        p = softmax(p, axis=-1)
    confidence = np.minimum(p.max(-1), 1.0)
    gap = (p.argmax(-1) == classes) - confidence
    index = np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left")
    return float(np.abs(np.bincount(index, gap)).sum() / len(classes))


def _are_logits(values: Floats) -> bool:
    if values.min() < 0 or values.max() > 1:
        return True
    sums = values.sum(-1)
    if np.abs(sums - 1).max() <= 1e-3:
        return False
    raise ValueError(
        f"ece: values lie in 0 to 1 but their rows sum to {sums.min():.4g} to {sums.max():.4g}: say what they are, "
        "ece(logits=..., labels=...) or ece(probabilities=..., labels=...)"
    )


def _check_probabilities(values: Floats) -> None:
    off = np.abs(values.sum(-1) - 1).max()
    if values.min() < 0 or values.max() > 1 + 1e-2 or off > max(1e-2, 5e-4 * values.shape[1]):
        raise ValueError(
            f"ece: probabilities must lie in 0 to 1 and sum to 1 in each row, got {values.min():.4g} to "
            f"{values.max():.4g} with sums off by up to {off:.4g}; pass logits=... where they are logits"
        )


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
    inside, outside = (host_array(x, n) for x, n in ((id_scores, "id_scores"), (ood_scores, "ood_scores")))
    _refuse_labels_first(id_scores, inside, outside)
    inside, outside = inside.astype(np.float64), outside.astype(np.float64)
    for name, scores in (("id_scores", inside), ("ood_scores", outside)):
        if scores.ndim not in (1, 2):
            raise ValueError(f"{name} must be (n,) or (n, m), got shape {scores.shape}")
        if scores.size == 0:
            raise ValueError(f"{name} is empty, shape {scores.shape}")
        bad = scores.size - np.count_nonzero(np.isfinite(scores))
        if bad:
            raise ValueError(f"{name} has {bad} of {scores.size} values that are NaN or infinite")
    if inside.shape[1:] != outside.shape[1:]:
        raise ValueError(f"id_scores and ood_scores need the same columns, got {inside.shape} and {outside.shape}")
    single = inside.ndim == 1
    return (inside[:, None], outside[:, None], True) if single else (inside, outside, False)


def _refuse_labels_first(given: ArrayLike, inside: np.ndarray, outside: np.ndarray) -> None:
    """Scikit-learn's order is (y_true, y_score): 0s and 1s, then as many scores that are not."""
    same_length = inside.ndim == 1 and len(inside) > 2 and len(inside) == len(outside)
    both = same_length and np.array_equal(np.unique(inside), (0, 1)) and not np.isin(outside, (0, 1)).all()
    if both or "bool" in str(getattr(given, "dtype", "")):
        raise ValueError(
            "metrics take (id_scores, ood_scores), the scores of each set, but the first argument holds only 0 and 1, "
            "as y_true in scikit-learn's order would: pass scores[y_true == 1], scores[y_true == 0], ID being 1"
        )


def _checked_correct(correct: ArrayLike, n: int) -> NDArray[np.bool_]:
    values = host_array(correct, "correct")
    if values.shape != (n,):
        raise ValueError(f"correct must be ({n},) like id_scores, got shape {values.shape}")
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"correct must hold true or false, got {describe(correct)} with other values")
    return values.astype(bool)


def _checked_logits(logits: ArrayLike | None, labels: ArrayLike, name: str) -> tuple[Floats, NDArray[np.int64]]:
    values, classes = host_array(logits, name).astype(np.float64), host_array(labels, "labels")
    if values.ndim != 2 or values.size == 0 or len(np.atleast_1d(classes)) != len(values):
        raise ValueError(f"expected {name} (n, c) and labels (n,), n >= 1, got {values.shape} and {classes.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} have {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    return values, class_indices(labels, values.shape[1], "metrics")
