"""What a study has made, on disk: found by what decides it, checked before it is believed, whole or not at all.

    FOLDER/store/KIND/.../NAME/store.json          a group: what it holds, each with the key it was made for
    FOLDER/store/KIND/.../NAME/features-1a2b.npy   one array, its file named by its key

A group's record is replaced in one step: before that the new arrays do not exist for a reader, after it they do, and
are given their names. It holds the sha256 of every file and of itself. What is damaged, of another shape, or made for
another key counts as missing. What a killed run left beside the records goes when the next one takes the folder. This
is the only module that knows the format.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import socket
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oodjax.files import fingerprint, remove_partial, sync, write_text

FORMAT = "oodjax store, version 1"
RECORD = "store.json"
LOCK = ".oodjax-run.lock"
PARTIAL = ".oodjax-partial"
SNAPSHOT = "snapshot"  # the entry in GROUP/host-0 by which a later run goes on with GROUP's half-written arrays
_ARRAY = re.compile(r"[a-z0-9_.]+-[0-9a-f]{16}\.npy")
_HOST = re.compile(r"host-[0-9]+")


Keyed = tuple[str, Any]  # key and content
Room = tuple[str, tuple[int, ...], Any]  # key, shape and dtype


class StoreHeld(RuntimeError):
    """Another run works on the folder; the message says which."""


def key_of(**parts: Any) -> str:
    """sha256 of everything that decides an array, as JSON values by name."""
    return fingerprint(parts)


@dataclass
class Store:
    """The kept arrays and values of one results folder.

    Attributes:
      folder: of the results; everything kept lies in its `store`.
      warn: called with one line for each thing that was found damaged.
    """

    folder: Path
    warn: Callable[[str], None] = print
    _checked: dict[Path, tuple[int, int]] = field(default_factory=dict, repr=False)
    _told: set[str] = field(default_factory=set, repr=False)
    _records: dict[Path, tuple[tuple[int, ...], Any]] = field(default_factory=dict, repr=False)

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @contextmanager
    def claim(self, leads: bool = True) -> Iterator[None]:
        """Holds the folder for this run: a second one on it raises `StoreHeld`. Released when the process ends.

        Args:
          leads: of several processes of one run, one holds the folder for all.
        """
        if not leads:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOCK, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StoreHeld(f"{self.folder} is in use by {file.read().strip() or 'another run'}") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
            self._tidy()
            try:
                yield
            except BaseException:
                with suppress(OSError):  # on a full disk it makes room
                    self._tidy()
                raise
            finally:
                file.truncate(0)

    def has(self, group: str, names: Mapping[str, str]) -> bool:
        """Whether the group holds every name under its key, undamaged."""
        return all(self._find(group, name, key) is not None for name, key in names.items())

    def read(self, group: str, name: str, key: str) -> np.ndarray | None:
        """The array kept under this key as a read-only memory map, or None."""
        entry = self._find(group, name, key)
        return None if entry is None or "file" not in entry else _open(self.root / group / entry["file"])

    def value(self, group: str, name: str, key: str) -> Any:
        """The JSON value kept under this key, or None."""
        entry = self._find(group, name, key)
        return None if entry is None else entry.get("value")

    def values(self, group: str, keys: Mapping[str, str]) -> dict[str, Any]:
        """The JSON values kept under these keys, by name, as far as they are there; the record is looked at once."""
        entries = self._entries(group)
        found = {name: entries[name] for name, key in keys.items() if entries.get(name, {}).get("key") == key}
        return {name: entry["value"] for name, entry in found.items() if "value" in entry}

    def path(self, group: str, name: str, key: str) -> Path | None:
        """The file of an array kept under this key."""
        entry = self._find(group, name, key)
        return None if entry is None or "file" not in entry else self.root / group / entry["file"]

    def put(
        self, group: str, arrays: Mapping[str, tuple[str, Any]], values: Mapping[str, tuple[str, Any]] = {}
    ) -> None:
        """Keeps arrays, and small JSON values, as name -> (key, content); others in the group stay."""
        sheet = {name: (key, np.asarray(array)) for name, (key, array) in arrays.items()}
        writer = self.writer(group, {name: (key, array.shape, array.dtype) for name, (key, array) in sheet.items()})
        for name, (_, array) in sheet.items():
            writer.write(name, 0, array)
        writer.commit(values)

    def writer(
        self, group: str, arrays: Mapping[str, tuple[str, tuple[int, ...], Any]], resume: bool = False
    ) -> Writer:
        """Room for arrays whose rows come one batch after the other: name -> (key, shape, dtype)."""
        return Writer(self, group, dict(arrays), resume)

    def half_written(self, group: str, arrays: Mapping[str, Room]) -> dict[str, np.ndarray] | None:
        """What a killed run has written of these arrays, as memory maps; None unless all are there, each in its size.

        What stands in them is not checked.
        """
        found = {}
        for name, (key, shape, dtype) in arrays.items():
            try:
                found[name] = _open(self.root / group / _partial_name(name, key))
            except (OSError, ValueError, EOFError):
                return None
            if (found[name].shape, found[name].dtype) != (tuple(shape), np.dtype(dtype)):
                return None
        return found

    def hosts_of(self, group: str) -> list[str]:
        """The groups in which the processes of a run have left snapshots of this one."""
        folder = self.root / group
        names = sorted(p.name for p in folder.iterdir() if _HOST.fullmatch(p.name)) if folder.is_dir() else []
        return [f"{group}/{name}" for name in names if SNAPSHOT in self._entries(f"{group}/{name}")]

    def discard(self, group: str) -> None:
        """Removes a group: the files its record names, and the record."""
        folder = self.root / group
        entries = self._entries(group)
        (folder / RECORD).unlink(missing_ok=True)
        for entry in entries.values():
            if "file" in entry:
                (folder / entry["file"]).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _find(self, group: str, name: str, key: str) -> dict[str, Any] | None:
        entry = self._entries(group).get(name)
        if entry is None or entry.get("key") != key:
            return None
        return entry if "value" in entry or self._intact(self.root / group, name, entry) else None

    def _entries(self, group: str) -> dict[str, dict[str, Any]]:
        return self._record(group) or {}

    def _record(self, group: str) -> dict[str, dict[str, Any]] | None:
        """The entries of a group; none where there is no record yet, None where it is damaged."""
        path = self.root / group / RECORD
        try:
            facts = path.stat()
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if self._records.get(path, ((), None))[0] == seen:
                return self._records[path][1]
            record = json.loads(path.read_text(encoding="utf-8"))
            entries = record["entries"]
            if record["format"] != FORMAT or record["sha256"] != fingerprint([group, entries]):
                raise ValueError
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._say(path, "its record is damaged or belongs elsewhere")
            return None
        self._records[path] = seen, entries
        return entries

    def _intact(self, folder: Path, name: str, entry: Mapping[str, Any]) -> bool:
        path = folder / entry["file"]
        try:
            facts = path.stat()
            seen = (facts.st_mtime_ns, facts.st_size)
            if self._checked.get(path) != seen:
                if _sha256(path) != entry["sha256"]:
                    raise ValueError
                array = _open(path)
                if [list(array.shape), array.dtype.str] != [entry["shape"], entry["dtype"]]:
                    raise ValueError
                self._checked[path] = seen
        except FileNotFoundError:
            self._say(path, f"{name} is missing")
            return False
        except (OSError, ValueError, EOFError):
            self._say(path, f"{name} is damaged")
            return False
        return True

    def _say(self, path: Path, what: str) -> None:
        line = f"{path}: {what}; it is made anew"
        if line not in self._told:
            self._told.add(line)
            self.warn(line)

    def _record_more(self, group: str, added: Mapping[str, dict[str, Any]], drop: Collection[str]) -> Collection[str]:
        """Replaces the record; returns the files that the former one named."""
        before = self._entries(group)
        entries = {**{name: entry for name, entry in before.items() if name not in drop}, **added}
        record = {"format": FORMAT, "entries": entries, "sha256": fingerprint([group, entries])}
        write_text(self.root / group / RECORD, json.dumps(record, indent=1) + "\n")
        return [entry["file"] for entry in before.values() if "file" in entry]

    def _remove_unnamed(self, folder: Path, files: Iterable[str]) -> None:
        """Deletes those of the files that the group's record does not name any more."""
        entries = self._record(folder.relative_to(self.root).as_posix())
        if entries is not None:
            _unlink(folder / name for name in set(files) - {entry.get("file") for entry in entries.values()})

    def _tidy(self) -> None:
        """Finishes or deletes what killed runs left, but for half-written arrays that a snapshot can go on with."""
        folders = [self.root, *self.root.rglob("*/")] if self.root.is_dir() else []
        for folder in folders:
            remove_partial(folder)
            self._finish_commit(folder)
            self._remove_unnamed(folder, [path.name for path in folder.iterdir() if _ARRAY.fullmatch(path.name)])
        for folder in folders:
            group = folder.relative_to(self.root).as_posix()
            left = list(folder.glob(f".*{PARTIAL}")) if folder.is_dir() else []
            if left and SNAPSHOT not in self._entries(f"{group}/host-0"):
                _unlink(left)
                left = []
            for host in self.hosts_of(group) if not left else ():  # a snapshot without the rows it goes with
                self.discard(host)

    def _finish_commit(self, folder: Path) -> None:
        """Gives the arrays that a record already names their names, where a run was killed in between."""
        entries = self._entries(folder.relative_to(self.root).as_posix())
        for entry in entries.values():
            partial = folder / f".{entry.get('file')}{PARTIAL}"
            if partial.is_file() and _sha256(partial) == entry["sha256"]:
                os.replace(partial, folder / entry["file"])


