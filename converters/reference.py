"""The same weights in torchvision's or timm's own class: what our models are compared with."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converters import files, shards
from converters.errors import ConversionError, problem, shown

EXTRA = "pip install 'oodjax[verify]'"
_kept: list[Any] = []  # a torch library's operators live as long as the object


def import_torchvision() -> Any:
    """torchvision; beside a CPU build of torch, a GPU build of it needs two operators declared before its import."""
    import torch

    if not _kept:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            try:
                library.define(schema)
            except RuntimeError:  # declared by torchvision itself
                continue
        _kept.append(library)
    return importlib.import_module("torchvision")


def described(layout: str) -> str:
    """What `build` gives, in words: library, version and class."""
    library, _, name = layout.partition("-")
    name, _, pool = name.partition("-")
    return f"{library} {version(library)}'s {name}" + (" with average pooling" if pool else "")


def build(layout: str, num_classes: int = 1000) -> Any:
    """torchvision's or timm's model of this layout, in evaluation mode, with weights of its own.

    Raises:
      ConversionError: the library is not installed.
    """
    try:
        vision = import_torchvision()
        if layout == "torchvision-resnet50":
            return vision.models.resnet50(num_classes=num_classes).eval()
        if layout == "torchvision-vit_b_16":
            return vision.models.vit_b_16(num_classes=num_classes).eval()
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise problem(layout, f"comparing needs torch, torchvision and timm: {EXTRA} ({error})") from error
    name, _, pool = layout.removeprefix("timm-").partition("-")
    options = {"global_pool": "avg"} if pool == "avgpool" else {}
    return timm.create_model(name, num_classes=num_classes, **options).eval()


def outputs(layout: str, state_dict: Mapping[str, Any], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, H, W, 3) normalised images -> logits and features (the input of the last layer) of torch's model.

    Raises:
      ConversionError: the library is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise problem(layout, f"comparing needs torch, torchvision and timm: {EXTRA}") from error
    classes = next(len(state_dict[key]) for key in ("fc.bias", "head.bias", "heads.head.bias") if key in state_dict)
    model = build(layout, classes)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    tensors = {_current(key): torch.as_tensor(_own(value)) for key, value in state_dict.items()}
    model.load_state_dict(tensors | counters)  # which count batches of training, whatever the file makes of them
    found: list[Any] = []
    head = next(getattr(model, name) for name in ("fc", "head", "heads") if hasattr(model, name))
    handle = head.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.no_grad():
        logits = model(torch.as_tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    handle.remove()
    return logits.numpy(), found[0].numpy()


def _own(value: Any) -> Any:
    """An array that torch may take over: a copy, in float32 where NumPy's number is none of torch's."""
    if not isinstance(value, np.ndarray):
        return value
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value.copy()


def _current(key: str) -> str:
    return key.replace(".linear_1.", ".0.").replace(".linear_2.", ".3.")


def read_file(path: Path) -> tuple[Any, str]:
    """What torch's and safetensors' own readers find in a file, its tensors as arrays.

    They see only files of nothing but tensors and plain values: of others, torch would have to build the objects.

    Raises:
      ConversionError: torch is not installed, the file holds other objects, or their reader refuses it.
    """
    try:
        import torch
        from safetensors.torch import load_file
    except ImportError as error:
        raise problem(path.name, f"comparing needs torch: {EXTRA}") from error
    if note := files.read_file(path)[1]:
        raise problem(path.name, f"torch reads it only with what built its objects ({note})")
    try:
        if shards.is_index(path):
            return {k: v for shard in shards.beside(path) for k, v in read_file(shard)[0].items()}, ""
        if files.is_safetensors(path):
            return _arrays(load_file(path)), ""
        return _arrays(torch.load(path, "cpu", weights_only=True)), ""
    except (RuntimeError, ValueError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise problem(path.name, f"torch does not read it ({type(error).__name__}: {shown(str(error))})") from error


def check_equal(found: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    """Compares names, types, shapes and bits of the tensors.

    Raises:
      ConversionError: names those that differ.
    """
    wrong = [key for key in found.keys() | theirs.keys() if _bits(found.get(key)) != _bits(theirs.get(key))]
    if wrong:
        raise ConversionError(what, [("torch reads another tensor in", key) for key in sorted(wrong)])


def _bits(array: Any) -> Any:
    return None if array is None else (array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes())


def _arrays(value: Any) -> Any:
    """Tables with torch's tensors -> the same with arrays."""
    import torch

    if isinstance(value, dict):
        return {key: _arrays(inner) for key, inner in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    plain = value.detach().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:
        return plain.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return plain.numpy()
