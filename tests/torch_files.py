"""Writes files as torch does, and as it never would, without torch."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long", "complex64": "ComplexFloat"}


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str,
    size: tuple[int, ...],
    *,
    storage: str = "Float",
    length: int | None = None,
    offset: int = 0,
    stride: tuple[int, ...] | None = None,
    marks: str = "",
    view: bytes = b"",
) -> bytes:
    """The operations that build a tensor; by default it fills its storage. Older files name a view, or N for none."""
    steps = tuple(int(np.prod(size[axis + 1 :])) for axis in range(len(size))) if stride is None else stride
    count = int(np.prod(size)) if length is None else length
    identity = b"(" + text("storage") + f"ctorch\n{storage}Storage\n".encode() + text(key) + text("cpu") + number(count)
    flags = b"}(" + text(marks) + b"\x88u" if marks else b""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + identity
        + view
        + b"tQ"
        + number(offset)
        + numbers(size)
        + numbers(steps)
        + b"\x89ccollections\nOrderedDict\n)R"
        + flags
        + b"tR"
    )


def table(**values: bytes) -> bytes:
    """A pickle of a dict."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


def write_zip(path: Path, program: bytes, storages: dict[str, np.ndarray], **members: bytes) -> Path:
    """As torch 1.6 and later."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in {"version": b"3\n", "byteorder": b"little", **members}.items():
            archive.writestr(f"archive/{name}", content)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


def write_legacy(path: Path, program: bytes, storages: dict[str, np.ndarray], *, little: bool = True) -> Path:
    """As torch before 1.6."""
    head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}" + text("little_endian")
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    body = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(head + (b"\x88" if little else b"\x89") + b"s." + program + keys + body)
    return path


def write_safetensors(path: Path, header: Any, body: bytes, *, length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + body)
    return path
