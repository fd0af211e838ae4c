"""Converted checkpoints back into models: verified against their manifest, with their own normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from oodjax.data.preprocess import CROP, RESIZE
from oodjax.models import checkpoint
from oodjax.models.normalize import normalize_images
from oodjax.models.resnet import ModelOutput, ResNet, ResNetConfig, fold_batch_norm
from oodjax.models.vit import ViT, ViTConfig
from oodjax.zoo.reader import misfit

MODELS: dict[str, tuple[type, type]] = {"resnet50": (ResNetConfig, ResNet), "vit_b16": (ViTConfig, ViT)}

FIELDS = ("config", "weights", "files", "architecture", "mean", "std", "shapes")


@dataclass(frozen=True, eq=False, repr=False)
class Loaded:
    """A model with the preparation of images it was trained with.

    Attributes:
      model: maps normalised (n, H, W, 3) images to `ModelOutput`.
      mean, std: (3,) float32, of pixels in 0..1; applied on the device.
      manifest: what is known of the checkpoint: source file and its sha256, rules version, shapes, hash of the weights.
      resize, crop: pixels of an image's shorter side before cropping, and of the square that is kept; see
        `oodjax.data.preprocess.preprocess`.
    """

    model: nnx.Module
    mean: np.ndarray
    std: np.ndarray
    manifest: dict[str, Any]
    resize: int = RESIZE
    crop: int = CROP

    def __call__(self, images: jax.Array | np.ndarray) -> ModelOutput:
        """(n, H, W, 3) uint8 images -> `ModelOutput`.

        Raises:
          ValueError: images of another type or shape, such as floats in 0..1 or (n, 3, H, W).
        """
        images = images if isinstance(images, jax.Array) else np.asarray(images)
        _check_images(images, getattr(getattr(self.model, "config", None), "image_size", None))
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return self.model(normalize_images(jnp.asarray(images), mean, std))  # type: ignore[operator]

    def __repr__(self) -> str:
        sources = self.manifest.get("source")
        source = ", ".join(str(s.get("file")) for s in sources if isinstance(s, dict)) if sources else ""
        architecture = self.manifest.get("architecture", type(self.model).__name__)
        classes = getattr(getattr(self.model, "config", None), "num_classes", None)
        mean, std = (" ".join(f"{x:.4g}" for x in values) for values in (self.mean, self.std))
        return (
            f"Loaded({architecture}, {classes} classes, from {source or 'no file'}, mean {mean}, std {std}, "
            f"resize {self.resize}, crop {self.crop})"
        )


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


def load(folder: str | Path, *, fold: bool = False, dtype: Any = "float32") -> Loaded:
    """A converted checkpoint.

    Args:
      folder: what `python -m converters` wrote.
      fold: put batch norm into the convolutions' weights: faster, equal up to rounding. Without effect on a ViT.
      dtype: the network computes in this type.

    Raises:
      CheckpointError: the folder is not a finished converted checkpoint, or its weights differ from its manifest.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    kind, network = MODELS[manifest["architecture"]]
    config: Any = checkpoint.configuration(folder, manifest, kind)
    target = nnx.eval_shape(lambda: network(config, dtype=dtype, rngs=nnx.Rngs(0)))
    model = checkpoint.restore(folder, manifest, target)
    if fold and isinstance(model, ResNet):
        model = fold_batch_norm(model)
    mean, std = (np.asarray(manifest[name], np.float32) for name in ("mean", "std"))
    return Loaded(model, mean, std, manifest, manifest["resize"], manifest["crop"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a converted checkpoint, its values checked; older ones have the study's resize and crop."""
    manifest = checkpoint.read_manifest(folder)
    if manifest is None:
        raise checkpoint.CheckpointError(f"{folder} holds no finished checkpoint: {checkpoint.MANIFEST} is missing")
    if missing := [name for name in FIELDS if name not in manifest]:
        raise checkpoint.CheckpointError(f"{folder} is not a converted checkpoint: its manifest lacks {missing}")
    problems = [wrong for name in ("mean", "std") if (wrong := misfit(name, manifest[name]))]
    manifest = {"resize": RESIZE, "crop": CROP} | manifest
    resize, crop = manifest["resize"], manifest["crop"]
    if not (type(resize) is type(crop) is int and 1 <= crop <= resize):
        problems.append(f"resize is {resize!r} and crop {crop!r}, expected whole numbers, crop not above resize")
    if manifest["architecture"] not in list(MODELS):
        problems.append(f"unknown architecture {manifest['architecture']!r}; known: {', '.join(MODELS)}")
    if problems:
        raise checkpoint.CheckpointError(f"{folder}: in its manifest {'; '.join(problems)}")
    return manifest
