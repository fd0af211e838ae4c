"""ResNet v1.5 with bottleneck blocks (He et al., CVPR 2016; stride on the 3x3 as in torchvision), NHWC, in flax.nnx."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

EXPANSION = 4
STEMS = ("imagenet", "small")
CONVOLUTIONS = ("direct", "patches")


class ModelOutput(NamedTuple):
    """What a forward pass returns.

    Attributes:
      logits: (n, K) float32.
      features: (n, D) float32, the input of the head.
      maps: the tapped layers of GRAM and ATS: stem after max-pool, stages 1, 2, 3, and the features as a 1x1 map.
    """

    logits: jax.Array
    features: jax.Array
    maps: tuple[jax.Array, ...]


@dataclass(frozen=True)
class ResNetConfig:
    """Architecture of a ResNet.

    Attributes:
      depths: blocks of each of the four stages.
      widths: channels of a stage's 3x3 convolutions; its output has four times as many.
      strides: of each stage's first block.
      stem_width: channels after the stem.
      stem: "imagenet" (7x7 stride 2, 3x3 max-pool stride 2) or "small" (3x3, 2x2 max-pool) for small images.
      convolution: "direct", or "patches": the same sums as matrix products over copied patches. On a CPU these train
        small networks about twice as fast; at ImageNet's sizes the copies cost more than they save.
      num_classes: K.
      image_size: side of the square input in pixels.
      epsilon, momentum: of batch norm; momentum is the share of the old running statistics kept.
      folded: batch norm is part of the convolutions' weights and biases; for inference only.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    stem_width: int = 64
    stem: str = "imagenet"
    convolution: str = "direct"
    num_classes: int = 1000
    image_size: int = 224
    epsilon: float = 1e-5
    momentum: float = 0.9
    folded: bool = False

    def __post_init__(self) -> None:
        if not len(self.depths) == len(self.widths) == len(self.strides) == 4:
            raise ValueError(
                f"depths, widths and strides need one entry per stage, 4 each, got {self.depths}, {self.widths}, "
                f"{self.strides}"
            )
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {self.stem!r}")
        if self.convolution not in CONVOLUTIONS:
            raise ValueError(f"convolution must be one of {', '.join(CONVOLUTIONS)}, got {self.convolution!r}")
        if min(*self.depths, *self.widths, *self.strides, self.stem_width, self.image_size) < 1:
            raise ValueError(f"depths, widths, strides, stem_width and image_size must be at least 1, got {self}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")

    @classmethod
    def resnet50(cls, num_classes: int = 1000) -> ResNetConfig:
        """The real ResNet-50: 25,557,032 parameters at 1000 classes."""
        return cls(num_classes=num_classes)

    @classmethod
    def study(cls, num_classes: int = 8) -> ResNetConfig:
        """The small network of the embedded study: 16x16 images, 128 features."""
        return cls((1, 1, 1, 1), (8, 16, 32, 32), (1, 2, 2, 1), 8, "small", "patches", num_classes, 16)


def _direct_convolution(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **rest: Any) -> jax.Array:
    """`lax.conv_general_dilated`; on a CPU those of 1x1 are matrix products, 1.3 to 3 times as fast there."""

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = x[:, :: strides[0], :: strides[1]]
        return jnp.einsum("nhwc,cd->nhwd", x, kernel[0, 0], precision=rest.get("precision"))

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **rest)

    if kernel.shape[:2] == (1, 1):
        return lax.platform_dependent(x, kernel, cpu=product, default=convolution)
    return convolution(x, kernel)


def _patches_convolution(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **rest: Any) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC, square kernels, equal strides, no dilation or groups, as one product."""
    size, stride, pad = kernel.shape[0], strides[0], padding[0][0]
    rows, columns = ((side + 2 * pad - size) // stride * stride + 1 for side in x.shape[1:3])
    if pad:
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifted = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]
    patches = jnp.concatenate(shifted, axis=-1)
    return jnp.einsum("nhwc,cd->nhwd", patches, kernel.reshape(-1, kernel.shape[-1]), precision=rest.get("precision"))


class ConvNorm(nnx.Module):
    """Convolution without bias and batch norm, or a folded convolution with bias."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, config: ResNetConfig, dtype: Any, rngs: Any):
        pad = (size - 1) // 2  # explicit and symmetric, as torch pads; "SAME" differs on strided convolutions
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (size, size),
            strides=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            use_bias=config.folded,
            dtype=dtype,
            rngs=rngs,
            conv_general_dilated=_direct_convolution if config.convolution == "direct" else _patches_convolution,
            kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
        )
        norm = None
        if not config.folded:
            norm = nnx.BatchNorm(outputs, momentum=config.momentum, epsilon=config.epsilon, dtype=dtype, rngs=rngs)
        self.norm = nnx.data(norm)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x, use_running_average=not train)


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, config: ResNetConfig, dtype: Any, rngs: Any):
        outputs = EXPANSION * width
        self.reduce = ConvNorm(inputs, width, 1, 1, config, dtype, rngs)
        self.spatial = ConvNorm(width, width, 3, stride, config, dtype, rngs)
        self.expand = ConvNorm(width, outputs, 1, 1, config, dtype, rngs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nnx.data(None if same else ConvNorm(inputs, outputs, 1, stride, config, dtype, rngs))

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = jax.nn.relu(self.reduce(x, train))
        y = jax.nn.relu(self.spatial(y, train))
        y = self.expand(y, train)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, train)))


