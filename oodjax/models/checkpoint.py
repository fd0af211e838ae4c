"""Checkpoints on disk: Orbax weights and a manifest, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from oodjax.command_line import UsageError, check_folder, check_name
from oodjax.files import partial_name, sync
from oodjax.models.resnet import ResNet, ResNetConfig, abstract
from oodjax.models.vit import ViT

MANIFEST = "manifest.json"
WEIGHTS = "weights"
T = TypeVar("T")
_FILES = r"manifest\.ocdbt|d|d/[0-9a-f]{32}"  # as Orbax names them
_OWN = re.compile(
    rf"{re.escape(MANIFEST)}|{WEIGHTS}(/(_CHECKPOINT_METADATA|_METADATA|_sharding|commit_success\.txt|{_FILES}"
    rf"|array_metadatas(/process_\d+)?|ocdbt\.process_\d+(/({_FILES}))?))?"
)
_MEND = "name a new folder"
KEPT = nnx.Any(nnx.Param, nnx.BatchStat)
KINDS = {"config": "checkpoint", "saved": "saved detector or monitor"}  # the first key of a manifest, and what it is of


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
        digest.update(os.fsencode(path.relative_to(folder)) + f":{path.stat().st_size}".encode() + path.read_bytes())
    return digest.hexdigest()


def refuse_foreign(folder: Path, first: str = "config") -> None:
    """Returns where a checkpoint may be written: nothing is there, an empty folder, or what `save` wrote.

    A checkpoint that was damaged since is still ours: its files have the names that they were given.

    Args:
      folder: of the checkpoint.
      first: of `KINDS`: only what is of the same kind is replaced.

    Raises:
      CheckpointError: a file or a link is there, a folder with anything else in it, or no folder can be made there.
    """
    if folder.name in ("", ".."):
        raise CheckpointError(f"{folder} is no name of its own: name a new folder, such as checkpoints/baseline")
    try:
        check_folder(folder, checkpoints=True, mend=_MEND)
        if folder.is_dir():
            check_folder(folder.absolute().parent, mend=_MEND)
    except UsageError as error:
        raise CheckpointError(str(error)) from error
    if folder.is_symlink():
        raise CheckpointError(f"{folder} is a link, which stays as it is: {_MEND}")
    if folder.is_dir() and (foreign := _foreign(folder, first)):
        kind = KINDS[first]
        raise CheckpointError(f"{folder} is not only a {kind} of ours ({foreign}), so it stays as it is: {_MEND}")


def _foreign(folder: Path, first: str) -> str:
    """What a folder holds that `save` did not write; "" where it is empty or holds a checkpoint and nothing else."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    if not paths:
        return ""
    if others := sorted({name.partition("/")[0] for name in paths} - {MANIFEST, WEIGHTS}):
        return f"it holds {others[0]!r}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
    if MANIFEST not in paths:
        return f"it has no {MANIFEST}"
    for name, path in paths.items():
        unknown = not _OWN.fullmatch(name)
        if path.is_symlink() or (unknown and not path.is_file() and not any(path.iterdir())):
            return f"it holds {name!r}"
    manifest = _own_manifest(folder / MANIFEST, first)
    if manifest is None:
        return f"its {MANIFEST} is not ours"
    unknown_files = [name for name, path in paths.items() if path.is_file() and not _OWN.fullmatch(name)]
    if unknown_files and _digest_files(folder / WEIGHTS) != manifest.get("files"):  # of another version of Orbax
        return f"it holds {unknown_files[0]!r}"
    return ""


def _own_manifest(path: Path, first: str) -> dict[str, Any] | None:
    """A manifest that `save_arrays` wrote, {} where it is cut off, None where it is another program's or kind's."""
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        return {} if content.startswith(f'{{\n  "{first}": {{'.encode()) else None
    own = isinstance(manifest, dict) and {first, "weights", "files"} <= manifest.keys()
    return manifest if own else None


def save(folder: Path, model: ResNet | ViT, **facts: Any) -> str:
    """Writes `model` and its manifest; returns the hash of the weights.

    Args:
      folder: of this checkpoint; one that is there is replaced once the new one is complete.
      model: with a `config`; batch norm not folded.
      **facts: JSON values kept in the manifest, such as recipe and seed.

    Raises:
      CheckpointError: `folder` holds anything but a checkpoint; nothing of it is touched.
      OSError: it cannot be written; nothing of it is left, and a checkpoint that was there is still there.
    """
    return save_arrays(folder, flat_arrays(model), {"config": dataclasses.asdict(model.config)}, facts)


