"""(a) bare extraction of the real ResNet-50 against torchvision's, (b) with every detector and grid against bare."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.timing import Timing, measure, ratio
from converters.reference import import_torchvision
from oodjax import Head, Outputs, TrainStatistics, detectors, odin_scores
from oodjax.detectors import score_all, search_space
from oodjax.devices import Devices
from oodjax.forward import forward
from oodjax.models.apply import NnxApply
from oodjax.models.normalize import normalize_images
from oodjax.models.resnet import ResNetConfig, fold_batch_norm, initialize

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# Work of one image: 8.18 GFLOP and 54.7 MB in bfloat16, one kernel per convolution (batch norm folded). The roofline is
# the sum over layers of the slower of both; for published peaks it is this many images a second.
ROOFLINE = {"H100": 54_290.0, "H200": 70_389.0}


@partial(jax.jit, static_argnames="graphdef")
def bare(graphdef: Any, state: Any, images: jax.Array, mean: jax.Array, std: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits and features, nothing else."""
    out = nnx.merge(graphdef, state)(normalize_images(images, mean, std))
    return out.logits, out.features


def network(precision: str) -> tuple[Any, Any]:
    """A ResNet-50 with random weights, batch norm folded."""
    return nnx.split(fold_batch_norm(initialize(ResNetConfig.resnet50(), 0, precision)))


def run(batch: int, repeats: int, precision: str = "float32", train: int = 256) -> dict[str, Any]:
    """Images/s of bare extraction, and how much longer everything takes.

    Args:
      batch: images a step, resident on the device.
      repeats: timed steps; torch, where installed, takes its turns between them.
      precision: of the network's forward pass.
      train: random images the detectors are fitted on, at most one per class needed.
    """
    graphdef, state = network(precision)
    rng = np.random.default_rng(0)
    images = jax.device_put(rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
    mean, std = jnp.asarray(MEAN), jnp.asarray(STD)
    points = jax.device_put(_fitted(graphdef, state, train, batch))
    score = jax.jit(lambda points, outputs: score_all(points, outputs))

    def full() -> jax.Array:
        return score(points, _taps(graphdef, state, images))

    def plain() -> Any:
        return bare(graphdef, state, images, mean, std)

    rivals = _torch_calls(np.asarray(images)) if precision == "float32" else {}
    timings = measure(plain, full, lambda: _taps(graphdef, state, images), *rivals.values(), repeats=repeats)
    found: dict[str, Any] = {
        "precision": precision,
        "batch": batch,
        "images_per_second": batch / timings[0].median,
        "bare": timings[0].as_dict(),
        "with_detectors": timings[1].as_dict(),
        "with_taps": timings[2].as_dict(),
        "ratio_with_detectors": ratio(timings[1], timings[0]),
        "ratio_with_taps": ratio(timings[2], timings[0]),
        "grid_points": len(points),
    }
    for name, timing in zip(rivals, timings[3:], strict=True):
        found[f"torch_{name}"] = timing.as_dict()
    if rivals:
        found["ratio_to_torchvision"] = ratio(min(timings[3:], key=lambda t: t.median), timings[0])
    for chip, roof in ROOFLINE.items():
        if chip in jax.devices()[0].device_kind and precision == "bfloat16":
            found["roofline_share"] = found["images_per_second"] / roof
    return found


def run_odin(batch: int, repeats: int, precision: str = "float32") -> dict[str, Any]:
    """ODIN's cost in forward passes: one point, and the study's grid of 8."""
    graphdef, state = network(precision)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((batch, 224, 224, 3), np.float32))

    def logits(x: jax.Array, state: Any) -> jax.Array:
        return nnx.merge(graphdef, state)(x).logits

    plain = jax.jit(logits)

    @partial(jax.jit, static_argnums=(2, 3))
    def scored(x: jax.Array, state: Any, temperatures: tuple, noises: tuple) -> jax.Array:
        return odin_scores(lambda v: logits(v, state), x, temperatures, noises, STD)

    timings: list[Timing] = measure(
        lambda: plain(images, state),
        lambda: scored(images, state, (1000,), (0.0014,)),
        lambda: scored(images, state, (1, 10, 100, 1000), (0.0014, 0.0028)),
        repeats=repeats,
    )
    return {
        "precision": precision,
        "batch": batch,
        "forward": timings[0].as_dict(),
        "point": timings[1].as_dict(),
        "grid": timings[2].as_dict(),
        "forwards_per_point": ratio(timings[1], timings[0]),
        "forwards_per_grid": ratio(timings[2], timings[0]),
    }


def _taps(graphdef: Any, state: Any, images: jax.Array) -> Outputs:
    """The engine's pass, with what GRAM and ATS read."""
    mean, std = jnp.asarray(MEAN), jnp.asarray(STD)
    needs, nothing = frozenset({"gram", "layer_means"}), jnp.zeros(0)
    return forward(NnxApply(graphdef), needs, Devices.all().mesh, state, images, (mean, std, std), (nothing, nothing))


def _fitted(graphdef: Any, state: Any, count: int, batch: int) -> tuple[detectors.Detector, ...]:
    """Every grid point of every detector but ODIN, fitted on random images."""
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(0, count, batch):
        images = jnp.asarray(rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
        labels = jnp.asarray(rng.integers(0, 1000, batch, dtype=np.int32))
        parts.append(_taps(graphdef, state, images).replace(labels=labels))
    weights = nnx.merge(graphdef, state).head
    stats = TrainStatistics.collect(parts, Head(weights.kernel[...], weights.bias[...]))
    names = [name for name in detectors.NAMES if name != "odin"]
    return tuple(p.fit(stats, validation=parts[0]) for name in names for p in search_space(name, stats)[0])


def _torch_calls(images: np.ndarray) -> dict[str, Any]:
    """torchvision's ResNet-50 on the same images, eager and channels-last; empty where torch is not installed."""
    try:
        import torch

        torchvision = import_torchvision()
    except ImportError:
        return {}
    x = torch.from_numpy(((images / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32).copy())
    models = {"eager": torchvision.models.resnet50().eval(), "channels_last": torchvision.models.resnet50().eval()}
    inputs = {"eager": x, "channels_last": x.contiguous(memory_format=torch.channels_last)}
    models["channels_last"] = models["channels_last"].to(memory_format=torch.channels_last)

    def call(name: str) -> Any:
        with torch.inference_mode():
            return models[name](inputs[name]).numpy()

    return {name: partial(call, name) for name in models}
