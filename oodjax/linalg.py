"""Symmetric eigenproblems in float64 on the host, for the detectors' fits."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

# Second moments are exact to about float32's rounding of the largest direction; below that lies noise.
CUTOFF = float(np.finfo(np.float32).eps)


def whitening(covariance: np.ndarray) -> np.ndarray:
    """(D, D) W with W W' the pseudo-inverse of `covariance`: |W'x|^2 is the squared Mahalanobis length of x.

    Directions whose variance is below `CUTOFF` times the largest are left out: dead and constant units, and
    differences smaller than float32 features can carry. A covariance of zeros gives zeros.
    """
    values, vectors = eigh(covariance)
    kept = values > CUTOFF * max(values[-1], 0.0)
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    return vectors * scale


def residual_basis(moment: np.ndarray, dim: int) -> np.ndarray:
    """(D, D - dim) eigenvectors of `moment` after those of the `dim` largest eigenvalues."""
    _, vectors = eigh(moment)
    return vectors[:, : moment.shape[0] - dim]
