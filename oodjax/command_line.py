"""What the command lines share: bad input is one line and exit code 2, a signal one line and exit code 130 or 143."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from oodjax.signals import WORDS, Handler, Terminated, ending, handle, raising

T = TypeVar("T")
_LONGEST_WORD = 300
_TAKEN = {
    r"\\": "a backslash for an escape",
    r"\[.*\]": "[ ] for a pattern",
    r"/[a-z0-9]+:(/|$)": "a folder whose name ends in a colon for an address",
}


class UsageError(ValueError):
    """What was asked for cannot be done; the message is for the one who asked."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line. Options are spelt out in full."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **settings)

    @property
    def name(self) -> str:
        return self.prog.removeprefix("python -m ")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the parent's, which fails with a traceback where an option's value is `--`."""
        given = sys.argv[1:] if args is None else list(args)
        for text in given:
            if re.fullmatch("-.*=--", text):
                self.error(f"{text.removesuffix('=--')} needs a value, got '--'; write ./-- for a folder of that name")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        print(f"{self.name}: {one_line(message)}", file=sys.stderr)
        raise SystemExit(2)


def execute(command: Parser, prepare: Callable[[], T], work: Callable[[T], int], stopped: str = "") -> int:
    """`work(prepare())`, the exit code of a command line.

    Args:
      command: says the command's name.
      prepare: imports and checks; writes nothing, so that a signal ends the process at once.
      work: a signal is raised in it as KeyboardInterrupt.
      stopped: what to say, beside the signal's name, when `work` was stopped.

    Returns:
      What `work` returns; 130 after SIGINT, 143 after SIGTERM, 141 where nobody reads the output any more.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _signals(ending(command.name)):
            prepared = prepare()
        with _signals(raising):
            code = work(prepared)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as error:
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        print(f"{command.name}: {WORDS[number]}{'; ' if stopped else ''}{one_line(stopped)}", file=sys.stderr)
        return 128 + number


def keep_finished(command: Parser, folder: Path, run: Callable[[], None]) -> int:
    """0 after `run`, which keeps what it finishes under `folder`; what it cannot do is one line and exit code 2."""
    from oodjax.store import StoreHeld
    from oodjax.study import StudyError

    try:
        run()
    except BrokenPipeError:
        raise
    except OSError as error:
        command.error(f"cannot write under {folder}: {error.strerror or error}; what is finished is kept")
    except (UsageError, StudyError, StoreHeld) as error:
        command.error(str(error))
    return 0


@contextmanager
def _signals(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread, and only it may say what becomes of them
        return
    former = handle(handler)
    try:
        yield
    finally:
        for number, previous in former.items():
            signal.signal(number, previous)  # type: ignore[arg-type]


def one_line(text: str) -> str:
    """The text as a terminal shows it safely: on one line, control characters escaped, endless words cut."""
    words = (word.encode("unicode_escape").decode() if not word.isprintable() else word for word in text.split())
    return " ".join(w if len(w) <= _LONGEST_WORD else f"{w[: _LONGEST_WORD - 50]}…{w[-50:]}" for w in words)


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Gives a command the option whose modules `oodjax.plugins.load` takes: `vars(options).get("plugin", ())`."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=argparse.SUPPRESS,
        metavar="MODULE",
        help="a module that registers detectors, recipes or presets of your own; may be given several times",
    )


def add_model_options(parser: argparse.ArgumentParser, batch_size: int = 64) -> None:
    """The options of every command that opens a model."""
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="a converted checkpoint, or module:function")
    add("--precision", default="float32", help="of a checkpoint's forward pass: float32 or bfloat16")
    add("--batch-size", type=int, default=batch_size, help="images a step")
    add("--seed", type=int, default=0, help="of pseudo-random choices")


def split_names(given: Sequence[str]) -> list[str]:
    """Names separated by spaces or commas, or both; the commas between round brackets are a name's own."""
    return [name for text in given for name in re.findall(r"(?:[^,(]|\([^)]*\)?)+", text)]


def names(text: str) -> str:
    """The type of an option that takes names: at least one."""
    if not split_names([text]):
        raise argparse.ArgumentTypeError(f"expected names, got {text!r}")
    return text


def folder(text: str) -> Path:
    """The type of an option that takes a folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a folder, got {text!r}; . is the current one")
    return Path(text)


def check_devices() -> None:
    """Raises a UsageError where JAX finds no device."""
    try:
        import jax

        jax.devices()
    except (RuntimeError, ValueError) as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        mend = f"JAX_PLATFORMS is {wanted!r}: unset it, or set it to cpu" if wanted else "set JAX_PLATFORMS to cpu"
        raise UsageError(f"JAX finds no device ({error}); {mend}") from error


def check_folder(folder: Path, checkpoints: bool = False, mend: str = "name another with --out") -> None:
    """Raises a UsageError where nothing could be written to `folder`, or no checkpoints; nothing is written."""
    try:
        check_name(folder, checkpoints)
        parents = (folder, *folder.absolute().parents)
        existing = next(p for p in parents if p.exists() or p.is_symlink())
        if not existing.exists():
            raise UsageError(f"{existing} is a link to {os.readlink(existing)}, which does not exist")
        if not existing.is_dir():
            raise UsageError(f"{existing} is not a folder")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except (OSError, UsageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"cannot write to {folder}: {reason}; {mend}") from error


def check_name(folder: Path, checkpoints: bool = False) -> None:
    """Raises a UsageError where no folder can have this path, or none that holds checkpoints."""
    whole = os.fsencode(folder.absolute())
    try:
        text = whole.decode()
    except UnicodeDecodeError as error:
        raise UsageError("its name is not UTF-8") from error
    limit = os.pathconf("/", "PC_NAME_MAX")
    if any(len(part.encode()) > limit for part in folder.parts):
        raise UsageError(f"a part of its name is longer than {limit} bytes")
    for pattern, meaning in _TAKEN.items() if checkpoints else ():
        if re.search(pattern, text):
            raise UsageError(f"Orbax, which writes the checkpoints, takes {meaning}")
