"""Statistics of the ID training split: one streaming, mergeable sweep feeds every detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oodjax.linalg import largest_variance, whitening
from oodjax.neighbors import normalize
from oodjax.outputs import Head, Outputs, check_finite, require

BLOCK = 1024


# ---------------------------------------------------------------------------------------------------------------------
# On the device: init / update over batches. Sums are float32 pairs (high, low) added without loss, so that a million
# additions keep the digits that plain float32 loses; features are summed about an origin close to their mean.


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Accumulator:
    """Running sums over batches; sums are (2, ...) float32 pairs whose total is the value."""

    origin: jax.Array  # (D,) features are summed about this point
    label_counts: jax.Array  # (K,) int32
    predicted_counts: jax.Array  # (K,) int32
    correct_counts: jax.Array  # (K,) int32
    label_sums: jax.Array  # (2, K, D)
    correct_sums: jax.Array  # (2, K, D) of the correctly classified
    second: jax.Array  # (2, D, D)
    softmax_sums: jax.Array  # (2, K, K) by predicted class
    max_logit_sum: jax.Array  # (2,)
    gram_predicted: tuple[jax.Array, jax.Array] | None  # (K, P, C) lowest and highest by predicted class
    gram_labelled: tuple[jax.Array, jax.Array] | None  # the same by label


def init(outputs: Outputs, mask: jax.Array) -> Accumulator:
    """An empty accumulator for outputs of these shapes, its origin the mean feature of the rows where mask holds."""
    k, d = outputs.logits.shape[1], outputs.features.shape[1]
    kept = jnp.where(mask[:, None], outputs.features, 0.0)
    origin = kept.sum(axis=0) / jnp.maximum(mask.sum(dtype=jnp.float32), 1.0)
    zeros, counts = partial(jnp.zeros, dtype=jnp.float32), jnp.zeros(k, jnp.int32)
    gram = None
    if outputs.gram is not None:
        shape = (k, *outputs.gram.shape[1:])
        gram = jnp.full(shape, jnp.inf, jnp.float32), jnp.full(shape, -jnp.inf, jnp.float32)
    return Accumulator(
        origin, counts, counts, counts, zeros((2, k, d)), zeros((2, k, d)), zeros((2, d, d)), zeros((2, k, k)),
        zeros((2,)), gram, gram,
    )  # fmt: skip


def update(state: Accumulator, outputs: Outputs, mask: jax.Array) -> Accumulator:
    """Adds the rows of `outputs` where `mask` (n,) is true, whatever the others hold.

    Pure; labels must lie in 0..K-1 where `mask` is true.
    """
    k = outputs.logits.shape[1]
    keep = mask.astype(jnp.float32)[:, None]
    logits = jnp.where(mask[:, None], outputs.logits, 0.0)
    predicted = jnp.argmax(logits, axis=-1)
    by_label = jax.nn.one_hot(outputs.labels, k, dtype=jnp.float32) * keep
    by_predicted = jax.nn.one_hot(predicted, k, dtype=jnp.float32) * keep
    by_correct = by_label * by_predicted
    centred = jnp.where(mask[:, None], outputs.features - state.origin[None, :], 0.0)
    dot = partial(jnp.matmul, precision="highest")

    def counts(one_hot):
        return one_hot.sum(axis=0).astype(jnp.int32)

    def bounds(old, one_hot):
        if old is None:
            return None
        owner = jnp.where(mask, jnp.argmax(one_hot, axis=-1), k)  # a masked row goes to a segment that is dropped
        lowest = jax.ops.segment_min(outputs.gram, owner, num_segments=k + 1)[:k]
        highest = jax.ops.segment_max(outputs.gram, owner, num_segments=k + 1)[:k]
        return jnp.minimum(old[0], lowest), jnp.maximum(old[1], highest)

    return Accumulator(
        origin=state.origin,
        label_counts=state.label_counts + counts(by_label),
        predicted_counts=state.predicted_counts + counts(by_predicted),
        correct_counts=state.correct_counts + counts(by_correct),
        label_sums=_add(state.label_sums, dot(by_label.T, centred)),
        correct_sums=_add(state.correct_sums, dot(by_correct.T, centred)),
        second=_add(state.second, dot(centred.T, centred)),
        softmax_sums=_add(state.softmax_sums, dot(by_predicted.T, jax.nn.softmax(logits, axis=-1))),
        max_logit_sum=_add(state.max_logit_sum, (logits.max(axis=-1) * keep[:, 0]).sum()),
        gram_predicted=bounds(state.gram_predicted, by_predicted),
        gram_labelled=bounds(state.gram_labelled, by_label),
    )


def _add(pair: jax.Array, value: jax.Array) -> jax.Array:
    """Adds `value` to a (high, low) pair; the rounding error of the sum is kept (Knuth's two-sum)."""
    high, low = pair[0], pair[1]
    total = high + value
    back = total - high
    error = (high - (total - back)) + (value - back)
    return jnp.stack([total, low + error])


start = jax.jit(init)
step = jax.jit(update, donate_argnums=0)


# ---------------------------------------------------------------------------------------------------------------------
# On the host, in float64: what the detectors' fits read.


@dataclass(frozen=True)
class TrainStatistics:
    """Statistics of an ID training split, in float64 on the host.

    Build with `collect`, or from an `Accumulator` filled inside the pass with `finalize`. K classes, D features.

    Attributes:
      head: the classifier's last layer.
      origin: (D,) the point about which the sums of features are taken.
      label_counts, predicted_counts, correct_counts: (K,) samples by label, by prediction, by label when correct.
      label_sums, correct_sums: (K, D) sums of (feature - origin) by label, and by label of the correctly classified.
      second: (D, D) sum of the outer products of (feature - origin).
      softmax_sums: (K, K) row c is the sum of the softmax of the samples predicted c.
      max_logit_sum: sum of each sample's largest logit.
      gram_predicted, gram_labelled: lowest and highest GRAM rows (K, P, C) by prediction and by label, or None.
      features: (m, D) float32 the feature bank: all samples, or the seeded share `bank_fraction` of them.
      energies: (m,) logsumexp of the logits of the bank's samples.
      keys: (m,) uint64 pseudo-random priority of each, a function of seed and content: order does not matter.
      layer_means: (n, L) the ATS scalars of every sample, or None.
      histogram: (2**20,) counts of the activations by the leading 20 bits of their float32, kept only when the bank
        is partial: then percentiles come from it, with a relative error below 2**-11.
    """

    head: Head
    origin: np.ndarray
    label_counts: np.ndarray
    predicted_counts: np.ndarray
    correct_counts: np.ndarray
    label_sums: np.ndarray
    correct_sums: np.ndarray
    second: np.ndarray
    softmax_sums: np.ndarray
    max_logit_sum: float
    gram_predicted: tuple[np.ndarray, np.ndarray] | None
    gram_labelled: tuple[np.ndarray, np.ndarray] | None
    features: np.ndarray
    energies: np.ndarray
    keys: np.ndarray
    layer_means: np.ndarray | None
    histogram: np.ndarray | None
    bank_fraction: float = 1.0
    seed: int = 0

    @classmethod
    def collect(
        cls, batches: Outputs | Iterable[Outputs], head: Head, *, bank_fraction: float = 1.0, seed: int = 0,
        block: int = BLOCK,
    ) -> TrainStatistics:  # fmt: skip
        """Statistics of one `Outputs` or of an iterable of them, in one streaming sweep.

        Batches may differ in length: they are cut into blocks as long as the longest so far, the last padded and
        masked, so one program serves batches of one length with a shorter last.

        Args:
          batches: outputs of the training split, with labels in 0..K-1.
          head: the classifier's last layer.
          bank_fraction: share of the features to keep for KNN and NNGuide, in (0, 1]; 1 keeps all.
          seed: which share.
          block: rows a step.

        Raises:
          ValueError: no samples; labels missing or out of range; NaN or infinite values; shapes that do not fit.
        """
        if not 0 < bank_fraction <= 1:
            raise ValueError(f"bank_fraction must lie in (0, 1], got {bank_fraction}")
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        state: Accumulator | None = None
        rows, bank = 0, BankBuilder(bank_fraction, seed)
        for outputs in [batches] if isinstance(batches, Outputs) else batches:
            _check(outputs, head)
            outputs = canonical(outputs, host=True)
            rows = max(rows, min(block, len(outputs)))
            for row in range(0, len(outputs), rows):
                part, mask = pad(outputs[row : row + rows], rows)
                state = start(part, mask) if state is None else state
                state = step(state, part, mask)
            bank.add(outputs)
        if state is None:
            raise ValueError("TrainStatistics.collect got no samples; it needs at least one")
        return cls.finalize(state, bank, head)

    @classmethod
    def finalize(cls, state: Accumulator, bank: BankBuilder, head: Head) -> TrainStatistics:
        """The statistics of what `state` and `bank` have seen."""
        host: dict[str, Any] = {}
        for field in dataclasses.fields(state):
            value = getattr(state, field.name)
            if field.name.startswith("gram"):
                host[field.name] = None if value is None else tuple(np.asarray(v) for v in value)
            else:
                array = np.asarray(value)
                host[field.name] = array.astype(np.int64 if array.dtype == np.int32 else np.float64)
        for name in ("label_sums", "correct_sums", "second", "softmax_sums", "max_logit_sum"):
            host[name] = host[name].sum(axis=0)
        head = Head(jnp.asarray(head.kernel, jnp.float32), jnp.asarray(head.bias, jnp.float32))
        return cls(head=head, **host, **bank.build(), bank_fraction=bank.fraction, seed=bank.seed)

    def merge(self, other: TrainStatistics) -> TrainStatistics:
        """The statistics of the union of both sets of samples.

        Raises:
          ValueError: heads, shapes, fields or bank settings differ.
        """
        _check_mergeable(self, other)
        shift = other.origin - self.origin
        spread = np.outer(other.label_sums.sum(axis=0), shift)
        moved = other.second + spread + spread.T + other.count * np.outer(shift, shift)
        gram: dict[str, Any] = {
            name: None if a is None else (np.minimum(a[0], b[0]), np.maximum(a[1], b[1]))
            for name in ("gram_predicted", "gram_labelled")
            for a, b in [(getattr(self, name), getattr(other, name))]
        }
        joined: dict[str, Any] = {
            name: None if getattr(self, name) is None else np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("features", "energies", "keys", "layer_means")
        }
        sums: dict[str, Any] = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("label_counts", "predicted_counts", "correct_counts", "softmax_sums", "max_logit_sum")
        }
        return dataclasses.replace(
            self, **gram, **joined, **sums, second=self.second + moved,
            label_sums=self.label_sums + other.label_sums + other.label_counts[:, None] * shift,
            correct_sums=self.correct_sums + other.correct_sums + other.correct_counts[:, None] * shift,
            histogram=None if self.histogram is None else self.histogram + other.histogram,
        )  # fmt: skip

    # Derived quantities, each computed once.

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample in each field of `Outputs` that the statistics have seen."""
        found: dict[str, tuple[int, ...]] = {"logits": (self.classes,), "features": (self.dim,)}
        if self.gram_predicted is not None:
            found["gram"] = self.gram_predicted[0].shape[1:]
        if self.layer_means is not None:
            found["layer_means"] = self.layer_means.shape[1:]
        return found

    @property
    def count(self) -> int:
        return int(self.label_counts.sum())

    @property
    def classes(self) -> int:
        return len(self.label_counts)

    @property
    def dim(self) -> int:
        return len(self.origin)

    @cached_property
    def mean(self) -> np.ndarray:
        """(D,) mean feature."""
        return self.origin + self.label_sums.sum(axis=0) / self.count

    @cached_property
    def class_means(self) -> np.ndarray:
        """(K, D) mean feature by label; the global mean for a class without samples."""
        return self._means(self.label_sums, self.label_counts, np.broadcast_to(self.mean, self.label_sums.shape))

    @cached_property
    def correct_means(self) -> np.ndarray:
        """(K, D) mean feature of the correctly classified of a class; `class_means` where there is none."""
        return self._means(self.correct_sums, self.correct_counts, self.class_means)

    def _means(self, sums: np.ndarray, counts: np.ndarray, fallback: np.ndarray) -> np.ndarray:
        means = self.origin + sums / np.maximum(counts, 1)[:, None]
        return np.where(counts[:, None] > 0, means, fallback)

    @cached_property
    def total_covariance(self) -> np.ndarray:
        """(D, D) covariance of the features about their mean, divided by n."""
        offset = self.mean - self.origin
        return self.second / self.count - np.outer(offset, offset)

    @cached_property
    def within_covariance(self) -> np.ndarray:
        """(D, D) covariance of the features about their class means, divided by n."""
        share = self.label_counts / self.count
        offset = self.class_means - self.mean
        return self.total_covariance - (offset * share[:, None]).T @ offset

    @cached_property
    def within_whitening(self) -> np.ndarray:
        """(D, D) that whitens features within their classes; see `oodjax.linalg.whitening`."""
        return whitening(self.within_covariance, scale=largest_variance(self.total_covariance))

    def second_moment(self, center: np.ndarray) -> np.ndarray:
        """(D, D) mean outer product of (feature - center)."""
        offset = self.mean - center
        return self.total_covariance + np.outer(offset, offset)

    def activation_percentile(self, q: float) -> float:
        """The q-th percentile (0..100) of all training activations pooled, as numpy.percentile defines it.

        Exact when the bank holds every sample; else from the histogram, with a relative error below 2**-11.
        """
        if self.histogram is None:
            return float(np.percentile(self.features, q))
        histogram, ends = self.histogram, np.cumsum(self.histogram)

        def ranked(rank: int) -> float:
            slot = int(np.searchsorted(ends, rank, side="right"))
            low, high = _bin_edges(slot)
            inside = rank - (ends[slot] - histogram[slot])
            return low + (high - low) * (inside + 0.5) / histogram[slot]

        position = q / 100 * (ends[-1] - 1)
        rank = int(position)
        low, high = ranked(rank), ranked(min(rank + 1, int(ends[-1]) - 1))  # they may lie slots apart
        return float(low + (high - low) * (position - rank))

    @cached_property
    def normalized_features(self) -> jax.Array:
        """(m, D) the bank's rows at unit L2 length, on the device; a zero row stays zero."""
        return normalize(jnp.asarray(self.features))

    def bank_subset(self, size: int) -> np.ndarray:
        """Indices of `size` pseudo-random bank rows: those with the smallest keys, whatever the bank's order."""
        return np.argsort(self.keys, kind="stable")[:size]


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


