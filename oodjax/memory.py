"""What a study takes of device, host and disk, by arithmetic; and how many models share a pass."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

import jax

from oodjax.devices import Devices
from oodjax.percentiles import SLOTS
from oodjax.study import Model, Study

SHARE = 0.6  # of a device's memory for weights and sums; the rest is for the passes themselves
POWERS = 10
FLOAT = 4


def device_bytes() -> int:
    """Memory of one device; its share of the host's where devices are its processors."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // max(1, jax.local_device_count())


def sums_bytes(head_shape: tuple[int, int], reads: Collection[str]) -> int:
    """Of one model's sums over training on a device: float32 pairs, and GRAM's four bounds of some 2 D channels."""
    d, k = head_shape
    sizes = {"label_sums": k * d, "correct_sums": k * d, "second": d * d, "softmax_sums": k * k}
    pairs = sum(2 * size for name, size in sizes.items() if name in reads)
    return FLOAT * (pairs + (4 * k * POWERS * 2 * d if "gram" in reads else 0))


def bank_bytes(head_shape: tuple[int, int], images: int, fraction: float, reads: Collection[str]) -> int:
    """Of one model's feature bank on disk: rows with energies and keys, and a histogram of those not kept."""
    if "features" not in reads:
        return 0
    return int(images * fraction) * (FLOAT * head_shape[0] + 12) + (8 * SLOTS if fraction < 1 else 0)


def outputs_bytes(head_shape: tuple[int, int], images: int) -> int:
    """Of one model's outputs on disk: logits and features."""
    return FLOAT * sum(head_shape) * images


def fleet_size(study: Study, reads: Collection[str]) -> int:
    """Models that share a pass."""
    if study.fleet:
        return study.fleet
    each = max((m.weight_bytes() + sums_bytes(m.head_shape(), reads) for m in study.models), default=1)
    return max(1, int(SHARE * device_bytes()) // max(1, each))


def fleets(
    study: Study, devices: Devices, models: Sequence[Model], reads: Collection[str]
) -> Iterator[Sequence[Model]]:
    """The models in groups that share a pass, the same groups on every host."""
    size = devices.agree(fleet_size(study, reads))
    for start in range(0, len(models), size):
        yield models[start : start + size]
