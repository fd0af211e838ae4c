"""A small network with random weights, and detectors fitted to its outputs and calibrated on others."""

from __future__ import annotations

from functools import cache

import numpy as np

import oodjax
from oodjax import detectors
from oodjax.models import fold_batch_norm, initialize
from oodjax.models.network import Network
from oodjax.outputs import Head
from oodjax.presets.digits import CONFIG

ALL = ("gram", "layer_means", "odin")
RNG = np.random.default_rng(0)
TRAIN, KNOWN, NEW = (RNG.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for n in (96, 40, 23))
NEW[::2] //= 8  # dark ones
LABELS = RNG.integers(0, 8, 96)
POINT = {"temperature": 100, "noise": 0.0028}


@cache
def network() -> Network:
    model = initialize(CONFIG, 0)
    head = Head(model.head.kernel[...], model.head.bias[...])
    return Network.of(fold_batch_norm(model), head=head, mean=[0.4] * 3, std=[0.2, 0.25, 0.3], fingerprint="0" * 64)


@cache
def outputs(which: str) -> oodjax.Outputs:
    images = {"train": TRAIN, "known": KNOWN, "new": NEW}[which]
    labels = LABELS[: len(images)] if which != "new" else None
    return oodjax.extract(network(), images, labels, batch_size=32, needs=ALL)


@cache
def stats() -> oodjax.TrainStatistics:
    return oodjax.TrainStatistics.collect(outputs("train"), network().head)


@cache
def fitted(name: str) -> detectors.Detector:
    options = {"odin": POINT, "gen": {"top_m": 5}, "knn": {"k": 7}}.get(name, {})
    return detectors.create(name, **options).fit(stats(), outputs("known"))


@cache
def calibrated(name: str) -> detectors.Detector:
    return fitted(name).calibrate(outputs("known"), tpr=0.9)
