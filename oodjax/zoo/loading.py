"""Converted checkpoints back into models: verified against their manifest, with their own normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from oodjax.models import checkpoint
from oodjax.models.normalize import normalize_images
from oodjax.models.resnet import ModelOutput, ResNet, ResNetConfig, fold_batch_norm
from oodjax.models.vit import ViT, ViTConfig

MODELS: dict[str, tuple[type, type]] = {"resnet50": (ResNetConfig, ResNet), "vit_b16": (ViTConfig, ViT)}

FIELDS = ("config", "weights", "files", "architecture", "mean", "std", "shapes")


@dataclass(frozen=True)
class Loaded:
    """A model with the normalisation it was trained with.

    Attributes:
      model: maps normalised (n, H, W, 3) images to `ModelOutput`.
      mean, std: (3,) float32, of pixels in 0..1; `oodjax.extract.Extractor` applies them on the device.
      manifest: what is known of the checkpoint: source file and its sha256, rules version, shapes, hash of the weights.
    """

    model: nnx.Module
    mean: np.ndarray
    std: np.ndarray
    manifest: dict[str, Any]

    def __call__(self, images: jax.Array) -> ModelOutput:
        """(n, H, W, 3) uint8 images -> `ModelOutput`."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return self.model(normalize_images(jnp.asarray(images), mean, std))  # type: ignore[operator]


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
    manifest = checkpoint.read_manifest(folder)
    if manifest is None:
        raise checkpoint.CheckpointError(f"{folder} holds no finished checkpoint: {checkpoint.MANIFEST} is missing")
    missing = [name for name in FIELDS if name not in manifest]
    if missing:
        raise checkpoint.CheckpointError(f"{folder} is not a converted checkpoint: its manifest lacks {missing}")
    if manifest["architecture"] not in MODELS:
        raise checkpoint.CheckpointError(
            f"{folder}: unknown architecture {manifest['architecture']!r}; known: {', '.join(MODELS)}"
        )
    config, network = MODELS[manifest["architecture"]]
    settings = checkpoint.settings(manifest)
    target = nnx.eval_shape(lambda: network(config(**settings), dtype=dtype, rngs=nnx.Rngs(0)))
    model = checkpoint.restore(folder, manifest, target)
    if fold and isinstance(model, ResNet):
        model = fold_batch_norm(model)
    mean, std = (np.asarray(manifest[name], np.float32) for name in ("mean", "std"))
    return Loaded(model, mean, std, manifest)
