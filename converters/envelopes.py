"""Where a file keeps its tensors and what it calls them: the small language of the zoo's table, read and applied.

`state_dict_path`: empty for tensors at the top; `key` for those below a key; `a?|b?` tries in turn, then the top.
`key_rewrites`, applied in order, separated by ";":
  strip:P             removes the prefix P; at least one key must have it
  strip-if-present:P  the same, no key needs to have it
  drop-prefix:P       discards the keys that start with P
  drop:S              discards the keys that contain S
  rename:A=B          writes B for A: at the start of a key, or anywhere in it where A starts with a dot
  regex:A=B           the same at the start of a key; {N}, {S}, {B} stand for integers, equal in A and B
`second_file`: `URL [path; rewrites]`, laid over the first file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import ConversionError, problem, shown
from converters.programs import Placeholder

_NUMBER = re.compile(r"\{([A-Z])\}")
OPERATIONS = ("strip", "strip-if-present", "drop-prefix", "drop", "rename", "regex")


@dataclass(frozen=True)
class Rewrite:
    """One step of `key_rewrites`."""

    operation: str
    pattern: str
    replacement: str = ""

    def __call__(self, key: str) -> str | None:
        """The new key; None to discard it."""
        if self.operation in ("strip", "strip-if-present"):
            return key.removeprefix(self.pattern)
        if self.operation == "drop-prefix":
            return None if key.startswith(self.pattern) else key
        if self.operation == "drop":
            return None if self.pattern in key else key
        if self.operation == "regex":
            return _replace_numbered(key, self.pattern, self.replacement)
        if self.pattern.startswith("."):
            return key.replace(self.pattern, self.replacement)
        return self.replacement + key.removeprefix(self.pattern) if key.startswith(self.pattern) else key


def _replace_numbered(key: str, pattern: str, replacement: str) -> str:
    regex = re.sub(r"\\\{([A-Z])\\\}", r"(?P<\1>\\d+)", re.escape(pattern))
    found = re.match(regex, key)
    if not found:
        return key
    return _NUMBER.sub(lambda number: found[number[1]], replacement) + key[found.end() :]


@dataclass(frozen=True)
class Envelope:
    """How to find the wanted tensors in a file.

    Attributes:
      paths: keys under which they may sit, in the order to try them; none for the top.
      required: whether one of the paths must exist.
      rewrites: from the file's names to the architecture's.
    """

    paths: tuple[str, ...] = ()
    required: bool = False
    rewrites: tuple[Rewrite, ...] = ()

    @classmethod
    def parse(cls, path: str, rewrites: str) -> Envelope:
        """Reads `state_dict_path` and `key_rewrites`.

        Raises:
          ValueError: a step that is none of `OPERATIONS`.
        """
        choices = tuple(part.strip() for part in path.split("|") if part.strip())
        steps = tuple(_parse_step(step.strip()) for step in rewrites.split(";") if step.strip())
        return cls(tuple(c.removesuffix("?") for c in choices), any(not c.endswith("?") for c in choices), steps)

    def open(self, content: Any, what: str) -> dict[str, Any]:
        """The content of a file -> tensors under the architecture's names.

        Raises:
          ConversionError: no such path, no table of tensors below it, a prefix that no key has, two keys that become
            one, or a wanted entry that is not a plain tensor.
        """
        inside = self._inside(content, what)
        if not isinstance(inside, Mapping) or not inside:
            raise problem(what, _no_table(inside))
        if odd := [("not a name:", _kind(key)) for key in inside if not isinstance(key, str)]:
            raise ConversionError(what, odd)
        tensors = self.rename(inside, what)
        if bad := [("not a plain tensor:", f"{k} ({_kind(v)})") for k, v in tensors.items() if not is_plain(v)]:
            raise ConversionError(what, bad)
        return tensors

    def _inside(self, content: Any, what: str) -> Any:
        if not isinstance(content, Mapping):
            raise problem(what, _no_table(content))
        for path in self.paths:
            if path in content:
                return content[path]
        if self.required:
            keys = ", ".join(repr(shown(key)) for key in list(content)[:8])
            raise problem(what, f"no {' or '.join(map(repr, self.paths))} in the file; it holds {keys or 'nothing'}")
        return content

    def rename(self, tensors: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Applies the rewrites to the keys."""
        names = {key: key for key in tensors}
        problems = []
        for step in self.rewrites:
            if step.operation == "strip" and not any(name.startswith(step.pattern) for name in names.values()):
                problems.append(("no key starts with", repr(step.pattern)))
            changed = {key: step(name) for key, name in names.items()}
            names = {key: name for key, name in changed.items() if name is not None}
        problems += _collisions(names)
        if problems:
            raise ConversionError(what, problems)
        return {name: tensors[key] for key, name in names.items()}


def _collisions(names: Mapping[str, str]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    problems = []
    for key, name in names.items():
        if first.setdefault(name, key) != key:
            problems.append(("two keys become", f"{name} ({first[name]} and {key})"))
    return problems


def _parse_step(text: str) -> Rewrite:
    operation, _, rest = text.partition(":")
    pattern, equals, replacement = rest.partition("=")
    if operation not in OPERATIONS or not pattern or bool(equals) != (operation in ("rename", "regex")):
        raise ValueError(f"cannot read the rewrite {text!r}; there are: {', '.join(OPERATIONS)}")
    if operation == "regex":
        given, used = _NUMBER.findall(pattern), _NUMBER.findall(replacement)
        plain = not set("{}") & set(_NUMBER.sub("", pattern) + _NUMBER.sub("", replacement))
        if not plain or len(set(given)) < len(given) or not set(used) <= set(given):
            raise ValueError(
                f"cannot read the rewrite {text!r}: each {{N}} stands for one integer of A, and B has none of its own"
            )
    return Rewrite(operation, pattern, replacement)


def parse_second(text: str) -> tuple[str, Envelope]:
    """`URL [path; rewrites]` -> URL and envelope."""
    found = re.fullmatch(r"(\S+) \[([^;\]]*);?([^\]]*)\]", text.strip())
    if not found:
        raise ValueError(f"cannot read the second file {text!r}; expected: URL [path; rewrites]")
    return found[1], Envelope.parse(found[2].strip(), found[3])


def is_plain(value: Any) -> bool:
    """A NumPy array, which is what every reader of files gives for a dense tensor."""
    return type(value) is np.ndarray


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The second file's tensors over the first's."""
    return {**first, **second}


def _no_table(value: Any) -> str:
    if isinstance(value, Placeholder):
        save = "load it where its classes are and save its tensors: torch.save(model.state_dict(), PATH)"
        return f"holds a whole {shown(value.described)}, not a table of tensors; {save}"
    return f"expected a table of tensors, found {'an empty one' if isinstance(value, Mapping) else _kind(value)}"


def _kind(value: Any) -> str:
    return shown(value.described) if isinstance(value, Placeholder) else type(value).__name__
