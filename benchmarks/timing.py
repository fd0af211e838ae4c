"""Warmed-up timings, and the ratio of two things measured turn by turn in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import jax


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median of the repeats, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float
    repeats: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def measure(*calls: Callable[[], Any], repeats: int = 5) -> list[Timing]:
    """Times calls in turns (a, b, a, b, ...), after one warm-up each, so a drift of the machine meets all alike."""
    for call in calls:
        jax.block_until_ready(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - start)
    return [Timing(median(s), min(s), max(s), repeats) for s in seconds]
