"""Reads torch's files without running anything in them: tensors are rebuilt, everything else becomes a placeholder."""

from __future__ import annotations

import io
import pickle
import tarfile
import types
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from converters.errors import problem

_TENSOR_BUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")


class Placeholder:
    """Stands for an object that was not built. It takes whatever a pickle does to it and does nothing."""

    described = "an object"

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def add(self, value: Any) -> None: ...


class _Builder:
    """One of torch's functions that put a tensor together; a pickle can call it and do nothing else with it."""

    __slots__ = ("_build",)
    _build: Any

    def __init__(self, build: Any) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"the file tries to change {name!r} of a function")


class _Records:
    """The restricted unpickler as a module, as `torch.load` wants it, and what it replaced."""

    def __init__(self) -> None:
        self.replaced: dict[str, int] = {}

    def find(self, module: str, name: str) -> Any:
        import torch

        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in _TENSOR_BUILDERS:
            return _Builder(getattr(torch._utils, name))
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) == ("torch", "Size"):
            return torch.Size
        full = f"{module}.{name}"
        self.replaced[full] = self.replaced.get(full, 0) + 1
        return type("Placeholder", (Placeholder,), {"described": f"object of {full}", "__slots__": ()})

    def module(self) -> Any:
        find = self.find

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                return find(module, name)

        def load(file: Any, **options: Any) -> Any:
            return Unpickler(file, **options).load()

        return types.SimpleNamespace(
            __name__="restricted", Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError
        )


def read_pickle(path: Path) -> tuple[Any, str]:
    """What a `.pth`, `.pth.tar` or `.ckpt` file holds, and a line on what was left out ("" for nothing).

    First `torch.load(weights_only=True)`; where the file carries more than tensors, an unpickler of our own that knows
    torch's tensor builders and nothing else.

    Raises:
      ConversionError: torch is missing, or the file is not one of torch's or damaged.
    """
    try:
        import torch
    except ImportError as error:
        raise problem(str(path), "reading it needs torch: pip install 'oodjax[convert]'") from error
    _refuse_other_kinds(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces changes of its own formats
        try:
            return torch.load(path, map_location="cpu", weights_only=True), ""
        except pickle.UnpicklingError:
            pass
        except Exception as error:  # torch raises many types for a damaged file
            raise problem(str(path), f"cannot be read, damaged or truncated ({_first_line(error)})") from error
        records = _Records()
        try:
            content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=records.module())
        except Exception as error:
            raise problem(str(path), f"cannot be read without running code of it ({_first_line(error)})") from error
    found = ", ".join(sorted(records.replaced))
    note = f"{path.name} holds more than tensors; replaced by inert placeholders: {found}" if found else ""
    return content, note


def _refuse_other_kinds(path: Path) -> None:
    """Only torch's zip files and its older plain pickles may reach `torch.load`: not its tar files, not TorchScript."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise problem(str(path), "damaged or truncated: its table of contents is missing") from error
        if any(name.endswith("/constants.pkl") for name in members):
            raise problem(str(path), "is a TorchScript program, not a table of tensors")
        if not any(name.endswith("/data.pkl") for name in members):
            raise problem(str(path), "is a zip file but none of torch's; unpack it and name the file inside")
    elif not start.startswith(b"\x80") or tarfile.is_tarfile(path):
        raise problem(str(path), "is not a torch file")


def _first_line(error: Exception) -> str:
    text = io.StringIO(str(error)).readline().strip()
    return f"{type(error).__name__}: {text}"[:200]
