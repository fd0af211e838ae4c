"""Vision Transformer (Dosovitskiy et al., ICLR 2021) in flax.nnx, with the variants of published weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from oodjax.models.resnet import ModelOutput

POOLS = ("token", "mean")
NORMS = ("tokens", "pooled", "none")
GELUS = ("erf", "tanh")


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of a Vision Transformer.

    Attributes:
      depth, width, heads, hidden: blocks, channels, attention heads, channels inside the MLP.
      patch: side of a patch in pixels.
      num_classes: K.
      image_size: side of the square input in pixels; a multiple of `patch`.
      pool: what becomes the features: the class "token", or the "mean" over the patch tokens without the class token.
      norm: the last layer norm is applied to the "tokens" before pooling (torchvision, timm's class-token models),
        to the "pooled" vector (timm's `fc_norm`, MAE fine-tuned), or there is "none".
      epsilon: of every layer norm.
      gelu: "erf" (exact; torch's default) or "tanh" (approximate; differs by up to 5e-4 per activation).
      representation: width of a tanh layer between pooling and head ("pre-logits"); 0 for none.
      taps: the token sequence after these numbers of blocks goes to GRAM and ATS. The default is the end of each of
        four equal groups of blocks; the last one lies before the final norm.
    """

    depth: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    num_classes: int = 1000
    image_size: int = 224
    pool: str = "token"
    norm: str = "tokens"
    epsilon: float = 1e-6
    gelu: str = "erf"
    representation: int = 0
    taps: tuple[int, ...] = (3, 6, 9, 12)

    def __post_init__(self) -> None:
        for name, allowed in (("pool", POOLS), ("norm", NORMS), ("gelu", GELUS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.image_size % self.patch:
            raise ValueError(f"image_size must be a multiple of patch {self.patch}, got {self.image_size}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads {self.heads}, got {self.width}")
        if not self.taps or not all(1 <= tap <= self.depth for tap in self.taps):
            raise ValueError(f"taps must be block numbers from 1 to {self.depth}, got {self.taps}")

    @classmethod
    def vit_b16(cls, num_classes: int = 1000, **variant: Any) -> ViTConfig:
        """ViT-B/16 at 224 pixels: 86,567,656 parameters at 1000 classes."""
        return cls(num_classes=num_classes, **variant)


class Attention(nnx.Module):
    """Multi-head self-attention; queries, keys and values come from one matrix, stacked in this order."""

    def __init__(self, config: ViTConfig, dtype: Any, rngs: nnx.Rngs):
        self.heads = config.heads
        self.qkv = nnx.Linear(config.width, 3 * config.width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(config.width, config.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads)
        with jax.numpy_dtype_promotion("standard"):  # jax's function mixes bfloat16 and float32 inside
            y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return self.out(y.reshape(b, t, d))


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ViTConfig, dtype: Any, rngs: nnx.Rngs):
        self.approximate = config.gelu == "tanh"
        self.norm1 = _layer_norm(config, rngs)
        self.attention = Attention(config, dtype, rngs)
        self.norm2 = _layer_norm(config, rngs)
        self.expand = nnx.Linear(config.width, config.hidden, dtype=dtype, rngs=rngs)
        self.reduce = nnx.Linear(config.hidden, config.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(_in_float32(self.norm1, x))
        hidden = jax.nn.gelu(self.expand(_in_float32(self.norm2, x)), approximate=self.approximate)
        return x + self.reduce(hidden)


class ViT(nnx.Module):
    """See `ViTConfig`.

    Args:
      config: the architecture.
      dtype: of the network's computation; parameters, layer norms and the head stay float32.
      rngs: initialisation.
    """

    def __init__(self, config: ViTConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        dtype = jnp.dtype(dtype)  # one spelling, so that graph definitions compare equal
        self.config = config
        self.dtype = dtype.name
        tokens = (config.image_size // config.patch) ** 2 + 1
        size = (config.patch, config.patch)
        self.patches = nnx.Conv(3, config.width, size, strides=size, padding="VALID", dtype=dtype, rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, config.width)))
        init = nnx.initializers.truncated_normal(0.02)
        self.positions = nnx.Param(init(rngs.params(), (1, tokens, config.width)))
        self.blocks = nnx.List([Block(config, dtype, rngs) for _ in range(config.depth)])
        self.norm: Any = nnx.data(None if config.norm == "none" else _layer_norm(config, rngs))
        represent, inputs = None, config.width
        if config.representation:
            represent = nnx.Linear(config.width, config.representation, precision="highest", rngs=rngs)
            inputs = config.representation
        self.represent: Any = nnx.data(represent)
        self.head = nnx.Linear(inputs, config.num_classes, precision="highest", rngs=rngs)

    def __call__(self, images: jax.Array) -> ModelOutput:
        """(n, H, W, 3) normalised images -> `ModelOutput`; maps are (n, tokens, width), see `ViTConfig.taps`."""
        x = self.embed(images)
        maps = {}
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            maps[i] = x
        features = self.pool(x)
        return ModelOutput(self.head(features), features, tuple(maps[i] for i in self.config.taps))

    def embed(self, images: jax.Array) -> jax.Array:
        """Images -> (n, 1 + patches, width): class token first, positions added."""
        x = self.patches(images.astype(self.dtype))
        n, h, w, d = x.shape
        token = jnp.broadcast_to(self.token[...].astype(self.dtype), (n, 1, d))
        x = jnp.concatenate([token, x.reshape(n, h * w, d)], axis=1)
        return x + self.positions[...].astype(self.dtype)

    def pool(self, x: jax.Array) -> jax.Array:
        """Tokens after the last block -> features, the input of the head."""
        x = x.astype(jnp.float32)
        if self.config.norm == "tokens":
            x = self.norm(x)
        x = x[:, 0] if self.config.pool == "token" else x[:, 1:].mean(axis=1)
        if self.config.norm == "pooled":
            x = self.norm(x)
        return x if self.represent is None else jnp.tanh(self.represent(x))


def _layer_norm(config: ViTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # the fast variance, E[x^2] - E[x]^2, loses digits where a token's mean is large
    return nnx.LayerNorm(config.width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs)


def _in_float32(norm: nnx.LayerNorm, x: jax.Array) -> jax.Array:
    return norm(x.astype(jnp.float32)).astype(x.dtype)
