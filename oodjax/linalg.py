"""Symmetric eigenproblems in float64 on the host, for the detectors' fits."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

# Second moments are exact to about float32's rounding of the largest direction; below that lies noise.
CUTOFF = float(np.finfo(np.float32).eps)
NOISE = 16 * CUTOFF  # a sum of equal rows shows up to 8 times the rounding


def whitening(covariance: np.ndarray, scale: float = 0.0) -> np.ndarray:
    """(D, D) W with W W' the pseudo-inverse of `covariance`: |W'x|^2 is the squared Mahalanobis length of x.

    Directions whose variance is below `CUTOFF` times the largest, or times `scale` where that is larger, are left
    out: dead and constant units, and differences smaller than float32 features can carry. A covariance of zeros, or
    all of whose values are within `NOISE` of `scale`, gives zeros. `scale` is the variance whose rounding the
    covariance carries, where it is a small difference.
    """
    values, vectors = eigh(covariance)
    kept = (values > CUTOFF * max(values[-1], scale)) & (values[-1] > NOISE * scale)
    factors = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    return vectors * factors


def largest_variance(covariance: np.ndarray) -> float:
    """The variance along the first principal direction."""
    last = len(covariance) - 1
    return float(eigh(covariance, eigvals_only=True, subset_by_index=(last, last))[0])


def residual_basis(moment: np.ndarray, dim: int) -> np.ndarray:
    """(D, D - dim) eigenvectors of `moment` after those of the `dim` largest eigenvalues."""
    _, vectors = eigh(moment)
    return vectors[:, : moment.shape[0] - dim]
