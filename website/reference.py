"""The API reference: every public name of the package and of its public modules, by its docstring."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

# Pages in reading order: title, what they hold, and names or whole modules.
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "outputs": (
        "Outputs of a network",
        "What a forward pass leaves behind, and how to get it from any model.",
        ("oodjax.Outputs", "oodjax.Head", "oodjax.Network", "oodjax.extract", "oodjax.summarize", "oodjax.odin_scores"),
    ),
    "detectors": (
        "Detectors",
        "Fit them to training statistics, score, calibrate; register your own.",
        ("oodjax.TrainStatistics", "oodjax.detectors"),
    ),
    "monitor": (
        "Monitors",
        "A network and a calibrated detector, judged, kept and exported as one.",
        ("oodjax.Monitor", "oodjax.Verdict", "oodjax.save", "oodjax.load", "oodjax.export"),
    ),
    "metrics": ("Metrics", "Figures of merit, exact with ties.", ("oodjax.metrics",)),
    "analysis": ("Analysis", "Statistics of a results table.", ("oodjax.analysis",)),
    "testing": ("Testing", "The laws that every detector keeps, checked for your own.", ("oodjax.testing",)),
    "zoo": ("Checkpoints", "The study's checkpoints, and how to load a converted one.", ("oodjax.zoo",)),
    "data": ("Image sets", "Where images come from, and how they are read.", ("oodjax.data",)),
    "models": ("Architectures", "The networks of the study.", ("oodjax.models",)),
    "training": ("Training", "The recipes of the study.", ("oodjax.training",)),
    "presets": (
        "Studies",
        "Ready-made studies, and how to add your own.",
        ("oodjax.presets.register", "oodjax.presets.Options", "oodjax.study.Study", "oodjax.plugins.load"),
    ),
    "report": (
        "Report",
        "Results as a page.",
        ("oodjax.report.write", "oodjax.report.figure", "oodjax.report.Picture", "oodjax.report.ReportError"),
    ),
}


def public(module: ModuleType) -> list[str]:
    """A module's public names: `__all__`; else what a package takes in by name, and what a module defines itself."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
    homes = f"{module.__name__}." if hasattr(module, "__path__") else module.__name__
    given = [n for n in dir(module) if not n.startswith("_") and str(_home(module, n)).startswith(homes)]
    return [n for n in given if not isinstance(getattr(module, n), (ModuleType, TypeVar))]


def names() -> dict[str, list[str]]:
    """Page -> the public names on it, in full."""
    found: dict[str, list[str]] = {}
    for page, (_, _, entries) in PAGES.items():
        found[page] = []
        for entry in entries:
            value = pkgutil.resolve_name(entry)
            inside = [f"{entry}.{n}" for n in public(value)] if isinstance(value, ModuleType) else [entry]
            found[page] += inside
    return found


def pages() -> dict[str, str]:
    """Path -> Markdown of each page, and of their list."""
    listed = names()
    texts = {f"reference/{page}.md": _page(*PAGES[page][:2], listed[page]) for page in PAGES}
    lines = [f"- [{title}]({page}.md): {what} {_few(listed[page])}" for page, (title, what, _) in PAGES.items()]
    return texts | {"reference/index.md": "# Reference\n\nEvery public name.\n\n" + "\n".join(lines) + "\n"}


def navigation() -> list[str | dict[str, str]]:
    return ["reference/index.md", *({title: f"reference/{page}.md"} for page, (title, _, _) in PAGES.items())]


def _page(title: str, what: str, listed: list[str]) -> str:
    return f"# {title}\n\n{what}\n\n" + "\n\n".join(map(_entry, listed)) + "\n"


def _entry(name: str) -> str:
    """A name under its public path, wherever it is defined; of a constant, what it holds."""
    module, _, short = name.rpartition(".")
    value = getattr(importlib.import_module(module), short)
    home = _home(importlib.import_module(module), short)
    if home is None:
        held = ", ".join(f"`{item}`" for item in value)
        return f"## {name} {{ #{name} }}\n\n{held}"
    shown = f"    options:\n      heading: {name}\n      toc_label: {short}"
    return f"[](){{ #{name} }}\n::: {home}.{value.__qualname__}\n{shown}"


def _home(module: ModuleType, name: str) -> str | None:
    """The module that a function or class is defined in; None for a constant."""
    value = getattr(module, name)
    return value.__module__ if hasattr(value, "__qualname__") else None


def _few(listed: list[str]) -> str:
    short = [f"`{name.rpartition('.')[2]}`" for name in listed]
    return ", ".join(short[:6]) + (", ..." if len(short) > 6 else "")
