"""Symmetric eigenproblems in float64 on the host, for the detectors' fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

# The least variance that counts, as a share of the largest. Sums of float32 products are exact to about float32's
# rounding of the largest; moments of the rows in float64 are, but a direction of 1e-5 of the largest deviation is
# already whitened on the device with an error of 6e-8 / 1e-5 of its own, and below lies the rounding of the features.
FROM_SUMS = float(np.finfo(np.float32).eps)
FROM_ROWS = 1e-10
NOISE = 16  # a sum of equal rows shows up to 8 times the rounding


def whitening(
    covariance: Float64[np.ndarray, "D D"], cutoff: float = FROM_SUMS, scale: float = 0.0
) -> Float64[np.ndarray, "D D"]:
    """(D, D) W with W W' the pseudo-inverse of `covariance`: |W'x|^2 is the squared Mahalanobis length of x.

    Directions whose variance is below `cutoff` times the largest, or times `scale` where that is larger, are left
    out: dead and constant units, and differences smaller than float32 features can carry. A covariance of zeros, or
    all of whose values are within 16 `cutoff` of `scale`, gives zeros. `scale` is the variance whose rounding the
    covariance carries, where it is a small difference.
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = (values > cutoff * max(values[-1], scale)) & (values[-1] > NOISE * cutoff * scale)
    factors = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    return vectors * factors


def largest_variance(covariance: Float64[np.ndarray, "D D"]) -> float:
    """The variance along the first principal direction."""
    return float(np.linalg.eigvalsh(covariance)[-1])


@dataclass(frozen=True)
class Spectrum:
    """The second moment of features about a point.

    Attributes:
      origin: (D,) the point.
      values: (D,) mean squares along the eigenvectors, ascending.
      vectors: (D, D) the eigenvectors, in columns.
      rank: how many of the values exceed the cut-off times the largest.
    """

    origin: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    rank: int

    @classmethod
    def of(cls, origin: np.ndarray, moment: np.ndarray, cutoff: float) -> Spectrum:
        values, vectors = np.linalg.eigh(moment)
        return cls(origin, values, vectors, int((values > cutoff * values[-1]).sum()) if values[-1] > 0 else 0)

    def residual_basis(self, dim: int) -> np.ndarray:
        """(D, D - dim) eigenvectors after those of the `dim` largest values."""
        return self.vectors[:, : len(self.values) - dim]
