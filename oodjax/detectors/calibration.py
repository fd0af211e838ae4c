"""From scores to verdicts: the threshold that accepts a share of in-distribution data, and conformal p-values."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from oodjax.arrays import describe, is_number

CONFIDENCE = 0.95


class Calibration(NamedTuple):
    """What a calibration promises.

    Attributes:
      n: calibration samples.
      tpr: the share of in-distribution data to accept, as asked for.
      threshold: the lowest score that is accepted.
      false_alarm_rate: expected share of in-distribution data that is rejected, k / (n + 1) for continuous scores; ties
        at the threshold lower it.
      interval: (low, high) within which that share lies for this calibration set with a probability of 95 %. For
        continuous scores it is Beta(k, n + 1 - k) distributed over calibration sets (Vovk, ACML 2012, prop. 2a).
    """

    n: int
    tpr: float
    threshold: float
    false_alarm_rate: float
    interval: tuple[float, float]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reference:
    """The scores of a calibration set, and the share of them to accept.

    Attributes:
      scores: (n,) float32, ascending.
      tpr: in (0, 1).
    """

    scores: jax.Array
    tpr: float = field(metadata={"static": True})

    @property
    def threshold(self) -> jax.Array:
        """() the k-th smallest calibration score, k as `order` chooses it."""
        return self.scores[order(self.scores.shape[0], self.tpr) - 1]

    def accept(self, scores: Float[jax.Array, " n"]) -> Bool[jax.Array, " n"]:
        return scores >= self.threshold

    def p_values(self, scores: Float[jax.Array, " n"]) -> Float[jax.Array, " n"]:
        below = jnp.searchsorted(self.scores, scores, side="right")
        p = (1 + below).astype(jnp.float32) / (self.scores.shape[0] + 1)
        return jnp.where(jnp.isnan(scores), jnp.nan, p)

    def summary(self) -> Calibration:
        from scipy.special import betaincinv  # here, since SciPy takes longer to import than all detectors

        n = self.scores.shape[0]
        k = order(n, self.tpr)
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(betaincinv(k, n + 1 - k, q)) for q in (tail, 1 - tail))
        return Calibration(n, self.tpr, float(self.threshold), k / (n + 1), (low, high))


def order(n: int, tpr: float) -> int:
    """k = floor((n + 1) (1 - tpr)), `tpr` read as the decimal number that it prints as; 0 where n is too small.

    The new score and the n calibration scores are exchangeable, so it is below the k-th smallest of them with a
    probability of at most k / (n + 1), ties or not: accepting scores at or above that one accepts at least `tpr`.
    """
    return int((n + 1) * (1 - Fraction(repr(tpr))))


def check_promise(n: int, tpr: Any, who: str) -> None:
    """Raises a ValueError for a `tpr` that is no share, or more than n samples can promise."""
    if not is_number(tpr) or not 0 < tpr < 1:
        raise ValueError(f"{who}: tpr must be a number between 0 and 1, such as 0.95, got {describe(tpr)}")
    if order(n, float(tpr)) < 1:
        least = int(-(-1 // (1 - Fraction(repr(float(tpr)))))) - 1
        raise ValueError(
            f"{who}: {n} samples are too few to promise a tpr of {tpr:g}: give at least {least}, or lower it"
        )


def reference(scores: Any, labels: Any, tpr: Any, who: str) -> Reference:
    """Scores (n,) as a reference.

    Args:
      scores: of in-distribution samples.
      labels: (n,) their classes, where they are known.
      tpr: the share to accept.
      who: begins the message of what is wrong.

    Raises:
      ValueError: what `check_promise` raises; OOD samples; NaN or infinite scores.
    """
    values = np.asarray(scores)
    if labels is not None and (ood := int((np.asarray(labels) < 0).sum())):
        raise ValueError(
            f"{who}: calibrate takes in-distribution samples, got {ood} with the label -1: leave those out"
        )
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{who}: {bad} of the {len(values)} calibration scores are NaN or infinite")
    check_promise(len(values), tpr, who)
    return Reference(jnp.asarray(np.sort(values)), float(tpr))
