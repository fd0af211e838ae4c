"""A state dict -> one of our models, by the rules of its layout, with every problem found before it is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from converters.errors import ConversionError
from converters.rules import RANKS, TRANSFORMS, Layout, Rule, find_layout
from oodjax.models import checkpoint
from oodjax.zoo.loading import MODELS

FLOATS = ("float16", "bfloat16", "float32", "float64")
MOST_CLASSES = 1_000_000
Problems = list[tuple[str, str]]


def convert(
    state_dict: Mapping[str, Any], layout: str, *, num_classes: int = 1000, dtype: Any = "float32"
) -> nnx.Module:
    """A model with the weights of `state_dict`.

    Args:
      state_dict: key -> NumPy array or torch tensor, under the source's names.
      layout: a name in `converters.rules.LAYOUTS`.
      num_classes: outputs of the head, at least 1.
      dtype: the model computes in this type; its parameters are float32.

    Returns:
      A model that maps a normalised (n, H, W, 3) float batch to an object with `logits` and `features`.

    Raises:
      ValueError: no such layout, or no class.
      ConversionError: lists every key that no rule or two rules take, every target that nobody fills, and every
        tensor of another shape or type or with values that are not finite.
    """
    entry = find_layout(layout)
    if not 1 <= num_classes <= MOST_CLASSES:
        raise ValueError(f"the number of classes must lie in 1..{MOST_CLASSES}, got {num_classes}")
    config, network = entry.config(num_classes), MODELS[entry.architecture][1]
    graphdef, target = nnx.split(nnx.eval_shape(lambda: network(config, dtype=dtype, rngs=nnx.Rngs(0))))
    flat = {"/".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(target)}
    arrays = map_arrays(state_dict, entry, {name: tuple(leaf.shape) for name, (_, leaf) in flat.items()})
    return nnx.merge(graphdef, checkpoint.fill(target, {k: jnp.asarray(v) for k, v in arrays.items()}, layout))


def head_outputs(state_dict: Mapping[str, Any], layout: Layout) -> int | None:
    """How many classes the head of `state_dict` has; None where it has none that could be read."""
    for key, tensor in state_dict.items():
        if any(rule.match(key) == "head/bias" for rule in layout.rules) and len(tensor.shape) == 1:
            return int(tensor.shape[0])
    return None


def map_arrays(
    state_dict: Mapping[str, Any], entry: Layout, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Source tensors -> float32 arrays by target path.

    Args:
      state_dict: key -> tensor.
      entry: rules and what they ignore.
      shapes: of every target that must be filled.

    Raises:
      ConversionError: as `convert`.
    """
    plan, problems = match_keys(state_dict.keys(), entry, shapes)
    arrays = {}
    for key, (target, rule) in plan.items():
        wrong, array = _read(state_dict[key], rule, shapes[target])
        problems += [(kind, f"{key} ({detail})" if detail else key) for kind, detail in wrong]
        if array is not None:
            if target.endswith("norm/var") and not wrong and float(array.min()) < 0:
                problems.append(("negative variance in", key))
            arrays[target] = array
    if problems:
        raise ConversionError(f"does not fit {entry.name}", problems)
    return arrays


def match_keys(
    keys: Any, entry: Layout, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[str, Rule]], Problems]:
    """Which rule takes which key: key -> (target, rule), and everything that does not come out even."""
    plan: dict[str, tuple[str, Rule]] = {}
    problems: Problems = []
    taken: dict[str, str] = {}
    for key in keys:
        if any(re.fullmatch(pattern, key) for pattern in entry.ignored):
            continue
        found = [(target, rule) for rule in entry.rules if (target := rule.match(key)) is not None]
        if len(found) > 1:
            problems.append(("two rules take", f"{key} ({found[0][0]} and {found[1][0]})"))
        elif not found or found[0][0] not in shapes:
            problems.append(("no place for", key))
        elif found[0][0] in taken:
            problems.append(("two keys fill", f"{found[0][0]} ({taken[found[0][0]]} and {key})"))
        else:
            plan[key] = found[0]
            taken[found[0][0]] = key
    problems += [("nothing fills", target) for target in shapes if target not in taken]
    return plan, problems


def _read(tensor: Any, rule: Rule, shape: tuple[int, ...]) -> tuple[Problems, np.ndarray | None]:
    name = str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
    if name not in FLOATS:
        return [("not floating point:", name)], None
    found = tuple(tensor.shape)
    if rule.transform in RANKS and len(found) != RANKS[rule.transform]:
        return [("wrong shape:", f"{found}, a {rule.transform} has rank {RANKS[rule.transform]}")], None
    expected = _source_shape(shape, rule.transform)
    if found != expected:
        return [("wrong shape:", f"{found}, not {expected}")], None
    array = TRANSFORMS[rule.transform](_to_numpy(tensor))
    if not np.isfinite(array).all():
        return [("NaN or infinite values in", "")], None
    return [], np.ascontiguousarray(array)


def _source_shape(shape: tuple[int, ...], transform: str) -> tuple[int, ...]:
    """The source's shape of a target: what the transform takes to `shape`."""
    if transform == "conv":
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1] if transform == "matrix" else shape


def _to_numpy(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):  # torch
        tensor = tensor.detach().cpu().float().numpy()
    return np.asarray(tensor).astype(np.float32)


def parameter_count(model: nnx.Module) -> int:
    """Trainable numbers; running statistics do not count."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
