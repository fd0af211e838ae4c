"""Weights split over several files: an index says which of them holds which tensor."""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.errors import ConversionError, problem, shown

SUFFIX = ".index.json"
LONGEST = 8 * 2**20  # bytes; a tensor takes some 100
_FILE_NAME = re.compile(r"[\w-][\w.-]{0,254}", re.ASCII)
_NUMBERED = re.compile(r"-\d{5}-of-")


def is_index(path: Path) -> bool:
    return path.name.endswith(SUFFIX)


def beside(path: Path) -> list[Path]:
    """The shards of the index at `path`, there or not."""
    return [path.parent / name for name in sorted(_tensors_by_shard(path))]


def read(path: Path, read_one: Callable[[Path], tuple[Any, str]]) -> tuple[dict[str, Any], str]:
    """The tensors of every shard that the index at `path` names, and a line on what was left out of them.

    Raises:
      ConversionError: a shard is missing or lies there without being named, or holds other tensors than the index says.
    """
    index = _tensors_by_shard(path)
    found: dict[str, Any] = {}
    problems = [("beside the index lies a shard that it does not name:", name) for name in _unnamed(path.parent, index)]
    notes = []
    for name, keys in sorted(index.items()):
        if not (path.parent / name).is_file():
            problems.append(("the index names a shard that is not beside it:", name))
            continue
        content, note = read_one(path.parent / name)
        held = content if isinstance(content, dict) else {}
        problems += [("lacks what its index says it holds:", f"{k} of {name}") for k in sorted(keys - held.keys())]
        problems += [("holds what its index does not name:", f"{k} of {name}") for k in held if k not in keys]
        found |= held
        notes += [note] if note else []
    if problems:
        raise ConversionError(str(path), problems)
    return found, "; ".join(notes)


def _tensors_by_shard(path: Path) -> dict[str, set[str]]:
    """Shard -> the tensors that the index says it holds.

    Raises:
      ConversionError: not an index, or it names a file in another folder.
    """
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"longer than {LONGEST:,} bytes")
        index = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if type(index) is not dict or not index or not all(isinstance(name, str) for name in index.values()):
            raise TypeError("weight_map names no files")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {shown(str(error))}"
        raise problem(str(path), f"is no index of shards, a table with a weight_map ({reason})") from error
    found = defaultdict(set)
    for key, name in index.items():
        found[name].add(key)
    if outside := [name for name in found if not _FILE_NAME.fullmatch(name) or is_index(Path(name))]:
        raise ConversionError(str(path), [("the index names what is no file of weights:", n) for n in outside])
    return found


def _unnamed(folder: Path, names: dict[str, set[str]]) -> list[str]:
    """The files in `folder` that are numbered as those of the index are, and are none of them."""
    numbered = {_NUMBERED.sub("-*-of-", glob.escape(name)) for name in names if _NUMBERED.search(name)}
    return sorted({found.name for pattern in numbered for found in folder.glob(pattern)} - names.keys())
