"""What SIGINT and SIGTERM do to a command. Imports next to nothing, so that they are answered from early on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which what cleans up after Ctrl-C cleans up after as well."""


def ending(name: str) -> Handler:
    """Ends the process with one line. For as long as nothing is written: nothing is cleaned up.

    An exception would not do: raised within the import of an extension module, it is lost or turned into another.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{name}: {WORDS[signal.Signals(number)]}\n".encode())
        os._exit(128 + number)

    return end


def raising(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, or Terminated, which is one."""
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def handle(handler: Handler) -> dict[int, object]:
    """SIGINT and SIGTERM go to `handler`, unless the process was started to ignore them; returns the former ones."""
    former: dict[int, object] = {number: signal.getsignal(number) for number in WORDS}
    for number, previous in former.items():
        if previous is not signal.SIG_IGN:
            signal.signal(number, handler)
    return former