def _bin_edges(slot: int) -> tuple[float, float]:
    if slot == 1 << 19:  # the slot that starts at zero: its other members are denormal-sized
        return 0.0, 0.0
    ends = np.array([slot << 12, (slot << 12) | 0xFFF], np.uint32)
    bits = np.where(ends >> 31, ends & np.uint32(0x7FFFFFFF), ~ends).astype(np.uint32)
    low, high = (float(v) for v in bits.view(np.float32))
    return low, high


def canonical(outputs: Outputs, host: bool = False) -> Outputs:
    """Floating-point fields as float32, labels as int32; NumPy arrays stay on the host when `host` is true."""

    def cast(name: str) -> Any:
        value, dtype = getattr(outputs, name), np.int32 if name == "labels" else np.float32
        if value is None:
            return None
        return value.astype(dtype) if host and isinstance(value, np.ndarray) else jnp.asarray(value, dtype)

    return Outputs(**{field.name: cast(field.name) for field in dataclasses.fields(outputs)})


def pad(outputs: Outputs, rows: int) -> tuple[Outputs, jax.Array]:
    """Zero rows appended up to `rows`, and the mask of the real ones."""
    n = len(outputs)

    def pad_rows(x: Any) -> Any:  # NumPy's needs no program for each length of a last batch
        return (np if isinstance(x, np.ndarray) else jnp).pad(x, [(0, rows - n)] + [(0, 0)] * (x.ndim - 1))

    return (outputs if n == rows else jax.tree.map(pad_rows, outputs)), jnp.arange(rows) < n


