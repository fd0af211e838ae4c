"""Reads torch's files without torch and without running anything in them."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from converters.archives import open_archive, read_member, refuse_compressed
from converters.errors import problem, shown
from converters.programs import Global, Placeholder, Program, ProgramError
from converters.tensors import Storage, builders, storage_of

__all__ = ["Placeholder", "read_pickle"]

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SHOWN = 12
BIG_ENDIAN = "was written on a big-endian machine: load it with torch and save it again on a usual one"


def read_pickle(path: Path) -> tuple[Any, str]:
    """What a `.pth`, `.pth.tar` or `.ckpt` file holds, and a line on what was left out ("" for nothing).

    Tensors become NumPy arrays with the values that `torch.load` gives, objects of other classes placeholders. Read are
    the zip files of torch 1.6 and later and the plain pickles before that.

    Raises:
      ConversionError: not one of torch's files, damaged, or of parts that claim more than the file holds.
    """
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if start == b"PK\x03\x04":
            content, replaced = _read_zip(path)
        elif start[:1] == b"\x80" and not tarfile.is_tarfile(path):
            content, replaced = _read_legacy(path)
        else:
            raise problem(str(path), "is not a torch file")
    except ProgramError as error:
        raise problem(str(path), f"cannot be read, damaged or truncated ({error})") from error
    names = [shown(name) for name in sorted(replaced)]
    found = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    note = f"{shown(path.name)} holds more than tensors; replaced by inert placeholders: {found}" if found else ""
    return content, note


def _read_zip(path: Path) -> tuple[Any, set[str]]:
    with open_archive(path) as archive:
        root = _root(path, archive)
        refuse_compressed(path, archive)
        names = set(archive.namelist())
        if f"{root}/byteorder" in names and read_member(archive, f"{root}/byteorder") != b"little":
            raise problem(str(path), BIG_ENDIAN)
        kept: dict[str, bytes] = {}

        def read(storage: Storage) -> bytes:
            name = f"{root}/data/{storage.key}"
            if name not in names:
                raise ProgramError(f"the storage {shown(storage.key)} is missing")
            if storage.key not in kept:
                kept[storage.key] = read_member(archive, name)
            if storage.dtype is None or len(kept[storage.key]) != storage.length * storage.dtype.itemsize:
                raise ProgramError(f"the storage {shown(storage.key)} is not as long as the tensors say")
            return kept[storage.key]

        stream = io.BytesIO(read_member(archive, f"{root}/data.pkl"))
        program = Program(builders(read, path.stat().st_size), storage_of)
        return program.run(stream), program.replaced


def _root(path: Path, archive: zipfile.ZipFile) -> str:
    """The folder in which torch keeps everything."""
    members = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in members):
        raise problem(str(path), "is a TorchScript program, not a table of tensors")
    found = [name for name in members if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise problem(str(path), "is a zip file but none of torch's; unpack it and name the file inside")
    return found[0].removesuffix("/data.pkl")


def _read_legacy(path: Path) -> tuple[Any, set[str]]:
    """Magic number, protocol, facts on the machine, the content, the keys of the storages, and then their bytes.

    The content says of which types the storages are, so it is read twice: for them, and once they are found.
    """
    content = path.read_bytes()
    stream = io.BytesIO(content)
    if _plain(stream) != MAGIC or _plain(stream) != PROTOCOL:
        raise ProgramError("it lacks the beginning of a torch file")
    machine = _plain(stream)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise problem(str(path), BIG_ENDIAN)
    described: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module":
            return identity[1] if isinstance(identity[1], Global) else Placeholder()
        storage = storage_of(identity)
        first = described.setdefault(storage.key, storage)
        if (first.kind, first.length) != (storage.kind, storage.length):
            raise ProgramError(f"the storage {shown(storage.key)} has two types or lengths")
        return storage

    start = stream.tell()
    Program({}, persistent).run(stream)
    found = _storages(content, stream, described)

    def read(storage: Storage) -> Any:
        if storage.key not in found:
            raise ProgramError(f"the storage {shown(storage.key)} is missing")
        return found[storage.key]

    stream.seek(start)
    program = Program(builders(read, len(content)), persistent)
    return program.run(stream), program.replaced


def _plain(stream: BinaryIO) -> Any:
    """A pickle of plain values."""
    return Program({}, lambda identity: Placeholder()).run(stream)


def _storages(content: bytes, stream: BinaryIO, described: dict[str, Storage]) -> dict[str, memoryview]:
    keys = _plain(stream)
    if type(keys) is not list or not all(isinstance(key, str) and key in described for key in keys):
        raise ProgramError("its list of storages does not fit")
    found: dict[str, memoryview] = {}
    position = stream.tell()
    for key in keys:
        storage = described[key]
        if storage.dtype is None:
            raise ProgramError(f"it holds numbers of {storage.kind.replace(' ', '.')}, which NumPy has not")
        end = position + 8 + storage.length * storage.dtype.itemsize
        if key in found or end > len(content) or struct.unpack_from("<q", content, position)[0] != storage.length:
            raise ProgramError(f"the storage {shown(key)} is not as long as the tensors say")
        found[key] = memoryview(content)[position + 8 : end]
        position = end
    return found
