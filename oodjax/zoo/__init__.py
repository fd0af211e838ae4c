"""The study's checkpoints: what they are (`checkpoints`, `get`) and how to load a converted one (`load`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodjax.zoo.reader import CATEGORIES, Checkpoint, checkpoints, get

if TYPE_CHECKING:
    from oodjax.zoo.loading import load

__all__ = ["CATEGORIES", "Checkpoint", "checkpoints", "get", "load"]


def __getattr__(name: str) -> Any:
    """`load` brings JAX with it: imported when first used."""
    if name == "load":
        from oodjax.zoo import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'oodjax.zoo' has no attribute {name!r}")
