"""A model as the engine runs it: a function of weights and images, with its head and what it wants of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from oodjax.arrays import describe
from oodjax.checks import check_logits
from oodjax.models.apply import Apply, FunctionApply, NnxApply, prepare
from oodjax.models.resnet import ModelOutput
from oodjax.outputs import Head, Outputs
from oodjax.taps import summarize


@dataclass(frozen=True, eq=False)
class Network:
    """One model, ready to run. Networks whose `apply` are equal share their compiled programs: weights are arguments.

    Attributes:
      apply: (state, images) -> `ModelOutput`, traceable, each sample on its own. Images are (n, H, W, 3): normalised
        float32 where there are `mean` and `std`; else pixels as they are, uint8, or float32 in 0..255 for ODIN's
        perturbed ones.
      state: the weights, a pytree of arrays.
      head: the last linear layer; `head(features)` are the logits.
      mean, std: (3,) float32 of pixels in 0..1, or None.
      resize, crop: pixels of the shorter side and of the centre crop; None takes images as they are.
      fingerprint: sha256 of what decides the outputs.
      has_maps: whether there are maps of intermediate layers, which GRAM and ATS read.
      manifest: what is known of the checkpoint.
    """

    apply: Apply
    state: Any
    head: Head
    mean: np.ndarray | None
    std: np.ndarray | None
    resize: int | None
    crop: int | None
    fingerprint: str
    has_maps: bool = True
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, images: Any) -> ModelOutput:
        """(n, H, W, 3) uint8 images -> `ModelOutput`.

        Raises:
          ValueError: images of another type or shape, such as floats in 0..1 or (n, 3, H, W), or of another size where
            the network takes one size alone.
        """
        images = images if isinstance(images, jax.Array) else np.asarray(images)
        _check_images(images, self.side)
        mean, std = self.normalisation
        return _forward(self.apply, self.state, jnp.asarray(images), mean, std)

    @property
    def side(self) -> int | None:
        """Pixels of the square images that the architecture takes, where it takes no others; else `crop`."""
        own = getattr(getattr(self.module, "config", None), "image_size", None)
        return self.crop if own is None else own

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each class is called; empty where the manifest does not say."""
        return tuple(self.manifest.get("class_names", ()))

    @cached_property
    def module(self) -> Any:
        """The nnx module that maps normalised images to `ModelOutput`; None for a function."""
        return nnx.merge(self.apply.graphdef, self.state) if isinstance(self.apply, NnxApply) else None

    def __repr__(self) -> str:
        features, classes = self.head.kernel.shape
        parts = [str(self.manifest.get("architecture", f"{features} features")), f"{classes} classes"]
        parts += [f"from {', '.join(str(entry['file']) for entry in self.manifest.get('source', ()))}"]
        parts = parts if self.manifest.get("source") else parts[:2]
        if self.mean is not None and self.std is not None:
            parts += [f"{n} {' '.join(f'{x:.4g}' for x in v)}" for n, v in (("mean", self.mean), ("std", self.std))]
        parts += [] if self.crop is None else [f"resize {self.resize}", f"crop {self.crop}"]
        return f"Network({', '.join(parts)})"

    @property
    def normalisation(self) -> tuple[Any, Any]:
        """(mean, std), both None for a network that takes pixels as they are."""
        return (None, None) if self.mean is None else (jnp.asarray(self.mean), jnp.asarray(self.std))

    @property
    def pixel_std(self) -> jax.Array:
        """(3,) what one unit of the images that `apply` takes is, in pixels of 0..1: ODIN's step is in these."""
        return jnp.full(3, 1 / 255, jnp.float32) if self.std is None else jnp.asarray(self.std)

    @classmethod
    def of(
        cls,
        model: nnx.Module,
        *,
        head: Head,
        mean: Any,
        std: Any,
        fingerprint: str,
        resize: int | None = None,
        crop: int | None = None,
        manifest: Mapping[str, Any] | None = None,
    ) -> Network:
        """The network of an nnx module that maps normalised images to `ModelOutput`."""
        graphdef, state = nnx.split(model)
        mean, std = (np.asarray(v, np.float32).reshape(3) for v in (mean, std))
        return cls(NnxApply(graphdef), state, head, mean, std, resize, crop, fingerprint, True, manifest or {})

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        head: Any,
        *,
        state: Any = None,
        mean: Any = None,
        std: Any = None,
        resize: int | None = 256,
        crop: int | None = 224,
        version: str | None = None,
    ) -> Network:
        """Your own model, of any framework whose functions JAX can trace.

        Args:
          function: images -> (logits (n, K), features (n, D)) or (logits, features, maps), with `state` given
            (state, images) -> the same. Each sample on its own; `maps` are (n, H, W, C) or (n, tokens, C) arrays of
            intermediate layers, which GRAM and ATS read.
          head: `Head`, or (kernel (D, K), bias (K,)): logits = features @ kernel + bias.
          state: the weights, where the function takes them.
          mean, std: (3,) of pixels in 0..1; the function then gets normalised float32 images. Without them it gets
            the pixels: uint8, or for ODIN float32 in 0..255.
          resize, crop: pixels of the shorter side and of the centre crop; None takes images as they are, all of a size
            (`resize=None, crop=28` those of 28 pixels, for a function of that size alone).
          version: names the model where kept results are looked up. Without it they are found by the outputs for a
            fixed random batch, so that other weights never find them.

        Raises:
          ValueError: the function returns something else, or logits other than head(features).
        """
        head = head if isinstance(head, Head) else Head(*(jnp.asarray(part, jnp.float32) for part in head))
        mean, std = (None if v is None else np.asarray(v, np.float32).reshape(-1) for v in (mean, std))
        if (mean is None) != (std is None) or any(v is not None and v.shape != (3,) for v in (mean, std)):
            raise ValueError(f"mean and std come together, three numbers each, got {mean} and {std}")
        apply = FunctionApply(function, state is not None)
        found = cls(apply, state, head, mean, std, resize, crop, "")
        probe = np.random.default_rng(0).integers(0, 256, (2, crop or 32, crop or 32, 3), dtype=np.uint8)
        out = found(probe)
        _check_outputs(out, head, len(probe))
        marks = (
            [version] if version is not None else [np.asarray(out.logits).tobytes(), np.asarray(out.features).tobytes()]
        )
        digest = hashlib.sha256(repr((marks, resize, crop)).encode())
        return cls(apply, state, head, mean, std, resize, crop, digest.hexdigest(), bool(out.maps))