class Writer:
    """Arrays that are filled row by row, and appear in their group all at once with `commit`."""

    def __init__(self, store: Store, group: str, arrays: dict[str, tuple[str, tuple[int, ...], Any]], resume: bool):
        self._store, self._group = store, group
        self._files: dict[str, _Rows] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        folder = store.root / group
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:  # nobody goes on with what another key's writer left
            _unlink(folder.glob(f".*{PARTIAL}"))
        for name, (key, shape, dtype) in arrays.items():
            self._room(name, key, tuple(shape), np.dtype(dtype), resume)

    def _room(self, name: str, key: str, shape: tuple[int, ...], dtype: np.dtype, resume: bool) -> None:
        file = _file_name(name, key)
        self._entries[name] = {"key": key, "file": file, "shape": list(shape), "dtype": dtype.str}
        partial = self._store.root / self._group / _partial_name(name, key)
        self._files[name] = _Rows(partial, shape, dtype, resume)

    def add(self, name: str, key: str, array: np.ndarray) -> None:
        """One more array, whole."""
        self._room(name, key, array.shape, array.dtype, False)
        self.write(name, 0, array)

    def write(self, name: str, index: int | np.ndarray, rows: np.ndarray) -> None:
        """Puts rows where they belong: from row `index` on, or at the rows that an index array names."""
        self._files[name].write(index, rows)

    def flush(self) -> None:
        """Returns when what was written is on the disk."""
        for rows in self._files.values():
            rows.flush()

    def close(self) -> None:
        """Lets go of the files without a commit."""
        for rows in self._files.values():
            rows.close()

    def commit(self, values: Mapping[str, tuple[str, Any]] = {}, drop: Collection[str] = ()) -> None:
        """Makes the arrays and `values` part of the group, in one step; entries named in `drop` leave it."""
        folder = self._store.root / self._group
        added: dict[str, dict[str, Any]] = {n: {"key": key, "value": value} for n, (key, value) in values.items()}
        for name, rows in self._files.items():
            rows.flush()
            rows.close()
            added[name] = self._entries[name] | {"sha256": _sha256(rows.path)}
        before = self._store._record_more(self._group, added, drop)
        for name, rows in self._files.items():  # a run killed in here is finished by the next: see `Store._tidy`
            path = folder / self._entries[name]["file"]
            os.replace(rows.path, path)
            facts = path.stat()
            self._store._checked[path] = (facts.st_mtime_ns, facts.st_size)
        sync(folder)
        self._store._remove_unnamed(folder, before)


