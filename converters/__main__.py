"""python -m converters: list | all | the id of a checkpoint of the zoo | a file, URL or repository with --layout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.errors import ConversionError, problem
from oodjax.command_line import Parser, execute, folder, one_line

DOWNLOADS = Path("downloads")
TAKES = {
    "list": (),
    "all": ("from", "to", "verify"),
    "a checkpoint of the zoo": ("from", "to", "verify", "downloads"),
    "a file": ("to", "layout", "verify", "downloads", "classes", "mean", "std", "path", "rewrites"),
}


def parser() -> Parser:
    parser = Parser(
        prog="python -m converters",
        description="Turns published ResNet-50 and ViT-B/16 weights into checkpoints that oodjax.zoo.load reads.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "what",
        help='"list" shows the zoo; "all" converts what the folder --from holds of it; the id of one of its '
        'checkpoints; or any other file, URL or hub repository ("owner/name"), with --layout',
    )
    parser.add_argument(
        "--from",
        nargs="+",
        type=folder,
        metavar="PATH",
        help="the downloaded file (two where the head is published apart), or the folder it is in; without it a "
        "checkpoint of the zoo is downloaded",
    )
    parser.add_argument(
        "--to", type=folder, help='new folder, or that of a checkpoint to replace; for "all" of them all'
    )
    parser.add_argument(
        "--layout", "--arch", metavar="NAME", help="names of the file's tensors, such as torchvision-resnet50"
    )
    parser.add_argument(
        "--verify", action="store_true", help="say how far logits and features are from those of torch's own class"
    )
    parser.add_argument("--downloads", type=folder, help=f"folder for what is downloaded (default: {DOWNLOADS})")
    parser.add_argument("--classes", type=int, help="outputs of the file's head (default: 1000)")
    triple: dict[str, Any] = {"nargs": 3, "type": float, "metavar": ("R", "G", "B")}
    parser.add_argument("--mean", **triple, help="of pixels in 0..1 (default: config.json's, else ImageNet's)")
    parser.add_argument("--std", **triple, help="of pixels in 0..1 (default: config.json's, else ImageNet's)")
    parser.add_argument("--path", help="where the file keeps its tensors (default: the usual places are tried)")
    parser.add_argument("--rewrites", help="how the file's names become the layout's, as in the zoo's table")
    return parser


def run(what: str, given: dict[str, Any]) -> None:
    """Carries out a command; `given` holds the options that were given and no others."""
    from converters import command
    from oodjax import zoo

    if what in ("list", "all"):
        kind = what
    else:
        kind = "a checkpoint of the zoo" if what in {entry.id for entry in zoo.checkpoints()} else "a file"
    if ignored := [f"--{name}" for name in given if name not in TAKES[kind]]:
        takes = ", ".join(f"--{name}" for name in TAKES[kind]) or "no options"
        raise problem(what, f"{kind} takes {takes}, not {', '.join(ignored)}")
    if kind == "list":
        print(command.table())
    elif "to" not in given:
        raise problem(what, "--to is missing: the folder to write")
    elif kind == "all":
        _all(given)
    elif kind == "a file":
        _file(what, given)
    else:
        _zoo(zoo.get(what), given)


def _all(given: dict[str, Any]) -> None:
    from converters import command

    sources = given.get("from", ())
    if len(sources) != 1:
        raise problem("all", f"--from must name one folder, that of the downloaded files; got {len(sources)}")
    if given["to"].exists() and not given["to"].is_dir():
        raise problem(str(given["to"]), "is not a folder; name another with --to")
    failed = command.convert_all(sources[0], given["to"], "verify" in given, _say)
    if failed:
        raise problem("all", f"could not convert {', '.join(failed)}")


def _zoo(entry: Any, given: dict[str, Any]) -> None:
    from converters import command, fetch, files
    from oodjax.models.checkpoint import refuse_foreign

    sources, to, verify = given.get("from", ()), given["to"], "verify" in given
    refuse_foreign(to)
    if sources and "downloads" in given:
        raise problem(entry.id, "takes --from or --downloads, not both")
    if not sources:
        paths = fetch.fetch_checkpoint(entry, given.get("downloads", DOWNLOADS))
        command.convert_zoo(entry, paths, to, verify, _say)
    elif len(sources) == 1 and sources[0].is_dir():
        with files.find(entry, sources[0]) as paths:
            if not paths:
                names = f"{entry.id}.{entry.file_format}" + (f" and {entry.id}-head.pth" if entry.second_file else "")
                raise problem(entry.id, f"{sources[0]} holds no {names}; published at {entry.url}")
            command.convert_zoo(entry, paths, to, verify, _say)
    else:
        command.convert_zoo(entry, sources, to, verify, _say)


def _file(what: str, given: dict[str, Any]) -> None:
    from converters import command
    from converters.convert import MOST_CLASSES
    from converters.facts import settle
    from converters.rules import LAYOUTS, find_layout
    from oodjax import zoo
    from oodjax.models.checkpoint import refuse_foreign

    if "layout" not in given:
        if Path(what).exists() or "/" in what:
            raise problem(what, f"--layout is missing, the names of its tensors: {', '.join(LAYOUTS)}")
        ids = ", ".join(entry.id for entry in zoo.checkpoints())
        raise problem(what, f"is no checkpoint of the zoo ({ids}); for another file say --layout")
    find_layout(given["layout"])
    refuse_foreign(given["to"])
    if not 1 <= given.get("classes", 1) <= MOST_CLASSES:
        raise problem(f"--classes {given['classes']}", f"must lie in 1..{MOST_CLASSES}")
    triples = {name: tuple(given[name]) for name in ("mean", "std") if name in given}
    settle(None, **triples)
    envelope = command.envelope(given.get("path"), given.get("rewrites"))
    path, settings = command.resolve(what, given.get("downloads", DOWNLOADS))
    command.convert_file(
        path,
        given["layout"],
        given["to"],
        "verify" in given,
        _say,
        envelope=envelope,
        num_classes=given.get("classes", 1000),
        settings=settings,
        **triples,
    )


def _say(line: str) -> None:
    print(one_line(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line on what is wrong."""
    command = parser()

    def prepare() -> dict[str, Any]:
        given = vars(command.parse_args(arguments))
        from converters import command as _command  # noqa: F401

        return given

    def work(given: dict[str, Any]) -> int:
        try:
            run(given.pop("what"), given)
            return 0
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            message = error.summary() if isinstance(error, ConversionError) else str(error)
            print(f"{command.name}: {one_line(message)}", file=sys.stderr)
            return 2

    return execute(command, prepare, work, "nothing half-written is left")


if __name__ == "__main__":
    sys.exit(main())
