"""(c) Each detector's scoring of cached outputs, D 2048 and K 1000, against its textbook form where it has one."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.textbook import FORMS, Problem
from benchmarks.timing import measure
from oodjax import Head, Outputs, TrainStatistics, detectors
from oodjax.detectors.labels import parse

D, K, LAYERS, CHANNELS, POWERS = 2048, 1000, 5, 3904, 10
TRAIN, BATCH = 20_000, 1000
GRAM_SAMPLES = 1000  # GRAM's rows of 10,000 samples alone are 1.6 GB: fewer, and the time per sample is what counts
# The textbook forms take up to 0.5 s a sample: they see this many, and the time per sample is compared.
TEXTBOOK_SAMPLES = {"klm": 4, "fdbd": 20, "gradnorm": 50, "dice": 50, "mds": 200, "rmds": 200, "knn": 500, "gram": 200}


def random_outputs(rng: np.random.Generator, n: int, head: Head, with_gram: bool) -> Outputs:
    """Features of rectified class clusters, as after a ResNet's pooling."""
    labels = rng.integers(0, K, n)
    centres = np.asarray(head.kernel).T[labels]
    noise = rng.standard_normal((n, D), np.float32)
    features = np.maximum(0.4 + 4 * centres + 0.4 * noise, 0).astype(np.float32)
    logits = features @ np.asarray(head.kernel) + np.asarray(head.bias)
    gram = rng.uniform(0.5, 1.5, (n, POWERS, CHANNELS)).astype(np.float32) if with_gram else None
    means = rng.gamma(4, 0.1, (n, LAYERS)).astype(np.float32)
    return Outputs(logits, features, labels.astype(np.int32), gram, means)


def run(samples: int = 10_000, names: tuple[str, ...] = detectors.NAMES) -> dict[str, Any]:
    """Time per sample of each detector, by name or label, and its ratio textbook / ours."""
    rng = np.random.default_rng(0)
    head = Head((rng.standard_normal((D, K), np.float32) * 0.03), rng.standard_normal(K, np.float32) * 0.01)
    train = random_outputs(rng, TRAIN, head, with_gram=False)
    with_gram = random_outputs(rng, 2 * K, head, with_gram=True)
    stats = TrainStatistics.collect(train, head)
    gram_stats = TrainStatistics.collect(with_gram, head)
    test = random_outputs(rng, samples, head, with_gram=False)
    gram_test = random_outputs(rng, min(samples, GRAM_SAMPLES), head, with_gram=True)
    found = {}
    for name in names:
        method = parse(name).method
        if "odin" in method.needs:  # cached scores are only looked up: its cost lies in its passes, see extraction.py
            continue
        reads_gram = "gram" in method.needs
        det = detectors.create(name).fit(gram_stats if reads_gram else stats, validation=test)
        found[name] = _compare(name, det, gram_test if reads_gram else test, stats, gram_stats)
        ratio = f"{found[name]['ratio']:>9.1f}x" if "ratio" in found[name] else " " * 10
        print(f"  {name:<10} {ratio}  ({found[name]['microseconds']:.2f} us a sample)")
    return found


def _compare(
    name: str, det: detectors.Detector, outputs: Outputs, stats: TrainStatistics, gram_stats: TrainStatistics
) -> dict[str, Any]:
    score = jax.jit(lambda det, part: det.score(part))
    lean = Outputs(**{f: getattr(outputs, f) for f in {"logits", "features", *det.needs}})
    parts = [jax.tree.map(jnp.asarray, lean[i : i + BATCH]) for i in range(0, len(outputs), BATCH)]
    (ours,) = measure(lambda: [score(det, part) for part in parts])
    each = ours.median / len(outputs)
    spread = [min(ours.seconds) / ours.median, max(ours.seconds) / ours.median]
    measured = {"microseconds": 1e6 * each, "samples": len(outputs), "spread": spread}
    if name not in FORMS:  # a later one, one of your own, or one with other options
        return measured
    few = outputs[: min(TEXTBOOK_SAMPLES.get(name, BATCH), len(outputs))]
    problem = _problem(few, stats, gram_stats)
    start = time.perf_counter()
    textbook_scores = FORMS[name](problem)
    textbook = (time.perf_counter() - start) / len(few)
    got = np.asarray(det.score(few))
    if name == "msp":  # the package gives log(p / mean of the others)
        got = 1 / (1 + (K - 1) * np.exp(-got))
    if name not in ("nnguide", "tempscale", "gram"):  # those are given another bank, temperature and bounds
        deviation = max(float(np.std(textbook_scores)), 1e-6)
        assert np.abs(got - textbook_scores).max() < 1e-2 * deviation, name
    compared = {"textbook_microseconds": 1e6 * textbook, "textbook_samples": len(few)}
    return {"ratio": textbook / each, **measured, **compared}


def _problem(few: Outputs, stats: TrainStatistics, gram_stats: TrainStatistics) -> Problem:
    vim = detectors.create("vim").fit(stats).params
    counts = stats.predicted_counts[:, None]
    bounds = gram_stats.gram_predicted or (np.zeros((K, POWERS, 1)), np.zeros((K, POWERS, 1)))
    low, high = (np.where(np.isfinite(b), b, 0) for b in bounds)  # a class never predicted has none
    return Problem(
        logits=few.logits,
        features=few.features,
        gram=few.gram if few.gram is not None else np.zeros((len(few), POWERS, 1)),
        layer_means=few.layer_means,
        kernel=np.asarray(stats.head.kernel),
        bias=np.asarray(stats.head.bias),
        bank=stats.features,
        bank_energies=stats.energies,
        class_means=stats.correct_means,
        mean=stats.mean,
        within=stats.within_covariance,
        total=stats.total_covariance,
        templates=np.where(counts > 0, stats.softmax_sums / np.maximum(counts, 1), np.eye(K)),
        gram_low=low,
        gram_high=high,
        layer_samples=stats.layer_means,
        temperature=1.0,
        threshold=stats.activation_percentile(90),
        vim_origin=stats.spectrum.origin,
        vim_basis=np.asarray(vim["basis"]),
        vim_alpha=float(vim["alpha"]),
    )
