"""Markdown pages as programs: their Python blocks in order, and what each is said to print."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

DOCS = Path(__file__).parents[1] / "docs"
TOLERANCE = 0.25  # of numbers shown in percent to a digit: another machine sums in another order
_BLOCK = re.compile(
    r"(?:<!-- within (?P<within>[\d.]+) -->\n)?^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$", re.S | re.M
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Block(NamedTuple):
    """A fenced block: its language, text and line in the page, and how far numbers may lie from those shown."""

    kind: str
    text: str
    line: int
    within: float


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Block(m["kind"], m["text"], text.count("\n", 0, m.start("text")) + 1, float(m["within"] or TOLERANCE))
        for m in _BLOCK.finditer(text)
    ]


def run(page: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Runs a page's Python blocks in order in one namespace; a text block after one is what it prints.

    Raises:
      AssertionError: something else is printed, with the page's line.
    """
    names = {"__name__": "__main__", **(names or {})}
    listed = blocks(page)
    for block, after in zip(listed, [*listed[1:], Block("", "", 0, 0.0)], strict=True):
        if block.kind != "python":
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed, as_users_have_it():
            # Blank lines before it make a traceback's line that of the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(DOCS / page), "exec"), names)
        if after.kind == "text":
            check(printed.getvalue(), after.text, after.within, f"{page}, line {after.line}")
    return names


def commands(text: str) -> list[list[str]]:
    """The words of each command line of the project in a text's plain blocks, what comes after `>` or `&&` left out."""
    plain = [m["text"] for m in _BLOCK.finditer(text) if m["kind"] not in ("python", "text", "toml")]
    plain += re.findall(r"(?:^    .*\n)+", re.sub(_BLOCK, "", text), re.M)  # indented code
    found = []
    for line in "\n".join(plain).replace("\\\n", " ").splitlines():
        called = re.match(r"\s*(?:srun )?(?:python -m ((?:oodjax|converters)[\w.]*)|oodjax)(?P<rest>(?: [^>]*)?)", line)
        if called is not None:
            words = shlex.split(called["rest"].replace('"', ""), comments=True)
            found.append([called[1] or "oodjax", *words])
    return found


@contextlib.contextmanager
def as_users_have_it() -> Iterator[None]:
    """JAX's own promotion of types and ranks, which the tests otherwise forbid."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def check(printed: str, shown: str, within: float, where: str) -> None:
    """Raises unless what was printed is what is shown, numbers up to a tolerance and runs of spaces aside."""
    words, wanted = (" ".join(_NUMBER.sub("#", text).split()) for text in (printed, shown))
    assert words == wanted, f"{where}: printed {printed!r}"
    numbers, expected = (np.array(_NUMBER.findall(text), float) for text in (printed, shown))
    np.testing.assert_allclose(numbers, expected, rtol=0, atol=within, err_msg=f"{where}: printed {printed!r}")
