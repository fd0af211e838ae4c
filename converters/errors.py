"""What goes wrong with a file: every problem of it in one error."""

from __future__ import annotations

SHOWN = 3


class ConversionError(ValueError):
    """A file that cannot be converted. Nothing was written.

    Attributes:
      what: the file or architecture in question.
      problems: everything that is wrong, as (kind, detail).
    """

    def __init__(self, what: str, problems: list[tuple[str, str]]):
        self.what = what
        self.problems = problems
        super().__init__(f"{what}: " + "; ".join(" ".join(problem).strip() for problem in problems))

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
