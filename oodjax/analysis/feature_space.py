"""How a model uses its feature space."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oodjax.analysis.table import rounding
from oodjax.arrays import describe, host_array, is_whole

INACTIVE = 1e-3


class ActivationProfile(NamedTuple):
    """Mean activation per unit, units sorted by their ID mean, largest first; `units` are their indices."""

    units: NDArray[np.int64]
    id_mean: NDArray[np.float64]
    ood_mean: NDArray[np.float64]


class Embedding(NamedTuple):
    """Principal components of both sets `(n, dim)`, and the share of the ID variance along each."""

    id: NDArray[np.float64]
    ood: NDArray[np.float64]
    explained: NDArray[np.float64]


def feature_space(features: ArrayLike) -> dict[str, float]:
    """Spread, dimension and sparsity of the penultimate features.

    Args:
      features: `(n, d)`, two samples or more.

    Returns:
      `total_variance`, the trace of the covariance (n - 1 in the denominator). `participation_ratio`,
      `(sum of eigenvalues)^2 / sum of eigenvalues^2` of the covariance: d if all directions vary alike, 1 if one does,
      NaN if none does, rounding aside. `sparsity`, the share of activations below 1e-3 in absolute value. `mean_norm`
      and `std_norm` of the samples' Euclidean norms (n - 1).
    """
    given = _checked("features", features)
    x = given.astype(np.float64)
    norms = np.linalg.norm(x, axis=1)
    centred = x - x.mean(0)
    # Both products have the same non-zero eigenvalues; the smaller is cheaper.
    products = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    scatter = float(np.trace(products))
    constant = scatter <= x.size * rounding(given) ** 2
    return {
        "total_variance": 0.0 if constant else scatter / (len(x) - 1),
        "participation_ratio": float("nan") if constant else scatter**2 / float(np.sum(products**2)),
        "sparsity": float(np.mean(np.abs(x) < INACTIVE)),
        "mean_norm": float(norms.mean()),
        "std_norm": float(norms.std(ddof=1)),
    }


def activation_profile(id: ArrayLike, ood: ArrayLike) -> ActivationProfile:
    """Mean activation of each unit on ID and on OOD features `(n, d)`, sorted by the ID mean."""
    inside, outside = _pair(id, ood)
    id_mean, ood_mean = inside.mean(0, dtype=np.float64), outside.mean(0, dtype=np.float64)
    units = np.argsort(-id_mean, kind="stable")
    return ActivationProfile(units, id_mean[units], ood_mean[units])


def pca_embedding(id: ArrayLike, ood: ArrayLike, dim: int = 2) -> Embedding:
    """Both sets along the `dim` leading principal components of the ID features, centred on the ID mean.

    The sign of a component is set so that its largest loading is positive.
    """
    from sklearn.decomposition import PCA

    given, outside = _pair(id, ood)
    inside, most = given.astype(np.float64), min(given.shape)
    if not is_whole(dim) or not 1 <= dim <= most:
        raise ValueError(f"dim must be a whole number in 1 to {most}, got {describe(dim)}")
    varies = np.square(inside - inside.mean(0)).sum() > inside.size * rounding(given) ** 2
    pca = PCA(dim, svd_solver="arpack" if varies and dim < most else "full", random_state=0)
    with np.errstate(invalid="ignore"):  # shares of no variance at all
        pca.fit(inside)
    signs = np.sign(pca.components_[np.arange(dim), np.abs(pca.components_).argmax(1)])
    explained = pca.explained_variance_ratio_ if varies else np.full(dim, np.nan)
    return Embedding(pca.transform(inside) * signs, pca.transform(outside.astype(np.float64)) * signs, explained)


def _pair(id: ArrayLike, ood: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    inside, outside = _checked("id", id), _checked("ood", ood, least=1)
    if inside.shape[1] != outside.shape[1]:
        raise ValueError(f"id and ood need the same features, got {inside.shape} and {outside.shape}")
    return inside, outside


def _checked(name: str, features: ArrayLike, least: int = 2) -> NDArray[Any]:
    x = host_array(features, name)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    if x.ndim != 2 or len(x) < least or x.shape[1] == 0:
        raise ValueError(f"{name} must be (n, d) with n >= {least} and d >= 1, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(x))} values that are NaN or infinite")
    return x
