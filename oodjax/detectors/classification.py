"""Detectors that read the logits alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax.arrays import class_indices, is_number
from oodjax.checks import check_finite
from oodjax.detectors.base import Method, check_count, check_number, dot, kth_largest, register
from oodjax.outputs import Outputs
from oodjax.softmax import confidence, energy, log_against_uniform, log_softmax
from oodjax.statistics import TrainStatistics

FAMILY = "classification"

ODIN_TEMPERATURES = (1, 10, 100, 1000)
ODIN_NOISES = (0.0014, 0.0028)

TEMPERATURE_RANGE = 1e3  # the fitted temperature, in units of the logits' spread
SMALLEST = 1e-20  # GEN's sums are continued below, where powers would underflow
FLAT = 0.05  # probabilities this close to 1 / K take KLM's form that does not cancel there


def msp_score(params: Any, outputs: Outputs) -> Float[jax.Array, " n"]:
    """Largest softmax probability (Hendrycks and Gimpel, ICLR 2017), in 0 to infinity.

    Deviations: the probability p is given as log(p / mean of the others), the same order without float32's rounding
    of p to 1; p = 1 / (1 + (K - 1) exp(-score)). See `oodjax.softmax.confidence`.
    """
    return confidence(outputs.logits)


def mls_score(params: Any, outputs: Outputs) -> Float[jax.Array, " n"]:
    """Largest logit (Hendrycks et al., ICML 2022). Deviations: none."""
    return outputs.logits.max(axis=-1)


def ebo_score(params: Any, outputs: Outputs) -> Float[jax.Array, " n"]:
    """Energy at temperature 1 (Liu et al., NeurIPS 2020, eq. 4, negated). Deviations: none."""
    return energy(outputs.logits)


def odin_check(temperature: float, noise: float, temperatures: tuple, noises: tuple) -> None:
    for name, value, values in (("temperature", temperature, temperatures), ("noise", noise, noises)):
        if not isinstance(values, tuple) or not values or not all(map(is_number, values)):
            raise ValueError(f"odin: {name}s must be a non-empty tuple of numbers, got {values!r}")
        if not is_number(value) or value not in values:
            raise ValueError(
                f"odin: {name} must be one of {', '.join(f'{v:g}' for v in values)} "
                f"(the axis {name}s of Outputs.odin), got {value!r}"
            )


def odin_score(
    params: Any, outputs: Outputs, temperature: float, noise: float, temperatures: tuple, noises: tuple
) -> Float[jax.Array, " n"]:
    """ODIN (Liang et al., ICLR 2018, eqs. 1-3), looked up in `Outputs.odin`, which `oodjax.odin_scores` fills.

    `temperatures` and `noises` name the axes of that array; the study's grid by default. Deviations: the form of the
    probability, as in `msp`.
    """
    got = outputs.odin.shape[1:]
    if got != (len(temperatures), len(noises)):
        raise ValueError(
            f"odin: Outputs.odin must have shape (n, {len(temperatures)}, {len(noises)}) for temperatures "
            f"{temperatures} and noises {noises}, got (n, {got[0]}, {got[1]}); name other axes with "
            'create("odin", temperatures=..., noises=...)'
        )
    return outputs.odin[:, temperatures.index(temperature), noises.index(noise)]


def tempscale_fit(stats: TrainStatistics, validation: Outputs | None) -> dict:
    if validation is None or validation.labels is None:
        raise ValueError("tempscale needs the labelled ID validation outputs: det.fit(stats, validation=outputs)")
    check_finite(validation, ("logits",), "tempscale")
    logits = np.asarray(validation.logits, np.float64)
    if logits.shape[1] != stats.classes:
        raise ValueError(f"tempscale: validation has {logits.shape[1]} classes, training has {stats.classes}")
    labels = class_indices(validation.labels, stats.classes, "tempscale: validation", ood=True)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    if len(labels) == 0:
        raise ValueError("tempscale needs at least one ID validation sample (label 0 or above), got none")
    return {"temperature": _best_temperature(logits, labels)}


def _best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T that minimises the mean NLL of (n, K) float64 logits over T, within the range that `tempscale` states."""
    from scipy.optimize import minimize_scalar  # here, since SciPy takes longer to import than all detectors
    from scipy.special import logsumexp

    spread = float(logits.std(axis=1).mean()) or 1.0
    scaled = (logits - logits.max(axis=1, keepdims=True)) / spread
    own = scaled[np.arange(len(labels)), labels]

    def nll(log_beta: float) -> float:
        beta = np.exp(log_beta)
        return float((logsumexp(beta * scaled, axis=1) - beta * own).mean())

    # Convex in beta = 1/T, so unimodal in its logarithm; the range counts where no optimum exists.
    limit = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(nll, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-10})
    return spread * float(np.exp(-found.x))


