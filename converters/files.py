"""Files of weights: what kind they are, what they hold, and where a downloads folder keeps a checkpoint's."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import ml_dtypes  # noqa: F401  safetensors finds bfloat16 by the name that this gives to NumPy
from safetensors import SafetensorError, safe_open

from converters import shards
from converters.archives import open_archive, refuse_encrypted
from converters.envelopes import parse_second
from converters.errors import problem, shown
from converters.pickles import read_pickle
from converters.programs import Placeholder
from oodjax import zoo

SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".ckpt", ".pt", ".bin")
LONGEST_HEADER = 8 * 2**20  # bytes; a tensor takes some 100
SAFETENSORS_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64")
SHRINKS = 4  # weights lose some tenths in a zip file, and half where they were rounded to 16 bits


def read_file(path: Path) -> tuple[Any, str]:
    """What a file of weights holds, and a line on what was left out of it ("" for nothing).

    The content decides what kind of file it is, not the name.

    Raises:
      ConversionError: missing, empty, a web page, truncated, or of no known kind.
    """
    if not path.is_file():
        raise problem(str(path), "is a folder; name the file of weights in it" if path.is_dir() else "no such file")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise problem(str(path), "is empty")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise problem(str(path), "is a web page, not weights: the download asked for a login or a confirmation")
    if start.startswith(b"version https://git-lfs"):
        raise problem(str(path), "is a git-lfs pointer, not weights: fetch the file itself")
    return shards.read(path, _read_single) if shards.is_index(path) else _read_single(path)


def _read_single(path: Path) -> tuple[Any, str]:
    return (_read_safetensors(path), "") if is_safetensors(path) else read_pickle(path)


def is_safetensors(path: Path) -> bool:
    """Whether a header of safetensors begins the file, or seems to."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:9] == b"{" and start[:4] != b"PK\x03\x04"


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Names -> arrays, and placeholders where NumPy has no such type."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER:
        raise problem(str(path), f"damaged safetensors file: its header claims {length:,} bytes")
    found: dict[str, Any] = {}
    try:
        with safe_open(path, "np") as file:
            for key in file.keys():
                kind = file.get_slice(key).get_dtype()
                plain = kind in SAFETENSORS_TYPES
                found[key] = (
                    file.get_tensor(key)
                    if plain
                    else Placeholder(f"numbers of type {kind}, which need their scales; save it as float32")
                )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise problem(str(path), f"damaged or truncated safetensors file ({shown(str(error))})") from error
    return found


def parts(path: Path) -> list[Path]:
    """The files that are read with `path`: itself, and the shards if it is an index of them."""
    return [path, *shards.beside(path)] if shards.is_index(path) else [path]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def published_name(checkpoint: zoo.Checkpoint) -> str:
    """Name under which the file is published; "" where the address does not tell (Google Drive, shared folders)."""
    if checkpoint.member:
        return Path(checkpoint.member).name
    if checkpoint.source == "google-drive":
        return ""
    name = Path(urlparse(checkpoint.url).path).name
    return name if name.endswith(SUFFIXES) else ""


def candidates(checkpoint: zoo.Checkpoint) -> list[str]:
    """Where a downloads folder may keep the file: first its id, then the published name where no other shares it."""
    found = [f"{checkpoint.id}{suffix}" for suffix in SUFFIXES]
    name = "" if checkpoint.member else published_name(checkpoint)  # inside zip files they are called "ckpt.pth"
    if name:
        found.append(f"{checkpoint.id}/{name}")
        if Counter(map(published_name, zoo.checkpoints()))[name] == 1:
            found.append(name)
    if checkpoint.source == "hf-hub":
        repo = checkpoint.locator.partition(":")[0]
        found += [f"{repo}/{name}", f"{repo.rpartition('/')[2]}/{name}"]
    if checkpoint.member:
        found.append(checkpoint.member)
    return found


def second_candidates(checkpoint: zoo.Checkpoint) -> list[str]:
    """The same for the file with the head."""
    name = Path(urlparse(parse_second(checkpoint.second_file)[0]).path).name
    return [f"{checkpoint.id}-head{suffix}" for suffix in SUFFIXES] + [f"{checkpoint.id}/{name}", name]


@contextmanager
def find(checkpoint: zoo.Checkpoint, downloads: Path) -> Iterator[list[Path]]:
    """The files of a checkpoint in a downloads folder, unpacked from a zip file where they are in one; [] for none."""
    main = first(downloads, candidates(checkpoint))
    second = first(downloads, second_candidates(checkpoint)) if checkpoint.second_file else None
    with tempfile.TemporaryDirectory() as folder:
        if main is None and checkpoint.member:
            main = _unpack(downloads, checkpoint.member, Path(folder))
        wanted = [main, second] if checkpoint.second_file else [main]
        yield [path for path in wanted if path is not None] if None not in wanted else []


def first(folder: Path, names: list[str]) -> Path | None:
    """The first of these files that is in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _unpack(downloads: Path, member: str, folder: Path) -> Path | None:
    for path in sorted(downloads.glob("*.zip")):
        with open_archive(path) as archive:
            found = [info for info in archive.infolist() if f"/{info.filename}".endswith(f"/{member}")]
            if not found:
                continue
            if len(found) > 1:
                names = ", ".join(shown(info.filename) for info in found[:3])
                raise problem(
                    str(path), f"holds several files of that name ({names}); unpack it and name the right one"
                )
            inside = found[0]
            refuse_encrypted(path, inside)
            if inside.file_size > SHRINKS * path.stat().st_size:
                raise problem(
                    str(path), f"damaged zip file: {shown(inside.filename)} claims {inside.file_size:,} bytes"
                )
            target = folder / Path(member).name
            with archive.open(inside) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            return target
    return None