def _check_outputs(out: ModelOutput, head: Head, samples: int) -> None:
    """Raises a ValueError unless a function's outputs are of these samples, finite, and the head's."""
    who, (features, classes) = "Network.from_function", head.kernel.shape
    expected = {"logits": (samples, classes), "features": (samples, features)}
    for name, shape in expected.items():
        value = getattr(out, name)
        if np.shape(value) != shape:
            raise ValueError(
                f"{who}: for {samples} images the function returns {name} {describe(value)}, expected shape {shape}: "
                f"the head is of {features} features and {classes} classes"
            )
        if not np.isfinite(np.asarray(value)).all():
            raise ValueError(f"{who}: the function's {name} hold NaN or infinite values")
    if out.maps:
        jax.eval_shape(summarize, out.maps)
    check_logits(Outputs(out.logits, out.features), head, who)


def _check_images(images: jax.Array | np.ndarray, side: int | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:]:
        raise ValueError(
            f"images must be uint8 of shape (n, height, width, 3), got {images.dtype} of shape {images.shape}; "
            "oodjax.data.preprocess.preprocess makes them"
        )
    if side is not None and images.shape[1:3] != (side, side):
        raise ValueError(
            f"this network takes images of {side} x {side} pixels, got {images.shape[1]} x {images.shape[2]}"
        )


@partial(jax.jit, static_argnums=0)
def _forward(apply: Apply, state: Any, images: jax.Array, mean: Any, std: Any) -> ModelOutput:
    return apply(state, prepare(images, mean, std))
