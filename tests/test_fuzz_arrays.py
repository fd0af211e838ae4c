"""Damaged arrays and arguments, at random but seeded: the right answer, or one sentence of our own."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import oracles
import pandas as pd
import pytest

import oodjax
from oodjax import Head, Outputs, TrainStatistics, detectors, metrics

pytestmark = pytest.mark.slow
PACKAGE = str(Path(oodjax.__file__).parent)

# Another form of the same numbers: the answer must be the same.
HARMLESS: dict[str, Callable] = {
    "list": lambda x, r: x.tolist(),
    "big-endian": lambda x, r: x.astype(x.dtype.newbyteorder(">")),
    "wider": lambda x, r: x.astype(np.float64),
    "device": lambda x, r: jnp.asarray(x),
    "masked, nothing hidden": lambda x, r: np.ma.masked_array(x),
    "every other of a larger one": lambda x, r: np.repeat(x, 2, axis=0)[::2],
    "pandas": lambda x, r: pd.DataFrame(x) if x.ndim == 2 else pd.Series(x) if x.ndim == 1 else x,
    "Fortran order": lambda x, r: np.asfortranarray(x),
}


def with_value(value: Any) -> Callable:
    def damage(x: np.ndarray, r: np.random.Generator) -> np.ndarray:
        x = x.astype(np.float64)
        x.flat[r.integers(x.size)] = value
        return x

    return damage


def hidden(x: np.ndarray, r: np.random.Generator) -> np.ma.MaskedArray:
    mask = np.zeros(x.shape, bool)
    mask.flat[r.integers(x.size)] = True
    return np.ma.masked_array(x, mask)


# Nothing that an answer could be given for.
FATAL: dict[str, Callable] = {
    "complex": lambda x, r: x + 1j,
    "text": lambda x, r: x.astype(str),
    "objects": lambda x, r: x.astype(object),
    "dict": lambda x, r: {"x": x},
    "word": lambda x, r: "x",
    "scalar": lambda x, r: 3.0,
    "hidden": hidden,
    "ragged": lambda x, r: [*x.tolist()[:-1], [[[[1.0]]]]],
    "an axis more": lambda x, r: x[..., None, None, None],
    "no rows": lambda x, r: x[:0],
    "a row less": lambda x, r: x[:-1],
}
NOT_FINITE = {"nan": with_value(np.nan), "inf": with_value(np.inf), "-inf": with_value(-np.inf)}
HUGE = {"1e20": with_value(1e20), "1e39": with_value(1e39), "1e300": with_value(-1e300)}


def answer(call: Callable, arguments: dict) -> tuple[str, Any]:
    """("answer", it) or ("refused", the sentence); anything else fails."""
    try:
        return "answer", call(**arguments)
    except (ValueError, TypeError) as error:
        text, last = str(error), traceback.extract_tb(error.__traceback__)[-1]
        assert type(error) in (ValueError, TypeError) and last.filename.startswith(PACKAGE), (last, text)
        assert text and "\n" not in text and len(text) < 700, text
        return "refused", text


@cache
def problem() -> oracles.Problem:
    return oracles.make(seed=11)


@cache
def fitted() -> tuple:
    p = problem()
    stats = TrainStatistics.collect(p.train, p.head)
    return tuple(detectors.create(name).fit(stats, p.val) for name in ("msp", "mds", "gram", "ats", "odin", "fdbd"))


def train(logits, features, labels, gram, layer_means, kernel, bias):
    stats = TrainStatistics.collect(Outputs(logits, features, labels, gram, layer_means), Head(kernel, bias))
    return np.stack([detectors.create(n).fit(stats).score(problem().test) for n in ("mds", "gram", "ats")])


def score(logits, features, gram, layer_means, odin):
    out = Outputs(logits, features, None, gram, layer_means, odin)
    return np.stack([det.score(out) for det in fitted()])


def odin(images, temperatures, noises, input_std):
    return oodjax.odin_scores(lambda x: x[:, 0, 0] ** 2, images, temperatures, noises, input_std)


def ranked(id_scores, ood_scores):
    return np.array([getattr(metrics, m)(id_scores, ood_scores) for m in ("auroc", "fpr95", "fpr95_id", "aupr_in")])


def calibration(logits, labels):
    return np.array([metrics.ece(logits=logits, labels=labels), metrics.accuracy(logits, labels)])


def calls() -> dict[str, tuple[Callable, dict, dict]]:
    """Name -> (callable, its arguments, damage that some of them must not survive beside FATAL)."""
    p, rng = problem(), np.random.default_rng(5)
    fields = {n: np.asarray(getattr(p.train, n)) for n in ("logits", "features", "labels", "gram", "layer_means")}
    head = {"kernel": np.asarray(p.head.kernel), "bias": np.asarray(p.head.bias)}
    tested = {n: np.asarray(getattr(p.test, n)) for n in ("logits", "features", "gram", "layer_means", "odin")}
    images = rng.normal(size=(5, 3, 4, 3)).astype(np.float32)
    axes = {"temperatures": np.array([1.0, 10]), "noises": np.array([0.1]), "input_std": np.array([0.2, 0.3, 0.4])}
    scores = {"id_scores": rng.normal(size=40), "ood_scores": rng.normal(size=30)}
    broken, all_broken = dict.fromkeys((*fields, *head), NOT_FINITE), {**NOT_FINITE, **HUGE}
    return {
        "train": (train, {**fields, **head}, {**broken, "logits": all_broken, "features": all_broken}),
        "score": (score, tested, {**dict.fromkeys(tested, NOT_FINITE), "logits": all_broken, "features": all_broken}),
        "summarize": (lambda a, b: np.asarray(oodjax.summarize((a, b))[0]), {"a": images, "b": images[:, :2]}, {}),
        "odin": (odin, {"images": images, **axes}, dict.fromkeys(axes, NOT_FINITE)),
        "metrics": (ranked, scores, dict.fromkeys(scores, NOT_FINITE)),
        "calibration": (calibration, {n: fields[n] for n in ("logits", "labels")}, dict.fromkeys(fields, NOT_FINITE)),
    }


# Where another length is another, equally good question.
FREE_LENGTH = {
    ("odin", "images"),
    ("odin", "temperatures"),
    ("odin", "noises"),
    ("metrics", "id_scores"),
    ("metrics", "ood_scores"),
}


@pytest.mark.parametrize("name", ["train", "score", "summarize", "odin", "metrics", "calibration"])
def test_damaged_arrays(name):
    call, arguments, more = calls()[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    want = call(**arguments)
    for field, value in arguments.items():
        for kind, damage in {**HARMLESS, **FATAL, **more.get(field, {})}.items():
            if kind == "a row less" and (name, field) in FREE_LENGTH or (field, kind) == ("input_std", "scalar"):
                continue
            state, got = answer(call, {**arguments, field: damage(value, rng)})
            where = (name, field, kind, got)
            if kind in HARMLESS:
                assert state == "answer", where
                np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max(), err_msg=str(where))
            else:
                assert state == "refused", where


JUNK = (
    None,
    True,
    np.True_,
    -1,
    0,
    1,
    3,
    10**30,
    2.5,
    float("nan"),
    float("inf"),
    "x",
    "1",
    b"1",
    (),
    (1,),
    [],
    [1, 2],
    {},
    {1: 2},
    object(),
    np.int64(2),
    np.float32(0.5),
    np.array(2),
    np.array([1, 2]),
    1j,
    lambda: 1,
    ...,
    slice(1),
    "two-sided",
)


@pytest.mark.parametrize("name", detectors.names())
def test_junk_in_place_of_options(name):
    p = problem()
    stats = TrainStatistics.collect(p.train, p.head)
    for option in (*detectors.create(name).options, "no_such"):
        for value in JUNK:
            state, det = answer(detectors.create, {"name": name, option: value})
            if state == "refused":
                assert option in det
                continue
            state, det = answer(det.fit, {"stats": stats, "validation": p.val})
            if state == "answer" and name != "odin":
                assert np.isfinite(det.score(p.test)).all(), (option, value)


def test_junk_in_place_of_arguments():
    p = problem()
    stats, det = TrainStatistics.collect(p.train, p.head), fitted()[1]
    doors: list[tuple[Callable, dict]] = [
        (TrainStatistics.collect, {"batches": p.train, "head": p.head}),
        (det.fit, {"stats": stats}),
        (det.score, {"outputs": p.test}),
        (detectors.create, {"name": "mds"}),
        (detectors.grid, {"name": "mds"}),
        (detectors.score_all, {"points": (det,), "outputs": p.test}),
        (Outputs, {"logits": p.test.logits, "features": p.test.features}),
        (Head, {"kernel": p.head.kernel, "bias": p.head.bias}),
        (p.head, {"features": p.test.features}),
        (oodjax.summarize, {"feature_maps": (np.ones((2, 3, 4)),), "powers": 2}),
        (
            oodjax.odin_scores,
            {
                "apply_fn": lambda x: x[:, 0, 0],
                "images": np.ones((2, 3, 3, 3)),
                "temperatures": (1,),
                "noises": (0.1,),
                "input_std": (1.0, 1.0, 1.0),
            },
        ),
        (metrics.auroc, {"id_scores": [1.0, 2.0], "ood_scores": [0.5]}),
        (metrics.ece, {"logits": np.ones((2, 3)), "labels": [0, 1], "bins": 3}),
        (metrics.evaluate, {"id_scores": [1.0, 2.0], "ood_scores": [0.5], "correct": [True, False]}),
    ]
    for door, arguments in doors:
        for name in arguments:
            for value in JUNK:
                answer(door, {**arguments, name: value})
    for door, arguments in doors[:6]:  # these take no array, so that no junk is right
        for name in arguments:
            assert answer(door, {**arguments, name: object()})[0] == "refused", (door, name)
