"""Out-of-distribution detection at accelerator speed, in JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oodjax._version import __version__ as __version__

if TYPE_CHECKING:
    from oodjax import analysis, detectors, metrics, testing, zoo
    from oodjax.exporting import export
    from oodjax.extraction import extract
    from oodjax.models.network import Network
    from oodjax.monitor import Monitor, Verdict
    from oodjax.odin import odin_scores
    from oodjax.outputs import Head, Outputs
    from oodjax.saving import load, save
    from oodjax.statistics import TrainStatistics
    from oodjax.taps import summarize

__all__ = [
    "Head",
    "Monitor",
    "Network",
    "Outputs",
    "TrainStatistics",
    "Verdict",
    "analysis",
    "detectors",
    "export",
    "extract",
    "load",
    "metrics",
    "odin_scores",
    "save",
    "summarize",
    "testing",
    "zoo",
]

_HOMES = {
    "Outputs": "oodjax.outputs",
    "Head": "oodjax.outputs",
    "TrainStatistics": "oodjax.statistics",
    "summarize": "oodjax.taps",
    "odin_scores": "oodjax.odin",
    "extract": "oodjax.extraction",
    "Network": "oodjax.models.network",
    "Monitor": "oodjax.monitor",
    "Verdict": "oodjax.monitor",
    "export": "oodjax.exporting",
    "load": "oodjax.saving",
    "save": "oodjax.saving",
}
_MODULES = ("analysis", "detectors", "metrics", "testing", "zoo")


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used: `import oodjax` alone imports nothing heavy."""
    if name in _MODULES:
        return importlib.import_module(f"oodjax.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'oodjax' has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
