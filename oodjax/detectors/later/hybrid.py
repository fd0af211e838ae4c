"""Later methods that join features and logits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax import moments
from oodjax.detectors.base import Method, check_count, check_number, dot, kth_largest, register
from oodjax.detectors.hybrid import BOTH, FAMILY, kept_units, shaping_check, shaping_limit
from oodjax.detectors.later.rows import logits_by_block
from oodjax.neighbors import normalize
from oodjax.outputs import Outputs
from oodjax.softmax import energy
from oodjax.statistics import TrainStatistics

EXPLAINED = 0.9  # the share of the variance that NECO's default keeps
LEAST = 1e-12  # the least norm that is divided by
LEAST_CONFIDENCE = 0.01  # of the mean over training


def neco_check(dim: int | None, max_logit: bool) -> None:
    if dim is not None:
        check_count("neco", "dim", dim)
    if not isinstance(max_logit, bool):
        raise ValueError(f"neco: max_logit must be True or False, got {max_logit!r}")


def _standard_spectrum(stats: TrainStatistics) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Deviations (D,), and of the standardised features eigenvalues (ascending), eigenvectors and rank."""
    known = stats.memory.get("neco")
    if known is not None:
        return known
    variances = np.diag(stats.total_covariance)
    deviations = np.sqrt(np.where(variances > stats.cutoff * variances.max(), variances, 1.0))
    values, vectors = np.linalg.eigh(stats.total_covariance / np.outer(deviations, deviations))
    rank = int((values > stats.cutoff * values[-1]).sum()) if values[-1] > 0 else 0
    stats.memory["neco"] = deviations, values, vectors, rank
    return deviations, values, vectors, rank


def neco_limit(stats: TrainStatistics, options: Any) -> str | None:
    dim, rank = options["dim"], _standard_spectrum(stats)[3]
    if dim is None:
        return None
    if dim >= stats.dim and stats.dim > 1 or dim > stats.dim:
        return f"dim {dim} keeps all of the {stats.dim} features, so that every sample's share is 1"
    return None if dim <= max(rank, 1) else f"dim {dim} exceeds training's rank {rank}"


def neco_fit(stats: TrainStatistics, validation: Outputs | None, dim: int | None, max_logit: bool) -> dict:
    deviations, values, vectors, rank = _standard_spectrum(stats)
    if dim is None:
        explained = np.cumsum(values[::-1].clip(min=0))
        needed = int(np.searchsorted(explained, EXPLAINED * explained[-1])) + 1
        kept = max(1, min(needed, rank, stats.dim - 1))
        basis = np.where(np.arange(stats.dim) >= stats.dim - kept, vectors, 0.0)  # of one shape, for one program
    else:
        basis = vectors[:, stats.dim - dim :]
    basis = basis if rank else np.zeros_like(basis)
    return {"mean": stats.centers[0], "inverse": 1 / deviations, "basis": basis}


def neco_score(params: dict, outputs: Outputs, dim: int | None, max_logit: bool) -> Float[jax.Array, " n"]:
    """|P'h| / |h|, h standardised features, P their first `dim` principal axes (Ben Ammar et al., ICLR 2024, eq. 6).

    In 0 to 1; with `max_logit` times the largest logit, as the authors do for transformers and not for ResNets. Left
    open, `dim` is as many as explain 90% of the variance, the paper's rule of thumb; the grid is ours, the paper fits
    `dim` by hand. Cost: a product with a (D, dim) matrix. Deviations: features are standardised as in the authors' code
    (the paper's equation does not say so), with a unit's deviation taken as 1 where training has none; a sample at the
    mean, and any where training has no variance, has a share of 0.
    """
    standard = (outputs.features - params["mean"][None, :]) * params["inverse"][None, :]
    share = jnp.sqrt((dot(normalize(standard), params["basis"]) ** 2).sum(axis=-1))
    return share * outputs.logits.max(axis=-1) if max_logit else share


def nci_check(alpha: float) -> None:
    check_number("nci", "alpha", alpha, 0, 1e6)


def nci_fit(stats: TrainStatistics, validation: Outputs | None, alpha: float) -> dict:
    return {"weights": np.asarray(stats.head.kernel).T, "mean": stats.mean}


