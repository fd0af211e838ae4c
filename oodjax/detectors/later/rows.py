"""What later methods read of the training rows themselves, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oodjax.outputs import Head
from oodjax.statistics import TrainStatistics

BLOCK = 4096


def logits_by_block(stats: TrainStatistics) -> Iterator[tuple[slice, np.ndarray]]:
    """Runs of the bank's rows, and the head's logits (n, K) of each, float32; one program serves all of them."""
    features, rows = stats.features, min(BLOCK, len(stats.features))
    for start in range(0, len(features), max(rows, 1)):
        part = np.asarray(features[start : start + rows], np.float32)
        real = len(part)
        if real < rows:
            part = np.concatenate([part, np.zeros((rows - real, stats.dim), np.float32)])
        yield slice(start, start + real), np.asarray(_logits(stats.head, part))[:real]


@jax.jit
def _logits(head: Head, features: jax.Array) -> jax.Array:
    return jnp.matmul(features, head.kernel, precision="highest") + head.bias[None, :]


class UnitRows:
    """A bank's rows at unit length in float64, made when they are read; an all-zero row stays zero."""

    def __init__(self, features: Any):
        self._features = features
        self.shape = features.shape

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, rows: Any) -> np.ndarray:
        part = np.asarray(self._features[rows], np.float64)
        length = np.sqrt((part**2).sum(axis=-1, keepdims=True))
        return part / np.where(length > 0, length, 1.0)
