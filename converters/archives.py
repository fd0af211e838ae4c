"""Zip files, read within the bounds of what they hold."""

from __future__ import annotations

import errno
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converters.errors import ConversionError, problem, shown

TABLE = 4 * 2**20  # bytes of a table of contents; torch writes some 100 a tensor
ENCRYPTED = 0x1 | 0x40


class _Reader(io.FileIO):
    """A file of which no more than `most` bytes are read at once."""

    most = TABLE

    def read(self, size: int | None = -1, /) -> Any:
        if size is not None and size > self.most:
            raise zipfile.BadZipFile("its table of contents is too long")
        return super().read(-1 if size is None else size)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file at `path`, for reading.

    Raises:
      ConversionError: damaged, also where that is only found inside the block, or members of one name.
    """
    try:
        with _Reader(path) as file, zipfile.ZipFile(file) as archive:
            file.most = path.stat().st_size + zipfile.ZipExtFile.MIN_READ_SIZE
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise problem(str(path), "is a zip file with several members of one name")
            yield archive
    except ConversionError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a place before the file's beginning
            raise
        reason = shown(str(error)) or type(error).__name__
        raise problem(str(path), f"damaged or truncated zip file ({reason})") from error


def refuse_encrypted(path: Path, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & ENCRYPTED:
        raise problem(str(path), f"is encrypted ({shown(member.filename)}): unpack it and name the file inside")


def refuse_compressed(path: Path, archive: zipfile.ZipFile) -> None:
    """torch stores its members as they are: so no member, and not all together, can be larger than the file.

    Raises:
      ConversionError: a member is encrypted or compressed, or members share their bytes.
    """
    for member in archive.infolist():
        refuse_encrypted(path, member)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            name = f"{shown(member.filename)} is compressed by method {member.compress_type}"
            raise problem(str(path), f"is not as torch writes it: {name}; load it with torch and save it again")
    if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
        raise problem(str(path), "is a damaged zip file: its members are larger than the file")


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member, compared with their checksum; torch can leave that out and writes 0."""
    member = archive.getinfo(name)
    if not member.CRC:
        member.CRC = None  # type: ignore[assignment]
    return archive.read(member)
