"""Statistics of the ID training split: one streaming, mergeable sweep feeds every detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float64, Int

from oodjax import moments
from oodjax.accumulate import SUMS, Accumulator, Array, merge, merge_accumulators, start, step
from oodjax.arrays import describe, is_number, is_whole
from oodjax.bank import Bank, BankBuilder
from oodjax.checks import training_batches
from oodjax.linalg import FROM_ROWS, FROM_SUMS, Spectrum, largest_variance, whitening
from oodjax.neighbors import DeviceBank, place_bank
from oodjax.outputs import Head, Outputs, canonical, pad
from oodjax.percentiles import Percentiles, from_histogram

BLOCK = 1024


@dataclass(frozen=True)
class TrainStatistics:
    """Statistics of an ID training split, in float64 on the host.

    Build with `collect`, or from an `Accumulator` filled inside the pass with `finalize`. K classes, D features. What
    `needs` left out of label_sums, correct_sums, second, softmax_sums and features is None.

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
      labels: (m,) int32 class of each.
      keys: (m,) uint64 pseudo-random priority of each, a function of seed and content: order does not matter.
      layer_means: (n, L) the ATS scalars of every sample, or None.
      histogram: (2**20,) counts of the activations by the leading 20 bits of their float32, kept only when the bank
        is partial: then percentiles come from it, with a relative error below 2**-11.
      bank_fraction, seed: which share of the features was kept.
      mesh: the devices over which the bank is shared out for searches; None for one.
      room: bytes that the bank may take of a device; None for half of what it has.
    """

    head: Head
    origin: np.ndarray
    label_counts: np.ndarray
    predicted_counts: np.ndarray
    correct_counts: np.ndarray
    label_sums: Array
    correct_sums: Array
    second: Array
    softmax_sums: Array
    max_logit_sum: float
    gram_predicted: tuple[np.ndarray, np.ndarray] | None
    gram_labelled: tuple[np.ndarray, np.ndarray] | None
    features: Array
    energies: Array
    labels: Array
    keys: Array
    layer_means: np.ndarray | None
    histogram: np.ndarray | None
    bank_fraction: float = 1.0
    seed: int = 0
    mesh: Mesh | None = None
    room: int | None = None

    @classmethod
    def collect(
        cls,
        batches: Outputs | Iterable[Outputs],
        head: Head,
        *,
        bank_fraction: float = 1.0,
        seed: int = 0,
        block: int = BLOCK,
        needs: frozenset[str] | None = None,
        check_head: bool = True,
    ) -> TrainStatistics:
        """Statistics of one `Outputs` or of an iterable of them, in one streaming sweep.

        Batches may differ in length: they are cut into blocks as long as the longest so far, the last padded and
        masked, so one program serves batches of one length with a shorter last.

        Args:
          batches: outputs of the training split, with labels in 0..K-1.
          head: the classifier's last layer.
          bank_fraction: share of the features to keep for KNN and NNGuide, in (0, 1]; 1 keeps all.
          seed: which share.
          block: rows a step.
          needs: the statistics to keep, of `oodjax.accumulate.STATISTICS` (`detectors.reads(names)` says which some
            detectors read); None keeps all.
          check_head: whether the logits of the first batch must be head(features), within bfloat16's rounding.

        Raises:
          TypeError, ValueError: as `oodjax.checks.training_batches`; a bank_fraction, seed or block out of range.
        """
        if not is_number(bank_fraction) or not 0 < bank_fraction <= 1:
            raise ValueError(f"bank_fraction must lie in (0, 1], got {describe(bank_fraction)}")
        for name, value, low in (("block", block, 1), ("seed", seed, 0)):
            if not is_whole(value) or value < low:
                raise ValueError(f"{name} must be at least {low} and whole, got {describe(value)}")
        state: Accumulator | None = None
        rows, bank = 0, BankBuilder(bank_fraction, seed, needs)
        for outputs in training_batches(batches, head, check_head=check_head):
            outputs = canonical(outputs, host=True)
            rows = max(rows, min(block, len(outputs)))
            for row in range(0, len(outputs), rows):
                part, mask = pad(outputs[row : row + rows], rows)
                state = start(part, mask, needs) if state is None else state
                state = step(state, part, mask)
            bank.add(outputs)
        if state is None:
            raise ValueError("TrainStatistics.collect got no samples; it needs at least one")
        return cls.finalize(state, bank, head)

    @classmethod
    def of_head(cls, head: Head) -> TrainStatistics:
        """Statistics of no samples: enough for detectors that read the head alone."""
        d, k = head.kernel.shape
        counts, nothing = np.zeros(k, np.int64), dict.fromkeys(field.name for field in fields(cls))
        known = {"head": head, "origin": np.zeros(d), "max_logit_sum": 0.0, "bank_fraction": 1.0, "seed": 0}
        by_class = dict.fromkeys(("label_counts", "predicted_counts", "correct_counts"), counts)
        return cls(**(nothing | known | by_class))  # type: ignore[arg-type]

    @classmethod
    def finalize(
        cls,
        state: Accumulator,
        bank: BankBuilder | Bank,
        head: Head,
        *,
        mesh: Mesh | None = None,
        room: int | None = None,
    ) -> TrainStatistics:
        """The statistics of what `state` (of one device, of a mesh, or merged on the host) and `bank` have seen."""
        rows = bank.build() if isinstance(bank, BankBuilder) else bank
        head = Head(jnp.asarray(head.kernel, jnp.float32), jnp.asarray(head.bias, jnp.float32))
        return cls(head=head, **_fields(merge(state)), **_fields(rows), mesh=mesh, room=room)

    def merge(self, other: TrainStatistics) -> TrainStatistics:
        """The statistics of the union of both sets of samples.

        Raises:
          ValueError: heads, shapes, fields or bank settings differ.
        """
        _check_mergeable(self, other)
        parts = [Accumulator(**{f.name: getattr(s, f.name) for f in fields(Accumulator)}) for s in (self, other)]
        joined: dict[str, Any] = {
            name: None if getattr(self, name) is None else np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("features", "energies", "labels", "keys", "layer_means")
        }
        histogram = None if self.histogram is None else self.histogram + other.histogram
        return dataclasses.replace(self, **_fields(merge_accumulators(parts)), **joined, histogram=histogram)

    @property
    def kept(self) -> frozenset[str]:
        """The names of `oodjax.accumulate.STATISTICS` that are there."""
        held = {name for name in (*SUMS, "features", "layer_means") if getattr(self, name) is not None}
        return frozenset(held | ({"gram"} if self.gram_predicted is not None else set()))

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

    @property
    def from_rows(self) -> bool:
        """Whether every row is kept, and few enough are, for means and covariances in float64 from the rows."""
        return (
            self.features is not None
            and self.labels is not None
            and len(self.features) == self.count
            and self.count * self.dim**2 <= moments.PRODUCTS
        )

    @cached_property
    def mean(self) -> Float64[np.ndarray, " D"]:
        """(D,) mean feature."""
        return self.origin + self.label_sums.sum(axis=0) / self.count

    @cached_property
    def class_means(self) -> Float64[np.ndarray, "K D"]:
        """(K, D) mean feature by label; the global mean for a class without samples."""
        return self._means(self.label_sums, self.label_counts, np.broadcast_to(self.mean, self.label_sums.shape))

    @cached_property
    def correct_means(self) -> Float64[np.ndarray, "K D"]:
        """(K, D) mean feature of the correctly classified of a class; `class_means` where there is none."""
        return self._means(self.correct_sums, self.correct_counts, self.class_means)

    def _means(self, sums: np.ndarray, counts: np.ndarray, fallback: np.ndarray) -> np.ndarray:
        means = self.origin + sums / np.maximum(counts, 1)[:, None]
        return np.where(counts[:, None] > 0, means, fallback)

    @cached_property
    def centers(self) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, "K D"]]:
        """`mean` and `class_means` to the digits of the covariances: from the rows where those are."""
        if not self.from_rows:
            return self.mean, self.class_means
        mean = np.asarray(np.mean(self.features, axis=0, dtype=np.float64))
        means = moments.class_means(self.features, self.labels, self.classes)
        return mean, np.where(self.label_counts[:, None] > 0, means, mean)

    @cached_property
    def total_covariance(self) -> Float64[np.ndarray, "D D"]:
        """(D, D) covariance of the features about their mean, divided by n."""
        if self.from_rows:
            return moments.covariance(self.features, self.centers[0][None], np.zeros_like(self.labels))
        offset = self.mean - self.origin
        return self.second / self.count - np.outer(offset, offset)

    @cached_property
    def within_covariance(self) -> Float64[np.ndarray, "D D"]:
        """(D, D) covariance of the features about their class means, divided by n."""
        if self.from_rows:
            return moments.covariance(self.features, self.centers[1], self.labels)
        share = self.label_counts / self.count
        offset = self.class_means - self.mean
        return self.total_covariance - (offset * share[:, None]).T @ offset

    @property
    def cutoff(self) -> float:
        """The share of the largest variance below which a direction counts as without any; see `oodjax.linalg`."""
        return FROM_ROWS if self.from_rows else FROM_SUMS

    @cached_property
    def within_whitening(self) -> Float64[np.ndarray, "D D"]:
        """(D, D) that whitens features within their classes; see `oodjax.linalg.whitening`."""
        return whitening(self.within_covariance, self.cutoff, scale=largest_variance(self.total_covariance))

    @cached_property
    def spectrum(self) -> Spectrum:
        """The second moment of the features about -pinv(W') b, where the head's logits are 0 or next to it."""
        kernel, bias = np.asarray(self.head.kernel, np.float64), np.asarray(self.head.bias, np.float64)
        origin = -np.linalg.pinv(kernel.T) @ bias
        return Spectrum.of(origin, self.second_moment(origin), self.cutoff)

    def second_moment(self, center: Float[np.ndarray, " D"]) -> Float64[np.ndarray, "D D"]:
        """(D, D) mean outer product of (feature - center)."""
        offset = self.centers[0] - center
        return self.total_covariance + np.outer(offset, offset)

    def activation_percentiles(self, qs: Sequence[float]) -> list[float]:
        """Percentiles (0..100) of all training activations pooled, as numpy.percentile defines them.

        Exact when the bank holds every sample, and then two passes over it serve all of them; else from the
        histogram, with a relative error below 2**-11.
        """
        if self.histogram is not None:
            return [from_histogram(self.histogram, q) for q in qs]
        return self._percentiles(qs)

    @cached_property
    def _percentiles(self) -> Percentiles:
        return Percentiles(self.features)

    def activation_percentile(self, q: float) -> float:
        """One of `activation_percentiles`."""
        return self.activation_percentiles([q])[0]

    @cached_property
    def normalized_features(self) -> DeviceBank:
        """The bank's rows at unit L2 length where searches read them; a zero row stays zero. See `place_bank`."""
        return place_bank(self.features, self.mesh, self.room)

    @cached_property
    def zero_rows(self) -> int:
        """How many of the bank's rows are all zero."""
        return int((~self.features.any(axis=1)).sum())

    @cached_property
    def memory(self) -> dict[str, Any]:
        """What detectors of one method derive from these statistics and share, by the method's name."""
        return {}

    def bank_subset(self, size: int) -> Int[np.ndarray, " size"]:
        """Indices of `size` pseudo-random bank rows: those with the smallest keys, whatever the bank's order."""
        return np.argsort(self.keys, kind="stable")[:size]


def _fields(record: Any) -> dict[str, Any]:
    """A record's fields by name, as they are."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _check_mergeable(a: TrainStatistics, b: TrainStatistics) -> None:
    if (a.bank_fraction, a.seed) != (b.bank_fraction, b.seed):
        raise ValueError(
            f"merge: bank_fraction and seed differ: {(a.bank_fraction, a.seed)} and {(b.bank_fraction, b.seed)}"
        )
    if not (np.array_equal(a.head.kernel, b.head.kernel) and np.array_equal(a.head.bias, b.head.bias)):
        raise ValueError("merge: the two statistics belong to different heads")
    if a.kept - {"gram", "layer_means"} != b.kept - {"gram", "layer_means"}:
        raise ValueError(f"merge: the statistics kept differ: {sorted(a.kept)} and {sorted(b.kept)}")
    for name in ("gram_predicted", "layer_means"):
        x, y = getattr(a, name), getattr(b, name)
        shapes = [None if v is None else np.shape(v[0])[-2:] for v in (x, y)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"merge: {name} differ: {shapes[0]} and {shapes[1]}")
