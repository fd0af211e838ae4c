"""(f) One image, model loaded: a monitor's verdict against the bare forward pass, and the milliseconds between."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.timing import measure, ratio
from oodjax import Monitor, Outputs, TrainStatistics, detectors
from oodjax.models import ResNetConfig, fold_batch_norm, initialize
from oodjax.models.network import Network
from oodjax.outputs import Head

NAMES = ("msp", "mds", "knn")
TRAIN = 5_000


def resnet50() -> Network:
    model = initialize(ResNetConfig.resnet50(), 0)
    head = Head(model.head.kernel[...], model.head.bias[...])
    return Network.of(
        fold_batch_norm(model), head=head, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], fingerprint="0" * 64,
        resize=256, crop=224,
    )  # fmt: skip


def run(repeats: int = 5) -> dict[str, Any]:
    """Per detector: verdict over forward pass, and the median difference of a round in milliseconds."""
    network, rng = resnet50(), np.random.default_rng(0)
    features = np.abs(rng.normal(size=(TRAIN, 2048))).astype(np.float32)
    known = Outputs(np.asarray(network.head(features)), features, rng.integers(0, 1000, TRAIN))
    stats = TrainStatistics.collect(known, network.head, needs=detectors.reads(NAMES))
    image = rng.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    monitors = {name: Monitor(network, detectors.create(name).fit(stats).calibrate(known[:500])) for name in NAMES}
    calls = [lambda: np.asarray(network(image).logits), *(lambda m=m: m(image) for m in monitors.values())]
    forward, *verdicts = measure(*calls, repeats=repeats)
    return {
        "network": "ResNet-50, one image of 224 x 224",
        "forward_milliseconds": 1e3 * forward.median,
        "detectors": {
            name: {
                "verdict_over_forward": ratio(timing, forward),
                "milliseconds_beyond": 1e3
                * float(np.median([a - b for a, b in zip(timing.seconds, forward.seconds, strict=True)])),
            }
            for name, timing in zip(monitors, verdicts, strict=True)
        },
    }
