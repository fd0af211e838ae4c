"""Later methods that score the logits alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax.detectors.base import Method, check_count, register
from oodjax.detectors.classification import FAMILY, FLAT
from oodjax.detectors.later.rows import logits_by_block
from oodjax.outputs import Outputs
from oodjax.softmax import energy, log_against_uniform, log_softmax
from oodjax.statistics import TrainStatistics

TRANSLATION = 1e4  # a tail begins here on the axis of its Weibull distribution, as in the authors' library
SHARPEST = 1e-6  # the least width of a Weibull tail, as a share of its largest distance
LARGEST_SHAPE = 1e12


def entropy_score(params: Any, outputs: Outputs) -> Float[jax.Array, " n"]:
    """- entropy H of the softmax (Shannon, 1948; for OOD e.g. Chan et al., ICCV 2021, eq. 1), in 0 to infinity.

    Given as -log(H / log K): 0 where all classes are equally probable, growing with certainty. Cost: one pass over the
    logits. Deviations: this form has the same order, and keeps its digits where H differs from log K by less than
    float32's rounding as well as where it underflows; H = log K exp(-score). A single class gives 0.
    """
    z = outputs.logits
    classes = z.shape[-1]
    if classes == 1:
        return jnp.zeros(z.shape[:1], jnp.float32)
    whole = jnp.log(jnp.float32(classes))
    certain = jnp.log(whole) - energy(_log_shares(z))
    missing = _below_uniform(z) / whole
    return jnp.where(missing < 0.5, -jnp.log1p(-jnp.minimum(missing, 0.5)), certain)


def _log_shares(z: Float[jax.Array, "n K"]) -> Float[jax.Array, "n K"]:
    """log(-p log p) of each class."""
    log_p = log_softmax(z)
    top = jnp.arange(z.shape[1])[None, :] == jnp.argmax(z, axis=-1)[:, None]
    others = energy(jnp.where(top, -jnp.inf, z - z.max(axis=-1, keepdims=True)))[:, None]
    # -log p of the largest p is log(1 + e^others), which is e^others itself where p rounds to 1
    log_of_top = jnp.where(others < -15, others, jnp.log(jnp.log1p(jnp.exp(jnp.maximum(others, -15)))))
    return log_p + jnp.where(top, log_of_top, jnp.log(jnp.where(top, 1.0, -log_p)))


def _below_uniform(z: Float[jax.Array, "n K"]) -> Float[jax.Array, " n"]:
    """log K - H, the mean of (1 + x) log(1 + x) - x with p = (1 + x) / K: no term of it is negative."""
    relative = log_against_uniform(z)
    x = jnp.expm1(relative)
    near = x**2 * (1 / 2 - x / 6 + x**2 / 12 - x**3 / 20)
    return jnp.where(jnp.abs(x) < FLAT, near, jnp.exp(relative) * relative - x).mean(axis=-1)


def openmax_check(alpha: int, tail: int) -> None:
    check_count("openmax", "alpha", alpha)
    check_count("openmax", "tail", tail)


def openmax_limit(stats: TrainStatistics, options: Any) -> str | None:
    if not len(stats.features):
        return "the bank's 0 features give no distances: raise bank_fraction"
    alpha = options["alpha"]
    return f"alpha {alpha} exceeds the {stats.classes} classes" if alpha > stats.classes else None


def openmax_cap(stats: TrainStatistics, options: Any) -> dict:
    if not len(stats.features):
        raise ValueError(f"openmax: {openmax_limit(stats, options)}")
    return {**options, "alpha": min(options["alpha"], stats.classes)}


def openmax_fit(stats: TrainStatistics, validation: Outputs | None, alpha: int, tail: int) -> dict:
    kernel, bias = np.asarray(stats.head.kernel, np.float64), np.asarray(stats.head.bias, np.float64)
    centers = stats.correct_means @ kernel + bias
    if "openmax" not in stats.memory:
        stats.memory["openmax"] = _distances(stats, centers)
    distances, classes = stats.memory["openmax"]
    return {"centers": centers, **fit_weibull(*_tails(distances, classes, stats.classes, tail))}


def _distances(stats: TrainStatistics, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distances that each class's tail is taken of, and the classes they belong to.

    Those of its correctly classified samples to its centre; of its samples by label where none is, of all samples
    where the bank has none of it either.
    """
    own, correct = np.empty(len(stats.features)), np.empty(len(stats.features), bool)
    labels, everywhere = np.asarray(stats.labels), np.empty(len(stats.features))
    missing = np.flatnonzero(np.bincount(labels, minlength=stats.classes) == 0)
    for rows, logits in logits_by_block(stats):
        own[rows] = np.sqrt(((logits - centers[labels[rows]]) ** 2).sum(axis=1))
        correct[rows] = logits.argmax(axis=1) == labels[rows]
        if len(missing):  # they share a centre, the mean of all samples
            everywhere[rows] = np.sqrt(((logits - centers[missing[0]]) ** 2).sum(axis=1))
    none_correct = np.bincount(labels[correct], minlength=stats.classes) == 0
    taken = correct | none_correct[labels]
    return (
        np.concatenate([own[taken], np.tile(everywhere, len(missing))]),
        np.concatenate([labels[taken], np.repeat(missing, len(labels))]),
    )


