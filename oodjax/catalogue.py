"""python -m oodjax.catalogue (`oodjax list`): the detectors, models and presets that there are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from oodjax.command_line import Parser, UsageError, add_plugins, execute

Rows = list[dict[str, Any]]


def parser() -> Parser:
    parser = Parser(prog="python -m oodjax.catalogue", description="Lists what there is, with a line each.")
    parser.add_argument("what", choices=tuple(LISTS), help="what to list")
    parser.add_argument("--json", action="store_true", help="as JSON, a list of objects")
    add_plugins(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> tuple[str, Rows, bool]:
        options = command.parse_args(arguments)
        try:
            from oodjax import plugins

            plugins.load(vars(options).get("plugin", ()))
        except UsageError as error:
            command.error(str(error))
        return options.what, LISTS[options.what](), options.json

    def work(found: tuple[str, Rows, bool]) -> int:
        what, rows, as_json = found
        if as_json:
            print(json.dumps(rows, indent=2))
        else:
            _print_table(what, rows)
        return 0

    return execute(command, prepare, work)


def detectors() -> Rows:
    """Every registered detector: what it is, what it reads and what that costs, its options and their grid."""
    from oodjax import detectors
    from oodjax.detectors import METHODS
    from oodjax.report.glossary import explain

    return [
        {
            "name": name,
            "family": method.family,
            "title": explain(name, method.score.__doc__),
            "reads": list(method.needs),
            "cost": cost(method),
            "options": _json(method.options),
            "grid": {option: _distinct(option, method.grid) for option in _searched(method.grid)},
            "points": len(method.grid),
        }
        for name, method in ((name, METHODS[name]) for name in detectors.names())
    ]


def cost(method: Any) -> str:
    """The class of what a method takes beside the one forward pass of each image that is scored."""
    if "odin" in method.needs:
        return "gradients: passes of its own for each image"
    parts = ["maps of the layers"] if {"gram", "layer_means"} & set(method.needs) else []
    if "features" in method.reads:
        parts.append("training features")
    elif method.reads:
        parts.append("training sums")
    if method.reads_validation:
        parts.append("labelled validation images")
    return ", ".join(parts) or "nothing"


def models() -> Rows:
    """The zoo's checkpoints, and the architectures that the converters take any file of."""
    from oodjax import zoo
    from oodjax.zoo.reader import ARCHITECTURES

    own: Rows = [
        {"name": name, "kind": "architecture", "arch": name, "category": None, "accuracy": None, "licence": None}
        for name in ARCHITECTURES
    ]
    return own + [
        {
            "name": entry.id,
            "kind": "checkpoint",
            "arch": entry.arch,
            "category": entry.category,
            "accuracy": entry.accuracy,
            "licence": entry.licence,
        }
        for entry in zoo.checkpoints()
    ]


def presets() -> Rows:
    """The ready-made studies, and the options that each takes beside those of all."""
    from oodjax import presets

    docs = {name: import_module(f"oodjax.presets.{name}").__doc__ for name in presets.NAMES}
    docs |= {name: preset.make.__doc__ for name, preset in presets.OWN.items()}
    return [
        {
            "name": name,
            "title": (doc or "").strip().split("\n")[0],
            "options": [f"--{field.replace('_', '-')}" for field in presets.find(name).takes],
        }
        for name, doc in docs.items()
    ]


LISTS: dict[str, Callable[[], Rows]] = {"detectors": detectors, "models": models, "presets": presets}


def _searched(grid: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(option for point in grid for option in point))


def _distinct(option: str, grid: Sequence[Mapping[str, Any]]) -> list[Any]:
    return list(dict.fromkeys(_json(point[option]) for point in grid if option in point))


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(inner) for key, inner in value.items()}
    return [_json(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def _print_table(what: str, rows: Rows) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(title=what, box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")
    columns = [name for name in rows[0] if name != "points"]
    for name in columns:
        table.add_column(name, no_wrap=name in ("name", "family", "arch", "kind"), overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[name]) for name in columns))
    width = None if sys.stdout.isatty() else 200  # a pipe has no width to fit into
    Console(width=width, markup=False, highlight=False).print(table)


def _text(value: Any) -> str:
    """A cell: a mapping as its options, each with one value or several."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
