"""Exact percentiles of float32 values too many to sort: counts by their leading bits, then by the bits that remain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from oodjax.accumulate import Array

SLOTS = 2**20  # of the histogram that stands in for values which are gone
HALF = 2**16  # a float32's leading bits, and the bits that remain
BLOCK = 2**20  # values at a time
_BY_VALUE = np.r_[HALF - 1 : HALF // 2 - 1 : -1, 0 : HALF // 2]  # the leading halves of negative values come first


class Percentiles:
    """Percentiles of all values of an array, which is read in blocks: once for its counts by leading bits, and once
    more for all percentiles asked for together, however many. Exact, in bounded memory.
    """

    def __init__(self, values: Array):
        """
        Args:
          values: (n, d) float32 without NaN; an array or a memory map.
        """
        self._values = values
        self._remaining: dict[int, np.ndarray] = {}  # of the slots looked into: counts by the other 16

    def __call__(self, qs: Sequence[float]) -> list[float]:
        """The percentiles `qs` (0..100) as `numpy.percentile` defines them, interpolated in float64."""
        ends = np.cumsum(self._leading)
        places = [(q / 100) * (int(ends[-1]) - 1) for q in qs]
        ranks = {r for p in places for r in (int(p), min(int(p) + 1, int(ends[-1]) - 1))}
        slots = {rank: int(np.searchsorted(ends, rank, side="right")) for rank in ranks}
        self._look_into(set(slots.values()) - set(self._remaining))
        value = {
            rank: _value(slot, self._remaining[slot], rank - int(ends[slot] - self._leading[slot]))
            for rank, slot in slots.items()
        }
        return [_between(value[int(p)], value[min(int(p) + 1, int(ends[-1]) - 1)], p - int(p)) for p in places]

    @cached_property
    def _leading(self) -> np.ndarray:
        """Counts by the leading 16 bits, ascending with the value."""
        counts = np.zeros(HALF, np.int64)
        for leading, _ in self._halves():
            counts += np.bincount(leading, minlength=HALF)
        return counts[_BY_VALUE]

    def _look_into(self, slots: set[int]) -> None:
        if not slots:
            return
        ordered = sorted(slots)
        number = np.full(HALF, -1, np.int16)  # of each leading half, -1 where nobody looks
        number[_BY_VALUE[ordered]] = np.arange(len(ordered))
        counts = np.zeros(len(ordered) * HALF, np.int64)
        for leading, rest in self._halves():
            which = number[leading]
            inside = np.flatnonzero(which >= 0)
            counts += np.bincount(which[inside].astype(np.int64) * HALF + rest[inside], minlength=len(counts))
        for slot, found in zip(ordered, counts.reshape(-1, HALF), strict=True):
            self._remaining[slot] = found[::-1] if slot < HALF // 2 else found  # bits of negative values descend

    def _halves(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Block by block the leading 16 bits and the others, as they are."""
        rows = max(1, BLOCK // max(1, self._values.shape[1]))
        for i in range(0, len(self._values), rows):
            bits = np.ascontiguousarray(self._values[i : i + rows], np.float32).ravel().view(np.uint32)
            yield (bits >> np.uint32(16)).astype(np.uint16), bits.astype(np.uint16)


def _value(slot: int, counts: np.ndarray, rank: int) -> float:
    """The value at `rank` among those of a slot."""
    code = (slot << 16) | int(np.searchsorted(np.cumsum(counts), rank, side="right"))
    return float(descended(np.array([code], np.uint32))[0])


def _between(low: float, high: float, share: float) -> float:
    """As numpy interpolates, from the nearer end."""
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def ascending(values: np.ndarray) -> np.ndarray:
    """float32 -> uint32 codes that ascend with the value; -0.0 and 0.0 share one."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is +0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def descended(codes: np.ndarray) -> np.ndarray:
    """The float32 values of `ascending` codes."""
    bits = np.where(codes >> 31, codes & np.uint32(0x7FFFFFFF), ~codes).astype(np.uint32)
    return bits.view(np.float32)


def leading_histogram(values: np.ndarray) -> np.ndarray:
    """(2**20,) counts of float32 values by the leading 20 bits of their ascending code."""
    return np.bincount((ascending(values) >> np.uint32(12)).ravel(), minlength=SLOTS)


def from_histogram(histogram: np.ndarray, q: float) -> float:
    """The q-th percentile of the values a `leading_histogram` has counted, with a relative error below 2**-11."""
    ends = np.cumsum(histogram)

    def ranked(rank: int) -> float:
        slot = int(np.searchsorted(ends, rank, side="right"))
        low, high = _edges(slot)
        inside = rank - (ends[slot] - histogram[slot])
        return low + (high - low) * (inside + 0.5) / histogram[slot]

    position = q / 100 * (ends[-1] - 1)
    rank = int(position)
    low, high = ranked(rank), ranked(min(rank + 1, int(ends[-1]) - 1))  # they may lie slots apart
    return float(low + (high - low) * (position - rank))


def _edges(slot: int) -> tuple[float, float]:
    if slot == 1 << 19:  # the slot that starts at zero: its other members are denormal-sized
        return 0.0, 0.0
    low, high = descended(np.array([slot << 12, (slot << 12) | 0xFFF], np.uint32))
    return float(low), float(high)
