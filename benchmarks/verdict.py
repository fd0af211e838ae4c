"""(f) One image, model loaded: a monitor's verdict against the bare forward pass, in milliseconds.

The network is ResNet-50 without its convolutions: all its weights are passed and its head is computed, so that what a
verdict takes beyond the forward pass does not drown in the pass's own spread. Every detector that reads logits and
features; ODIN, GRAM and ATS read more of the convolutions than the bare pass computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.timing import measure, ratio
from oodjax import Monitor, Outputs, TrainStatistics, detectors
from oodjax.models import ResNetConfig, fold_batch_norm, initialize
from oodjax.models.network import Network

FEATURES, TRAIN = 2048, 5_000
GOAL = 5.0  # milliseconds beyond the forward pass, for each detector


def head_alone(state: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    features = jax.nn.relu(images.reshape(images.shape[0], -1)[:, :FEATURES])
    kernel, bias = state["head"]["kernel"][...], state["head"]["bias"][...]
    return jnp.matmul(features, kernel, precision="highest") + bias[None, :], features


def network() -> Network:
    model = fold_batch_norm(initialize(ResNetConfig.resnet50(), 0))
    head, state = (model.head.kernel[...], model.head.bias[...]), nnx.state(model)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return Network.from_function(head_alone, head, state=state, mean=mean, std=std, version="head alone")


def run(repeats: int = 5, names: Sequence[str] = detectors.NAMES) -> dict[str, Any]:
    """Per detector, by name or label: the verdict, and its median difference to the forward pass over the rounds.

    Those that read more than logits and features are left out.
    """
    names = [name for name in names if {"logits", "features"} >= set(detectors.create(name).needs)]
    loaded, rng = network(), np.random.default_rng(0)
    features = np.abs(rng.normal(size=(TRAIN, FEATURES))).astype(np.float32)
    known = Outputs(np.asarray(loaded.head(features)), features, rng.integers(0, 1000, TRAIN))
    stats = TrainStatistics.collect(known, loaded.head, needs=detectors.reads(names))
    image = rng.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    calibration = known[:500]
    fitted = {name: detectors.create(name).fit(stats, calibration) for name in names}
    monitors = {name: Monitor(loaded, det.calibrate(calibration)) for name, det in fitted.items()}
    calls = [lambda: np.asarray(loaded(image).logits), *(lambda m=m: m(image) for m in monitors.values())]
    forward, *verdicts = measure(*calls, repeats=repeats)

    def row(verdict: Any) -> dict[str, Any]:
        beyond = [a - b for a, b in zip(verdict.seconds, forward.seconds, strict=True)]
        return {
            "milliseconds": 1e3 * verdict.median,
            "milliseconds_beyond": 1e3 * float(np.median(beyond)),
            "over_head_alone": ratio(verdict, forward),
        }

    rows = {name: row(verdict) for name, verdict in zip(monitors, verdicts, strict=True)}
    beyond = {name: found["milliseconds_beyond"] for name, found in rows.items()}
    return {
        "network": "the head of ResNet-50, all its weights passed; one image of 224 x 224",
        "head_alone_milliseconds": 1e3 * forward.median,
        "goal_milliseconds_beyond": GOAL,
        "above_goal": [name for name, milliseconds in beyond.items() if milliseconds >= GOAL],
        "detectors": rows,
    }
