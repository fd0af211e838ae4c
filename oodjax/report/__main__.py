"""python -m oodjax.report: the page of a results folder, from its tables alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(message)


def _fail(message: str) -> NoReturn:
    """One line on stderr and exit code 2."""
    print(f"oodjax.report: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m oodjax.report",
        description="Writes index.html, figures (SVG, PNG) and tables (CSV) of a folder of results.csv and models.csv.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="the results folder")
    parser.add_argument("--out", type=Path, default=None, help="where to write; by default FOLDER/report")
    parser.add_argument("--baseline", default=None, help="the model to compare with; by default the one named baseline")
    parser.add_argument(
        "--detectors", nargs="+", default=[], metavar="NAME",
        help="detectors to draw ROC curves and score histograms of; by default the one with the best mean rank",
    )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    from oodjax.report.data import ReportError
    from oodjax.report.page import write

    detectors = [name for text in options.detectors for name in text.split(",") if name]
    try:
        page = write(options.folder, out=options.out, detectors=detectors, baseline=options.baseline)
    except ReportError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot write the report: {error}")
    print(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
