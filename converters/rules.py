"""Conversion as data: which tensor of a source goes where in our models, and how it is turned."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from oodjax.models.resnet import ResNetConfig
from oodjax.models.vit import ViTConfig

VERSION = 1  # of the tables below, kept with every converted checkpoint: raise it when a result would differ

TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x,
    "matrix": np.transpose,  # (out, in) -> (in, out)
    "conv": lambda x: np.transpose(x, (2, 3, 1, 0)),  # OIHW -> HWIO
}
RANKS = {"matrix": 2, "conv": 4}


@dataclass(frozen=True)
class Rule:
    """A source key that matches `pattern` in full goes to `target`, in which \\1 is the pattern's first group."""

    pattern: str
    target: str
    transform: str = "same"

    def match(self, key: str) -> str | None:
        found = re.fullmatch(self.pattern, key)
        return found.expand(self.target) if found else None


@dataclass(frozen=True)
class Layout:
    """A source's names for the tensors of one of our architectures.

    Attributes:
      name: the name `converters.convert` takes.
      architecture: the name in `oodjax.zoo.loading.MODELS`.
      config: number of classes -> configuration.
      rules: every source key is taken by exactly one of them, or by `ignored`.
      networks: what publishers call networks that compute exactly what ours does. Others share names and shapes of all
        tensors and compute something else, such as resnetaa50 and resnetblur50, whose blur has no weights.
      pool: what timm calls the pooling that is built.
      ignored: patterns of keys without influence on the result.
    """

    name: str
    architecture: str
    config: Callable[[int], Any]
    rules: tuple[Rule, ...]
    networks: tuple[str, ...] = ()
    pool: str = "avg"
    ignored: tuple[str, ...] = ()


def _conv(source: str, target: str) -> list[Rule]:
    return [Rule(rf"{source}\.weight", rf"{target}/kernel", "conv")]


def _norm(source: str, target: str) -> list[Rule]:
    return [Rule(rf"{source}\.weight", rf"{target}/scale"), Rule(rf"{source}\.bias", rf"{target}/bias")]


def _batch_norm(source: str, target: str) -> list[Rule]:
    statistics = [Rule(rf"{source}\.running_{name}", rf"{target}/{name}") for name in ("mean", "var")]
    return _norm(source, target) + statistics


def _linear(source: str, target: str) -> list[Rule]:
    return [
        Rule(rf"{source}\.weight", rf"{target}/kernel", "matrix"),
        Rule(rf"{source}\.bias", rf"{target}/bias"),
    ]


def _conv_norm(conv: str, norm: str, target: str) -> list[Rule]:
    return _conv(conv, f"{target}/conv") + _batch_norm(norm, f"{target}/norm")


def _resnet() -> tuple[Rule, ...]:
    """torchvision's names, which timm shares."""
    rules = _conv_norm("conv1", "bn1", "stem") + _linear("fc", "head")
    for stage in range(4):
        source, target = rf"layer{stage + 1}\.(\d+)", rf"stages/{stage}/\1"
        for i, name in enumerate(("reduce", "spatial", "expand"), 1):
            rules += _conv_norm(rf"{source}\.conv{i}", rf"{source}\.bn{i}", f"{target}/{name}")
        rules += _conv_norm(rf"{source}\.downsample\.0", rf"{source}\.downsample\.1", f"{target}/shortcut")
    return tuple(rules)


def _vit(names: dict[str, str], projection: str) -> tuple[Rule, ...]:
    """A ViT whose parts have these names; `projection` is the pattern of the fused query-key-value matrix."""
    rules = [Rule(names["token"], "token"), Rule(names["positions"], "positions")]
    rules += _conv(names["patches"], "patches")
    rules += [Rule(rf"{names['patches']}\.bias", "patches/bias")]
    block, target = names["block"], r"blocks/\1"
    rules += _norm(rf"{block}\.{names['norm1']}", f"{target}/norm1")
    rules += _norm(rf"{block}\.{names['norm2']}", f"{target}/norm2")
    rules += [
        Rule(rf"{block}\.{projection}weight", rf"{target}/attention/qkv/kernel", "matrix"),
        Rule(rf"{block}\.{projection}bias", rf"{target}/attention/qkv/bias"),
    ]
    for source, inner in (("out", "attention/out"), ("expand", "expand"), ("reduce", "reduce")):
        rules += _linear(rf"{block}\.{names[source]}", f"{target}/{inner}")
    return tuple(rules + _norm(names["norm"], "norm") + _linear(names["head"], "head"))


_TORCHVISION_VIT = {
    "token": "class_token",
    "positions": r"encoder\.pos_embedding",
    "patches": "conv_proj",
    "block": r"encoder\.layers\.encoder_layer_(\d+)",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "out": r"self_attention\.out_proj",
    "expand": r"mlp\.(?:0|linear_1)",  # files of before 2022 name the layers, later ones number them
    "reduce": r"mlp\.(?:3|linear_2)",
    "norm": r"encoder\.ln",
    "head": r"heads\.head",
}
_TIMM_VIT = {
    "token": "cls_token",
    "positions": "pos_embed",
    "patches": r"patch_embed\.proj",
    "block": r"blocks\.(\d+)",
    "norm1": "norm1",
    "norm2": "norm2",
    "out": r"attn\.proj",
    "expand": r"mlp\.fc1",
    "reduce": r"mlp\.fc2",
    "norm": "norm",
    "head": "head",
}
_COUNTERS = (r".*\.num_batches_tracked",)
_RESNET50 = ("resnet50", "tv_resnet50", "ssl_resnet50", "swsl_resnet50", "gluon_resnet50_v1b")
_VIT_B16 = ("vit_base_patch16_224", "deit_base_patch16_224")

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("torchvision-resnet50", "resnet50", ResNetConfig.resnet50, _resnet(), _RESNET50, ignored=_COUNTERS),
        Layout("timm-resnet50", "resnet50", ResNetConfig.resnet50, _resnet(), _RESNET50, ignored=_COUNTERS),
        Layout(
            "torchvision-vit_b_16",
            "vit_b16",
            ViTConfig.vit_b16,
            _vit(_TORCHVISION_VIT, r"self_attention\.in_proj_"),
            ("vit_b_16",),
            "token",
        ),
        Layout(
            "timm-vit_base_patch16_224",
            "vit_b16",
            ViTConfig.vit_b16,
            _vit(_TIMM_VIT, r"attn\.qkv\."),
            _VIT_B16,
            "token",
        ),
        Layout(
            "timm-vit_base_patch16_224-avgpool",
            "vit_b16",
            lambda classes: ViTConfig.vit_b16(classes, pool="mean", norm="pooled"),
            _vit(_TIMM_VIT | {"norm": "fc_norm"}, r"attn\.qkv\."),
            _VIT_B16,
        ),
    )
}


def find_layout(name: str) -> Layout:
    """The layout of this name.

    Raises:
      ValueError: there is none; lists the names.
    """
    if name not in LAYOUTS:
        raise ValueError(f"no layout {name!r}; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
