"""Fingerprints of code: what it does, not how it is worded or laid out."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from oodjax.syntax import Module, form, is_own, module_named, parse

PACKAGE = Path(__file__).parent
_PLAIN = (type(None), bool, int, float, complex, str, bytes, PurePath, np.dtype, type(...))


@functools.cache
def package_code(*parts: str) -> str:
    """sha256 of the package's own parsed source under `parts`, such as "training" or "models/resnet.py".

    Comments, docstrings and layout do not enter. A folder stands for every Python file below it.
    """
    if not parts:
        raise ValueError("package_code takes one or more files or folders of the package, got none")
    files: set[Path] = set()
    for part in parts:
        path = PACKAGE / part
        if not path.exists():
            raise FileNotFoundError(f"no source {part!r} in the package")
        files |= set(path.rglob("*.py")) if path.is_dir() else {path}
    named = {path.relative_to(PACKAGE).as_posix(): form(parse(path.read_text(encoding="utf-8"))) for path in files}
    return _sha256(*(text for name in sorted(named) for text in (name, named[name])))


def source_fingerprint(thing: Any) -> str:
    """sha256 of everything that decides what a callable or a module does, as far as its author's own code goes.

    For a function or class: its parsed source without comments and docstrings, and that of all it refers to,
    however indirectly, in the same file, in the package, or in other code that is not installed as a library;
    what it closes over and, where it is not at the top of a file, its default arguments, by value. For a
    `functools.partial` or a callable object also its arguments or fields. Libraries count by name. A declared
    attribute `version` counts too, and is enough where there is no source.

    Raises:
      ValueError: the source, or a value that decides the result, cannot be read and no `version` is declared.
    """
    collector = _Collector()
    try:
        described = collector.describe(thing)
    except _Unreadable as error:
        raise ValueError(
            f"{_name(thing)} has no fingerprint: {error}; a change of it would go unnoticed. Define it in a file, or "
            "give it an attribute `version`, such as 1, and raise it with every change"
        ) from None
    return _sha256(described, *sorted(collector.pieces))


def _is_jax(value: Any) -> bool:
    """Whether it is an array of JAX, which is imported where there are such arrays, and need not be elsewhere."""
    return "jax" in sys.modules and isinstance(value, sys.modules["jax"].Array)


class _Unreadable(Exception):
    """Why something cannot be described."""


class _Collector:
    """Describes values by text; the source they refer to is gathered in `pieces`, the same wherever it stands."""

    def __init__(self) -> None:
        self.pieces: set[str] = set()
        self._visited: set[tuple[str, str]] = set()
        self._active: list[Any] = []

    def describe(self, value: Any) -> str:
        if any(value is other for other in self._active):
            return f"itself {_name(value)}"
        self._active.append(value)
        try:
            version, before = _version(value), (set(self.pieces), set(self._visited))
            try:
                described = self._described(value)
            except _Unreadable:
                if version is None:
                    raise
                described = _name(value)
                self.pieces, self._visited = before  # what was found up to there depends on the order of a set
            return described if version is None else f"{described} version {version!r}"
        finally:
            self._active.pop()

    def _described(self, value: Any) -> str:
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, np.ndarray | np.generic) or _is_jax(value):
            array = np.asarray(value)
            if array.dtype.hasobject:
                return self.describe(array.tolist())
            return f"array {array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        if isinstance(value, dict):
            return f"dict {sorted(f'{self.describe(key)}: {self.describe(item)}' for key, item in value.items())}"
        if isinstance(value, list | tuple):
            return f"{type(value).__name__} {[self.describe(item) for item in value]}"
        if isinstance(value, set | frozenset):
            return f"set {sorted(self.describe(item) for item in value)}"
        if isinstance(value, ModuleType):
            if is_own(value.__name__) or len(self._active) == 1:
                self._whole(value.__name__)
            return f"module {value.__name__}"
        if isinstance(value, functools.partial):
            return f"partial {self.describe((value.func, value.args, value.keywords))}"
        if isinstance(value, MethodType):
            return f"{self.describe(value.__self__)}.{value.__func__.__name__}"
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, FunctionType) or hasattr(value, "__wrapped__"):
            return self._function(value)
        return self._object(value)

    def _object(self, value: Any) -> str:
        if dataclasses.is_dataclass(value):
            state = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        elif is_own(type(value).__module__) and hasattr(value, "__dict__"):
            state = vars(value)
        else:
            raise _Unreadable(f"{_name(value)} is no Python code, nor a number, text, array or collection of them")
        return f"{self._class(type(value))} {self.describe(state)}"

    def _class(self, cls: type) -> str:
        if not is_own(cls.__module__) and len(self._active) > 1:
            return f"{cls.__module__}.{cls.__qualname__}"
        lines, number = _source_of(cls)
        module = Module(cls.__module__, parse("".join(lines)))
        nodes = [n for n in ast.walk(module.tree) if isinstance(n, ast.ClassDef) and n.name == cls.__name__]
        node = _only((n for n in nodes if _first_line(n) == number + 1), cls)
        self._follow(module, node)
        members = [getattr(m, "__func__", m) for m in vars(cls).values()]
        written = [m for m in members if isinstance(m, FunctionType) and m.__code__.co_filename == inspect.getfile(cls)]
        cells = [self._closure(m) for m in written if m.__closure__]
        return f"class {form(node)} {cells}"

    def _function(self, outer: Any) -> str:
        function = inspect.unwrap(outer)
        if not isinstance(function, FunctionType):
            raise _Unreadable(f"{_name(outer)} is no Python code")
        if not is_own(_home(function)) and len(self._active) > 1:
            return f"{function.__module__}.{function.__qualname__} {self._closure(function)}"
        decorated, described = self._code(function)
        return described if decorated else f"{described} {self._wrappers(outer, function)}"

    def _code(self, function: FunctionType) -> tuple[bool, str]:
        """Whether decorators stand in its source, and what it does."""
        lines, _ = _source_of(function)
        module = Module(_home(function), parse("".join(lines)), function.__globals__)
        node = _locate(module.tree, function.__code__, function)
        self._follow(module, node)
        inner = any(mark in function.__code__.co_qualname for mark in ("<locals>", "<lambda>"))
        defaults = self.describe((function.__defaults__, function.__kwdefaults__)) if inner else ""
        described = f"function {form(node)} {self._closure(function)} {defaults}"
        return bool(getattr(node, "decorator_list", ())), described

    def _wrappers(self, outer: Any, function: FunctionType) -> list[str]:
        """What was put around a function without a decorator; jit and caches are no functions and change nothing."""
        found = []
        while outer is not function:
            if isinstance(outer, FunctionType):
                if not is_own(_home(outer)):
                    raise _Unreadable(f"{_home(outer).partition('.')[0]} wraps it, with arguments that cannot be read")
                found.append(self._code(outer)[1])
            outer = outer.__wrapped__
        return found

    def _closure(self, function: FunctionType) -> list[str]:
        found = []
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            if name != "__class__":
                found.append(f"{name}: {self.describe(value)}")
        return found

    def _follow(self, module: Module, node: ast.AST) -> None:
        """Gathers what a piece of a module refers to; a name bound elsewhere, as in a notebook, by its value."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                for alias in inner.names:
                    for target, rest in module.imported(inner, alias.asname or alias.name.partition(".")[0]):
                        self._enter(target, rest)
        for chain in module.references(node):
            if not self._resolve(module, chain) and chain[0] in module.values:
                self.pieces.add(f"{chain[0]}: {self.describe(module.values[chain[0]])}")

    def _resolve(self, module: Module, chain: tuple[str, ...]) -> bool:
        """Gathers the statements behind a dotted name; False where the module binds no such name."""
        name = chain[0]
        statements = module.binding(name)
        for statement in statements:
            plain = isinstance(statement, ast.Import | ast.ImportFrom)
            for target, rest in module.imported(statement, name):
                self._enter(target, (*rest, *chain[1:]))
            if not plain and (module.name, form(statement)) not in self._visited:
                self._visited.add((module.name, form(statement)))
                self.pieces.add(form(statement))
                self._follow(module, statement)
        return bool(statements)

    def _enter(self, name: str, chain: tuple[str, ...]) -> None:
        """Follows `chain` in another module."""
        module = module_named(name) if is_own(name) else None
        if module is None:
            self.pieces.add(f"library {'.'.join((name, *chain[:1]))}")
        elif not chain:
            self._whole(name)
        elif (name, ".".join(chain)) not in self._visited:
            self._visited.add((name, ".".join(chain)))
            if not self._resolve(module, chain):
                inner = f"{name}.{chain[0]}"
                self._enter(inner, chain[1:]) if module_named(inner) else self._whole(name)

    def _whole(self, name: str) -> None:
        module = module_named(name)
        if module is not None and (name, "") not in self._visited:
            self._visited.add((name, ""))
            self.pieces.add(form(module.tree))
            for statement in module.tree.body:
                if not isinstance(statement, ast.Import | ast.ImportFrom):
                    self._follow(module, statement)