def nci_score(params: dict, outputs: Outputs, alpha: float) -> Float[jax.Array, " n"]:
    """w_y . (h - m) / |h - m| + alpha |h|_1, m the mean training feature (Liu and Qin, CVPR 2025, sec. 4).

    y is the predicted class and w_y its weights: the first term is how far the centred feature points their way, the
    second its distance to the origin. Cost: one gathered row of the head a sample. Grid and default are OpenOOD's.
    Deviations: none; a feature at the mean has a first term of 0.
    """
    own = params["weights"][jnp.argmax(outputs.logits, axis=-1)]
    towards = (own * normalize(outputs.features - params["mean"][None, :])).sum(axis=-1)
    return towards + alpha * jnp.abs(outputs.features).sum(axis=-1)


VRA_LOW, VRA_HIGH = (1, 5, 10, 15), (85, 90, 95, 99)


def vra_check(low: float, high: float) -> None:
    check_number("vra", "low", low, 0, 100)
    check_number("vra", "high", high, 0, 100)


def vra_limit(stats: TrainStatistics, options: Any) -> str | None:
    low, high = options["low"], options["high"]
    return f"low {low} exceeds high {high}, with nothing between them" if low > high else None


def vra_fit(stats: TrainStatistics, validation: Outputs | None, low: float, high: float) -> dict:
    least, most, *_ = stats.activation_percentiles((low, high, *VRA_LOW, *VRA_HIGH))  # all cost as much as one
    return {"head": stats.head, "low": least, "high": most}


def vra_score(params: dict, outputs: Outputs, low: float, high: float) -> Float[jax.Array, " n"]:
    """Energy of the logits of features without their lowest and highest activations (Xu et al., NeurIPS 2023, sec. 3).

    Each activation h becomes 0 below the `low`-th percentile of all training activations, the `high`-th above that,
    and stays as it is between. Cost: one head. Grid and defaults are OpenOOD's; of rectified features the low
    percentiles are often 0, and then it is ReAct. Deviations: none from the paper's piecewise function without its
    amplification of what lies between (OpenOOD lifts low activations to the percentile in place of 0).
    """
    shaped = jnp.where(outputs.features < params["low"], 0.0, jnp.minimum(outputs.features, params["high"]))
    return energy(params["head"](shaped))


def lts_fit(stats: TrainStatistics, validation: Outputs | None, percentile: float) -> dict:
    return {}  # nothing is learned; that the problem carries the percentile is known from here on


def lts_score(params: dict, outputs: Outputs, percentile: float) -> Float[jax.Array, " n"]:
    """Energy of S z, S = (sum(h) / sum of the k largest)^2 (Djurisic et al., arXiv:2409.01175, alg. 1).

    h are the rectified features, z the logits, k = D - round(D q / 100) at the `percentile` q; S lies between 1 and
    (D / k)^2. Cost: k-th largest feature. The default keeps the 5% of the paper; the grid is that of `scale`.
    Deviations: all-zero features have S = 1. (pytorch-ood divides by S, where the paper and its code multiply.)
    """
    features = jnp.maximum(outputs.features, 0.0)
    k = kept_units(features.shape[1], percentile)
    limit = kth_largest(features, k)
    above = features > limit[:, None]
    largest = jnp.where(above, features, 0.0).sum(axis=-1) + (k - above.sum(axis=-1)).astype(jnp.float32) * limit
    ratio = jnp.where(largest > 0, features.sum(axis=-1) / jnp.where(largest > 0, largest, 1.0), 1.0)
    top, factor = outputs.logits.max(axis=-1), ratio**2
    # The largest logit goes first: rounded once in its product and once more here, it would miss itself by an ulp.
    return factor * top + energy(factor[:, None] * (outputs.logits - top[:, None]))


def cadref_check(decoupled: bool) -> None:
    if not isinstance(decoupled, bool):
        raise ValueError(f"cadref: decoupled must be True or False, got {decoupled!r}")


def cadref_limit(stats: TrainStatistics, options: Any) -> str | None:
    return None if len(stats.features) else "the bank's 0 features have no means: raise bank_fraction"


def cadref_fit(stats: TrainStatistics, validation: Outputs | None, decoupled: bool) -> dict:
    means = stats.memory.get("cadref")
    if means is None:
        means = stats.memory["cadref"] = _means_by_prediction(stats)
    if not decoupled:
        return {"means": means}
    signs = np.sign(np.asarray(stats.head.kernel)).T
    return {"means": means, "signs": signs, "confidence": np.mean(stats.energies, dtype=np.float64)}


