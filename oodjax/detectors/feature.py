"""Detectors that read the penultimate features."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax.detectors.base import Method, check_count, dot, register
from oodjax.linalg import whitening
from oodjax.neighbors import DeviceBank, nearest, normalize, take
from oodjax.outputs import Outputs
from oodjax.statistics import TrainStatistics

FAMILY = "feature"


def class_gaussians(stats: TrainStatistics) -> dict:
    mean, class_means = stats.centers
    center = mean.astype(np.float32)  # any point near the features serves, but it must be the one subtracted
    means = (class_means - center) @ stats.within_whitening
    return {"center": center, "within": stats.within_whitening, "class_means": means}


def nearest_class(centred: Float[jax.Array, "n D"], params: dict) -> Float[jax.Array, " n"]:
    """(n, D) -> (n,) squared distance to the nearest class mean; taken directly, since products of far ones cancel."""
    whitened, means = dot(centred, params["within"]), params["class_means"]
    nearest_mean = means[jnp.argmin((means**2).sum(axis=-1)[None, :] - 2 * dot(whitened, means.T), axis=-1)]
    return ((whitened - nearest_mean) ** 2).sum(axis=-1)


def mds_fit(stats: TrainStatistics, validation: Outputs | None) -> dict:
    return class_gaussians(stats)


def mds_score(params: dict, outputs: Outputs) -> Float[jax.Array, " n"]:
    """- the smallest squared Mahalanobis distance to a class mean (Lee et al., NeurIPS 2018, eq. 2).

    Class means by label, one covariance shared by the classes, divided by n. Features are whitened once.
    Deviations: the penultimate layer only, without input perturbation, as in the study; directions without variance
    are left out: below 1e-10 of the largest where all rows are kept and n D^2 is at most 2.2e11, so that moments are
    taken in float64 from the rows, else below float32's epsilon (pseudo-inverse, see `oodjax.linalg.whitening`).
    """
    return -nearest_class(outputs.features - params["center"][None, :], params)


def rmds_fit(stats: TrainStatistics, validation: Outputs | None) -> dict:
    total = whitening(stats.total_covariance, stats.cutoff)
    gaussians = class_gaussians(stats)
    return {**gaussians, "total": total, "mean": (stats.centers[0] - gaussians["center"]) @ total}


def rmds_score(params: dict, outputs: Outputs) -> Float[jax.Array, " n"]:
    """- min_c [d_c - d_0], d_0 the distance under one Gaussian for all classes (Ren et al., 2021, eq. 3).

    Deviations: pseudo-inverses as in `mds`.
    """
    centred = outputs.features - params["center"][None, :]
    background = ((dot(centred, params["total"]) - params["mean"][None, :]) ** 2).sum(axis=-1)
    return background - nearest_class(centred, params)


def knn_check(k: int | None) -> None:
    if k is not None:
        check_count("knn", "k", k)


def knn_resolve(stats: TrainStatistics, options: dict) -> dict:
    return {"k": max(1, min(50, len(stats.features))) if options["k"] is None else options["k"]}


def knn_limit(stats: TrainStatistics, options: Any) -> str | None:
    size = len(stats.features)
    return f"k {options['k']} exceeds the bank's {size} features" if options["k"] > size else None


def knn_fit(stats: TrainStatistics, validation: Outputs | None, k: int) -> dict:
    return {"bank": stats.normalized_features, "zero_rows": stats.zero_rows}


def knn_score_many(points: list, outputs: Outputs) -> Float[jax.Array, "n points"]:
    """- squared distance to the k-th nearest training feature, all at unit length (Sun et al., ICML 2022, eq. 2).

    One search at the largest k serves every k; the distance to the neighbour found is then taken directly, since
    2 - 2 * product cancels for near duplicates. Deviations: the squared distance, as in the study; an all-zero
    feature stays zero, at 1 from any other and at 0 from its like.
    """
    bank, zero_rows = points[0][0]["bank"], points[0][0]["zero_rows"]
    queries = normalize(outputs.features)
    ks = [options["k"] for _, options in points]
    products, indices = nearest(queries, bank, max(ks))
    return jnp.stack([-_kth_distance(queries, bank, zero_rows, products, indices, k) for k in ks], axis=-1)


def _kth_distance(
    queries: jax.Array, bank: DeviceBank, zero_rows: jax.Array, products: jax.Array, indices: jax.Array, k: int
) -> jax.Array:
    """(n,) squared distance to the k-th nearest row, found among the rows in descending order of their products.

    Of rows at unit length that is the order of the distances |q|^2 + 1 - 2 * product. The zero rows, all at |q|^2,
    belong before those of a product below 1/2, but stand among the products of 0.
    """
    last, before = products[:, k - 1], k - 1 - zero_rows
    earlier = jnp.where(before >= 0, products[:, jnp.maximum(before, 0)], jnp.inf)
    moved = (last < 0.5) & (earlier > 0)
    direct = ((queries - take(bank, jnp.where(moved, indices[:, before], indices[:, k - 1]))) ** 2).sum(axis=-1)
    length = (queries**2).sum(axis=-1)
    at_right_angles = (last == 0) & (earlier <= 0)  # a zero row may stand here
    beyond = jnp.where(at_right_angles, length + 1, direct)
    return jnp.where(last >= 0.5, direct, jnp.where(earlier >= 0.5, length, beyond))


def she_fit(stats: TrainStatistics, validation: Outputs | None) -> dict:
    return {"patterns": stats.correct_means}


def she_score(params: dict, outputs: Outputs) -> Float[jax.Array, " n"]:
    """Inner product with the stored pattern of the predicted class (Zhang et al., ICLR 2023, eq. 8).

    The pattern is the mean feature of the class's correctly classified training samples. Deviations: a class with
    none uses its mean by label, then the global mean.
    """
    patterns = params["patterns"][jnp.argmax(outputs.logits, axis=-1)]
    return (outputs.features * patterns).sum(axis=-1)


_FEATURES, _MOMENTS = ("features",), ("label_sums", "second", "features")
register(
    Method(
        "mds",
        FAMILY,
        mds_score,
        needs=_FEATURES,
        fit=mds_fit,
        reads=_MOMENTS,
        aliases=("mahalanobis", "maha", "mahalanobis distance", "md"),
    )
)
register(
    Method(
        "rmds",
        FAMILY,
        rmds_score,
        needs=_FEATURES,
        fit=rmds_fit,
        reads=_MOMENTS,
        aliases=("relative mahalanobis", "relative mahalanobis distance", "rmd", "rel maha"),
    )
)
register(
    Method(
        "knn",
        FAMILY,
        lambda params, outputs, **o: knn_score_many([(params, o)], outputs)[:, 0],
        needs=_FEATURES,
        fit=knn_fit,
        reads=("features",),
        options={"k": None},
        check=knn_check,
        resolve=knn_resolve,
        limit=knn_limit,
        score_many=knn_score_many,
        grid=tuple({"k": k} for k in (50, 100, 200, 500, 1000)),
        aliases=("nearest neighbors", "nearest neighbours", "deep nearest neighbors", "nn"),
    )
)
register(
    Method(
        "she",
        FAMILY,
        she_score,
        needs=("logits", "features"),
        fit=she_fit,
        reads=("label_sums", "correct_sums"),
        aliases=("simplified hopfield energy", "hopfield"),
    )
)
