"""OOD scores of a network that is a plain JAX function of its weights."""

import jax
import jax.numpy as jnp
import numpy as np

import oodjax
from oodjax import Head, TrainStatistics, detectors

rng = np.random.default_rng(0)  # stand-ins: bring your weights and images
weights = {"mix": rng.normal(size=(192, 16)), "kernel": rng.normal(size=(16, 4)), "bias": np.zeros(4)}
weights = jax.tree.map(jnp.float32, weights)
train, labels = rng.random((200, 8, 8, 3), np.float32), rng.integers(0, 4, 200)
new = rng.random((50, 8, 8, 3), np.float32)


def network(images):
    features = jax.nn.relu(images.reshape(len(images), -1) @ weights["mix"])
    return features @ weights["kernel"] + weights["bias"], features


stats = TrainStatistics.collect(oodjax.extract(network, train, labels), Head(weights["kernel"], weights["bias"]))
detector = detectors.create("vim:dim=4").fit(stats)
scores = detector.score(oodjax.extract(network, new))  # (50,), higher = more in-distribution
print(scores)
