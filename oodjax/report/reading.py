"""The files of a results folder, read whole and checked: what is wrong with which file is one sentence."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodjax.analysis.columns import in_percent, renamed, said_percent
from oodjax.command_line import UsageError

# What XML cannot hold, or what would break a line of a figure.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_IN_TEXT = re.compile("(?![\t\n\r])[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DIMENSIONS = {"scores": 2, "logits": 2, "features": 2, "labels": 1}
_IMAGE_SET = {"name": str, "role": str, "category": str, "count": int, "sha256": str, "source": str}


class ReportError(UsageError):
    """A results folder of which no report can be made; the message says what is wrong with which file."""


class CannotSay(ValueError):
    """What the given results do not answer, and why."""


def visible(text: str) -> str:
    """The text with an escape for each character that a page cannot hold."""
    return _IN_TEXT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ReportError(f"there is no {path.name} in {path.parent}") from error
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from error


def parse_table(
    path: Path,
    content: bytes,
    names: Sequence[str],
    required: Sequence[str],
    fractions: Sequence[str],
    optional: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    assumed: list[str] | None = None,
) -> pd.DataFrame:
    """A CSV table.

    Args:
      path: what errors call it.
      content: UTF-8, with a line of headings.
      names: columns of text that is not empty.
      required: other columns that must be there.
      fractions: columns that, where present, are turned into percent.
      optional: columns of text that may be absent or empty.
      columns: our names -> headings, where they differ; those of other tables may be among them.
      unit: of the fractions, "fraction" or "percent"; by default as `in_percent` finds it.
      assumed: is told what was taken for percent.
    """
    table = renamed(_rows(path, content), columns or {}, str(path), some=True)
    missing = [c for c in (*names, *required) if c not in table.columns]
    if missing:
        raise ReportError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise ReportError(f"{path} has no rows")
    for column in names:
        if (table[column] == "").any():
            raise ReportError(f"{path}: {column} is empty in {(table[column] == '').sum()} of {len(table)} rows")
    for column in (c for c in (*names, *optional) if c in table.columns):
        for name in table[column].unique():
            if _UNPRINTABLE.search(name):
                raise ReportError(f"{path}: {column} holds a control character: {name!r}")
    for column in (c for c in fractions if c in table.columns):
        table[column] = _percent(path, column, table[column], unit, assumed)
    return table


def headings(content: bytes) -> set[str]:
    """Those of a table that was parsed before."""
    return set(next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))))


def _rows(path: Path, content: bytes) -> pd.DataFrame:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ReportError(f"{path} is not UTF-8: byte {content[error.start]:#04x} in line {line}") from error
    except csv.Error as error:
        raise ReportError(f"{path} cannot be read as a CSV table: {error} in line {reader.line_num}") from error
    if not lines:
        raise ReportError(f"{path} is empty")
    headings = lines[0][1]
    if len(set(headings)) < len(headings):
        twice = next(h for h in headings if headings.count(h) > 1)
        raise ReportError(f"{path} has more than one column {twice!r}")
    for line, fields in lines[1:]:
        if len(fields) != len(headings):
            raise ReportError(f"{path}: line {line} has {len(fields)} fields, the headings are {len(headings)}")
    return pd.DataFrame([fields for _, fields in lines[1:]], columns=headings, dtype=str)


def _percent(path: Path, column: str, text: pd.Series, unit: str | None, assumed: list[str] | None) -> pd.Series:
    empty = text.str.strip().str.lower().isin(["", "nan", "na"])
    values = pd.to_numeric(text.mask(empty), errors="coerce").astype(np.float64)
    percent = in_percent(values.to_numpy(), unit)
    top = 100 if percent else 1
    bad = values.isna() & ~empty | (values < 0) | (values > top)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ReportError(f"{path}: {column} must be in 0 to {top}, got {text.iloc[row]!r} in data row {row + 1}")
    if percent and unit is None and assumed is not None:
        assumed.append(f"{said_percent(path.name, column, values.to_numpy())}.")
    return values if percent else 100 * values


def read_manifest(path: Path) -> dict[str, Any]:
    """run.json, its parts that a report uses checked; {} where there is none."""
    if not path.exists():
        return {}
    try:
        manifest = json.loads(read_bytes(path).decode("utf-8-sig"))
        json.dumps(manifest, indent=2)
    except RecursionError as error:
        raise ReportError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise ReportError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise ReportError(f"{path} must hold a JSON object, got {_kind(manifest)}")
    for name in ("configuration", "device", "versions", "kept", "images_left_out"):
        _check(path, name, manifest.get(name, {}), dict)
    for name, images in manifest.get("images_left_out", {}).items():
        _check(path, f"images_left_out.{name}", images, list)
    for i, line in enumerate(_check(path, "warnings", manifest.get("warnings", []), list)):
        _check(path, f"warnings[{i}]", line, str)
    _check_entries(path, "runs", manifest, {"command": str, "started": str, "seconds": (int, float)})
    _check_entries(path, "thumbnails", manifest, {"name": str, "file": str, "count": int})
    for name, says in _check(path, "explained", manifest.get("explained", {}), dict).items():
        _check(path, f"explained.{name}", says, str)
    _check(path, "files", manifest.get("files", {}), dict)
    for i, entry in enumerate(_check(path, "data", manifest.get("data", []), list)):
        _check(path, f"data[{i}]", entry, dict)
        for name, kind in _IMAGE_SET.items():
            _check(path, f"data[{i}].{name}", entry.get(name, kind()), kind)
    for model, part in manifest.get("kept", {}).items():
        for key, value in _check(path, f"kept.{model}", part, dict).items():
            _check(path, f"kept.{model}.{key}", value, dict)
    return manifest


def image_sets(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's `data`, every entry with all of its fields."""
    return [{n: entry.get(n, kind()) for n, kind in _IMAGE_SET.items()} for entry in manifest.get("data", [])]


def _check_entries(path: Path, part: str, manifest: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Raises a ReportError unless a part is a list of objects that have all of these fields."""
    for i, entry in enumerate(_check(path, part, manifest.get(part, []), list)):
        _check(path, f"{part}[{i}]", entry, dict)
        for name, kind in kinds.items():
            value = entry.get(name)
            if not isinstance(value, kind) or isinstance(value, bool):
                wanted = _kind(kind()) if isinstance(kind, type) else "a number"
                raise ReportError(f"{path}: {part}[{i}].{name} must be {wanted}, got {_kind(value)}")


def _check(path: Path, name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ReportError(f"{path}: {name} must be {_kind(kind())}, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a whole number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "null")


def checked(source: str, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array; CannotSay where it is no table of finite numbers."""
    if array.ndim != _DIMENSIONS[name] or array.size == 0 or array.dtype.kind not in "fiu":
        raise CannotSay(f"{source} holds no table of numbers, but shape {array.shape} of {array.dtype}")
    if not np.isfinite(array).all():
        raise CannotSay(f"{source} holds {np.count_nonzero(~np.isfinite(array))} that are NaN or infinite")
    return array
