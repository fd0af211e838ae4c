"""OOD scores of a flax.nnx network."""

import numpy as np
from flax import nnx

import oodjax
from oodjax import Head, TrainStatistics, detectors


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.head = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, images):
        features = nnx.relu(self.conv(images)).mean(axis=(1, 2))
        return self.head(features), features


rng = np.random.default_rng(0)  # stand-ins: bring your network and images
network = Net(nnx.Rngs(0))
train, labels = rng.random((200, 8, 8, 3), np.float32), rng.integers(0, 4, 200)
new = rng.random((50, 8, 8, 3), np.float32)

head = Head(network.head.kernel[...], network.head.bias[...])
stats = TrainStatistics.collect(oodjax.extract(network, train, labels), head)
detector = detectors.create("vim:dim=4").fit(stats)
scores = detector.score(oodjax.extract(network, new))  # (50,), higher = more in-distribution
print(scores)
