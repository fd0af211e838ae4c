"""What one forward pass leaves behind for the detectors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = Any

_RANKS = {"logits": 2, "features": 2, "labels": 1, "gram": 3, "layer_means": 2, "odin": 3}
_SHAPES = {
    "logits": "(n, classes)",
    "features": "(n, features)",
    "labels": "(n,)",
    "gram": "(n, powers, channels)",
    "layer_means": "(n, layers)",
    "odin": "(n, temperatures, noises)",
}
HOW_TO_GET = {
    "labels": "the class index of every sample",
    "gram": "oodjax.summarize(feature_maps) returns it from the maps of the tapped layers",
    "layer_means": "oodjax.summarize(feature_maps) returns it from the maps of the tapped layers",
    "odin": "oodjax.odin_scores(apply_fn, images, temperatures, noises, input_std) returns it",
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """One forward pass over n samples, as a pytree of arrays with a leading sample axis.

    Attributes:
      logits: (n, K) class scores before the softmax.
      features: (n, D) input of the classifier head.
      labels: (n,) integer class of each sample, -1 for out-of-distribution; only training and validation need it.
      gram: (n, P, C) row sums of the power-1..P Gram matrices of all tapped layers side by side (`summarize`).
      layer_means: (n, L) mean rectified activation of each tapped layer (`summarize`).
      odin: (n, T, E) ODIN scores for T temperatures and E noise magnitudes (`odin_scores`).

    Raises:
      ValueError: an array has the wrong rank, or the sample axes differ in length.
    """

    logits: ArrayLike
    features: ArrayLike
    labels: ArrayLike = None
    gram: ArrayLike = None
    layer_means: ArrayLike = None
    odin: ArrayLike = None

    def __post_init__(self) -> None:
        lengths = {}
        for name, rank in _RANKS.items():
            value = getattr(self, name)
            shape = getattr(value, "shape", None)
            if shape is None:  # absent, or a placeholder while JAX rebuilds the tree
                continue
            if len(shape) != rank:
                raise ValueError(f"Outputs.{name} must have shape {_SHAPES[name]}, got shape {tuple(shape)}")
            lengths[name] = shape[0]
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Outputs: arrays disagree on the number of samples: {lengths}")

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def __getitem__(self, index: slice | ArrayLike) -> Outputs:
        """The samples that `index` (a slice or an index array) selects."""
        return jax.tree.map(lambda x: x[index], self)

    def replace(self, **changes: ArrayLike) -> Outputs:
        return dataclasses.replace(self, **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Head:
    """The classifier's last linear layer: logits = features @ kernel + bias.

    Attributes:
      kernel: (D, K).
      bias: (K,).
    """

    kernel: ArrayLike
    bias: ArrayLike

    def __post_init__(self) -> None:
        kernel, bias = getattr(self.kernel, "shape", None), getattr(self.bias, "shape", None)
        if kernel is None or bias is None:
            return
        if len(kernel) != 2 or len(bias) != 1 or kernel[1] != bias[0]:
            raise ValueError(
                f"Head needs kernel (features, classes) and bias (classes,), got {tuple(kernel)} and {tuple(bias)}"
            )

    def __call__(self, features: jax.Array) -> jax.Array:
        """(n, D) features -> (n, K) logits, float32 at highest precision."""
        kernel, bias = jnp.asarray(self.kernel, jnp.float32), jnp.asarray(self.bias, jnp.float32)
        return jnp.matmul(features, kernel, precision="highest") + bias[None, :]


def require(outputs: Outputs, fields: tuple[str, ...], who: str) -> None:
    """Raises a ValueError that names the first field of `fields` which `outputs` lacks, and how to get it."""
    for name in fields:
        if getattr(outputs, name) is None:
            raise ValueError(f"{who} needs Outputs.{name}, which is None: {HOW_TO_GET[name]}")


def check_finite(outputs: Outputs, fields: tuple[str, ...], who: str) -> None:
    """Raises a ValueError that names the first field with a NaN or an infinity; traced values are not looked at."""
    for name in fields:
        value = getattr(outputs, name)
        if value is None or isinstance(value, jax.core.Tracer):
            continue
        finite = np.isfinite(value) if isinstance(value, np.ndarray) else jnp.isfinite(value)
        if value.dtype == np.float64:  # the computation is in float32
            finite = finite & (np.abs(value) <= np.finfo(np.float32).max)
        if not bool(finite.all()):
            bad = int((~np.asarray(finite)).sum())
            raise ValueError(f"{who}: Outputs.{name} holds {bad} values that are NaN or infinite; all must be finite")


def canonical(outputs: Outputs, host: bool = False) -> Outputs:
    """Floating-point fields as float32, labels as int32; NumPy arrays stay on the host when `host` is true."""

    def cast(name: str) -> Any:
        value, dtype = getattr(outputs, name), np.int32 if name == "labels" else np.float32
        if value is None:
            return None
        return value.astype(dtype) if host and isinstance(value, np.ndarray) else jnp.asarray(value, dtype)

    return Outputs(**{field.name: cast(field.name) for field in dataclasses.fields(outputs)})


def pad(outputs: Outputs, rows: int) -> tuple[Outputs, jax.Array]:
    """Zero rows appended up to `rows`, and the mask of the real ones."""
    n = len(outputs)

    def pad_rows(x: Any) -> Any:  # NumPy's needs no program for each length of a last batch
        return (np if isinstance(x, np.ndarray) else jnp).pad(x, [(0, rows - n)] + [(0, 0)] * (x.ndim - 1))

    return (outputs if n == rows else jax.tree.map(pad_rows, outputs)), jnp.arange(rows) < n