class _Rows:
    """One .npy file that takes rows at any place.

    Written through the file, so that no memory map holds pages; and at once, so that a full disk is met by the write
    and not by the interpreter when it lets go of the file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, resume: bool):
        self.path, self._dtype = path, dtype
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | (0 if resume else os.O_TRUNC), 0o666)
        self.close = weakref.finalize(self, os.close, self._file)
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        self._start = header.tell()
        self._write(0, header.getbuffer())
        os.ftruncate(self._file, self._start + self._row * (shape[0] if shape else 1))

    def write(self, index: int | np.ndarray, rows: np.ndarray) -> None:
        data = np.ascontiguousarray(rows, self._dtype)
        if isinstance(index, (int, np.integer)):
            self._put(int(index), data)
            return
        if not len(index):
            return
        ends = np.flatnonzero(np.diff(index) != 1) + 1  # runs of neighbours go in one write
        for run, part in zip(np.split(index, ends), np.split(data, ends), strict=True):
            self._put(int(run[0]), part)

    def _put(self, row: int, data: np.ndarray) -> None:
        if data.size:
            self._write(self._start + row * self._row, data.reshape(-1).view(np.uint8).data)

    def _write(self, place: int, content: memoryview) -> None:
        while content:  # one call writes 2 GiB at most
            written = os.pwrite(self._file, content, place)
            place, content = place + written, content[written:]

    def flush(self) -> None:
        os.fsync(self._file)


def _file_name(name: str, key: str) -> str:
    return f"{name}-{key[:16]}.npy"


def _partial_name(name: str, key: str) -> str:
    return f".{_file_name(name, key)}{PARTIAL}"


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # nothing to map where the array is empty
        return np.load(path, allow_pickle=False)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
