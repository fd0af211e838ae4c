"""Checkpoints on disk: Orbax weights and a manifest, written whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from oodjax.files import sync
from oodjax.models.resnet import ResNet, ResNetConfig, abstract

MANIFEST = "manifest.json"
WEIGHTS = "weights"
KEPT = nnx.Any(nnx.Param, nnx.BatchStat)


class CheckpointError(ValueError):
    """A checkpoint that is not what its manifest says; the message names what differs."""


def flat_arrays(weights: nnx.Module | nnx.State) -> dict[str, np.ndarray]:
    """Parameters and running statistics by path, such as "stages/0/0/reduce/conv/kernel"."""
    state = nnx.filter_state(nnx.state(weights) if isinstance(weights, nnx.Module) else weights, KEPT)
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}


def weights_hash(weights: nnx.Module | nnx.State) -> str:
    """sha256 over names, types, shapes and bytes of a model's arrays, in the order of the names."""
    return _digest(flat_arrays(weights))


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _digest_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}:{path.stat().st_size}".encode() + path.read_bytes())
    return digest.hexdigest()


def save(folder: Path, model: ResNet, **facts: Any) -> str:
    """Writes `model` and its manifest; returns the hash of the weights.

    Args:
      folder: of this checkpoint; one that is there is replaced.
      model: batch norm not folded.
      **facts: JSON values kept in the manifest, such as recipe and seed.

    Raises:
      OSError: it cannot be written; nothing of it is left, and a checkpoint that was there is still there.
    """
    arrays = flat_arrays(model)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if shutil.disk_usage(partial).free < sum(array.nbytes for array in arrays.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial.absolute() / WEIGHTS, arrays)
        hashes = {"weights": _digest(arrays), "files": _digest_files(partial / WEIGHTS)}
        manifest = {"config": dataclasses.asdict(model.config), **hashes, **facts}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for path in sorted(partial.rglob("*")):
            sync(path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        code = re.search(r"os_error_code='(\d+)'", str(error))  # what Orbax makes of a full disk is a ValueError
        if code is not None:
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)
    sync(folder.parent)
    return manifest["weights"]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished checkpoint, or None where there is none."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged; delete the folder to make it anew: {error}") from error


def load(folder: Path, dtype: Any = "float32") -> ResNet:
    """The ResNet of a checkpoint, batch norm not folded, computing in `dtype`.

    Raises:
      CheckpointError: no manifest; what `restore` raises.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointError(f"{folder} holds no finished checkpoint: {MANIFEST} is missing")
    return restore(folder, manifest, abstract(ResNetConfig(**settings(manifest)), dtype))


def settings(manifest: dict[str, Any]) -> dict[str, Any]:
    """The network's configuration, its lists tuples again."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in manifest["config"].items()}


def restore(folder: Path, manifest: dict[str, Any], model: Any) -> Any:
    """`model`, a module with shapes in place of arrays, with a checkpoint's weights.

    Raises:
      CheckpointError: files or weights other than the manifest's; arrays missing, left over or of another shape.
    """
    if _digest_files(folder / WEIGHTS) != manifest["files"]:  # before Orbax reads: it takes damaged files badly
        raise CheckpointError(f"{folder / WEIGHTS} is damaged; delete {folder} to make it anew")
    graphdef, target = nnx.split(model)
    arrays = _read_arrays(folder / WEIGHTS)
    filled = fill(target, arrays, str(folder))
    if _digest(arrays) != manifest["weights"]:
        raise CheckpointError(f"{folder}: the weights are not those of its manifest; delete the folder to make it anew")
    return nnx.merge(graphdef, filled)


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    with ocp.StandardCheckpointer() as checkpointer:
        stored = dict(checkpointer.metadata(folder.absolute()).item_metadata)
        target = {name: jax.ShapeDtypeStruct(m.shape, m.dtype) for name, m in stored.items()}
        arrays = checkpointer.restore(folder.absolute(), target)
    return {name: np.asarray(array) for name, array in arrays.items()}


def fill(target: Any, arrays: dict[str, Any], source: str) -> Any:
    """The abstract nnx state `target` with `arrays` (by path, joined with "/") in its leaves.

    Raises:
      CheckpointError: names every array that is missing, left over or of another shape, all at once.
    """
    flat = {"/".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(target)}
    problems = [f"missing {name}" for name in sorted(flat.keys() - arrays.keys())]
    problems += [f"left over {name}" for name in sorted(arrays.keys() - flat.keys())]
    problems += [
        f"{name} has shape {tuple(arrays[name].shape)}, not {tuple(leaf.shape)}"
        for name, (_, leaf) in flat.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(leaf.shape)
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit the architecture: {'; '.join(problems)}")
    leaves = [(path, leaf.replace(jax.numpy.asarray(arrays[name]))) for name, (path, leaf) in flat.items()]
    return nnx.from_flat_state(leaves)
