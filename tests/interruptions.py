"""Ends a run at a chosen moment: between two of the calls by which it changes what is on the disk.

What is on the disk changes in those calls alone, so that a process killed at any moment leaves what one leaves that
is killed right before the next of them. As a script: one run of the tiny study in a folder, killed with SIGKILL.
"""

from __future__ import annotations

import builtins
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

CALLS = ("open", "mkdir", "pwrite", "fsync", "ftruncate", "replace", "rename", "unlink", "remove", "rmdir")


class Killed(BaseException):
    """Stands for SIGKILL inside one process: from here on nothing changes on the disk any more."""


class Moments:
    """Counts the calls that change the disk; from number `last` on they do what `end` does."""

    def __init__(
        self, last: float = float("inf"), end: Callable[[], None] | None = None, calls: Sequence[str] = CALLS
    ) -> None:
        self.seen, self._last, self._end, self._calls = 0, last, end or self._raise, calls
        self.engine: Any = None  # of the run that they are moments of

    @staticmethod
    def _raise() -> None:
        raise Killed

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.seen += 1
        if self.seen >= self._last and function.__name__ in self._calls:
            self._end()
        return function(*args, **options)


@contextmanager
def watched(moments: Moments, folder: Path) -> Iterator[None]:
    """Every call that changes something in `folder` is one of the moments; other files are let through."""

    def inside(path: str) -> bool:
        return f"{path}{os.sep}".startswith(f"{folder}{os.sep}")

    def concerns(name: str, args: tuple[Any, ...]) -> bool:
        if name in ("pwrite", "fsync", "ftruncate"):
            return inside(os.readlink(f"/proc/self/fd/{args[0]}"))
        if name == "open" and len(args) > 1 and not args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        return inside(os.fsdecode(args[0])) if not isinstance(args[0], int) else False

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            return moments(function, *args, **options) if concerns(name, args) else function(*args, **options)

        return call

    def watch_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        concerned = not isinstance(file, int) and inside(os.fsdecode(file)) and set(mode) & set("wa+")
        return moments(opened, file, mode, *args, **options) if concerned else opened(file, mode, *args, **options)

    opened = builtins.open
    with mock.patch.multiple(os, **{name: watch(name, getattr(os, name)) for name in CALLS}):
        with mock.patch.object(builtins, "open", watch_open):
            yield


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def run(folder: Path, moments: Moments, **settings: Any) -> tuple[Any, list[str]]:
    """One run of the tiny study with a snapshot after every batch of training; the engine and its warnings."""
    import tiny
    from studies import Quiet

    from oodjax import fold
    from oodjax.devices import Devices
    from oodjax.execute import Engine
    from oodjax.results import tabulate
    from oodjax.store import Store

    lines: list[str] = []
    engine = Engine(tiny.study(**settings), Store(folder, warn=lines.append), Devices.all(), Quiet())
    moments.engine = engine
    with mock.patch.object(fold, "SNAPSHOT_SECONDS", 0.0), watched(moments, folder):
        with engine.store.claim():
            engine.run()
            tabulate(engine.study, engine.store).write(folder)
    return engine, lines


def main(folder: str, last: str, log: str) -> None:
    """Kills itself at moment `last`, 0 for never; appends what was decoded to `log` first."""

    def note() -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{moments.engine.counts.decoded}\n")

    def kill() -> None:
        note()
        os.kill(os.getpid(), signal.SIGKILL)

    moments = Moments(int(last) or float("inf"), kill)
    run(Path(folder), moments)
    note()
    print(moments.seen)


if __name__ == "__main__":
    main(*sys.argv[1:])
