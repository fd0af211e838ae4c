"""OOD scores of an Equinox network, which takes one image, channels first."""

import equinox as eqx
import jax
import numpy as np

import oodjax
from oodjax import Head, TrainStatistics, detectors


class Net(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.conv, self.head = eqx.nn.Conv2d(3, 16, 3, padding=1, key=one), eqx.nn.Linear(16, 4, key=two)

    def __call__(self, image):
        features = jax.nn.relu(self.conv(image)).mean(axis=(1, 2))
        return self.head(features), features


rng = np.random.default_rng(0)  # stand-ins: bring your network and images
train, labels = rng.random((200, 8, 8, 3), np.float32), rng.integers(0, 4, 200)
new = rng.random((50, 8, 8, 3), np.float32)
net = Net(jax.random.key(0))


def network(images):
    return jax.vmap(net)(images.transpose(0, 3, 1, 2))


stats = TrainStatistics.collect(oodjax.extract(network, train, labels), Head(net.head.weight.T, net.head.bias))
detector = detectors.create("vim:dim=4").fit(stats)
scores = detector.score(oodjax.extract(network, new))  # (50,), higher = more in-distribution
print(scores)
