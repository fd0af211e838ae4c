"""python -m oodjax.report: the page of a results folder, from its tables alone."""

from __future__ import annotations

from oodjax.signals import ending, handle

if __name__ == "__main__":
    handle(ending("oodjax.report"))  # before the other imports, which take their time

import argparse
from collections.abc import Sequence
from typing import Any

from oodjax.command_line import Parser, UsageError, add_plugins, execute, folder, names, split_names


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.report",
        description="Writes index.html, figures (SVG, PNG) and tables (CSV) of a folder of results.csv and models.csv.",
    )
    parser.add_argument("folder", type=folder, help="the results folder, or a CSV file of results")
    parser.add_argument(
        "--out",
        type=folder,
        default=argparse.SUPPRESS,
        help="where to write (default: FOLDER/report, or NAME-report beside NAME.csv)",
    )
    parser.add_argument(
        "--baseline",
        default=argparse.SUPPRESS,
        help="the model or recipe to compare with (default: the one named baseline)",
    )
    parser.add_argument(
        "--detectors",
        type=names,
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="detectors to draw ROC curves and score histograms of (default: the one with the best mean rank)",
    )
    parser.add_argument(
        "--models",
        type=folder,
        default=argparse.SUPPRESS,
        metavar="CSV",
        help="the table of models (default: models.csv in the folder, or columns of the results)",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="NAME=HEADING",
        help="what the tables call our columns, such as model=Model,detector=Method,auroc=AUROC",
    )
    parser.add_argument(
        "--unit",
        choices=("fraction", "percent"),
        default=argparse.SUPPRESS,
        help="of accuracies and figures of merit (default: as their size says)",
    )
    add_plugins(parser)
    return parser


def _given(command: Parser, options: dict[str, Any]) -> dict[str, Any]:
    """The options of `write`: where the tables are and how they name things is one of them."""
    from oodjax.analysis.columns import parse_columns
    from oodjax.report.given import Given

    try:
        columns = parse_columns(options.pop("columns", ()))
    except ValueError as error:
        command.error(f"argument --columns: {error}")
    given = Given(options.pop("folder"), options.pop("models", None), columns, options.pop("unit", None))
    return {**options, "folder": given}


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> dict[str, Any]:
        options = vars(command.parse_args(arguments))
        from oodjax.report import page  # noqa: F401

        given = options.pop("plugin", ())
        if given:
            from oodjax import plugins

            try:
                plugins.load(given)
            except UsageError as error:
                command.error(str(error))
        return {**_given(command, options), "detectors": split_names(options.get("detectors", ()))}

    def work(options: dict[str, Any]) -> int:
        from oodjax.report.page import write

        try:
            page = write(**options)
        except UsageError as error:
            command.error(str(error))
        except OSError as error:
            command.error(f"cannot make the report: {error.strerror or error}")
        print(page)
        return 0

    return execute(command, prepare, work)


if __name__ == "__main__":
    raise SystemExit(main())
