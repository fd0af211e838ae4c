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
from oodjax.models.checkpoint import _digest_files, _read_arrays
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
        scaled = jnp.asarray(images).astype(jnp.float32) / 255.0
        shape = (1, 1, 1, 3)
        return self.model((scaled - self.mean.reshape(shape)) / self.std.reshape(shape))  # type: ignore[operator]


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
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in manifest["config"].items()}
    model = _restore(folder, manifest, lambda: network(config(**settings), dtype=dtype, rngs=nnx.Rngs(0)))
    if fold and isinstance(model, ResNet):
        model = fold_batch_norm(model)
    mean, std = (np.asarray(manifest[name], np.float32) for name in ("mean", "std"))
    return Loaded(model, mean, std, manifest)


def _restore(folder: Path, manifest: dict[str, Any], build: Any) -> nnx.Module:
    weights = folder / checkpoint.WEIGHTS
    if _digest_files(weights) != manifest["files"]:  # before Orbax reads: it takes damaged files badly
        raise checkpoint.CheckpointError(f"{weights} is damaged; convert the file again")
    graphdef, target = nnx.split(nnx.eval_shape(build))
    arrays = _read_arrays(weights)
    model = nnx.merge(graphdef, checkpoint.fill(target, arrays, str(folder)))
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if shapes != manifest["shapes"] or checkpoint.weights_hash(model) != manifest["weights"]:
        raise checkpoint.CheckpointError(f"{folder}: the weights are not those of its manifest; convert the file again")
    return model
