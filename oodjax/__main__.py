"""python -m oodjax, and the console command oodjax: all command lines by one name each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from oodjax._version import __version__
from oodjax.signals import ending, handle


class Command(NamedTuple):
    """A command: its name, the module whose `main` it is, and what it does."""

    name: str
    module: str
    does: str


COMMANDS = (
    Command("run", "oodjax.run", "run a study: models, detectors, OOD sets; tables and a report"),
    Command("report", "oodjax.report.__main__", "draw the report of a folder of results"),
    Command("data", "oodjax.data.__main__", "verify a data folder in OpenOOD's layout"),
    Command("fit", "oodjax.fit", "fit a detector to your model and images, choose its threshold, save a monitor"),
    Command("score", "oodjax.score", "judge images by a monitor: in-distribution or not, a line an image"),
    Command("recommend", "oodjax.recommend", "rank the detectors for your model and images"),
    Command("convert", "converters.__main__", "turn published ResNet-50 and ViT-B/16 weights into checkpoints"),
    Command("benchmarks", "benchmarks.__main__", "measure this machine; in a checkout of the repository"),
    Command("list", "oodjax.catalogue", "list detectors, models or presets"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command.

    Args:
      arguments: the command and its own; None takes the process's, which then ends with the command.
    """
    if arguments is not None:
        return _dispatch(list(arguments))
    handle(ending("oodjax"))  # before the command's imports, which take their time
    from oodjax.hosts import leave_after

    leave_after(partial(_dispatch, sys.argv[1:]))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"oodjax {__version__}")
        return 0
    name, *rest = arguments
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        return _refuse(f"unknown command {name!r}; there are: {', '.join(c.name for c in COMMANDS)}{_hint(name)}")
    home = Path(__file__).parents[1] / "benchmarks"
    if command.name == "benchmarks" and not (home / "__main__.py").is_file():
        return _refuse("the benchmarks are in the repository, not in the installed package: run it in a checkout")
    return import_module(command.module).main(rest) or 0


def _refuse(message: str) -> int:
    from oodjax.command_line import one_line

    print(f"oodjax: {one_line(message)}", file=sys.stderr)
    return 2


def _hint(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, [command.name for command in COMMANDS], n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def _help() -> str:
    width = max(len(command.name) for command in COMMANDS)
    return "\n".join(
        [
            "usage: oodjax COMMAND ...",
            "",
            "Out-of-distribution detection at accelerator speed, in JAX.",
            "",
            *(f"  {command.name:<{width}}  {command.does}" for command in COMMANDS),
            "",
            "oodjax COMMAND --help says what each takes; --version prints the version.",
        ]
    )


if __name__ == "__main__":
    main()
