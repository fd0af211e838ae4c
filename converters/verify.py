"""How far a written checkpoint's logits and features are from torch's, and from its own in faster arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters import reference
from converters.errors import ConversionError
from oodjax import zoo
from oodjax.models.network import Network


def reread(tensors: dict[str, Any], read: Callable[[], dict[str, Any]], what: str) -> str:
    """Compares the tensors bit by bit with those that torch's own readers find; says so, or why it could not.

    Raises:
      ConversionError: they differ.
    """
    try:
        theirs = read()
    except ConversionError as error:
        return f"tensors not compared with what torch reads: {error.summary()}"
    reference.check_equal(tensors, theirs, what)
    return f"{len(tensors)} tensors equal, bit by bit, to those that torch's own readers find"


def drifts(folder: Path, layout: str, tensors: dict[str, Any]) -> list[str]:
    """How far the written checkpoint's logits and features are from torch's on a fixed input, and the folded network's
    and bfloat16's from the plain one; each as the largest difference in units of the reference's standard deviation."""
    size = 224
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    loaded = zoo.load(folder)
    plain = _forward(loaded, pixels)
    lines = []
    try:
        mean, std = (np.asarray(v) for v in loaded.normalisation)
        images = ((pixels / 255.0 - mean) / std).astype(np.float32)
        lines.append(_drift_line("from torch", plain, reference.outputs(layout, tensors, images)))
        lines.append(
            f"compared with {reference.described(layout)} holding the same tensors; what has no tensors (blur, "
            "strides, dilation, epsilon) is that class's, and not checked against the publisher's"
        )
    except ConversionError as error:
        lines.append(f"not compared with torch: {error.summary()}")
    if loaded.manifest["architecture"] == "resnet50":
        lines.append(_drift_line("of folded batch norm", _forward(zoo.load(folder, fold=True), pixels), plain))
    lines.append(_drift_line("of bfloat16", _forward(zoo.load(folder, dtype="bfloat16"), pixels), plain))
    return lines


def _forward(loaded: Network, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with jax.default_matmul_precision("highest"):
        out = jax.jit(loaded.__call__)(pixels)
    return np.asarray(out.logits), np.asarray(out.features)


def _drift_line(what: str, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
    drift = [float(np.abs(a - b).max() / (b.std() or 1.0)) for a, b in zip(found, expected, strict=True)]
    return f"drift {what}: logits {drift[0]:.1e}, features {drift[1]:.1e} standard deviations"
