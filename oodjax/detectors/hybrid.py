"""Detectors that join features and logits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax.detectors.base import Method, check_count, check_number, dot, kth_largest, register
from oodjax.neighbors import nearest, normalize
from oodjax.outputs import Head, Outputs
from oodjax.softmax import energy
from oodjax.statistics import TrainStatistics

FAMILY = "hybrid"
BOTH = ("logits", "features")
RESIDUAL_BLOCK = 2048
REACT_PERCENTILES = (70, 80, 85, 90, 95, 99)
EXPONENT_LIMIT = 60.0  # exp(60) ~ 1e26 leaves room for any logit in float32


def vim_check(dim: int | None) -> None:
    if dim is not None:
        check_count("vim", "dim", dim)


def vim_resolve(stats: TrainStatistics, options: dict) -> dict:
    usual, rank = _usual_dim(stats.dim), stats.spectrum.rank
    default = usual if usual < rank or usual == stats.dim else _usual_dim(rank)
    return {"dim": default if options["dim"] is None else options["dim"]}


def _usual_dim(features: int) -> int:
    return 1000 if features >= 1500 else 512 if features >= 768 else max(features // 2, 1)


def vim_note(stats: TrainStatistics, options: dict) -> str | None:
    usual, rank = _usual_dim(stats.dim), stats.spectrum.rank
    chosen = vim_resolve(stats, options)["dim"]
    if options["dim"] is not None or chosen == usual and chosen < rank:
        return None
    if chosen >= rank:
        return f"the energy alone, since training has rank {rank} and no residual"
    return f"dim {chosen} instead of {usual}, since training has rank {rank}"


def vim_limit(stats: TrainStatistics, options: Any) -> str | None:
    dim, rank = options["dim"], stats.spectrum.rank
    if dim > stats.dim:
        return f"dim {dim} exceeds the {stats.dim} features"
    if dim >= rank and dim > 1 and dim < stats.dim:
        return f"dim {dim} leaves no residual: training has rank {rank}, dim must be below it"
    return None if len(stats.features) else "the bank's 0 features give no mean residual: raise bank_fraction"


def vim_fit(stats: TrainStatistics, validation: Outputs | None, dim: int) -> dict:
    origin, basis = stats.spectrum.origin, stats.spectrum.residual_basis(dim)
    # Features far from the origin are first taken about their mean, where float32 products keep the digits.
    center = stats.centers[0].astype(np.float32)
    params = {"center": center, "basis": basis, "shift": (center - origin) @ basis}
    if dim >= stats.spectrum.rank:
        return {**params, "alpha": 0.0}
    known = stats.memory.get("vim")
    if known is None or len(known) < basis.shape[1]:
        known = stats.memory["vim"] = _mean_residuals(stats, basis)
    return {**params, "alpha": stats.max_logit_sum / stats.count / known[basis.shape[1] - 1]}


def _mean_residuals(stats: TrainStatistics, basis: np.ndarray) -> np.ndarray:
    """(D, r) directions -> (r,) mean length over the bank of (h - u) along the first 1, 2, ... of them.

    In one pass: a larger `dim` has fewer of the same residual directions. Where the rows are few enough for float64,
    directions count that float32 would drown, see `oodjax.linalg`.
    """
    origin, features = stats.spectrum.origin, stats.features
    sums, rows = np.zeros(basis.shape[1]), min(RESIDUAL_BLOCK, len(features))
    on_device = jnp.asarray(origin, jnp.float32), jnp.asarray(basis, jnp.float32)
    for start in range(0, len(features), rows):
        part = np.asarray(features[start : start + rows], np.float32)
        if stats.from_rows:
            sums += np.sqrt(np.cumsum(((part - origin) @ basis) ** 2, axis=1)).sum(axis=0)
            continue
        if len(part) < rows:  # a padded last block needs no program of its own
            part = np.concatenate([part, np.zeros((rows - len(part), stats.dim), np.float32)])
        sums += _summed_lengths(part, jnp.arange(rows) < len(features) - start, *on_device)
    return sums / len(features)


@jax.jit
def _summed_lengths(rows: jax.Array, mask: jax.Array, origin: jax.Array, basis: jax.Array) -> jax.Array:
    """(n, D) rows -> (r,) sum over those where mask holds of their length along the first 1, 2, ... directions."""
    squares = dot(rows - origin[None, :], basis) ** 2
    return jnp.where(mask[:, None], jnp.sqrt(jnp.cumsum(squares, axis=1)), 0.0).sum(axis=0)


def vim_score(params: dict, outputs: Outputs, dim: int) -> Float[jax.Array, " n"]:
    """energy - alpha |R'(h - u)| (Wang et al., CVPR 2022, eqs. 5-7).

    u = -pinv(W')b; R spans the eigenvectors of the training features' second moment about u after the `dim`
    largest; alpha = mean largest logit / mean residual norm over training. The default `dim` is 1000 from 1500
    features on, 512 from 768 on, else half of them; where training's rank does not exceed that, the same of the rank.
    The rank is the number of eigenvalues above 1e-10 of the largest, or above float32's epsilon of it where the
    moment is a sum of float32 products (`oodjax.linalg`). Deviations: alpha's residual norm is averaged over the
    feature bank, which is all of training unless a share was asked for; with `dim` the number of features, or a rank
    of 1 or 0, there is no residual and the score is the energy.
    """
    residual = dot(outputs.features - params["center"][None, :], params["basis"]) + params["shift"][None, :]
    return energy(outputs.logits) - params["alpha"] * jnp.sqrt((residual**2).sum(axis=-1))


def kept_units(dim: int, percentile: float) -> int:
    """How many of `dim` units activation shaping at `percentile` keeps: D - round(D q / 100)."""
    return dim - int(np.round(dim * percentile / 100))


def shaping_check(name: str):
    return lambda percentile: check_number(name, "percentile", percentile, 0, 100)


def shaping_limit(stats: TrainStatistics, options: Any) -> str | None:
    q = options["percentile"]
    return None if kept_units(stats.dim, q) else f"percentile {q} keeps none of the {stats.dim} features"


def head_fit(stats: TrainStatistics, validation: Outputs | None, **options: Any) -> dict:
    return {"head": stats.head}


def ash_score(params: dict, outputs: Outputs, percentile: float) -> Float[jax.Array, " n"]:
    """Energy after ASH-B (Djurisic et al., ICLR 2023, alg. 2): the k largest units become sum(h)/k, the rest 0.

    Ties at the k-th place keep the units of lowest index. Deviations: on pooled features, as in OpenOOD.
    """
    features, head = outputs.features, params["head"]
    k = kept_units(features.shape[1], percentile)
    limit = kth_largest(features, k)[:, None]
    above, ties = features > limit, features == limit
    room = k - above.sum(axis=-1, keepdims=True)
    kept = above | (ties & (jnp.cumsum(ties, axis=-1) <= room))
    share = features.sum(axis=-1) / k
    logits = dot(kept.astype(jnp.float32), head.kernel) * share[:, None] + head.bias[None, :]
    return energy(logits)


def scale_score(params: dict, outputs: Outputs, percentile: float) -> Float[jax.Array, " n"]:
    """Energy of the logits of h exp(r), r = sum(h) / sum of the k largest (Xu et al., ICLR 2024, eq. 6).

    The logits are e^r (z - b) + b: no matrix product. Deviations: |sum of the k largest| is at least 1e-6 sum |h|
    and |r| at most 60, which only signed features reach; all-zero features have r = 1.
    """
    features, bias = outputs.features, params["head"].bias[None, :]
    k = kept_units(features.shape[1], percentile)
    limit = kth_largest(features, k)
    above = features > limit[:, None]
    largest = jnp.where(above, features, 0.0).sum(axis=-1) + (k - above.sum(axis=-1)).astype(jnp.float32) * limit
    floor = 1e-6 * jnp.abs(features).sum(axis=-1)
    safe = jnp.where(jnp.abs(largest) > floor, largest, jnp.where(largest < 0, -floor, floor))
    ratio = jnp.where(floor > 0, features.sum(axis=-1) / jnp.where(floor > 0, safe, 1.0), 1.0)
    factor = jnp.exp(ratio.clip(-EXPONENT_LIMIT, EXPONENT_LIMIT))[:, None]
    return energy(factor * (outputs.logits - bias) + bias)


def react_fit(stats: TrainStatistics, validation: Outputs | None, percentile: float) -> dict:
    threshold, *_ = stats.activation_percentiles((percentile, *REACT_PERCENTILES))  # all of them cost as much as one
    return {"head": stats.head, "threshold": threshold}


def react_score(params: dict, outputs: Outputs, percentile: float) -> Float[jax.Array, " n"]:
    """Energy of the logits of min(h, c), c a percentile of all training activations (Sun et al., NeurIPS 2021, eq. 4).

    Deviations: none.
    """
    return energy(params["head"](jnp.minimum(outputs.features, params["threshold"])))


def dice_fit(stats: TrainStatistics, validation: Outputs | None, percentile: float) -> dict:
    kernel = np.asarray(stats.head.kernel, np.float64)
    contribution = stats.mean[:, None] * kernel
    mask = contribution > np.percentile(contribution, percentile)
    return {"head": Head((kernel * mask).astype(np.float32), stats.head.bias)}


def dice_score(params: dict, outputs: Outputs, percentile: float) -> Float[jax.Array, " n"]:
    """Energy of the logits of the weights that contribute most (Sun and Li, ECCV 2022, eq. 4).

    Kept are the entries of mean(h)_d W_dk above their percentile. Deviations: none (a sweep makes a new mask each
    time, which the reference implementation does not).
    """
    return energy(params["head"](outputs.features))


def nnguide_check(k: int | None, fraction: float | None) -> None:
    if k is not None:
        check_count("nnguide", "k", k)
    if fraction is not None:
        check_number("nnguide", "fraction", fraction, 0, 1, open_low=True)


def nnguide_resolve(stats: TrainStatistics, options: dict) -> dict:
    k, fraction = options["k"], options["fraction"]
    if fraction is None:  # 1%, or what the neighbours need where the training split or what was kept of it is small
        fraction = min(1.0, stats.bank_fraction, max(0.01, (100 if k is None else k) / stats.count))
    bank = _nnguide_size(stats, fraction)
    return {"k": max(1, min(100, bank)) if k is None else k, "fraction": fraction}


def _nnguide_size(stats: TrainStatistics, fraction: float) -> int:
    """`fraction` of the training samples, as far as the statistics kept them: their share is drawn by chance."""
    return min(max(1, round(fraction * stats.count)), len(stats.features))


def nnguide_limit(stats: TrainStatistics, options: Any) -> str | None:
    if options["fraction"] > stats.bank_fraction:
        return f"fraction {options['fraction']} exceeds the bank_fraction {stats.bank_fraction} of the statistics"
    size = _nnguide_size(stats, options["fraction"])
    return f"k {options['k']} exceeds the bank's {size} features" if options["k"] > size else None


def nnguide_fit(stats: TrainStatistics, validation: Outputs | None, k: int, fraction: float) -> dict:
    chosen = stats.bank_subset(_nnguide_size(stats, fraction))
    return {"bank": normalize(jnp.asarray(stats.features[chosen])) * stats.energies[chosen, None]}


def nnguide_score(params: dict, outputs: Outputs, k: int, fraction: float) -> Float[jax.Array, " n"]:
    """energy times the mean of the k largest inner products with the bank (Park et al., ICCV 2023, eqs. 3-5).

    The bank is a seeded `fraction` of the training features at unit length times their own energy. Left open, the
    fraction is 1% and k 100, as in the study, the fraction growing where 1% is less than k. Deviations: the share is
    chosen by a hash of the features, not by the order of the images.
    """
    products, _ = nearest(normalize(outputs.features), params["bank"], k)
    return energy(outputs.logits) * products.mean(axis=-1)


def fdbd_check(distance_as_normalizer: bool) -> None:
    if not isinstance(distance_as_normalizer, bool):
        raise ValueError(f"fdbd: distance_as_normalizer must be True or False, got {distance_as_normalizer!r}")


def fdbd_fit(stats: TrainStatistics, validation: Outputs | None, distance_as_normalizer: bool) -> dict:
    kernel = np.asarray(stats.head.kernel, np.float64)
    gram = kernel.T @ kernel
    norms = np.diag(gram)
    gaps = np.sqrt(np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0))
    inverse = np.where(gaps > 1e-6 * np.sqrt(norms.max()), 1 / np.where(gaps > 0, gaps, 1.0), 0.0)
    return {"inverse_gaps": inverse, "mean": stats.mean}


def fdbd_score(params: dict, outputs: Outputs, distance_as_normalizer: bool) -> Float[jax.Array, " n"]:
    """Sum of distances to the decision boundaries over a feature norm (Liu and Qin, ICML 2024, eqs. 3 and 7).

    sum_c |z_y - z_c| / |w_y - w_c|, y the predicted class, divided by |h - mean(h_train)|, or by |h| when
    `distance_as_normalizer` is false. Deviations: the sum over classes, not the mean; classes with equal weights are
    left out; the norm is at least 1e-12.
    """
    z, h = outputs.logits, outputs.features
    y = jnp.argmax(z, axis=-1)
    gaps = jnp.abs(z.max(axis=-1, keepdims=True) - z)
    boundaries = (gaps * params["inverse_gaps"][y]).sum(axis=-1)
    reference = h - params["mean"][None, :] if distance_as_normalizer else h
    return boundaries / jnp.maximum(jnp.sqrt((reference**2).sum(axis=-1)), 1e-12)


def _percentiles(*values: int) -> tuple[dict, ...]:
    return tuple({"percentile": q} for q in values)


_SHAPING = (65, 70, 75, 80, 85, 90, 95)
register(
    Method(
        "vim",
        FAMILY,
        vim_score,
        needs=BOTH,
        fit=vim_fit,
        options={"dim": None},
        check=vim_check,
        reads=("label_sums", "second", "features"),
        resolve=vim_resolve,
        limit=vim_limit,
        note=vim_note,
        aliases=("virtual logit matching", "virtual logit"),
    )
)
register(
    Method(
        "ash",
        FAMILY,
        ash_score,
        needs=("features",),
        fit=head_fit,
        reads=(),
        options={"percentile": 90},
        check=shaping_check("ash"),
        limit=shaping_limit,
        grid=_percentiles(*_SHAPING),
        aliases=("activation shaping", "ash b", "ash s", "ash p"),
    )
)
register(
    Method(
        "react",
        FAMILY,
        react_score,
        needs=("features",),
        fit=react_fit,
        options={"percentile": 90},
        reads=("features",),
        check=shaping_check("react"),
        grid=_percentiles(*REACT_PERCENTILES),
    )
)
register(
    Method(
        "dice",
        FAMILY,
        dice_score,
        needs=("features",),
        fit=dice_fit,
        options={"percentile": 90},
        reads=("label_sums",),
        check=shaping_check("dice"),
        grid=_percentiles(10, 30, 50, 70, 90),
        aliases=("directed sparsification",),
    )
)
register(
    Method(
        "scale",
        FAMILY,
        scale_score,
        needs=BOTH,
        fit=head_fit,
        reads=(),
        options={"percentile": 85},
        check=shaping_check("scale"),
        limit=shaping_limit,
        grid=_percentiles(*_SHAPING),
    )
)
register(
    Method(
        "nnguide",
        FAMILY,
        nnguide_score,
        needs=BOTH,
        fit=nnguide_fit,
        options={"k": None, "fraction": None},
        reads=("features",),
        check=nnguide_check,
        resolve=nnguide_resolve,
        limit=nnguide_limit,
        aliases=("nearest neighbor guidance", "nearest neighbour guidance"),
    )
)
register(
    Method(
        "fdbd",
        FAMILY,
        fdbd_score,
        needs=BOTH,
        fit=fdbd_fit,
        options={"distance_as_normalizer": True},
        reads=("label_sums",),
        check=fdbd_check,
        grid=({"distance_as_normalizer": True}, {"distance_as_normalizer": False}),
        aliases=("fast decision boundary", "decision boundary distance"),
    )
)
