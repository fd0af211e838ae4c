"""torchvision's and timm's models with drawn weights: their state dicts and what they compute."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx

DATA = Path(__file__).parent / "data"
ARCHS = (
    "torchvision-resnet50",
    "timm-resnet50",
    "torchvision-vit_b_16",
    "timm-vit_base_patch16_224",
    "timm-vit_base_patch16_224-avgpool",
)


@cache
def shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape, in the state dict's order."""
    listed = json.loads((DATA / "models.json").read_text())[arch]
    return {key: tuple(shape) for key, shape in listed}


def state_dict(arch: str, seed: int = 3) -> dict[str, np.ndarray]:
    """The weights that the reference values were computed with (seed 3), or others."""
    return {key: _draw(key, shape, [seed, i]) for i, (key, shape) in enumerate(shapes(arch).items())}


def _draw(key: str, shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
    g = np.random.default_rng(seed)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        return g.uniform(0.5, 1.5, shape).astype(np.float32)
    if key.endswith("running_mean"):
        return g.normal(0, 0.1, shape).astype(np.float32)
    if len(shape) == 1 and key.endswith("weight"):
        return g.uniform(0.4, 0.8, shape).astype(np.float32)
    if key.endswith("bias"):
        return g.normal(0, 0.05, shape).astype(np.float32)
    if "pos_embed" in key or key in ("class_token", "cls_token"):
        return g.normal(0, 0.1, shape).astype(np.float32)
    return (g.normal(0, 1, shape) * np.sqrt(1.5 / np.prod(shape[1:]))).astype(np.float32)


def empty(arch: str) -> dict[str, np.ndarray]:
    """Arrays of the right shapes and types that take no memory, for what looks at keys and shapes only."""
    return {
        key: np.broadcast_to(np.zeros((), np.int64 if key.endswith("tracked") else np.float32), shape)
        for key, shape in shapes(arch).items()
    }


@cache
def images() -> np.ndarray:
    """(2, 224, 224, 3)."""
    drawn = np.random.default_rng([3, 999]).normal(size=(2, 3, 224, 224)) * 0.8
    return np.ascontiguousarray(drawn.astype(np.float32).transpose(0, 2, 3, 1))


def expected(arch: str) -> dict[str, np.ndarray]:
    with np.load(DATA / "models.npz") as file:
        return {name.partition("/")[2]: file[name] for name in file.files if name.partition("/")[0] == arch}


@partial(jax.jit, static_argnums=0)
def _forward(graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array) -> tuple:
    return nnx.merge(graphdef, state)(x)


def forward(model: nnx.Module, x: np.ndarray | jax.Array | None = None) -> tuple:
    """The model on `images()` or others; compiled once per architecture for all tests of a run."""
    return _forward(*nnx.split(model), images() if x is None else x)


def drift(found: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference in units of the reference's standard deviation."""
    return float(np.abs(np.asarray(found) - reference).max() / reference.std())
