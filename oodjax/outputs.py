"""What one forward pass leaves behind for the detectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from numpy.typing import ArrayLike

from oodjax.arrays import describe, real_array

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
Node = TypeVar("Node")


def _as_pytree(cls: type[Node]) -> type[Node]:
    """Registers a dataclass of arrays as a pytree that JAX rebuilds with whatever leaves, unchecked.

    Unlike with `jax.tree_util.register_dataclass`, `__init__` is the users' alone: it may convert and refuse, while
    transformations put tracers, batched arrays, shardings or placeholders into the fields.
    """
    names = tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in names)

    def flatten(node: Node) -> tuple[tuple, None]:
        fields = node.__dict__
        return tuple([fields[name] for name in names]), None

    def flatten_with_keys(node: Node) -> tuple[tuple, None]:
        return tuple(zip(keys, flatten(node)[0], strict=True)), None

    def unflatten(_: None, leaves: Any) -> Node:
        return _rebuilt(cls, zip(names, leaves, strict=True))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _rebuilt(cls: type[Node], fields: Iterable[tuple[str, Any]]) -> Node:
    """An instance made of fields that were checked before, or need not be."""
    node = object.__new__(cls)
    node.__dict__.update(fields)
    return node


@_as_pytree
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Outputs:
    """One forward pass over n samples, as a pytree of arrays with a leading sample axis.

    Made from arrays of any library or nested lists. What is not a JAX array becomes a NumPy array: nothing is sent
    to a device or fetched from one.

    Attributes:
      logits: (n, K) class scores before the softmax.
      features: (n, D) input of the classifier head.
      labels: (n,) integer class of each sample, -1 for out-of-distribution; only training and validation need it.
      gram: (n, P, C) row sums of the power-1..P Gram matrices of all tapped layers side by side (`summarize`).
      layer_means: (n, L) mean rectified activation of each tapped layer (`summarize`).
      odin: (n, T, E) ODIN scores for T temperatures and E noise magnitudes (`odin_scores`).

    Raises:
      TypeError: a field is no array of real numbers.
      ValueError: an array has the wrong rank, no columns, masked entries, or another number of samples.
    """

    logits: Real[Any, "n K"]
    features: Real[Any, "n D"]
    labels: Real[Any, " n"] = None
    gram: Real[Any, "n P C"] = None
    layer_means: Real[Any, "n L"] = None
    odin: Real[Any, "n T E"] = None

    def __init__(
        self,
        logits: ArrayLike,
        features: ArrayLike,
        labels: ArrayLike | None = None,
        gram: ArrayLike | None = None,
        layer_means: ArrayLike | None = None,
        odin: ArrayLike | None = None,
    ) -> None:
        given = {
            "logits": logits,
            "features": features,
            "labels": labels,
            "gram": gram,
            "layer_means": layer_means,
            "odin": odin,
        }
        lengths = {}
        for name, value in given.items():
            if value is not None or name in ("logits", "features"):
                value = self.__dict__[name] = _checked_field(name, value)
                lengths[name] = value.shape[0]
            else:
                self.__dict__[name] = None
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Outputs: arrays disagree on the number of samples: {lengths}")

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def __getitem__(self, index: slice | ArrayLike) -> Outputs:
        """The samples that `index` (a slice, an index array or a mask) selects."""
        if np.ndim(index) == 0 and not isinstance(index, slice):  # type: ignore[arg-type]
            raise TypeError(
                f"Outputs take a slice or an index array, which keep the sample axis, got {describe(index)}"
            )
        return jax.tree.map(lambda x: x[index], self)

    def __repr__(self) -> str:
        return _short_repr(self)

    def only(self, fields: tuple[str, ...]) -> Outputs:
        """The same without the optional fields that are not in `fields`: what a program would otherwise depend on."""
        kept = ("logits", "features", *fields)
        return _rebuilt(Outputs, [(name, value if name in kept else None) for name, value in self.__dict__.items()])

    def replace(self, **changes: ArrayLike | None) -> Outputs:
        """A copy with other arrays in the fields named."""
        return dataclasses.replace(self, **changes)


@_as_pytree
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Head:
    """The classifier's last linear layer: logits = features @ kernel + bias.

    Made from arrays of any library or nested lists, as `Outputs` is.

    Attributes:
      kernel: (D, K); PyTorch's `weight` is its transpose.
      bias: (K,); zeros where the layer has none.

    Raises:
      TypeError: a field is no array of real numbers.
      ValueError: shapes that do not fit, or (JAX arrays are not looked at) NaN or infinite values.
    """

    kernel: Real[Any, "D K"]
    bias: Real[Any, " K"]

    def __init__(self, kernel: ArrayLike, bias: ArrayLike) -> None:
        if bias is None:
            raise TypeError("Head.bias is None: for a layer without bias pass zeros, (classes,)")
        for name, value in (("kernel", kernel), ("bias", bias)):
            value = self.__dict__[name] = real_array(value, f"Head.{name}")
            if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                bad = int(np.count_nonzero(~np.isfinite(value)))
                raise ValueError(f"Head.{name} holds {bad} values that are NaN or infinite; all must be finite")
        k, b = tuple(self.kernel.shape), tuple(self.bias.shape)
        if len(k) != 2 or len(b) != 1 or k[1] != b[0] or 0 in k:
            hint = ": pass the kernel's transpose" if len(k) == 2 and k[:1] == b and 0 not in k else ""
            raise ValueError(f"Head needs kernel (features, classes) and bias (classes,), got {k} and {b}{hint}")

    def __call__(self, features: ArrayLike) -> Float[jax.Array, "n K"]:
        """(n, D) features -> (n, K) logits, float32 at highest precision."""
        given = real_array(features, "the head's features")
        if given.ndim != 2 or given.shape[1] != self.kernel.shape[0]:
            raise ValueError(f"Head takes features (n, {self.kernel.shape[0]}), got {tuple(given.shape)}")
        h, kernel, bias = (jnp.asarray(x, jnp.float32) for x in (given, self.kernel, self.bias))
        return jnp.matmul(h, kernel, precision="highest") + bias[None, :]

    def __repr__(self) -> str:
        return _short_repr(self)


def _checked_field(name: str, value: Any) -> Any:
    value = real_array(value, f"Outputs.{name}")
    shape = tuple(value.shape)
    if len(shape) != _RANKS[name]:
        raise ValueError(f"Outputs.{name} must have shape {_SHAPES[name]}, got shape {shape}")
    if 0 in shape[1:]:
        raise ValueError(f"Outputs.{name} must have shape {_SHAPES[name]} with no empty axis, got shape {shape}")
    return value


def _short_repr(node: Any) -> str:
    fields = ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node))
    parts = [f"{name}={_short(value)}" for name, value in fields if value is not None]
    return f"{type(node).__name__}({', '.join(parts)})"


def _short(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return describe(value) if dtype is None else f"{dtype}{list(value.shape)}"


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
