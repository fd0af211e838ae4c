"""What every detector promises, checked in one line for your own: `check_detector`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oodjax import detectors
from oodjax.arrays import describe
from oodjax.detectors import Detector, Method
from oodjax.detectors.base import METHODS
from oodjax.detectors.classification import ODIN_NOISES, ODIN_TEMPERATURES
from oodjax.outputs import Head, Outputs
from oodjax.saving import load, save
from oodjax.statistics import TrainStatistics
from oodjax.taps import summarize

FEATURES, CLASSES = 24, 7
TRAIN, VALIDATION, TEST = 240, 60, 40
TOLERANCE = 5e-5  # of the largest score: a program of another shape adds float32 sums in another order


def check_detector(method: Method | str, **options: Any) -> None:
    """Raises an AssertionError, one sentence that names the law, unless a detector keeps every law.

    On problems made here: outputs of 240 training, 60 validation and 40 other samples with 24 features (rectified, and
    signed), 7 classes, maps of two layers and ODIN's grid. The laws: a docstring; one finite float32 score a sample,
    not the same for all; the order of the samples, those beside them, appended rows, `jax.jit` and `jax.vmap` change
    none; a second fit of the same shapes compiles nothing; what is handed over stays as it is; `oodjax.save` and `load`
    bring the same scores back. That a higher score means in-distribution is for your own tests.

    Args:
      method: a `Method`, registered or not, or the name of one.
      **options: its hyper-parameters.

    Raises:
      TypeError, ValueError: no method, or options that it does not take.
    """
    with _registered(method) as found:
        who = found.name
        _require(
            bool((found.score.__doc__ or "").strip()) or found.score_many is not None,
            who,
            "docstring",
            "its score function says neither formula nor source",
        )
        train, val, test, head = problem(signed=False)
        before = jax.tree.map(np.copy, (train, val, test))
        stats = TrainStatistics.collect(train, head)
        det = detectors.create(who, **options).fit(stats, val)
        scores = _finite_float32(det, test)
        _check_rows(det, test, scores)
        _check_programs(det, test, scores, options)
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder) / "saved", det)
            again = np.asarray(load(Path(folder) / "saved").score(test))
        _require(np.array_equal(again, scores), who, "save and load", "the scores are not bit for bit the same after")
        same = jax.tree.map(np.array_equal, before, (train, val, test))
        _require(all(jax.tree.leaves(same)), who, "inputs", "fit or score changed the arrays it was given")


def problem(signed: bool, seed: int = 0) -> tuple[Outputs, Outputs, Outputs, Head]:
    """Training, validation and test outputs about random class means, float32, and the head of the logits."""
    rng = np.random.default_rng(seed + signed)
    centers = rng.normal(size=(CLASSES, FEATURES)) + (0.0 if signed else 0.4)
    kernel = (0.4 * centers.T + 0.1 * rng.normal(size=(FEATURES, CLASSES))).astype(np.float32)
    bias = (0.3 * rng.normal(size=CLASSES)).astype(np.float32)

    def split(size: int, ood: int) -> Outputs:
        labels = rng.integers(0, CLASSES, size)
        h = centers[labels] + rng.normal(size=(size, FEATURES))
        h[size - ood :] = 1.5 * rng.normal(size=(ood, FEATURES))
        labels[size - ood :] = -1
        h = (h if signed else np.maximum(h, 0)).astype(np.float32)
        maps = [rng.normal(size=(size, 3, 3, 5)), rng.normal(size=(size, 4, 6)) * (1 + np.abs(h[:, :1, None]))]
        gram, means = summarize([np.maximum(m, -9 if signed else 0).astype(np.float32) for m in maps])
        odin = rng.uniform(0.1, 1, (size, len(ODIN_TEMPERATURES), len(ODIN_NOISES))).astype(np.float32)
        return Outputs(h @ kernel + bias, h, labels.astype(np.int32), np.asarray(gram), np.asarray(means), odin)

    return split(TRAIN, 0), split(VALIDATION, 0), split(TEST, TEST // 3), Head(kernel, bias)


def _check_rows(det: Detector, test: Outputs, scores: np.ndarray) -> None:
    """A sample's score is its own, whatever else is in the batch."""
    half = TEST // 2
    split = np.concatenate([_score(det, test[:half]), _score(det, test[half:])])
    _same(split, scores, det.name, "batch split", "two halves score otherwise than the whole")
    order = np.random.default_rng(0).permutation(TEST)
    _same(_score(det, test[order]), scores[order], det.name, "permutation", "the order of the samples changes scores")
    padded = jax.tree.map(lambda x: np.concatenate([x[:half], 7 * np.ones((half, *x.shape[1:]), x.dtype)]), test)
    _same(
        _score(det, padded)[:half], scores[:half], det.name, "padding", "rows appended behind the samples change them"
    )


