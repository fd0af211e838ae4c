"""The feature bank: what grows with the number of training samples, and the histogram that stands in for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from oodjax.outputs import Outputs


class BankBuilder:
    """Collects what grows with the number of samples: features, energies, layer means; on the host."""

    def __init__(self, fraction: float = 1.0, seed: int = 0):
        self.fraction, self.seed = fraction, seed
        self._parts: list[tuple] = []
        self._histogram = None if fraction == 1.0 else np.zeros(2**20, np.int64)
        self._last: tuple[Outputs, int | None] | None = None

    def add(self, outputs: Outputs, count: int | None = None) -> None:
        """Adds the first `count` rows of `outputs` (all when None).

        They are read when the next batch is added, so that the device works on that one meanwhile.
        """
        self._read_last()
        self._last = Outputs(outputs.logits, outputs.features, layer_means=outputs.layer_means), count

    def _read_last(self) -> None:
        if self._last is None:
            return
        (outputs, count), self._last = self._last, None
        features = np.asarray(outputs.features, np.float32)[:count]
        logits = np.asarray(outputs.logits, np.float64)[:count]
        top = logits.max(axis=-1)
        energies = (top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))).astype(np.float32)
        means = None if outputs.layer_means is None else np.asarray(outputs.layer_means, np.float32)[:count]
        keys = _keys(features, self.seed)
        if self._histogram is not None:
            self._histogram += np.bincount(_bins(features).ravel(), minlength=2**20)
            keep = keys < np.uint64(min(self.fraction * 2.0**64, 2.0**64 - 2048))
            features, energies, keys = features[keep], energies[keep], keys[keep]
        self._parts.append((features, energies, keys, means))

    def build(self) -> dict[str, Any]:
        self._read_last()
        features, energies, keys, means = zip(*self._parts, strict=True)
        return {
            "features": np.concatenate(features),
            "energies": np.concatenate(energies),
            "keys": np.concatenate(keys),
            "layer_means": None if means[0] is None else np.concatenate(means),
            "histogram": self._histogram,
        }


def _keys(features: np.ndarray, seed: int) -> np.ndarray:
    """(n,) uint64 hash of each row's bits: a multiply-add hash with random odd factors, then splitmix64's finaliser."""
    factors = np.random.default_rng(seed).integers(0, 2**63, features.shape[1], dtype=np.uint64) * np.uint64(2)
    bits = np.ascontiguousarray(features).view(np.uint32).astype(np.uint64)
    key = (bits * (factors + np.uint64(1))).sum(axis=1, dtype=np.uint64)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def _bins(values: np.ndarray) -> np.ndarray:
    """Histogram slot of each float32: its leading 20 bits, mapped so that slots ascend with the value."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is +0.0
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ascending >> np.uint32(12)).astype(np.int64)


def bin_edges(slot: int) -> tuple[float, float]:
    if slot == 1 << 19:  # the slot that starts at zero: its other members are denormal-sized
        return 0.0, 0.0
    ends = np.array([slot << 12, (slot << 12) | 0xFFF], np.uint32)
    bits = np.where(ends >> 31, ends & np.uint32(0x7FFFFFFF), ~ends).astype(np.uint32)
    low, high = (float(v) for v in bits.view(np.float32))
    return low, high
