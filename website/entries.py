"""An extension of griffe: docstrings may describe several arguments or attributes at once, `mean, std: ...`."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(Args|Attributes):$")
_SHARED = re.compile(r"( +)(\w+(?:, \w+)+): (.+)$")


class SharedEntries(griffe.Extension):
    """Gives each of several names an entry of its own."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = split(obj.docstring.value)


def split(doc: str) -> str:
    """The first of several names keeps the text, the others refer to it."""
    lines: list[str] = []
    waiting: list[str] = []
    inside, depth = False, 0
    for line in doc.splitlines():
        indent = len(line) - len(line.lstrip())
        if indent <= depth or not line.strip():  # a continuation stands deeper than its entry
            lines += waiting
            waiting = []
        if indent == 0 and line.strip():
            inside, depth = _SECTION.match(line) is not None, 0
        shared = _SHARED.match(line) if inside and (depth == 0 or indent == depth) else None
        depth = depth or indent if inside else 0
        if shared is None:
            lines.append(line)
            continue
        first, *others = shared[2].split(", ")
        lines.append(f"{shared[1]}{first}: {shared[3]}")
        waiting = [f"{shared[1]}{name}: see `{first}`." for name in others]
    return "\n".join([*lines, *waiting])
