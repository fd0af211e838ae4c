"""The reference scores and the small network that they were computed with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import oodjax

STRIDES = (1, 2, 1, 2, 1)


@cache
def data() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "detectors.npz") as file:
        return {name: file[name] for name in file.files}


def head() -> oodjax.Head:
    return oodjax.Head(kernel=data()["w/fc_w"].T, bias=data()["w/fc_b"])


def maps(images: jax.Array) -> list[jax.Array]:
    """(n, 16, 16, 3) -> the five rectified maps."""
    found, x = [], images
    for i, stride in enumerate(STRIDES):
        kernel = jnp.asarray(data()[f"w/conv{i}_w"].transpose(2, 3, 1, 0))
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        x = jax.nn.relu(x + data()[f"w/conv{i}_b"][None, None, None])
        found.append(x)
    return found


def apply(images: jax.Array) -> jax.Array:
    return head()(maps(images)[-1].mean(axis=(1, 2)))


def images(split: str) -> jax.Array:
    return jnp.asarray(data()[f"x_{split}"].transpose(0, 2, 3, 1).astype(np.float32))


@cache
def outputs(split: str, temperatures: tuple = (), noises: tuple = ()) -> oodjax.Outputs:
    x = images(split)
    gram, layer_means = jax.jit(lambda x: oodjax.summarize(maps(x)))(x)
    odin = None
    if temperatures:
        odin = oodjax.odin_scores(apply, x, temperatures, noises, data()["input_std"])
    d = data()
    return oodjax.Outputs(d[f"logits_{split}"], d[f"features_{split}"], d[f"y_{split}"], gram, layer_means, odin)


@cache
def stats(split: str = "train") -> oodjax.TrainStatistics:
    found = outputs(split)
    return oodjax.TrainStatistics.collect(found[found.labels >= 0], head())