def tempscale_score(params: dict, outputs: Outputs) -> Float[jax.Array, " n"]:
    """Largest softmax probability at the temperature that minimises the validation NLL (Guo et al., ICML 2017).

    Deviations: the exact optimum is found, within 1e-3 to 1e3 times the mean standard deviation of a validation
    sample's logits; the form of the probability, as in `msp`.
    """
    return confidence(outputs.logits, params["temperature"])


def klm_fit(stats: TrainStatistics, validation: Outputs | None) -> dict:
    counts = stats.predicted_counts[:, None]
    templates = np.where(counts > 0, stats.softmax_sums / np.maximum(counts, 1), np.eye(stats.classes))
    templates /= templates.sum(axis=1, keepdims=True)
    logs = np.log(np.maximum(templates, np.finfo(np.float32).tiny))
    # A mean of probabilities next to 1 is what the others leave: they kept the digits that float32 rounded away.
    certain = templates > 0.5
    rest = np.where(certain, 0.0, templates).sum(axis=1, keepdims=True)
    logs = np.where(certain, np.log1p(-rest.clip(max=0.5)), logs)
    against_uniform = logs + np.log(stats.classes)
    return {"logs": logs, "against_uniform": against_uniform, "from_uniform": -against_uniform.mean(axis=1)}


def klm_score(params: dict, outputs: Outputs) -> Float[jax.Array, " n"]:
    """- min_c KL(p || d_c), d_c the mean softmax of the samples predicted c (Hendrycks et al., ICML 2022, sec. 4).

    A p next to uniform is taken as (1 + x) / K: the terms that are linear in x, which cancel, are left out.
    Deviations: the logarithm of a template is floored at that of float32's smallest normal number, so the
    divergence from a one-hot template stays finite.
    """
    log_p, relative = log_softmax(outputs.logits), log_against_uniform(outputs.logits)
    p, x = jnp.exp(log_p), jnp.expm1(relative)
    direct = (p * log_p).sum(axis=-1, keepdims=True) - dot(p, params["logs"].T)
    entropy = (x**2 * (1 / 2 - x / 6 + x**2 / 12 - x**3 / 20)).mean(axis=-1, keepdims=True)  # of (1 + x) log(1 + x) - x
    flat = entropy + params["from_uniform"][None, :] - dot(x, params["against_uniform"].T) / x.shape[-1]
    is_flat = jnp.abs(x).max(axis=-1, keepdims=True) < FLAT
    return -jnp.where(is_flat, flat, direct).min(axis=-1)


def gen_check(gamma: float, top_m: int) -> None:
    check_number("gen", "gamma", gamma, 0, 100, open_low=True)
    check_count("gen", "top_m", top_m)


def gen_limit(stats: TrainStatistics, options: Any) -> str | None:
    m = options["top_m"]
    return f"top_m {m} exceeds the {stats.classes} classes" if m > stats.classes else None


def gen_cap(stats: TrainStatistics, options: Any) -> dict:
    return {**options, "top_m": min(options["top_m"], stats.classes)}


