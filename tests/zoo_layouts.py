"""The zoo's file layouts, written by hand from what their sources document: real key names, wrappers and decoys.

Each function takes a state dict under the architecture's names and returns the content of the published files, without
looking at the table that the converter reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

State = dict[str, Any]
OPTIMIZER = {"state": {}, "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": [0, 1]}]}


def _like(x: Any, shape: tuple[int, ...]) -> Any:
    """A decoy of the same kind of tensor."""
    return x.new_full(shape, 7.0) if hasattr(x, "new_full") else np.full(shape, 7.0, np.float32)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def flat(state: State) -> list[Any]:
    return [dict(state)]


def robustness(state: State) -> list[Any]:
    x = state["fc.bias"]
    norm = {
        f"{name}.new_{part}": _like(x, (3, 1, 1))
        for name in ("normalizer", "attacker.normalize")
        for part in ("mean", "std")
    }
    decoys = {f"attacker.model.{key}": _like(x, (1,)) for key in state}
    model = prefixed({**norm, **prefixed(state, "model."), **decoys}, "module.")
    return [{"model": model, "optimizer": OPTIMIZER, "schedule": {"gamma": 0.1}, "epoch": 89, "amp": None}]


def training(state: State) -> list[Any]:
    return [
        {
            "epoch": 90,
            "arch": "resnet50",
            "state_dict": prefixed(state, "module."),
            "best_acc1": 77.5,
            "optimizer": OPTIMIZER,
        }
    ]


def auxiliary(state: State) -> list[Any]:
    extra = {}
    for key, value in state.items():
        norm, _, part = key.rpartition(".")
        if re.search(r"bn\d$|downsample\.1$", norm):
            extra[f"{norm}.aux_bn.{part}"] = _like(state["fc.bias"], tuple(value.shape))
    return training({**state, **extra})


def optics(state: State) -> list[Any]:
    return [{"epoch": 90, "model_state_dict": dict(state), "optimizer_state_dict": OPTIMIZER, "loss": 1.0, "acc": 74.0}]


def diffusion(state: State) -> list[Any]:
    return [{"model": prefixed(state, "module."), "epoch": 90, "optimizer": OPTIMIZER}]


def _split_head(state: State) -> tuple[State, State]:
    head = {key: value for key, value in state.items() if key.startswith("fc.")}
    body = {key: value for key, value in state.items() if key not in head}
    linear = {f"module.linear.{key.removeprefix('fc.')}": value for key, value in head.items()}
    return body, {"epoch": 100, "state_dict": linear, "optimizer": OPTIMIZER, "best_acc": 75.3}


def dino(state: State) -> list[Any]:
    return list(_split_head(state))


def swav(state: State) -> list[Any]:
    body, linear = _split_head(state)
    x = state["fc.bias"]
    decoys = {
        "projection_head.0.weight": _like(x, (8, 8)),
        "projection_head.1.running_mean": _like(x, (8,)),
        "prototypes.weight": _like(x, (8, 4)),
    }
    return [prefixed({**body, **decoys}, "module."), linear]


def simclr(state: State) -> list[Any]:
    parts = {
        "conv1": "net.0",
        "bn1": "net.1.0",
        "conv2": "net.2",
        "bn2": "net.3.0",
        "conv3": "net.4",
        "bn3": "net.5.0",
        "downsample.0": "projection.shortcut",
        "downsample.1": "projection.bn.0",
    }
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        found = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", module)
        if found:
            module = f"net.{found[1]}.blocks.{found[2]}.{parts[found[3]]}"
        else:
            module = {"conv1": "net.0.0", "bn1": "net.0.1.0", "fc": "fc"}[module]
        renamed[f"{module}.{leaf}"] = value
    return [{"resnet": renamed, "head": {"layers.0.weight": _like(state["fc.bias"], (8, 8))}}]


def supcon(state: State) -> list[Any]:
    model = {key if key.startswith("fc.") else f"encoder.{key}": value for key, value in state.items()}
    model["head.0.weight"] = _like(state["fc.bias"], (8, 8))
    return [{"epoch": 1, "model_state_dict": model, "optimizer_state_dict": OPTIMIZER}]


def _torchvision_vit(state: State, expand: str, reduce: str) -> list[Any]:
    names = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "self_attention.in_proj_",
        "attn.proj": "self_attention.out_proj",
        "patch_embed.proj": "conv_proj",
        "mlp.fc1": f"mlp.{expand}",
        "mlp.fc2": f"mlp.{reduce}",
    }
    renamed = {}
    for key, value in state.items():
        name = re.sub(r"^norm\.", "encoder.ln.", re.sub(r"^head\.", "heads.head.", key))
        name = re.sub(r"^blocks\.(\d+)", r"encoder.layers.encoder_layer_\1", name)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        renamed[name] = value
    return [renamed]


def vit_deit(state: State) -> list[Any]:
    return _torchvision_vit(state, "linear_1", "linear_2")


def vit_deit_new(state: State) -> list[Any]:
    return _torchvision_vit(state, "0", "3")


def mae(state: State) -> list[Any]:
    return [{"model": dict(state)}]


def _uncertain(wrapper: str, prefix: str) -> Callable[[State], list[Any]]:
    def write(state: State) -> list[Any]:
        inner = prefixed(state, prefix)
        return [{wrapper: inner, "epoch": 1}] if wrapper else [inner]

    return write


UNCERTAIN = [_uncertain(w, p) for w in ("state_dict", "") for p in ("module.", "")]
FROZEN = [_uncertain(w, p) for w in ("state_dict", "model_state_dict", "online_backbone", "") for p in ("module.", "")]


def layouts(name: str) -> list[Callable[[State], list[Any]]]:
    """The layouts that the file of a checkpoint of the zoo may have."""
    special: dict[str, list[Callable[[State], list[Any]]]] = {
        "diffusion-noise": [diffusion],
        "opticsaugment": [optics, lambda s: optics(prefixed(s, "module."))],
        "prime": UNCERTAIN,
        "noisymix": UNCERTAIN,
        "frozen-random": FROZEN,
        "dino": [dino],
        "swav": [swav],
        "simclrv2": [simclr],
        "supcon": [supcon],
        "vit-deit": [vit_deit, vit_deit_new],
        "vit-mae": [mae],
        "autoaugment": UNCERTAIN[2:],
        "fast-autoaugment": UNCERTAIN[2:],
        "randaugment": UNCERTAIN[2:],
    }
    if name in special:
        return special[name]
    if name.startswith("at-"):
        return [robustness]
    if name.startswith("ts-"):
        return [auxiliary, training]
    if name.startswith(("timm-", "vit-")) or name in ("baseline", "torchvision-v2", "styleaugment", "regmixup"):
        return [flat]
    return [training]
