"""A later method that sums a sample's relations to the training samples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oodjax.detectors.base import Method, check_number, register
from oodjax.detectors.hybrid import BOTH, FAMILY
from oodjax.neighbors import inner, normalize
from oodjax.outputs import Outputs
from oodjax.statistics import TrainStatistics

BLOCK = 4096
EDGE = 0.03  # the least relation that counts
USUAL_ROWS = 50_000


def relation_check(power: float, fraction: float | None) -> None:
    check_number("relation", "power", power, 0, 100, open_low=True)
    if fraction is not None:
        check_number("relation", "fraction", fraction, 0, 1, open_low=True)


def relation_resolve(stats: TrainStatistics, options: dict) -> dict:
    usual = min(1.0, stats.bank_fraction, USUAL_ROWS / stats.count)
    return {**options, "fraction": usual if options["fraction"] is None else options["fraction"]}


def relation_limit(stats: TrainStatistics, options: Any) -> str | None:
    if options["fraction"] > stats.bank_fraction:
        return f"fraction {options['fraction']} exceeds the bank_fraction {stats.bank_fraction} of the statistics"
    return None if len(stats.features) else "the bank's 0 features relate to nothing: raise bank_fraction"


def relation_fit(stats: TrainStatistics, validation: Outputs | None, power: float, fraction: float) -> dict:
    size = min(max(1, round(fraction * stats.count)), len(stats.features))
    known = stats.memory.get("relation")
    if known is None or len(known["bank"]) != size:
        rows = jnp.asarray(np.asarray(stats.features[stats.bank_subset(size)], np.float32))
        known = {"bank": normalize(rows), "probabilities": jax.nn.softmax(stats.head(rows), axis=-1)}
        stats.memory["relation"] = known
    return known


def relation_score(params: dict, outputs: Outputs, power: float, fraction: float) -> Float[jax.Array, " n"]:
    """Mean relation to the training samples (Kim et al., NeurIPS 2023, eq. 1 and sec. 3.3), in 0 to 1.

    The relation to sample j is (max(0, cos(h, h_j)) p . p_j)^`power`, p the softmax. Cost: two products with the bank,
    m (D + K) a sample; the bank holds features and probabilities of a seeded `fraction` of training, by default as
    much of it as is 50,000 samples. Grid and default are OpenOOD's. Deviations: the mean where the paper has the sum,
    the same order; relations below 0.03 count as 0, as in the authors' code.
    """
    queries, p = normalize(outputs.features), jax.nn.softmax(outputs.logits, axis=-1)

    def summed(bank: jax.Array, probabilities: jax.Array) -> jax.Array:
        relations = jnp.maximum(inner(queries, bank), 0.0) * inner(p, probabilities)
        counted = relations > EDGE
        return jnp.where(counted, jnp.where(counted, relations, 1.0) ** power, 0.0).sum(axis=-1)

    bank, probabilities = params["bank"], params["probabilities"]
    whole = bank.shape[0] // BLOCK

    def add(total: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        parts = (jax.lax.dynamic_slice_in_dim(x, start, BLOCK) for x in (bank, probabilities))
        return total + summed(*parts), None

    total = summed(bank[whole * BLOCK :], probabilities[whole * BLOCK :])
    if whole:
        total, _ = jax.lax.scan(add, total, jnp.arange(whole, dtype=jnp.int32) * BLOCK)
    return total / bank.shape[0]


register(
    Method(
        "relation",
        FAMILY,
        relation_score,
        needs=BOTH,
        fit=relation_fit,
        reads=("features",),
        options={"power": 1, "fraction": None},
        check=relation_check,
        resolve=relation_resolve,
        limit=relation_limit,
        grid=tuple({"power": p} for p in (1, 2, 4, 6, 8)),
        aliases=("neural relation graph", "relation graph"),
    )
)
