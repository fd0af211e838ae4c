"""python -m oodjax.report: the page of a results folder, from its tables alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from oodjax.command_line import Parser, split_names


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.report",
        description="Writes index.html, figures (SVG, PNG) and tables (CSV) of a folder of results.csv and models.csv.",
    )
    parser.add_argument("folder", type=Path, help="the results folder")
    parser.add_argument("--out", type=Path, default=argparse.SUPPRESS, help="where to write (default: FOLDER/report)")
    parser.add_argument(
        "--baseline", default=argparse.SUPPRESS, help="the model to compare with (default: the one named baseline)"
    )
    parser.add_argument(
        "--detectors", nargs="+", default=argparse.SUPPRESS, metavar="NAME",
        help="detectors to draw ROC curves and score histograms of (default: the one with the best mean rank)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    from oodjax.report.data import ReportError
    from oodjax.report.page import write

    command = parser()
    options = vars(command.parse_args(arguments))
    options["detectors"] = split_names(options.get("detectors", ()))
    try:
        page = write(**options)
    except ReportError as error:
        command.error(str(error))
    except OSError as error:
        command.error(f"cannot write the report: {error}")
    print(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
