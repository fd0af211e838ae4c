"""Parsed Python source: its normal form, the names that a module binds, and where imports lead."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

_STANDARD = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_OWN = {__name__.partition(".")[0], "__main__"}
_BLOCKS = ("body", "orelse", "finalbody")


@cache
def parse(source: str) -> ast.Module:
    """The syntax tree without strings that stand alone: docstrings, and the like under attributes."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if isinstance(block, list):
                kept = [s for s in block if not _is_text(s)]
                setattr(node, name, kept if kept or not block or isinstance(node, ast.Module) else [ast.Pass()])
    return tree


def _is_text(statement: ast.stmt) -> bool:
    alone = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(alone, ast.Constant) and isinstance(alone.value, str)


def form(node: Any) -> str:
    """A tree as text; unlike `ast.dump`'s, it does not change with the version of Python where the code does not."""
    if isinstance(node, ast.AST):
        fields = [f"{k}={form(v)}" for k, v in ast.iter_fields(node) if v is not None and v != [] and k != "kind"]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(form(item) for item in node)}]"
    return repr(node)


def count_as_own(name: str) -> None:
    """From here on a module's package is its author's own code, also where it is installed as libraries are."""
    _OWN.add(name.partition(".")[0])


def is_own(name: str) -> bool:
    """Whether a module belongs to this package or is someone's own file, rather than an installed library's."""
    return name.partition(".")[0] in _OWN or _is_file_of_ones_own(name)


@cache
def _is_file_of_ones_own(name: str) -> bool:
    path = _origin(name)
    if path is None or _INSTALLED & set(path.parts):
        return False
    return not any(folder in path.parents for folder in _STANDARD)


@dataclass(frozen=True)
class Module:
    """A module's tree, and the values of its names where it runs."""

    name: str
    tree: ast.Module
    values: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def bindings(self) -> dict[str, list[ast.stmt]]:
        """The top-level statements that bind or change each name."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in set(_bound(statement)):
                found.setdefault(name, []).append(statement)
        return found

    def binding(self, name: str) -> list[ast.stmt]:
        """The statements behind a name; imports of everything come last, as a name's own statement hides them."""
        stars = self.bindings.get("*", [])
        return self.bindings.get(name) or [s for s in stars if any(True for _ in self.imported(s, name))]

    def references(self, node: ast.AST) -> set[tuple[str, ...]]:
        """The dotted names that stand below a node."""
        visitor = _References()
        visitor.visit(node)
        return visitor.found

    def imported(self, statement: ast.stmt, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(module, names in it) that the imports in a statement bind to `name`."""
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname == name:
                        yield alias.name, ()
                    elif alias.asname is None and alias.name.partition(".")[0] == name:
                        yield name, ()
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name == "*" and self._exports(node, name):
                        yield self._base(node), (name,)
                    elif (alias.asname or alias.name) == name:
                        yield self._base(node), (alias.name,)

    def _base(self, node: ast.ImportFrom) -> str:
        package = self.name if _is_package(self.name) else self.name.rpartition(".")[0]
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)

    def _exports(self, node: ast.ImportFrom, name: str) -> bool:
        module = module_named(self._base(node))
        return module is not None and name in module.bindings


def module_named(name: str) -> Module | None:
    """The module of that name, read but not run; None where there is no Python source."""
    path = _origin(name)
    if path is None or path.suffix != ".py":
        return None
    with tokenize.open(path) as file:
        return Module(name, parse(file.read()))


def _origin(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _is_package(name: str) -> bool:
    path = _origin(name)
    return path is not None and path.name == "__init__.py"


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module binds, or whose items or attributes it sets."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from _root(node)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        if isinstance(statement.value.func, ast.Attribute):  # TABLE.update(...)
            yield from _root(statement.value.func)


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


class _References(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: set[tuple[str, ...]] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.found.add((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.found.add((inner.id, *reversed(names)))
        else:
            self.visit(inner)
