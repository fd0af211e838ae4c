"""Detectors that read intermediate layers through their summaries."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from oodjax.detectors.base import Method, check_count, register
from oodjax.outputs import HOW_TO_GET, Outputs
from oodjax.softmax import energy
from oodjax.statistics import TrainStatistics

FAMILY = "intermediate"
TAILS = ("two-sided", "left", "right")


def gram_check(divide_by_confidence: bool, powers: Any) -> None:
    if not isinstance(divide_by_confidence, bool):
        raise ValueError(f"gram: divide_by_confidence must be True or False, got {divide_by_confidence!r}")
    if not isinstance(powers, (tuple, list)) or not powers:
        raise ValueError(f"gram: powers must be a non-empty tuple of whole numbers such as (1, 2, 3), got {powers!r}")
    for p in powers:
        check_count("gram", "each of powers", p)


def gram_resolve(stats: TrainStatistics, options: dict) -> dict:
    return {**options, "powers": tuple(options["powers"])}


def gram_limit(stats: TrainStatistics, options: Any) -> str | None:
    if stats.gram_predicted is None:
        return f"the training statistics lack `gram`, since Outputs.gram was None: {HOW_TO_GET['gram']}"
    have = stats.gram_predicted[0].shape[1]
    return f"powers {options['powers']} exceed the {have} in Outputs.gram" if max(options["powers"]) > have else None


def gram_fit(stats: TrainStatistics, validation: Outputs | None, divide_by_confidence: bool, powers: tuple) -> dict:
    assert stats.gram_predicted is not None and stats.gram_labelled is not None
    rows = [p - 1 for p in powers]
    predicted, labelled = stats.predicted_counts[:, None, None] > 0, stats.label_counts[:, None, None] > 0
    bounds = []
    for own, by_label, everything in zip(stats.gram_predicted, stats.gram_labelled, (np.min, np.max), strict=True):
        value = np.where(predicted, own, np.where(labelled, by_label, everything(own, axis=0)))
        bounds.append(value[:, rows].reshape(len(value), -1))
    return {"low": bounds[0], "high": bounds[1]}


def gram_score(params: dict, outputs: Outputs, divide_by_confidence: bool, powers: tuple) -> Float[jax.Array, " n"]:
    """- relative deviation of the Gram row sums from their training range (Sastry and Oore, ICML 2020, eqs. 3-4).

    The sum over layers and `powers` of relu(lo - g)/|lo + 1e-6| + relu(g - hi)/|hi + 1e-6|, divided by the largest
    softmax probability unless `divide_by_confidence` is false; lo and hi per predicted class over training.
    Deviations: no per-layer normalisation by validation deviations, as in the study; a class never predicted uses
    its samples by label, then all samples.
    """
    y = jnp.argmax(outputs.logits, axis=-1)
    rows = [p - 1 for p in powers]
    every = rows == list(range(outputs.gram.shape[1]))  # then there is nothing to pick out, which would be a copy
    g = (outputs.gram if every else outputs.gram[:, jnp.asarray(rows)]).reshape(y.shape[0], -1)
    deviation = jax.lax.platform_dependent(g, y, params["low"], params["high"], cpu=_row_by_row, default=_deviation)
    if divide_by_confidence:
        deviation = deviation / jax.nn.softmax(outputs.logits, axis=-1).max(axis=-1)
    return -jnp.minimum(deviation, jnp.finfo(jnp.float32).max)


def _deviation(
    g: Float[jax.Array, "n R"], y: Int[jax.Array, " n"], low: Float[jax.Array, "K R"], high: Float[jax.Array, "K R"]
) -> Float[jax.Array, " n"]:
    """Rows of g (n, R) against the bounds (K, R) of their class y (n,) -> (n,) summed relative excess."""
    low, high = low[y], high[y]

    def relative(excess, bound):
        return jnp.maximum(excess, 0.0) / jnp.maximum(jnp.abs(bound + 1e-6), 1e-12)

    return (relative(low - g, low) + relative(g - high, high)).sum(axis=-1)


def _row_by_row(
    g: Float[jax.Array, "n R"], y: Int[jax.Array, " n"], low: Float[jax.Array, "K R"], high: Float[jax.Array, "K R"]
) -> Float[jax.Array, " n"]:
    """The same, a sample at a time: on a CPU the bounds' rows stay in cache, ten times faster than gathering them."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _deviation(pair[0][None], pair[1][None], low, high)[0]

    return jax.lax.map(one, (g, y))


def ats_check(tail: str) -> None:
    if tail not in TAILS:
        raise ValueError(f"ats: tail must be one of {', '.join(TAILS)}, got {tail!r}")


def ats_limit(stats: TrainStatistics, options: Any) -> str | None:
    if stats.layer_means is None:
        return (
            "the training statistics lack `layer_means`, since Outputs.layer_means was None: "
            + HOW_TO_GET["layer_means"]
        )
    return None


def ats_fit(stats: TrainStatistics, validation: Outputs | None, tail: str) -> dict:
    assert stats.layer_means is not None
    return {"samples": np.sort(stats.layer_means, axis=0).T}


def ats_score(params: dict, outputs: Outputs, tail: str) -> Float[jax.Array, " n"]:
    """energy(z / T(x)), T the Fisher statistic of per-layer p-values (Krumpl et al., WACV 2024, fig. 2).

    Per layer a is the mean rectified activation, F = (1 + #{train <= a}) / (n + 2) its place in the training
    distribution and p = min(1, 2 min(F, 1 - F)); T = max(1e-3, -2 sum log p). The published diagram does not fix the
    tail: `tail` is "two-sided" (default), "left" (p = F) or "right" (p = 1 - F). Deviations: the paper's code is not
    public; this is its diagram.
    """
    samples = params["samples"]
    below = jax.vmap(lambda s, a: jnp.searchsorted(s, a, side="right"), in_axes=(0, 1), out_axes=1)(
        samples, outputs.layer_means
    )
    place = (1.0 + below.astype(jnp.float32)) / (samples.shape[1] + 2.0)
    p = {"left": place, "right": 1.0 - place}.get(tail, jnp.minimum(1.0, 2 * jnp.minimum(place, 1.0 - place)))
    temperature = jnp.maximum(1e-3, -2 * jnp.log(p).sum(axis=-1))
    top = outputs.logits.max(axis=-1)
    # The largest logit goes first: a quotient rounded twice would differ by more than an exponential bears.
    return top / temperature + energy((outputs.logits - top[:, None]) / temperature[:, None])


register(
    Method(
        "gram",
        FAMILY,
        gram_score,
        needs=("logits", "gram"),
        fit=gram_fit,
        check=gram_check,
        resolve=gram_resolve,
        reads=("gram",),
        limit=gram_limit,
        options={"divide_by_confidence": True, "powers": tuple(range(1, 11))},
        aliases=("gram matrices", "gram matrix"),
    )
)
register(
    Method(
        "ats",
        FAMILY,
        ats_score,
        needs=("logits", "layer_means"),
        fit=ats_fit,
        check=ats_check,
        limit=ats_limit,
        reads=("layer_means",),
        options={"tail": "two-sided"},
        aliases=("adaptive temperature scaling",),
    )
)
