"""What goes wrong with a file: every problem of it in one error, in words that are safe to print."""

from __future__ import annotations

SHOWN = 3
LONGEST_SENTENCE = 1500  # characters; that with the zoo's ids has some 1,000
LONGEST = 240  # characters of a detail: two names of an architecture and what they fill have up to 180


class ConversionError(ValueError):
    """A file that cannot be converted. Nothing was written.

    Attributes:
      what: the file or architecture in question.
      problems: everything that is wrong, as (kind, detail).
    """

    def __init__(self, what: str, problems: list[tuple[str, str]]):
        self.what = escaped(what)
        self.problems = [(_sentence(kind), shown(detail)) for kind, detail in problems]
        super().__init__(f"{self.what}: " + "; ".join(" ".join(problem).strip() for problem in self.problems))

    def summary(self) -> str:
        """The problems in one line that fits a terminal: the first few of each kind and how many more there are."""
        kinds: dict[str, list[str]] = {}
        for kind, detail in self.problems:
            kinds.setdefault(kind, []).append(detail)
        parts = []
        for kind, details in kinds.items():
            more = f" and {len(details) - SHOWN} more" if len(details) > SHOWN else ""
            parts.append(f"{kind} {', '.join(details[:SHOWN])}{more}".strip())
        return f"{self.what}: {'; '.join(parts)}"


def problem(what: str, text: str) -> ConversionError:
    """An error with a single problem."""
    return ConversionError(what, [(text, "")])


def _sentence(text: str) -> str:
    """A sentence that may quote a value out of a file: escaped, and without the middle of an endless one."""
    return escaped(text if len(text) <= LONGEST_SENTENCE else f"{text[:LONGEST_SENTENCE]} ... {text[-LONGEST:]}")


def escaped(text: str) -> str:
    """`text` with everything that a terminal would not print as a character written as an escape, on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(name: object) -> str:
    """A name out of a file, as it may be printed: escaped, and cut where it is longer than any honest one."""
    text = str(name) if isinstance(name, str) else type(name).__name__
    return escaped(text) if len(text) <= LONGEST else f"{escaped(text[:LONGEST])}... ({len(text)} characters)"
