"""How far figures of merit of one model would move with other images of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from oodjax.metrics import RECALL

Floats = NDArray[np.float64]


def auroc_interval(inside: Floats, sets: Sequence[Floats], level: float = 0.95) -> tuple[float, float]:
    """Interval of the AUROC, or of its mean over OOD sets, which share the ID images.

    DeLong, DeLong and Clarke-Pearson 1988: the variance is that of each image's placement, the share of the other
    side that it is right about. It is what a bootstrap over images tends to, without its cost. The interval is taken
    on the logit scale, so that it ends within 0 and 1; at 0 and 1 themselves it has no width, nor has a bootstrap's.

    Args:
      inside: (n,) scores of the ID images, higher is more ID.
      sets: of each OOD set, (k,) scores.
      level: of the interval.
    """
    placements = [_placements(inside, outside) for outside in sets]
    value = float(np.mean([above.mean() for above, _ in placements]))
    if not 0 < value < 1:
        return value, value
    shared = np.mean([above for above, _ in placements], axis=0)
    own = sum(_variance(below) for _, below in placements) / len(sets) ** 2
    error = np.sqrt(_variance(shared) + own) / (value * (1 - value))
    low, high = expit(logit(value) + norm.ppf([(1 - level) / 2, (1 + level) / 2]) * error)
    return float(low), float(high)


def difference_interval(
    inside: tuple[Floats, Floats], sets: Sequence[tuple[Floats, Floats]], level: float = 0.95
) -> tuple[float, float]:
    """Interval of how far the first of two detectors' mean AUROC lies above the second's, on the same images.

    Args:
      inside: of each detector, (n,) scores of the same ID images.
      sets: of each OOD set, the scores of its images by each detector.
      level: of the interval.
    """
    pairs = [[_placements(inside[i], outside[i]) for i in (0, 1)] for outside in sets]
    value = float(np.mean([first[0].mean() - second[0].mean() for first, second in pairs]))
    shared = np.mean([first[0] - second[0] for first, second in pairs], axis=0)
    own = sum(_variance(first[1] - second[1]) for first, second in pairs) / len(sets) ** 2
    low, high = value + norm.ppf([(1 - level) / 2, (1 + level) / 2]) * np.sqrt(_variance(shared) + own)
    return float(low), float(high)


def fpr_interval(
    inside: Floats, outside: Floats, rng: np.random.Generator, replicates: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of the share of OOD images accepted at the ID images' own threshold; see `threshold`.

    Resampling is by its distribution: the threshold's place among the ID scores is that of an order statistic of
    uniform draws, and how many drawn OOD images lie above it is binomial.
    """
    ranked, above = np.sort(inside), np.sort(outside)
    n, place = len(ranked), _place(len(ranked))
    drawn = ranked[(rng.beta(place + 1, n - place, replicates) * n).astype(int)]
    share = 1 - np.searchsorted(above, drawn, side="left") / len(above)
    rates = rng.binomial(len(above), share) / len(above)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def threshold(inside: Floats) -> float:
    """The largest score at or above which at least 95 % of the ID images lie."""
    return float(np.sort(inside)[_place(len(inside))])


def _place(n: int) -> int:
    return n - int(np.ceil(RECALL * n - 1e-9))  # 0.95 x 20 is 19, not a hair more


def _placements(inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
    """Of each ID image the share of OOD images below it, of each OOD image that of ID images above; ties half."""
    return _share_below(inside, np.sort(outside)), 1 - _share_below(outside, np.sort(inside))


def _share_below(values: Floats, ranked: Floats) -> Floats:
    sides = (np.searchsorted(ranked, values, side) for side in ("left", "right"))
    return sum(sides) / (2 * len(ranked))  # type: ignore[return-value]


def _variance(values: Floats) -> float:
    """Of the mean."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
