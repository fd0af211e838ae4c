"""torch's storages and tensors -> NumPy arrays over the bytes of the file, within the bounds of the storage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from converters.programs import Builder, Global, Placeholder, ProgramError, put

MOST_AXES = 32
_DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "bool": np.bool_,
    "uint8": np.uint8,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
}
_UNTYPED = "torch.storage UntypedStorage"


class Storage(NamedTuple):
    """The numbers below one or several tensors; `dtype` is None where NumPy has no such type."""

    key: str
    kind: str
    dtype: np.dtype | None
    length: int
    start: int = 0  # where a view of the file's storage begins
    part: int | None = None  # and how long it is


def storage_of(identity: Any) -> Storage:
    """The storage that a persistent id names.

    Raises:
      ProgramError: it is none.
    """
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ProgramError("its pickle refers to something that is no storage")
    kind, key, _, count = identity[1:5]
    view = identity[5] if len(identity) == 6 else None
    if not isinstance(kind, Global) or not isinstance(key, str) or not _whole(count):
        raise ProgramError("its pickle describes a storage that cannot be")
    name = _STORAGES.get(kind.name.removeprefix("torch ").removesuffix("Storage"), "")
    dtype = np.dtype(np.uint8 if kind.name == _UNTYPED else _DTYPES[name]) if name or kind.name == _UNTYPED else None
    if view is None:
        return Storage(key, kind.name, dtype, count)
    if type(view) is not tuple or len(view) != 3 or not _whole(view[1]) or not _whole(view[2]):
        raise ProgramError("its pickle describes a view that cannot be")
    if view[1] + view[2] > count:
        raise ProgramError("a view reaches beyond its storage")
    return Storage(key, kind.name, dtype, count, view[1], view[2])


def builders(read: Callable[[Storage], Any], limit: int) -> dict[str, Builder]:
    """What stands for the functions that torch's pickles call.

    Args:
      read: storage -> its bytes.
      limit: elements that one tensor may claim; torch lets tensors repeat what they store.
    """

    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Any:
        return _array(storage, read, offset, size, stride, _flags(more[2:]), limit)

    def typed(storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *more: Any) -> Any:
        name = dtype.name.removeprefix("torch ") if isinstance(dtype, Global) else ""
        if not isinstance(storage, Storage) or storage.kind != _UNTYPED or name not in _DTYPES:
            return Placeholder(f"tensor of {name or 'no type'}")
        found = np.dtype(_DTYPES[name])
        if storage.length % found.itemsize:
            raise ProgramError("a storage ends within a number")
        counted = storage._replace(kind=name, dtype=found, length=storage.length // found.itemsize)
        return _array(counted, read, offset, size, stride, _flags(more), limit)

    def first(value: Any, *_: Any) -> Any:
        return value

    table: dict[str, Callable[..., Any]] = {
        "torch._utils _rebuild_tensor": tensor,
        "torch._utils _rebuild_tensor_v2": tensor,
        "torch._utils _rebuild_tensor_v3": typed,
        "torch._utils _rebuild_parameter": first,
        "torch._utils _rebuild_parameter_with_state": first,
        "torch Size": tuple,
        "collections OrderedDict": _ordered,
    }
    return {name: lambda arguments, build=build: build(*arguments) for name, build in table.items()}  # type: ignore[misc]


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
        raise ProgramError("its pickle fills a table with what are no pairs")
    return put({}, [key for key, _ in pairs], [value for _, value in pairs])


def _flags(more: Any) -> dict[Any, Any]:
    """torch's marks on a tensor that reads its storage negated or conjugated."""
    return more[0] if more and type(more[0]) is dict else {}


def _array(
    storage: Any, read: Callable[[Storage], Any], offset: Any, size: Any, stride: Any, flags: dict[Any, Any], limit: int
) -> Any:
    if not isinstance(storage, Storage):
        raise ProgramError("its pickle builds a tensor on what is no storage")
    if storage.dtype is None:
        return Placeholder(f"tensor of {storage.kind.replace(' ', '.')}")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > MOST_AXES:
        raise ProgramError("a tensor has a shape that cannot be")
    if not all(_whole(number) for number in (offset, *size, *stride)) or math.prod(n for n in size if n) > limit:
        raise ProgramError("a tensor claims more elements than the file could hold")
    count = storage.length if storage.part is None else storage.part
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= count:
        raise ProgramError("a tensor reaches beyond its storage")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    width = storage.dtype.itemsize
    steps = tuple(step * width for step in stride)
    array = np.ndarray(size, storage.dtype, read(storage), (storage.start + offset) * width, steps)
    if flags.get("conj"):
        array = np.conj(array)
    return np.negative(array) if flags.get("neg") else array


def _whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**62
