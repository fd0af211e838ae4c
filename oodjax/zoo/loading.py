"""Converted checkpoints back into models: verified against their manifest, with their own normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from oodjax.data.preprocess import CROP, RESIZE
from oodjax.models import checkpoint
from oodjax.models.network import Network
from oodjax.models.resnet import ResNet, ResNetConfig, fold_batch_norm
from oodjax.models.vit import ViT, ViTConfig
from oodjax.outputs import Head
from oodjax.zoo.reader import misfit

MODELS: dict[str, tuple[type, type]] = {"resnet50": (ResNetConfig, ResNet), "vit_b16": (ViTConfig, ViT)}

FIELDS = ("config", "weights", "files", "architecture", "mean", "std", "shapes")


def load(folder: str | Path, *, fold: bool = False, dtype: Any = "float32") -> Network:
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
    weights: Any = model.head
    return Network.of(
        model,
        head=Head(weights.kernel[...], weights.bias[...]),
        mean=mean,
        std=std,
        fingerprint=manifest["weights"],
        resize=manifest["resize"],
        crop=manifest["crop"],
        manifest=manifest,
    )


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