def save_arrays(folder: Path, arrays: dict[str, np.ndarray], first: dict[str, dict], facts: dict[str, Any]) -> str:
    """Writes arrays by name and a manifest; returns the hash of the arrays.

    Args:
      folder: one of the same kind that is there is replaced once the new one is complete.
      arrays: none of them empty; there may be none.
      first: what the manifest begins with: a table under a key of `KINDS`.
      facts: JSON values, the rest of the manifest.

    Raises:
      What `save` raises.
    """
    (kind,) = first
    refuse_foreign(folder, kind)
    made = [path for path in folder.absolute().parents if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # a name that nobody else uses: whatever lies beside `folder` is not ours to remove
    work = folder.parent / partial_name()
    work.mkdir()
    new, old = work / "new", work / "old"
    try:
        if shutil.disk_usage(work).free < sum(array.nbytes for array in arrays.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        weights = _write(new, arrays, first, facts)
        refuse_foreign(folder, kind)  # minutes later
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
        sync(folder.parent)
    except BaseException as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))  # what Orbax makes of a full disk is a ValueError
        if code is not None:
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error
        raise
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else uses them by now
            for path in made if not folder.exists() else ():
                path.rmdir()
    return weights


def _write(folder: Path, arrays: dict[str, np.ndarray], first: dict[str, dict], facts: dict[str, Any]) -> str:
    """A whole checkpoint in a new folder, on the disk when it returns; the hash of its weights."""
    folder.mkdir()
    if arrays:  # Orbax takes no empty tree
        with _checkpointer() as checkpointer:
            checkpointer.save(folder.absolute() / WEIGHTS, arrays)
    hashes = {"weights": _digest(arrays), "files": _digest_files(folder / WEIGHTS)}
    text = json.dumps({**first, **hashes, **facts}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)
    return hashes["weights"]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished checkpoint, or None where there is none.

    Raises:
      CheckpointError: it cannot be read, or is no JSON table.
    """
    path = folder / MANIFEST
    if not os.path.exists(path):  # False, where the name is too long to be one
        return None
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged; delete the folder to make it anew: {error}") from error
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{path} is damaged; delete the folder to make it anew: it holds no table")
    return manifest


def load(folder: Path, dtype: Any = "float32") -> ResNet:
    """The ResNet of a checkpoint, batch norm not folded, computing in `dtype`.

    Raises:
      CheckpointError: no manifest; what `restore` raises.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointError(f"{folder} holds no finished checkpoint: {MANIFEST} is missing")
    return restore(folder, manifest, abstract(configuration(folder, manifest, ResNetConfig), dtype))


def configuration(folder: Path, manifest: dict[str, Any], kind: type[T]) -> T:
    """The network's configuration in a manifest.

    Raises:
      CheckpointError: there is none, or not one of this kind.
    """
    try:
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in manifest["config"].items()}
        return kind(**settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no {kind.__name__} in its manifest ({error})") from error


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raises a CheckpointError where the files of the weights are not those that the manifest names."""
    if _digest_files(folder / WEIGHTS) != manifest.get("files"):
        raise CheckpointError(f"{folder / WEIGHTS} is damaged")


def restore(folder: Path, manifest: dict[str, Any], model: Any) -> Any:
    """`model`, a module with shapes in place of arrays, with a checkpoint's weights.

    Raises:
      CheckpointError: what `read_arrays` raises; arrays missing, left over or of another shape.
    """
    graphdef, target = nnx.split(model)
    return nnx.merge(graphdef, fill(target, read_arrays(folder, manifest), str(folder)))


def read_arrays(folder: Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a folder by name.

    Raises:
      CheckpointError: a path that Orbax takes for another one; files or arrays other than the manifest's.
    """
    try:
        check_name(folder, checkpoints=True)
    except UsageError as error:
        raise CheckpointError(f"cannot read {folder}: {error}; rename it") from error
    try:
        check_files(folder, manifest)  # before Orbax reads: it takes damaged files badly
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete {folder} to make it anew") from error
    arrays = _read_arrays(folder / WEIGHTS)
    if _digest(arrays) != manifest.get("weights"):
        raise CheckpointError(f"{folder}: the weights are not those of its manifest; delete the folder to make it anew")
    return arrays


def _checkpointer() -> ocp.StandardCheckpointer:
    """Of this process alone: Orbax would wait for the other processes of a run on several hosts."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(own, {own}, f"process-{own}")
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    if not folder.exists():
        return {}
    with _checkpointer() as checkpointer:
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
