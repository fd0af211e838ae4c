"""Resampling whole clusters: counts of a bootstrap, and the intervals and p-values made of it.

A statistic is a function of counts `(replicates, n)`, how often each of n clusters is drawn, and gives one value per
replicate. The sample itself is a row of ones, the jackknife are n rows with one zero each.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from oodjax.analysis.table import rounding
from oodjax.arrays import describe, host_array, is_number, is_whole

REPLICATES = 2000
FEWEST = 5  # with 4 clusters no permutation test reaches p = 0.05: its smallest p is 2 / 4! = 0.083
STUDENTISED = 8  # below it a bootstrap sees too few distinct resamples of a spread, and Student's t is closer
_EXACT = 7  # up to 7! = 5,040 permutations are all tried
_ROOM = 4_000_000  # counts x rows held at once

Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]


def check_level(level: float, name: str = "level") -> float:
    if not is_number(level) or not 0 < level < 1:
        raise ValueError(f"{name} must be a share between 0 and 1, such as 0.95, got {describe(level)}")
    return float(level)


def draw(strata: Sequence[int], replicates: int = REPLICATES, seed: int = 0) -> Values:
    """How often each cluster is drawn `(replicates, n)`, with replacement within its stratum."""
    if not is_whole(replicates) or replicates < 100:
        raise ValueError(f"replicates must be a whole number, 100 or more, got {describe(replicates)}")
    return _draw(tuple(int(s) for s in strata), int(replicates), int(seed))


@lru_cache(maxsize=64)
def _draw(strata: tuple[int, ...], replicates: int, seed: int) -> Values:
    rng, codes = np.random.default_rng(seed), np.array(strata)
    counts = np.empty((replicates, len(codes)))
    for stratum in np.unique(codes):
        members = codes == stratum
        m = int(members.sum())
        counts[:, members] = rng.multinomial(m, np.full(m, 1 / m), size=replicates)
    counts.flags.writeable = False
    return counts


def evaluate(statistic: Statistic, counts: Values, rows: int) -> Values:
    """The statistic of every row of counts, as many at a time as `rows` values each leave room for."""
    step = max(1, _ROOM // max(rows, 1))
    return np.concatenate([statistic(counts[i : i + step]) for i in range(0, len(counts), step)])


def bca(
    estimate: float, replicates: Values, jackknife: Values, level: float, widen: bool = True
) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval (Efron 1987), NaN where replicates do not vary enough.

    Args:
      estimate: the statistic of the sample.
      replicates: that of each resample; undefined ones (NaN) are left out.
      jackknife: that of the sample without each cluster.
      level: the share of such intervals that hold the truth.
      widen: whether the quantiles are those of Student's t times sqrt(n / (n - 1)), as Hesterberg (2015) has it: the
        bootstrap of a mean is too narrow by that much, that of a correlation is not.
    """
    drawn, n = replicates[np.isfinite(replicates)], len(jackknife)
    if len(drawn) < len(replicates) / 2 or not np.isfinite(jackknife).all() or not np.isfinite(estimate):
        return math.nan, math.nan
    below = (np.mean(drawn < estimate) + np.mean(drawn <= estimate)) / 2
    if not 0 < below < 1:
        return (estimate, estimate) if np.ptp(drawn) == 0 else (math.nan, math.nan)
    bias = scipy.stats.norm.ppf(below)
    gaps = jackknife.mean() - jackknife
    spread = float(np.sum(gaps**2))
    acceleration = float(np.sum(gaps**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    tail = (1 - level) / 2
    q = math.sqrt(n / (n - 1)) * scipy.stats.t.isf(tail, n - 1) if widen else scipy.stats.norm.isf(tail)
    shifted = bias + np.array([-q, q])
    low, high = np.quantile(drawn, scipy.stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def student(values: Values, level: float) -> tuple[Values, Values]:
    """Student's t interval of the mean of each column of `(n, k)`; NaN for one row."""
    n = len(values)
    if n < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    mean = values.mean(0)
    half = scipy.stats.t.isf((1 - level) / 2, n - 1) * values.std(0, ddof=1) / math.sqrt(n)
    return mean - half, mean + half


def studentised(values: Values, level: float, replicates: int = REPLICATES, seed: int = 0) -> tuple[Values, Values]:
    """The bootstrap-t interval of the mean of each column of `(n, k)` (Efron 1979); Student's t below 8 rows.

    It holds for skewed values, such as AUROC near its ceiling, where Student's t covers too seldom.
    """
    n = len(values)
    if n < STUDENTISED:
        return student(values, level)
    mean = values.mean(0)
    centred = np.where(np.ptp(values, axis=0) > rounding(values), values - mean, 0.0)
    error = centred.std(0, ddof=1) / math.sqrt(n)
    counts = draw([0] * n, replicates, seed)
    means = counts @ centred / n
    spread = np.sqrt(np.maximum(counts @ centred**2 / n - means**2, 0) / (n - 1))
    alike = spread <= 1e-9 * error  # one value drawn n times has no spread
    t = np.where(alike, 0.0, means) / np.where(alike, 1.0, spread)
    t = np.where(alike & (means != 0), np.copysign(np.inf, means), t)
    high, low = np.quantile(t, [(1 - level) / 2, (1 + level) / 2], axis=0, method="nearest")
    return mean - low * error, mean - high * error


def permutation_p(x: ArrayLike, y: ArrayLike, replicates: int = 9999, seed: int = 0) -> float:
    """Two-sided p of Spearman's rank correlation of two arrays `(n,)`, one value per cluster, by permutation.

    All n! orders are tried up to n = 7; beyond it `replicates` random ones and the one that was seen (Phipson and Smyth
    2010), so that p is never 0 and never too small. NaN where a side is constant.
    """
    a = host_array(x, "the first array").astype(np.float64)
    b = host_array(y, "the second array").astype(np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"expected two arrays of shape (n,), n being 2 or more, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("the arrays hold values that are NaN or infinite: leave those clusters out")
    return permutation_of_scores(scipy.stats.rankdata(a), scipy.stats.rankdata(b), replicates, seed)


def permutation_of_scores(a: Values, b: Values, replicates: int = 9999, seed: int = 0) -> float:
    """Two-sided p of the covariance of two columns of scores `(n,)` under permutation of one."""
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    if scale == 0:
        return math.nan
    seen = abs(float(a @ b)) - 1e-12 * scale  # the same sum in another order may round below itself
    if len(a) <= _EXACT:
        orders = np.array(list(itertools.permutations(range(len(a)))))
        return float(np.mean(np.abs(a[orders] @ b) >= seen))
    shuffled = a[_orders(len(a), replicates, seed)]
    return float((1 + np.sum(np.abs(shuffled @ b) >= seen)) / (1 + replicates))


@lru_cache(maxsize=16)
def _orders(n: int, replicates: int, seed: int) -> NDArray[np.int64]:
    orders = np.random.default_rng(seed).permuted(np.broadcast_to(np.arange(n), (replicates, n)), axis=1)
    orders.flags.writeable = False
    return orders


def holm(p_values: ArrayLike) -> Values:
    """Holm's (1979) step-down correction: p-values that hold jointly over the tests; NaN, no test, stays NaN."""
    p = host_array(p_values, "p_values").astype(np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must be one row of numbers in 0 to 1, got shape {p.shape}, {describe(p)}")
    result = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    result[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return result
