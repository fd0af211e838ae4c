"""What runs of a network: a function of weights and images, from the pixels as they are read to logits and features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from oodjax.arrays import describe
from oodjax.models.normalize import normalize_images
from oodjax.models.resnet import ModelOutput

Apply = Callable[[Any, jax.Array], ModelOutput]


@dataclass(frozen=True)
class NnxApply:
    """(state, normalised images) -> `ModelOutput` of an nnx module; equal for all models of one architecture."""

    graphdef: Any

    def __call__(self, state: Any, images: jax.Array) -> ModelOutput:
        return nnx.merge(self.graphdef, state)(images)


@dataclass(frozen=True)
class FunctionApply:
    """(state, images) -> `ModelOutput` of a function that returns (logits, features) or (logits, features, maps)."""

    function: Callable[..., Any]
    takes_state: bool

    def __call__(self, state: Any, images: jax.Array) -> ModelOutput:
        found = self.function(state, images) if self.takes_state else self.function(images)
        if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
            got = f"{len(found)} of them" if isinstance(found, (tuple, list)) else describe(found)
            raise ValueError(f"a network's function returns (logits, features) or (logits, features, maps), got {got}")
        logits, features, *maps = found
        return ModelOutput(logits, features, tuple(maps[0]) if maps and maps[0] is not None else ())


def prepare(images: jax.Array, mean: Any, std: Any) -> jax.Array:
    """What a network takes: (n, H, W, 3) uint8 images normalised to float32, or as they are where it has no mean."""
    return images if mean is None else normalize_images(images, mean, std)
