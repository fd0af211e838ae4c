"""Reads a pickle as data: its operations build plain containers, and what would be called is only named.

Nothing of the file is imported or run. Time and memory are bounded by the number of operations: no name is hashed but
scalars, no container is copied without being counted, and the memo is a table, not an array as long as its last index.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

from converters.errors import shown

OPERATIONS = 2_000_000  # a checkpoint with its optimizer has some 100,000
SCALARS = (str, bytes, int, float, bool, type(None))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED = ("PROTO", "FRAME")
_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)


class ProgramError(Exception):
    """A pickle that is damaged, or of operations that no writer of weights uses."""


class Placeholder:
    """Stands for an object that was not built."""

    __slots__ = ("described",)

    def __init__(self, described: str = "an object") -> None:
        self.described = described


class Global(NamedTuple):
    """A name that the pickle imports: "module name"."""

    name: str


Builder = Callable[[tuple[Any, ...]], Any]


class Program:
    """What one pickle describes.

    Args:
      builders: what stands for the calls that are known, by "module name"; anything else becomes a placeholder.
      persistent: persistent id -> value.
      budget: operations, and entries copied, that the program may take.

    Attributes:
      replaced: names of the objects that were not built.
    """

    def __init__(
        self, builders: Mapping[str, Builder], persistent: Callable[[Any], Any], budget: int = OPERATIONS
    ) -> None:
        self.builders, self.persistent, self.budget = builders, persistent, budget
        self.replaced: set[str] = set()
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        """The value of the pickle that starts here in `stream`, which is left behind its end.

        Raises:
          ProgramError: damaged, unknown operations, or too many of them.
        """
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self._spend(1)
                self._step(opcode.name, argument)
            return self._stack.pop()
        except ProgramError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise ProgramError(f"its pickle is damaged: {type(error).__name__} {shown(str(error))}") from error

    def _spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise ProgramError("its pickle has more operations than any file of weights")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._push(argument)
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in _IGNORED and name != "STOP":
            raise ProgramError(f"its pickle has the operation {name}, which no file of weights has")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ProgramError("its pickle takes more values than there are")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target += items
        elif not isinstance(target, Placeholder):
            raise ProgramError(f"its pickle appends to {type(target).__name__}")

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is dict:
            put(target, items[::2], items[1::2])
        elif not isinstance(target, Placeholder):
            raise ProgramError(f"its pickle sets items of {type(target).__name__}")

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self._push(put({}, items[::2], items[1::2]))

    def _call(self, function: Any, arguments: Any) -> None:
        name = function.name if isinstance(function, Global) else ""
        if name in self.builders and type(arguments) is tuple:
            self._spend(sum(len(a) for a in arguments if isinstance(a, list | tuple | dict)))
            self._push(self.builders[name](arguments))
        elif isinstance(function, Global):
            self.replaced.add(name.replace(" ", "."))
            self._push(Placeholder(f"object of {name.replace(' ', '.')}"))
        elif isinstance(function, Placeholder):
            self._push(function)
        else:
            raise ProgramError(f"its pickle calls {type(function).__name__}")

    def _new(self, count: int) -> None:
        function, arguments = self._last(count)[:2]
        self._call(function, arguments)

    def _object(self, _: Any) -> None:
        function, *arguments = self._marked()
        self._call(function, tuple(arguments))

    def _build(self, _: Any) -> None:
        self._last(1)
        if isinstance(self._stack[-1], Global):
            raise ProgramError(f"its pickle changes {self._stack[-1].name}")

    def _global(self, _: Any) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ProgramError("its pickle imports what is no name")
        self._push(Global(f"{module} {name}"))


def put(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """Sets items; a placeholder stands for a key that may be slow to hash: nested tuples, numbers chosen to collide."""
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, SCALARS) or (isinstance(key, int) and abs(key) >= 2**63):
            key = key if isinstance(key, Placeholder) else Placeholder(type(key).__name__)
        target[key] = value
    return target


def _tuple_of(count: int) -> Callable[[Program, Any], None]:
    return lambda p, _: p._push(tuple(p._last(count)))


def _memo_set(p: Program, index: int | None) -> None:
    if index is not None and not 0 <= index < 2**32:
        raise ProgramError("its pickle keeps a value under an impossible number")
    p._memo[len(p._memo) if index is None else index] = p._stack[-1]


def _memo_get(p: Program, index: int) -> None:
    p._push(p._memo[index])


_OPERATIONS: dict[str, Callable[[Program, Any], None]] = {
    "MARK": Program._mark,
    "POP": Program._pop,
    "POP_MARK": Program._pop_mark,
    "DUP": lambda p, _: p._push(p._stack[-1]),
    "EMPTY_LIST": lambda p, _: p._push([]),
    "EMPTY_SET": lambda p, _: p._push([]),  # a list, whose items need not be hashed
    "EMPTY_DICT": lambda p, _: p._push({}),
    "LIST": lambda p, _: p._push(p._marked()),
    "FROZENSET": lambda p, _: p._push(p._marked()),
    "TUPLE": lambda p, _: p._push(tuple(p._marked())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": Program._dict,
    "APPEND": lambda p, _: p._append(p._last(1)),
    "APPENDS": lambda p, _: p._append(p._marked()),
    "ADDITEMS": lambda p, _: p._append(p._marked()),
    "SETITEM": lambda p, _: p._set(p._last(2)),
    "SETITEMS": lambda p, _: p._set(p._marked()),
    "GLOBAL": lambda p, name: p._push(Global(name)),
    "STACK_GLOBAL": Program._global,
    "INST": lambda p, name: p._call(Global(name), tuple(p._marked())),
    "OBJ": Program._object,
    "NEWOBJ": lambda p, _: p._new(2),
    "NEWOBJ_EX": lambda p, _: p._new(3),
    "REDUCE": lambda p, _: p._new(2),
    "BUILD": Program._build,
    "PERSID": lambda p, identity: p._push(p.persistent(identity)),
    "BINPERSID": lambda p, _: p._push(p.persistent(p._last(1)[0])),
    "MEMOIZE": _memo_set,
    "PUT": _memo_set,
    "BINPUT": _memo_set,
    "LONG_BINPUT": _memo_set,
    "GET": _memo_get,
    "BINGET": _memo_get,
    "LONG_BINGET": _memo_get,
}