def _tails(distances: np.ndarray, classes: np.ndarray, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, size) the largest distances of each class, descending, and which of the places are filled."""
    order = np.lexsort((-distances, classes))
    distances, classes = distances[order], classes[order]
    place = np.arange(len(classes)) - np.searchsorted(classes, classes)
    kept = place < size
    tails, filled = np.zeros((count, size)), np.zeros((count, size), bool)
    tails[classes[kept], place[kept]] = distances[kept]
    filled[classes[kept], place[kept]] = True
    return tails, filled


def fit_weibull(tails: np.ndarray, filled: np.ndarray) -> dict:
    """Maximum likelihood of a Weibull distribution of (K, t) tails moved to begin at `TRANSLATION`.

    Its distribution function at a distance d is 1 - exp(-(1 + (d - location) / scale)^shape).
    """
    largest = tails.max(axis=1)
    least = np.where(filled, tails, np.inf).min(axis=1)
    end, count = TRANSLATION + largest - least, filled.sum(axis=1)
    logs = np.log1p(np.where(filled, tails - largest[:, None], 0.0) / end[:, None])

    def slope(shape: np.ndarray) -> np.ndarray:  # of the likelihood in the shape, with its sign turned; it ascends
        powers = np.where(filled, np.exp(shape[:, None] * logs), 0.0)
        return (powers * logs).sum(axis=1) / powers.sum(axis=1) - 1 / shape - logs.sum(axis=1) / count

    low = np.full(len(tails), 1e-3)
    high = np.minimum(end / np.maximum(SHARPEST * largest, 1e-30), LARGEST_SHAPE)
    for _ in range(200):
        middle = np.sqrt(low * high)
        below = slope(middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    mean_power = np.where(filled, np.exp(low[:, None] * logs), 0.0).sum(axis=1) / count
    scale = end * np.exp(np.log(mean_power) / low)
    return {"shape": low, "scale": scale, "location": least + (scale - TRANSLATION)}


def openmax_score(params: dict, outputs: Outputs, alpha: int, tail: int) -> Float[jax.Array, " n"]:
    """Log-odds of the known classes against the unknown one (Bendale and Boult, CVPR 2016, algs. 1 and 2).

    The i-th of the `alpha` largest logits v gives the share w (alpha - i + 1) / alpha of itself to the unknown class,
    w the Weibull distribution function, fitted to the `tail` largest distances of the class's correctly classified
    training samples to their mean logits, at the distance of the sample. Score: logsumexp of what the classes keep
    less the unknown's sum, the logit of the known ones' probability. Cost: alpha distances of K numbers a sample.
    Deviations: w is the distribution function as in the authors' code, where algorithm 2 prints 1 less it; the
    Euclidean distance alone; a class without correct samples takes its samples by label, then all; a tail's width is
    at least 1e-6 of its largest distance. The defaults are the authors', the grid is ours. (OpenOOD returns all
    probabilities in place of a score.)
    """
    z = outputs.logits
    values, order = jax.lax.top_k(z, alpha)

    def distance(classes: jax.Array) -> jax.Array:
        return jnp.sqrt(((z - params["centers"][classes]) ** 2).sum(axis=-1))

    distances = jax.lax.map(distance, order.T).T
    beyond = (distances - params["location"][order]) / params["scale"][order]
    power = params["shape"][order] * jnp.log1p(jnp.maximum(beyond, -0.9999999))
    share = (alpha - jnp.arange(alpha)).astype(jnp.float32) / alpha
    given = values * -jnp.expm1(-jnp.exp(power)) * share[None, :]
    kept = z.at[jnp.arange(z.shape[0])[:, None], order].add(-given)
    return energy(kept) - given.sum(axis=-1)


register(
    Method(
        "entropy", FAMILY, entropy_score, reads=(), aliases=("shannon entropy", "softmax entropy", "predictive entropy")
    )
)
register(
    Method(
        "openmax",
        FAMILY,
        openmax_score,
        fit=openmax_fit,
        reads=("label_sums", "correct_sums", "features"),
        options={"alpha": 10, "tail": 20},
        check=openmax_check,
        limit=openmax_limit,
        cap=openmax_cap,
        grid=tuple({"alpha": a, "tail": t} for a in (3, 5, 10) for t in (10, 20, 50)),
        aliases=("open max",),
    )
)
