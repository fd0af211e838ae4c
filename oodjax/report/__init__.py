"""A study's results as a page: verdicts, figures and tables in one folder that opens from the disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oodjax.report.data import ReportError as ReportError
    from oodjax.report.notebook import Picture as Picture
    from oodjax.report.notebook import figure as figure
    from oodjax.report.page import write as write

_HOMES = {
    "Picture": "oodjax.report.notebook",
    "ReportError": "oodjax.report.data",
    "figure": "oodjax.report.notebook",
    "write": "oodjax.report.page",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that the command line answers signals before its long imports."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'oodjax.report' has no attribute {name!r}; it has: {', '.join(_HOMES)}")