class ResNet(nnx.Module):
    """See `ResNetConfig`. Two models of one configuration have equal graph definitions: one program serves both.

    Args:
      config: the architecture.
      dtype: of the network's computation; parameters and the head stay float32.
      rngs: initialisation.
    """

    def __init__(self, config: ResNetConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        dtype = jnp.dtype(dtype)  # one spelling, so that graph definitions compare equal
        self.config = config
        self.dtype = dtype.name
        small = config.stem == "small"
        self.stem = ConvNorm(3, config.stem_width, 3 if small else 7, 1 if small else 2, config, dtype, rngs)
        inputs, stages = config.stem_width, []
        for depth, width, stride in zip(config.depths, config.widths, config.strides, strict=True):
            blocks = []
            for i in range(depth):
                blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1, config, dtype, rngs))
                inputs = EXPANSION * width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(inputs, config.num_classes, precision="highest", rngs=rngs)

    def __call__(self, images: jax.Array, *, train: bool = False) -> ModelOutput:
        """(n, H, W, 3) normalised images -> `ModelOutput`; `train` uses and updates the batch's statistics."""
        x = jax.nn.relu(self.stem(images.astype(self.dtype), train))
        if self.config.stem == "small":
            n, h, w, c = x.shape
            x = x[:, : h - h % 2, : w - w % 2].reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
        else:
            x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        maps = [x]
        for stage in self.stages:
            for block in stage:
                x = block(x, train)
            maps.append(x)
        features = x.astype(jnp.float32).mean(axis=(1, 2))
        return ModelOutput(self.head(features), features, (*maps[:4], features[:, None, None, :]))


def initialize(config: ResNetConfig, seed: int, dtype: Any = jnp.float32) -> ResNet:
    """A model with fresh weights, drawn on the host: the same on every device, and nothing to compile.

    Convolutions are normal with variance 2 / fan out, the head's kernel uniform within 1 / sqrt(D); scales and
    variances are 1, everything else 0 (torchvision's initialisation, but for the head's bias).
    """
    graphdef, target = nnx.split(abstract(config, dtype))
    rng, leaves = np.random.default_rng(seed), []
    for path, leaf in nnx.to_flat_state(target):
        if path[-1] == "kernel" and len(leaf.shape) == 4:
            height, width, _, outputs = leaf.shape
            value = rng.normal(0, np.sqrt(2 / (height * width * outputs)), leaf.shape)
        elif path[-1] == "kernel":
            value = rng.uniform(-1, 1, leaf.shape) / np.sqrt(leaf.shape[0])
        else:
            value = np.full(leaf.shape, float(path[-1] in ("scale", "var")))
        leaves.append((path, leaf.replace(jnp.asarray(value, leaf.dtype))))
    return nnx.merge(graphdef, nnx.from_flat_state(leaves))


def abstract(config: ResNetConfig, dtype: Any = jnp.float32) -> ResNet:
    """The model with shapes in place of arrays; one object per configuration, not to be changed."""
    return _abstract(config, jnp.dtype(dtype).name)


@cache
def _abstract(config: ResNetConfig, dtype: str) -> ResNet:
    return nnx.eval_shape(lambda: ResNet(config, dtype=dtype, rngs=nnx.Rngs(0)))


def fold_batch_norm(model: ResNet) -> ResNet:
    """The same function with batch norm inside the convolutions: relu(conv + b + shortcut) throughout."""
    if model.config.folded:
        return model
    graphdef, target = nnx.split(abstract(replace(model.config, folded=True), model.dtype))
    source = {path: np.asarray(leaf[...], np.float64) for path, leaf in nnx.to_flat_state(nnx.state(model))}
    filled = {}
    for path, _ in nnx.to_flat_state(target):
        if path[-2] != "conv":
            filled[path] = source[path]
            continue
        scale, bias, mean, var = (source[(*path[:-2], "norm", name)] for name in ("scale", "bias", "mean", "var"))
        factor = scale / np.sqrt(var + model.config.epsilon)
        filled[path] = source[path] * factor if path[-1] == "kernel" else bias - mean * factor
    leaves = [(path, leaf.replace(jnp.asarray(filled[path], leaf.dtype))) for path, leaf in nnx.to_flat_state(target)]
    return nnx.merge(graphdef, nnx.from_flat_state(leaves))