def _check(outputs: Outputs, head: Head) -> None:
    require(outputs, ("labels",), "TrainStatistics.collect")
    check_finite(outputs, ("logits", "features", "gram", "layer_means"), "TrainStatistics.collect")
    if len(outputs) == 0:
        raise ValueError("TrainStatistics.collect got a batch without samples")
    shapes = outputs.features.shape[1], outputs.logits.shape[1]
    if shapes != tuple(head.kernel.shape):
        raise ValueError(
            f"features and logits have {shapes[0]} features and {shapes[1]} classes, the head's kernel has shape "
            f"{tuple(head.kernel.shape)}; it must be (features, classes)"
        )
    labels = np.asarray(outputs.labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"training labels must be whole numbers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= shapes[1]:
        raise ValueError(
            f"training labels must lie in 0..{shapes[1] - 1}, got {labels.min()}..{labels.max()}; "
            "the training split holds ID samples only"
        )


def _check_mergeable(a: TrainStatistics, b: TrainStatistics) -> None:
    if (a.bank_fraction, a.seed) != (b.bank_fraction, b.seed):
        raise ValueError(
            f"merge: bank_fraction and seed differ: {(a.bank_fraction, a.seed)} and {(b.bank_fraction, b.seed)}"
        )
    if not (np.array_equal(a.head.kernel, b.head.kernel) and np.array_equal(a.head.bias, b.head.bias)):
        raise ValueError("merge: the two statistics belong to different heads")
    for name in ("gram_predicted", "layer_means"):
        x, y = getattr(a, name), getattr(b, name)
        shapes = [None if v is None else np.shape(v[0])[-2:] for v in (x, y)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"merge: {name} differ: {shapes[0]} and {shapes[1]}")
