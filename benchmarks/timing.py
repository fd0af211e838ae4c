"""Warmed-up timings, and the ratio of two things measured turn by turn in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, in the order of the repeats."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def as_dict(self) -> dict[str, float]:
        return {
            "median": self.median,
            "fastest": min(self.seconds),
            "slowest": max(self.seconds),
            "repeats": len(self.seconds),
        }


PAUSE = 0.3  # seconds before each call: another library's idle threads spin this long before they sleep


def measure(*calls: Callable[[], Any], repeats: int = 5) -> list[Timing]:
    """Times calls in turns (a, b, a, b, ...), after one warm-up each, so a drift of the machine meets all alike."""
    for call in calls:
        jax.block_until_ready(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, seconds, strict=True):
            time.sleep(PAUSE)
            start = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - start)
    return [Timing(tuple(s)) for s in seconds]


def ratio(a: Timing, b: Timing) -> dict[str, float]:
    """a / b of two calls measured in turns: the median over the rounds, and the lowest and highest round."""
    rounds = [x / y for x, y in zip(a.seconds, b.seconds, strict=True)]
    return {"median": median(rounds), "lowest": min(rounds), "highest": max(rounds)}