def _check_programs(det: Detector, test: Outputs, scores: np.ndarray, options: dict[str, Any]) -> None:
    who, program = det.name, jax.jit(lambda det, outputs: det.score(outputs))
    _same(np.asarray(program(det, test)), scores, who, "jit", "scores differ inside jax.jit")
    with jax.disable_jit():
        few = _score(det, test[:4])
    _same(few, scores[:4], who, "eager", "scores differ without compilation")
    rows = jax.tree.map(lambda x: np.reshape(x, (2, -1, *x.shape[1:])), test)
    mapped = jax.jit(jax.vmap(lambda outputs: det.score(outputs)))(rows)
    _same(np.ravel(mapped), scores, who, "vmap", "scores differ inside jax.vmap")
    train, val, other, head = problem(signed=True)
    second = detectors.create(who, **options).fit(TrainStatistics.collect(train, head), val)
    _finite_float32(second, other)
    same: Any = jax.tree.structure(second) == jax.tree.structure(det)  # type: ignore[operator]
    if same:  # options chosen from the statistics may differ
        program(second, other)
        count = program._cache_size()  # type: ignore[attr-defined]
        _require(count == 1, who, "one program", f"a second fit of the same shapes made {count} programs")


def _finite_float32(det: Detector, test: Outputs) -> np.ndarray:
    own = jax.eval_shape(lambda det, o: det.method.score(det.params, o, **det.options), det, test)
    fits = getattr(own, "shape", None) == (TEST,) and own.dtype == jnp.float32
    _require(fits, det.name, "shape and type", f"score returns {describe(own)}, expected float32, shape ({TEST},)")
    found = _score(det, test)
    bad = int((~np.isfinite(found)).sum())
    _require(bad == 0, det.name, "finite", f"{bad} of {TEST} scores are NaN or infinite")
    _require(np.ptp(found) > 0, det.name, "not constant", "all samples have the same score")
    return found


def _score(det: Detector, outputs: Outputs) -> np.ndarray:
    return np.asarray(det.score(outputs))


def _same(got: np.ndarray, want: np.ndarray, who: str, law: str, text: str) -> None:
    difference, largest = np.abs(got - want).max(), np.abs(want).max()
    _require(difference <= TOLERANCE * largest, who, law, f"{text}, by up to {difference:.3g} of {largest:.3g}")


def _require(holds: bool, who: str, law: str, text: str) -> None:
    if not holds:
        raise AssertionError(f"{who} breaks the law '{law}': {text}")


@contextmanager
def _registered(method: Method | str) -> Iterator[Method]:
    """The method under its name, which is free again afterwards if it was before."""
    if not isinstance(method, Method):
        detectors.create(method)  # says what is wrong with the name
        yield METHODS[method]
        return
    former = METHODS.get(method.name)
    if former is method:
        yield method
        return
    detectors.register(method, replace=True)
    try:
        yield method
    finally:
        if former is None:
            del METHODS[method.name]
        else:
            METHODS[method.name] = former
        jax.clear_caches()  # compiled programs know a method by its name
