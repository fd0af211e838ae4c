"""Folders that are not ours alone: what an earlier run listed is replaced or removed, nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oodjax.command_line import UsageError, check_folder
from oodjax.files import partial_name, remove_partial, sha256, write_text

_PATH = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*")
_SHA256 = re.compile("[0-9a-f]{64}")


class ForeignFile(UsageError):
    """Something is in the way that no earlier run has listed; the message names it."""


@dataclass(frozen=True)
class Listing:
    """What a command wrote into a folder, as kept there in a JSON file.

    Attributes:
      folder: where the listing is, and below it the files.
      name: the listing's own name, such as report.json.
      maker: the command, such as oodjax.report; a file with another `made_by` is no listing of ours.
      files: path below the folder -> sha256.
      facts: what else the listing holds.
    """

    folder: Path
    name: str
    maker: str
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def check(self, wanted: Iterable[str]) -> None:
        """Raises a ForeignFile where writing `wanted` would replace what is not listed, a UsageError where it cannot be
        written at all; nothing is written."""
        paths = list(wanted)
        for folder in dict.fromkeys((self.folder / path).parent for path in paths):
            check_folder(folder)
        for path in (self.name, *paths):
            at = self.folder / path
            ours = bool(self.facts) if path == self.name else path in self.files
            if os.path.lexists(at) and (at.is_dir() or not ours):
                raise ForeignFile(
                    f"{at} is in the way: {self.name} of an earlier {self.maker} does not list it; "
                    "move it away or name another folder with --out"
                )

    def whole(self) -> bool:
        """Whether every listed file is there as it was written."""
        return bool(self.files) and all(sha256(self.folder / path) == sha for path, sha in self.files.items())

    def publish(self, staged: Path, facts: dict[str, Any]) -> None:
        """Moves the files below `staged` to the same paths below the folder; listed ones that are no more are removed,
        unless they have been altered.

        The listing names old and new files before the first of them is moved, so that none is foreign after a crash.
        """
        new = {p.relative_to(staged).as_posix(): sha256(p) for p in sorted(staged.rglob("*")) if p.is_file()}
        self.check(new)
        self._write({**self.files, **new}, facts)
        for path in new:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged / path, self.folder / path)
        for path in self.files.keys() - new.keys():
            if sha256(self.folder / path) == self.files[path]:
                (self.folder / path).unlink()
        self._write(new, facts)

    def _write(self, files: dict[str, Any], facts: dict[str, Any]) -> None:
        content = {"made_by": self.maker, **facts, "files": files}
        write_text(self.folder / self.name, json.dumps(content, indent=2) + "\n")


def read_listing(folder: Path, name: str, maker: str) -> Listing:
    """The listing that a folder holds; an empty one where there is none, or another's file of that name."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return Listing(folder, name, maker)
    if not isinstance(content, dict) or content.get("made_by") != maker:
        return Listing(folder, name, maker)
    files = content.get("files")
    ours = {
        path: sha
        for path, sha in (files.items() if isinstance(files, dict) else ())
        if _PATH.fullmatch(path) and isinstance(sha, str) and _SHA256.fullmatch(sha)
    }
    return Listing(folder, name, maker, ours, content)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder within `folder`, gone afterwards, as is `folder` itself where it was made for it and is empty."""
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    staged = folder / partial_name()
    staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        with suppress(OSError):
            for path in made:
                path.rmdir()