def gen_score_many(points: list, outputs: Outputs) -> Float[jax.Array, "n points"]:
    """- sum over the M largest p of (p (1 - p))^gamma (Liu et al., CVPR 2023, eq. 5).

    Powers are taken of logarithms, and 1 - p of the largest p is the sum of the others, so that neither a tiny p
    nor a p next to 1 loses its digits. The M largest are those above the M-th, found without a sort; one power per
    gamma serves every M. Deviations: a sum s below 1e-20, whose powers would underflow in float32, is given as
    1e-20 / (1 + log(1e-20 / s)), which keeps the order.
    """
    z = outputs.logits
    classes = z.shape[1]
    log_p = log_softmax(z)
    top = jnp.arange(classes)[None, :] == jnp.argmax(z, axis=-1)[:, None]
    log_others = energy(jnp.where(top, jnp.finfo(jnp.float32).min, log_p))[:, None]
    log_product = log_p + jnp.where(top, log_others, jnp.log1p(-jnp.exp(log_p).clip(max=0.5)))
    largest = jnp.where(top, log_product, -jnp.inf).max(axis=-1)  # p (1 - p) is largest for the largest p
    powers = {g: jnp.exp(g * (log_product - largest[:, None])) for g in {o["gamma"] for _, o in points}}
    sizes = {min(o["top_m"], classes) for _, o in points}
    limits = {m: kth_largest(z, m)[:, None] for m in sizes if m < classes}

    def summed(gamma: float, m: int) -> jax.Array:
        values = powers[gamma]
        if m == classes:
            return continued(gamma, values.sum(axis=-1))
        above, ties = z > limits[m], z == limits[m]
        value_at_limit = jnp.where(ties, values, 0.0).max(axis=-1)
        at_limit = (m - above.sum(axis=-1)).astype(jnp.float32) * value_at_limit
        return continued(gamma, jnp.where(above, values, 0.0).sum(axis=-1) + at_limit)

    def continued(gamma: float, total: jax.Array) -> jax.Array:
        below = jnp.log(SMALLEST) - gamma * largest - jnp.log(total)
        return jnp.where(below > 0, SMALLEST / (1 + below), jnp.exp(gamma * largest) * total)

    return jnp.stack([-summed(o["gamma"], min(o["top_m"], classes)) for _, o in points], axis=-1)


register(
    Method(
        "msp",
        FAMILY,
        msp_score,
        reads=(),
        aliases=("softmax", "max softmax", "maximum softmax probability", "baseline"),
    )
)
register(
    Method(
        "mls", FAMILY, mls_score, reads=(), aliases=("maxlogit", "maxlogits", "maximum logit score", "max logit score")
    )
)
register(Method("ebo", FAMILY, ebo_score, reads=(), aliases=("energy", "energy score", "energy based", "ebm")))
register(
    Method(
        "odin",
        FAMILY,
        odin_score,
        needs=("odin",),
        reads=(),
        check=odin_check,
        options={"temperature": 1000, "noise": 0.0014, "temperatures": ODIN_TEMPERATURES, "noises": ODIN_NOISES},
        grid=tuple({"temperature": t, "noise": e} for t, e in product(ODIN_TEMPERATURES, ODIN_NOISES)),
    )
)
register(
    Method(
        "tempscale",
        FAMILY,
        tempscale_score,
        fit=tempscale_fit,
        reads=(),
        reads_validation=True,
        aliases=("temperature scaling", "temp scaling", "temperature", "ts"),
    )
)
register(
    Method(
        "klm", FAMILY, klm_score, fit=klm_fit, reads=("softmax_sums",), aliases=("kl matching", "kl", "kl divergence")
    )
)
register(
    Method(
        "gen",
        FAMILY,
        lambda params, outputs, **o: gen_score_many([(params, o)], outputs)[:, 0],
        reads=(),
        options={"gamma": 0.1, "top_m": 100},
        check=gen_check,
        limit=gen_limit,
        cap=gen_cap,
        score_many=gen_score_many,
        grid=tuple(
            {"gamma": g, "top_m": m} for g, m in product((0.01, 0.1, 0.5, 1, 2, 5, 10), (10, 50, 100, 200, 500, 1000))
        ),
        aliases=("generalized entropy", "generalised entropy"),
    )
)
