"""Templates, style and scripts put together to one page that needs no other file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from oodjax.report.explain import explained
from oodjax.report.reading import visible

SCRIPTS = ("sort", "hover", "heat", "highlight", "filter")
_TIED = re.compile(r"(\S) ([=<]) (?=\S)")


def render(name: str, **content: Any) -> str:
    """The page made of a template below `templates`, with the style and all scripts inside it."""
    scripts = "\n".join(asset(f"scripts/{script}.js") for script in SCRIPTS)
    return _environment().get_template(name).render(**content, style=asset("style.css"), script=scripts)


def tie(text: str) -> str:
    """No line break within `p < 0.001` and its like."""
    return _TIED.sub("\\1\u00a0\\2\u00a0", text).replace(" %", "\u00a0%")


@cache
def asset(name: str) -> str:
    """A file of this package's."""
    return (resources.files("oodjax.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: asset(f"templates/{name}")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_safe,
    )
    environment.filters |= {"tie": tie, "explained": _explained}
    return environment


def _explained(text: str, detectors: Iterable[str] = ()) -> Markup:
    return explained(tie(text), detectors)


def _safe(value: Any) -> Any:
    return visible(value) if type(value) is str else value  # markup is our own