def _means_by_prediction(stats: TrainStatistics) -> np.ndarray:
    """(K, D) mean feature of the bank's rows predicted to be of each class; of all where none is."""
    predicted = np.empty(len(stats.features), np.int64)
    for rows, logits in logits_by_block(stats):
        predicted[rows] = logits.argmax(axis=1)
    counts = np.bincount(predicted, minlength=stats.classes)
    means = moments.class_means(stats.features, predicted, stats.classes)
    return np.where(counts[:, None] > 0, means, counts @ means / len(predicted))


def cadref_score(params: dict, outputs: Outputs, decoupled: bool) -> Float[jax.Array, " n"]:
    """- relative distance to the mean feature of the predicted class, in two parts (Ling et al., CVPR 2025, eq. 10).

    r = h - m_y, m_y the mean of the training features predicted y. r_d sign(W_dy) > 0 adds to the largest logit: such
    |r_d| are summed to E_p, the others to E_n, both over |h|_1. The score is -(E_p / energy(z) + E_n / S), S the mean
    energy of training; without `decoupled` it is CARef's -(|r|_1 / |h|_1) (eq. 5). Cost: one gathered mean a sample.
    Deviations: the parts are split by the sign of r, as in the authors' code, where eqs. 7 and 8 print that of h; both
    energies are at least a hundredth of S's magnitude, since the paper takes them to be positive; |h|_1 is at least
    1e-12; a class never predicted in training takes the mean of all.
    """
    y = jnp.argmax(outputs.logits, axis=-1)
    relative = outputs.features - params["means"][y]
    length = jnp.maximum(jnp.abs(outputs.features).sum(axis=-1), LEAST)
    if not decoupled:
        return -jnp.abs(relative).sum(axis=-1) / length
    towards = relative * params["signs"][y]
    least = jnp.maximum(LEAST_CONFIDENCE * jnp.abs(params["confidence"]), LEAST)
    own, usual = (jnp.maximum(x, least) for x in (energy(outputs.logits), params["confidence"]))
    added, taken = (jnp.maximum(sign * towards, 0.0).sum(axis=-1) / length for sign in (1, -1))
    return -(added / own + taken / usual)


_NECO_DIMS = (16, 32, 64, 128, 256, 512, 768)
register(
    Method(
        "neco",
        FAMILY,
        neco_score,
        needs=BOTH,
        fit=neco_fit,
        reads=("label_sums", "second", "features"),
        options={"dim": None, "max_logit": False},
        check=neco_check,
        limit=neco_limit,
        grid=tuple({"dim": d, "max_logit": m} for m in (False, True) for d in (None, *_NECO_DIMS)),
        aliases=("neural collapse",),
    )
)
register(
    Method(
        "nci",
        FAMILY,
        nci_score,
        needs=BOTH,
        fit=nci_fit,
        reads=("label_sums",),
        options={"alpha": 1e-4},
        check=nci_check,
        grid=tuple({"alpha": a} for a in (1e-4, 1e-3, 1e-2, 1e-1)),
        aliases=("neural collapse inspired", "nc ood"),
    )
)
register(
    Method(
        "vra",
        FAMILY,
        vra_score,
        needs=("features",),
        fit=vra_fit,
        reads=("features",),
        options={"low": 10, "high": 90},
        check=vra_check,
        limit=vra_limit,
        grid=tuple({"low": a, "high": b} for a in VRA_LOW for b in VRA_HIGH),
        aliases=("variational rectified activation",),
    )
)
register(
    Method(
        "lts",
        FAMILY,
        lts_score,
        needs=BOTH,
        fit=lts_fit,
        reads=(),
        options={"percentile": 95},
        check=shaping_check("lts"),
        limit=shaping_limit,
        grid=tuple({"percentile": q} for q in (65, 70, 75, 80, 85, 90, 95)),
        aliases=("logit scaling",),
    )
)
register(
    Method(
        "cadref",
        FAMILY,
        cadref_score,
        needs=BOTH,
        fit=cadref_fit,
        reads=("features",),
        options={"decoupled": True},
        check=cadref_check,
        limit=cadref_limit,
        grid=({"decoupled": True}, {"decoupled": False}),
        aliases=("caref", "class aware relative feature"),
    )
)
