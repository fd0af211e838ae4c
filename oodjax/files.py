"""Files that are written whole or not at all, and fingerprints of what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_PARTIAL = re.compile(r"\.oodjax-[0-9a-f]{16}\.partial")


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file through a temporary neighbour: after a crash there is the old file, the new one, or none.

    Args:
      path: the file; its folder is made when missing. Its permissions are those that the umask leaves.
      write: called with the open binary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / partial_name()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def partial_name() -> str:
    """A new name for what is not finished, which nobody else would choose; see `remove_partial`."""
    return f".oodjax-{secrets.token_hex(8)}.partial"


def sync(path: Path) -> None:
    """Returns when a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def remove_partial(*folders: Path) -> None:
    """Deletes what a killed run left half-written in these folders: names of `partial_name`, and not below them."""
    for folder in folders:
        for leftover in list(folder.iterdir()) if folder.is_dir() else ():
            if not _PARTIAL.fullmatch(leftover.name):
                continue
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def sha256(path: Path) -> str | None:
    """Of a file's content; None where there is no file that can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def fingerprint(value: Any) -> str:
    """sha256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
