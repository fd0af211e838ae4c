"""Later methods that read the penultimate features."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax import moments
from oodjax.arrays import is_whole
from oodjax.detectors.base import Method, dot, register
from oodjax.detectors.feature import FAMILY, class_gaussians, nearest_class
from oodjax.detectors.later.rows import UnitRows
from oodjax.linalg import FROM_ROWS, largest_variance, whitening
from oodjax.neighbors import normalize
from oodjax.outputs import Outputs
from oodjax.statistics import TrainStatistics

ROUNDING = 16 * float(np.finfo(np.float32).eps)  # of the entries of a unit vector: no variance
NEVER = -1e30  # the log of a class's share where training has none of it


def residual_check(dim: int | None) -> None:
    if dim is not None and (not is_whole(dim) or dim < 0):
        raise ValueError(f"residual: dim must be a whole number of at least 0, got {dim!r}")


def _usual_dim(features: int) -> int:
    return 1000 if features >= 1500 else 512 if features >= 768 else features // 2


def residual_resolve(stats: TrainStatistics, options: dict) -> dict:
    usual, rank = _usual_dim(stats.dim), stats.spectrum.rank
    default = usual if usual <= rank else _usual_dim(rank)
    return {"dim": default if options["dim"] is None else options["dim"]}


def residual_limit(stats: TrainStatistics, options: Any) -> str | None:
    dim, rank = options["dim"], stats.spectrum.rank
    if dim >= stats.dim:
        return f"dim {dim} leaves none of the {stats.dim} features"
    return (
        None if dim <= rank else f"dim {dim} exceeds training's rank {rank}: which directions follow is left to chance"
    )


def residual_fit(stats: TrainStatistics, validation: Outputs | None, dim: int) -> dict:
    origin, basis = stats.spectrum.origin, stats.spectrum.residual_basis(dim)
    center = stats.centers[0].astype(np.float32)  # near the features, so that float32 products keep their digits
    return {"center": center, "basis": basis, "shift": (center - origin) @ basis}


def residual_score(params: dict, outputs: Outputs, dim: int) -> Float[jax.Array, " n"]:
    """- |R'(h - u)|, what the features have outside of the principal space (Wang et al., CVPR 2022, sec. 4.1).

    ViM without the energy: u = -pinv(W')b; R spans the eigenvectors of the training features' second moment about u
    after the `dim` largest. Up to 0. The default `dim` is ViM's: 1000 from 1500 features on, 512 from 768 on, else
    half of them; where that exceeds training's rank, the same of the rank. Cost: a product with a (D, D - dim) matrix.
    Deviations: fitted to training (OpenOOD fits it to validation images).
    """
    residual = dot(outputs.features - params["center"][None, :], params["basis"]) + params["shift"][None, :]
    return -jnp.sqrt((residual**2).sum(axis=-1))


def gmm_fit(stats: TrainStatistics, validation: Outputs | None) -> dict:
    counts = stats.label_counts
    shares = np.where(counts > 0, np.log(np.maximum(counts, 1) / stats.count), NEVER)
    return {**class_gaussians(stats), "log_shares": shares}


def gmm_score(params: dict, outputs: Outputs) -> Float[jax.Array, " n"]:
    """Log density under the mixture of the classes' Gaussians, up to a constant (Mukhoti et al., CVPR 2023, sec. 4).

    log sum_c pi_c exp(-d_c / 2), d_c the squared Mahalanobis distance to the mean of class c and pi_c its share of
    training, at most 0. Cost: that of `mds`. Deviations: one covariance shared by the classes, as in Lee et al.
    (NeurIPS 2018, eq. 1) and OpenOOD's gmm, where the paper has one a class: those are singular with fewer samples in
    a class than features, and K D^2 numbers; the components are the classes, not clusters found by EM; directions
    without variance are left out as in `mds`.
    """
    centred, means = outputs.features - params["center"][None, :], params["class_means"]
    whitened = dot(centred, params["within"])
    # -d_c / 2 + |whitened|^2 / 2, whose differences between classes are all that the products are used for
    heights = dot(whitened, means.T) - ((means**2).sum(axis=-1) / 2)[None, :] + params["log_shares"][None, :]
    best = jnp.argmax(heights, axis=-1)
    others = jnp.log(jnp.exp(jnp.minimum(heights - heights.max(axis=-1, keepdims=True), 0.0)).sum(axis=-1))
    return params["log_shares"][best] - ((whitened - means[best]) ** 2).sum(axis=-1) / 2 + others


def mdspp_check(relative: bool) -> None:
    if not isinstance(relative, bool):
        raise ValueError(f"mdspp: relative must be True or False, got {relative!r}")


def mdspp_limit(stats: TrainStatistics, options: Any) -> str | None:
    return None if len(stats.features) else "the bank's 0 features have no means: raise bank_fraction"


def mdspp_fit(stats: TrainStatistics, validation: Outputs | None, relative: bool) -> dict:
    mean, means, within, total = _unit_moments(stats)
    center = mean.astype(np.float32)
    least = ROUNDING**2 / stats.dim / FROM_ROWS  # the variance whose cut-off is that of a rounding
    white = whitening(within, FROM_ROWS, scale=max(largest_variance(total), least))
    params = {"center": center, "within": white, "class_means": (means - center) @ white}
    if not relative:
        return params
    background = whitening(total, FROM_ROWS, scale=least)
    return {**params, "total": background, "mean": (mean - center) @ background}


def _unit_moments(stats: TrainStatistics) -> tuple[np.ndarray, ...]:
    """Mean, class means, covariance within the classes and in all, of the bank's rows at unit length, float64."""
    known = stats.memory.get("mdspp")
    if known is not None:
        return known
    rows: Any = UnitRows(stats.features)
    labels = np.asarray(stats.labels)
    counts = np.bincount(labels, minlength=stats.classes)
    means = moments.class_means(rows, labels, stats.classes)
    mean = counts @ means / len(rows)
    means = np.where(counts[:, None] > 0, means, mean)
    within = moments.covariance(rows, means, labels)
    offset = means - mean
    total = within + (offset * (counts / len(rows))[:, None]).T @ offset
    stats.memory["mdspp"] = mean, means, within, total
    return mean, means, within, total


def mdspp_score(params: dict, outputs: Outputs, relative: bool) -> Float[jax.Array, " n"]:
    """Mahalanobis++: `mds` of features at unit length (Mueller and Hein, ICML 2025, sec. 4), up to 0.

    With `relative` Relative Mahalanobis++: `rmds` of them. Means and covariances are those of the normalised training
    features. Cost: that of `mds`; the fit reads the bank twice and takes n D^2 multiplications in float64 on the host.
    Deviations: an all-zero feature stays zero; moments are of the bank's rows, all of training unless a share was
    asked for; directions are left out whose variance is below 1e-10 of the largest, or whose deviation is below 16
    roundings of float32 in a unit vector's entries, as that along the mean of features far from the origin.
    """
    centred = normalize(outputs.features) - params["center"][None, :]
    distance = nearest_class(centred, params)
    if not relative:
        return -distance
    background = ((dot(centred, params["total"]) - params["mean"][None, :]) ** 2).sum(axis=-1)
    return background - distance


register(
    Method(
        "residual",
        FAMILY,
        residual_score,
        needs=("features",),
        fit=residual_fit,
        reads=("label_sums", "second", "features"),
        options={"dim": None},
        check=residual_check,
        resolve=residual_resolve,
        limit=residual_limit,
        aliases=("null space", "principal space residual"),
    )
)
register(
    Method(
        "gmm",
        FAMILY,
        gmm_score,
        needs=("features",),
        fit=gmm_fit,
        reads=("label_sums", "second", "features"),
        aliases=("gaussian mixture", "gaussian mixture model", "ddu", "gda"),
    )
)
register(
    Method(
        "mdspp",
        FAMILY,
        mdspp_score,
        needs=("features",),
        fit=mdspp_fit,
        reads=("features",),
        options={"relative": False},
        check=mdspp_check,
        limit=mdspp_limit,
        grid=({"relative": False}, {"relative": True}),
        aliases=("mahalanobis++", "mds++", "normalized mahalanobis", "normalised mahalanobis"),
    )
)
