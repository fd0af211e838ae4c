"""The feature bank: what grows with the number of training samples, and which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oodjax.accumulate import STATISTICS, Array
from oodjax.outputs import Outputs
from oodjax.percentiles import SLOTS, leading_histogram


@dataclass(frozen=True)
class Bank:
    """The rows that detectors keep: arrays in memory or read-only memory maps; m rows of n seen.

    Attributes:
      features: (m, D) float32; None where no detector reads them.
      energies: (m,) float32 logsumexp of the logits; None with the features.
      labels: (m,) int32 class of each; None with the features.
      keys: (m,) uint64 pseudo-random priority of each; None with the features.
      layer_means: (n, L) float32 of every row seen, or None.
      histogram: (2**20,) counts of the activations by the leading 20 bits, where the bank is partial, else None.
      bank_fraction, seed: which share was kept.
    """

    features: Array
    energies: Array
    labels: Array
    keys: Array
    layer_means: Array
    histogram: Array
    bank_fraction: float = 1.0
    seed: int = 0


class BankBuilder:
    """Collects the bank in memory; each batch is read when the next comes: the device works on that one meanwhile."""

    def __init__(self, fraction: float = 1.0, seed: int = 0, needs: frozenset[str] | None = None):
        if not 0 < fraction <= 1:
            raise ValueError(f"bank_fraction must lie in (0, 1], got {fraction}")
        self.fraction, self.seed = fraction, seed
        self.needs = frozenset(STATISTICS) if needs is None else needs
        self._last: Outputs | None = None
        self._parts: dict[str, list[np.ndarray]] = {}
        self._histogram = None if fraction == 1.0 else np.zeros(SLOTS, np.int64)

    def add(self, outputs: Outputs) -> None:
        """Adds the rows of `outputs`."""
        self._read_last()
        means = outputs.layer_means if "layer_means" in self.needs else None
        self._last = Outputs(outputs.logits, outputs.features, outputs.labels, layer_means=means)

    def _read_last(self) -> None:
        if self._last is None:
            return
        outputs, self._last = self._last, None
        rows: dict[str, Any] = {}
        if outputs.layer_means is not None:
            rows["layer_means"] = np.asarray(outputs.layer_means, np.float32)
        if "features" in self.needs:
            features = np.asarray(outputs.features, np.float32)
            keys = content_keys(features, self.seed)
            keep = kept_share(keys, self.fraction)
            energies, labels = energies_of(np.asarray(outputs.logits, np.float64)), np.asarray(outputs.labels, np.int32)
            rows |= {"features": features[keep], "energies": energies[keep], "labels": labels[keep], "keys": keys[keep]}
            if self._histogram is not None:
                self._histogram += leading_histogram(features)
        for name, array in rows.items():
            self._parts.setdefault(name, []).append(array)

    def build(self) -> Bank:
        self._read_last()
        rows: dict[str, Any] = dict.fromkeys(("features", "energies", "labels", "keys", "layer_means"))
        rows |= {name: np.concatenate(parts) for name, parts in self._parts.items()}
        histogram = self._histogram if "features" in self.needs else None
        return Bank(**rows, histogram=histogram, bank_fraction=self.fraction, seed=self.seed)


def energies_of(logits: np.ndarray) -> np.ndarray:
    """(n, K) float64 -> (n,) float32 logsumexp."""
    from scipy.special import logsumexp  # here, since it takes longer to import than the package

    return logsumexp(logits, axis=-1).astype(np.float32)


def index_keys(index: np.ndarray, seed: int) -> np.ndarray:
    """(n,) uint64 hash of (seed, place in the training split): no two places share one.

    It draws the same images for every model, precision and device; `content_keys`, for rows whose place is not known,
    draws others as soon as one bit of a feature differs, and treats two equal rows alike.
    """
    start = _mix(np.array([seed % 2**64], np.uint64))
    return _mix(np.asarray(index).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start)


def kept_share(keys: np.ndarray, fraction: float) -> np.ndarray:
    """(n,) whether rows with these keys are among the share."""
    if fraction == 1.0:
        return np.ones(len(keys), bool)
    return keys < np.uint64(min(fraction * 2.0**64, 2.0**64 - 2048))


def kept_rows(count: int, seed: int, fraction: float) -> np.ndarray:
    """(count,) whether the features of each place in the training split are kept."""
    return kept_share(index_keys(np.arange(count), seed), fraction)


def content_keys(features: np.ndarray, seed: int) -> np.ndarray:
    """(n,) uint64 hash of each row's bits: a multiply-add hash with random odd factors, mixed."""
    factors = np.random.default_rng(seed).integers(0, 2**63, features.shape[1], dtype=np.uint64) * np.uint64(2)
    bits = np.ascontiguousarray(features).view(np.uint32).astype(np.uint64)
    return _mix((bits * (factors + np.uint64(1))).sum(axis=1, dtype=np.uint64))


def _mix(key: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection whose every output bit depends on every input bit."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
