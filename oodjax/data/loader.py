"""Fixed-shape batches of arrays in memory, and the order in which an epoch visits them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """`images` (b, ...), `labels` int32 (b,), `mask` bool (b,): False marks padding (image 0, label -1)."""

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


def batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, *, order: np.ndarray | None = None
) -> Iterator[Batch]:
    """All images once, in batches of one shape.

    Args:
        images: (n, ...), any dtype.
        labels: (n,) integers.
        batch_size: rows per batch; the last batch is padded to it, so that a compiled step sees one shape.
        order: row indices to visit, for example `epoch_order(...)`; default: every row in turn.

    Returns:
        An iterator over ceil(n / batch_size) batches; arguments are checked before it is returned.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels: got shape {labels.shape}, expected {images.shape[:1]}, one per image")
    return _batches(images, labels, batch_size, np.arange(len(labels)) if order is None else np.asarray(order))


def _batches(images: np.ndarray, labels: np.ndarray, batch_size: int, order: np.ndarray) -> Iterator[Batch]:
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = Batch(
            images=np.zeros((batch_size, *images.shape[1:]), images.dtype),
            labels=np.full(batch_size, -1, np.int32),
            mask=np.arange(batch_size) < len(rows),
        )
        batch.images[: len(rows)] = images[rows]
        batch.labels[: len(rows)] = labels[rows]
        yield batch


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(n) that depends on nothing but (n, seed, epoch), so that training resumes at any epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)
