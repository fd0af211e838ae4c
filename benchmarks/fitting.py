"""(e) The training statistics: a step of the sums, percentiles of all activations, all of k-NN's points.

Each against its plain form, measured turn by turn in one run.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import measure, ratio
from oodjax import Head, Outputs, TrainStatistics, accumulate, detectors
from oodjax.detectors import score_all
from oodjax.outputs import canonical
from oodjax.percentiles import Percentiles

D, K, CHANNELS, POWERS, BATCH = 2048, 1000, 3904, 10, 64
BANK, QUERIES = 20_000, 256
REACT = (70, 80, 85, 90, 95, 99)


def run(repeats: int = 5) -> dict[str, Any]:
    """Plain form / ours, of the time."""
    rng = np.random.default_rng(0)
    bank = np.maximum(rng.standard_normal((BANK, D), np.float32), 0)
    return {
        "gram bounds": _bounds(rng, repeats),
        "percentiles": _percentiles(bank, repeats),
        "knn grid": _knn(rng, bank, repeats),
    }


def _bounds(rng: np.random.Generator, repeats: int) -> dict[str, Any]:
    """A step of GRAM's bounds: by scatter into donated buffers, against bounds by segment joined to the old ones."""
    rows = rng.uniform(0.5, 1.5, (BATCH, POWERS, CHANNELS)).astype(np.float32)
    logits = rng.standard_normal((BATCH, K), np.float32)
    out = canonical(Outputs(logits, rows[:, 0, :8], rng.integers(0, K, BATCH), rows))
    mask, needs = jnp.ones(BATCH, bool), frozenset({"gram"})
    states = {"ours": accumulate.start(out, mask, needs), "plain": accumulate.start(out, mask, needs)}

    def plain(state: accumulate.Accumulator, out: Outputs, mask: jax.Array) -> accumulate.Accumulator:
        def bounds(old: Any, owner: jax.Array) -> Any:
            low = jax.ops.segment_min(out.gram, owner, num_segments=K)
            high = jax.ops.segment_max(out.gram, owner, num_segments=K)
            return jnp.minimum(old[0], low), jnp.maximum(old[1], high)

        rest = accumulate.update(
            dataclasses.replace(state, gram_predicted=None, gram_labelled=None), out.replace(gram=None), mask
        )
        predicted = bounds(state.gram_predicted, jnp.argmax(out.logits, axis=-1))
        return dataclasses.replace(
            rest, gram_predicted=predicted, gram_labelled=bounds(state.gram_labelled, out.labels)
        )

    steps = {"ours": accumulate.step, "plain": jax.jit(plain, donate_argnums=0)}

    def step(name: str) -> Any:
        states[name] = steps[name](states[name], out, mask)
        return states[name]

    timings = measure(lambda: step("plain"), lambda: step("ours"), repeats=repeats)
    for a, b in zip(jax.tree.leaves(states["ours"]), jax.tree.leaves(states["plain"]), strict=True):
        np.testing.assert_array_equal(a, b)
    return {"ratio": ratio(*timings), "classes": K, "rows": BATCH, "numbers a row": POWERS * CHANNELS}


def _percentiles(bank: np.ndarray, repeats: int) -> dict[str, Any]:
    """ReAct's six percentiles together, against a sort each."""
    timings = measure(
        lambda: [np.percentile(bank, q) for q in REACT], lambda: Percentiles(bank)(REACT), repeats=repeats
    )
    return {"ratio": ratio(*timings), "values": bank.size, "percentiles": len(REACT)}


def _knn(rng: np.random.Generator, bank: np.ndarray, repeats: int) -> dict[str, Any]:
    """The five points by one search, against a search each."""
    kernel = rng.standard_normal((D, 2), np.float32)
    train = Outputs(bank @ kernel, bank, np.zeros(len(bank), np.int32))
    stats = TrainStatistics.collect(
        train, Head(kernel, np.zeros(2, np.float32)), needs=detectors.reads(["knn"]), check_head=False
    )
    ks = [options["k"] for options in detectors.grid("knn")]
    points = [detectors.create("knn", k=k).fit(stats) for k in ks]
    out = Outputs(np.zeros((QUERIES, 1), np.float32), rng.uniform(0, 1, (QUERIES, D)).astype(np.float32))
    score = jax.jit(score_all)
    timings = measure(lambda: [score([point], out) for point in points], lambda: score(points, out), repeats=repeats)
    return {"ratio": ratio(*timings), "bank": BANK, "queries": QUERIES, "points": len(ks)}
