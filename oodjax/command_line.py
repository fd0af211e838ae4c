"""What the command lines share: bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line. Options are spelt out in full."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog.removeprefix('python -m ')}: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(2)


def split_names(given: Sequence[str]) -> list[str]:
    """Names separated by spaces or commas, or both."""
    return [name for text in given for name in text.split(",") if name]
