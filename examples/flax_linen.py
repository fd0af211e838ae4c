"""OOD scores of a flax.linen network."""

import flax.linen as nn
import jax
import numpy as np

import oodjax
from oodjax import Head, TrainStatistics, detectors


class Net(nn.Module):
    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Conv(16, (3, 3))(images)).mean(axis=(1, 2))
        return nn.Dense(4, name="head")(features), features


rng = np.random.default_rng(0)  # stand-ins: bring your weights and images
train, labels = rng.random((200, 8, 8, 3), np.float32), rng.integers(0, 4, 200)
new = rng.random((50, 8, 8, 3), np.float32)
variables = Net().init(jax.random.key(0), train[:1])


def network(images):
    return Net().apply(variables, images)


head = variables["params"]["head"]
stats = TrainStatistics.collect(oodjax.extract(network, train, labels), Head(head["kernel"], head["bias"]))
detector = detectors.create("vim:dim=4").fit(stats)
scores = detector.score(oodjax.extract(network, new))  # (50,), higher = more in-distribution
print(scores)