def _home(function: FunctionType) -> str:
    """The module whose names a function sees; `functools.wraps` changes its `__module__`."""
    return str(function.__globals__.get("__name__", ""))


def _source_of(thing: Any) -> tuple[list[str], int]:
    try:
        return inspect.findsource(thing)
    except (OSError, TypeError, IndentationError):
        raise _Unreadable(f"the source of {_name(thing)} cannot be read") from None


def _locate(tree: ast.Module, code: CodeType, function: FunctionType) -> ast.AST:
    """The definition that a code object was compiled from."""
    if code.co_name != "<lambda>":
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        return _only((n for n in nodes if n.name == code.co_name and _first_line(n) == code.co_firstlineno), function)
    places = set(code.co_positions())
    lambdas = [n.body for n in ast.walk(tree) if isinstance(n, ast.Lambda)]
    return _only((n for n in lambdas if (n.lineno, n.end_lineno, n.col_offset, n.end_col_offset) in places), function)


def _only(nodes: Iterator[Any], thing: Any) -> Any:
    found = list(nodes)
    if len(found) != 1:
        raise _Unreadable(f"the source of {_name(thing)} is not in its file as it was when it was read")
    return found[0]


def _first_line(node: Any) -> int:
    return min(node.lineno, *(decorator.lineno for decorator in node.decorator_list), node.lineno)


def _version(value: Any) -> Any:
    declared = None if isinstance(value, ModuleType) else getattr(value, "version", None)
    return declared if isinstance(declared, str | int | float) else None


def _name(thing: Any) -> str:
    found = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return str(found) if isinstance(found, str) else f"a {type(thing).__name__}"


def _sha256(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
