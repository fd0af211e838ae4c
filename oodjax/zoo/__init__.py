"""The study's checkpoints: what they are (`checkpoints`, `get`) and how to load a converted one (`load`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodjax.zoo.reader import CATEGORIES, Checkpoint, checkpoints, get

if TYPE_CHECKING:
    from oodjax.zoo.loading import Loaded, load

__all__ = ["CATEGORIES", "Checkpoint", "Loaded", "checkpoints", "get", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Loaded` bring JAX with them: imported when first used."""
    if name in ("Loaded", "load"):
        from oodjax.zoo import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'oodjax.zoo' has no attribute {name!r}")
