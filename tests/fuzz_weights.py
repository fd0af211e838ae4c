"""Reads damaged files of weights by the hundred in one process of bounded memory; prints what broke the contract.

Either the tensors that an independent reader finds in the same file, or a ConversionError in one line. Nothing of a
file runs, and no file is left in the temporary folder.
"""

from __future__ import annotations

import io
import json
import pickletools
import resource
import struct
import sys
import tempfile
import types
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch_files import number, tensor, text

from converters import files
from converters.envelopes import Envelope
from converters.errors import ConversionError

MEMORY = 400 * 2**20  # above what the process has at its start: two million operations of 100 bytes, and as much again
ODD = (0, 1, 2, 7, 8, 99, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
Tensors = dict[str, Any]
Mutation = Callable[[bytes, np.random.Generator], bytes]

RANG: list[Any] = []
canary = types.ModuleType("canary")
canary.ring = lambda *arguments: RANG.append(arguments)  # type: ignore[attr-defined]
sys.modules["canary"] = canary

SNIPPETS = [
    b"ccanary\nring\n)R",
    b"ccanary\nring\n(K\x01tR0",
    b"(K\x01icanary\nring\n",
    b"ccanary\nring\n)\x81}b",
    b"\x8c\x06canary\x8c\x04ring\x93)R",
    b"cbuiltins\neval\n" + text("__import__('canary').ring()") + b"\x85R",
    *(bytes([code]) for code in b"021(t}]useaRbQN.\x85\x86\x87\x8f\x90\x91\x94"),
    b"r" + b"\xff" * 4,
    b"p99999999999\n",
    b"h\x00",
    b"j\xff\xff\xff\x00",
    b"\x8e" + b"\xff" * 8,
    b"X\xff\xff\xff\x7f",
    b"\x95" + b"\xff" * 8,
    b"\x80\x05",
    b"\x96" + b"\xff" * 7 + b"\x00",
    b"\x8b\xff\xff\xff\x7f",
    b"I" + b"9" * 5000 + b"\n",
    b"(" * 500,
    b"2\x86" * 200,
    b"cbuiltins\nbytearray\n" + number(2**40) + b"\x85R",
    b"ctorch\nFloatStorage\n" + number(2**40) + b"\x85R",
    tensor("0", (2**20, 2**20), length=6, stride=(0, 0)),
    tensor("1", (3,)),
    tensor("nowhere", (3,)),
]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(0, len(content), rng.integers(1, 5)):
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(1, len(content))]


def blank(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = rng.integers(0, len(content)), rng.integers(1, 40)
    return content[:start] + bytes(min(length, len(content) - start)) + content[start + length :]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(rng.integers(0, len(content), 2))
    return content[:end] + content[start:]


def number_in(content: bytes, rng: np.random.Generator) -> bytes:
    """An odd number anywhere, in two, four or eight bytes."""
    form = "<" + "HIQ"[rng.integers(3)]
    value = int(rng.choice(ODD)) % 2 ** (8 * struct.calcsize(form))
    at = rng.integers(0, max(1, len(content) - 8))
    return content[:at] + struct.pack(form, value) + content[at + struct.calcsize(form) :]


def zip_field(content: bytes, rng: np.random.Generator) -> bytes:
    """An odd number in one of a zip file's headers."""
    marks = [at for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06") for at in _all(content, mark)]
    at = int(rng.choice(marks)) + int(rng.integers(4, 46))
    return content[:at] + struct.pack("<H", int(rng.choice(ODD)) % 2**16) + content[at + 2 :]


def _all(content: bytes, mark: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(mark, at)]


def operation(program: bytes, rng: np.random.Generator) -> bytes:
    """A pickle with an operation more, less, or another number."""
    starts = [position for _, _, position in pickletools.genops(program)]
    at = int(rng.integers(1, len(starts) - 1))
    kind = rng.integers(4)
    if kind == 0:
        return program[: starts[at]] + program[starts[at + 1] :]
    if kind == 1:
        return program[: starts[at]] + number(int(rng.choice(ODD)) - 1) + program[starts[at + 1] :]
    snippet = SNIPPETS[rng.integers(len(SNIPPETS))]
    return program[: starts[at]] + snippet + program[starts[at] :]


def in_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """The pickle changed, under a checksum that fits."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            member = old.read(name)
            new.writestr(name, operation(member, rng) if name.endswith("data.pkl") else member)
    return out.getvalue()


def in_legacy(content: bytes, rng: np.random.Generator) -> bytes:
    """The fourth pickle, which describes the tensors, changed."""
    stream, ends = io.BytesIO(content), []
    for _ in range(4):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    return content[: ends[2]] + operation(content[ends[2] : ends[3]], rng) + content[ends[3] :]


def in_header(content: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors header with another value, key or length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header[sorted(set(header) - {"__metadata__"})[rng.integers(len(set(header) - {"__metadata__"}))]]
    values = [0, -1, 3, 2**31, 2**63, 2**200, 1.5, None, "x", [], {}, [2**40, 2**40], [0, 2**40], [8, 0]]
    entry[["dtype", "shape", "data_offsets", "more"][rng.integers(4)]] = values[rng.integers(len(values))]
    text = json.dumps(header).encode()
    text += b" " * max(0, length - len(text)) if rng.integers(2) else b""
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def in_index(content: bytes, rng: np.random.Generator) -> bytes:
    index = json.loads(content)
    names = [
        "../x",
        "/etc/passwd",
        "",
        ".",
        3,
        None,
        "model-00002-of-00002.safetensors",
        "none.safetensors",
        [],
        "a" * 9000,
    ]
    key = ["a", "more", "bfloat16"][rng.integers(3)]
    index["weight_map"][key] = names[rng.integers(len(names))]
    return json.dumps(index).encode()


ANY: tuple[Mutation, ...] = (flip, cut, blank, repeat, number_in)
FAMILIES: dict[str, tuple[Mutation, ...]] = {
    "zip": (*ANY, zip_field, zip_field, in_zip, in_zip, in_zip),
    "legacy": (*ANY, in_legacy, in_legacy, in_legacy),
    "safetensors": (*ANY, in_header, in_header),
    "sharded": (*ANY, in_index, in_index, in_header),
}


def write(folder: Path) -> dict[str, Path]:
    """An honest file of each family; of the sharded one, the index."""
    a = torch.arange(24.0).reshape(4, 6)
    state = {
        "a": a,
        "turned": a.t(),
        "column": a[:, 2],
        "bfloat16": a.bfloat16(),
        "whole": torch.tensor(7),
        "parameter": torch.nn.Parameter(a + 1),
        "empty": torch.zeros(0, 3),
    }
    paths = {name: folder / name / "x.pth" for name in ("zip", "legacy")}
    paths["safetensors"] = folder / "safetensors" / "x.safetensors"
    paths["sharded"] = folder / "sharded" / "model.safetensors.index.json"
    for path in paths.values():
        path.parent.mkdir()
    torch.save(state, paths["zip"])
    torch.save(state, paths["legacy"], _use_new_zipfile_serialization=False)
    plain = {key: value.detach().contiguous().clone() for key, value in state.items()}
    save_file(plain, paths["safetensors"])
    index = {}
    for shard, keys in enumerate((("a", "turned", "column"), ("bfloat16", "whole", "parameter", "empty")), start=1):
        name = f"model-0000{shard}-of-00002.safetensors"
        save_file({key: plain[key] for key in keys}, paths["sharded"].with_name(name))
        index |= dict.fromkeys(keys, name)
    paths["sharded"].write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    return paths


def numbers(value: Any) -> Any:
    """An array that compares: raw bytes, shape and name of its type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_neg().resolve_conj().contiguous()
        raw = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return raw, tuple(value.shape), str(value.dtype).removeprefix("torch.")
    return np.ascontiguousarray(value).tobytes(), tuple(value.shape), value.dtype.name


def independent(family: str, path: Path) -> Tensors | None:
    """The tensors that another reader finds; None where it finds none."""
    try:
        if family in ("zip", "legacy"):
            found = torch.load(path, map_location="cpu", weights_only=True)
        elif family == "safetensors":
            found = _plain_safetensors(path)
        else:
            index = json.loads(path.read_bytes())["weight_map"]
            found = {}
            for name in sorted(set(index.values())):
                found |= _plain_safetensors(path.parent / name)
        return {key: numbers(value) for key, value in found.items() if hasattr(value, "dtype")}
    except Exception:  # what it cannot read is no help here
        return None


def _plain_safetensors(path: Path) -> Tensors:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    kinds = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64}
    found = {}
    for key, entry in json.loads(content[8 : 8 + length]).items():
        if key != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            flat = torch.frombuffer(bytearray(content[start:end]), dtype=kinds[entry["dtype"]]) if end > start else None
            found[key] = torch.zeros(entry["shape"]) if flat is None else flat.reshape(entry["shape"])
    return found


def check(family: str, path: Path, honest: Tensors | None = None) -> tuple[str, str]:
    """What happened, and what of it breaks the contract ("" for nothing).

    A file whose checksums protect its tensors holds the `honest` ones or none: torch does not look at them.
    """
    try:
        content, note = files.read_file(path)
        tensors = Envelope().open(content, str(path))
    except ConversionError as error:
        lines = (str(error), error.summary())
        return "refused", "" if all(line.isprintable() for line in lines) and len(lines[1]) < 3000 else repr(lines)
    except BaseException as error:
        return "broke", repr(error)[:300]
    expected = independent(family, path) if honest is None else honest
    if not note.isprintable() or len(note) > 3000:
        return "read", f"note {note[:300]!r}"
    if expected is None:
        return "read alone", ""
    found = {key: numbers(value) for key, value in tensors.items()}
    wrong = [key for key in expected if found.get(key) != expected[key]]
    return "read", f"other numbers in {wrong}" if wrong or len(found) != len(expected) else ""


def main(seed: int, cases: int) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "temporary"
        temporary.mkdir()
        paths = write(Path(folder))
        tempfile.tempdir = str(temporary)
        for family, path in paths.items():
            assert check(family, path) == ("read", ""), (family, check(family, path))
        sealed = independent("zip", paths["zip"])
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, -1))
        counts: Counter[str] = Counter()
        broken = []
        for case in range(cases):
            family = list(FAMILIES)[case % len(FAMILIES)]
            rng = np.random.default_rng([seed, case])
            mutate = FAMILIES[family][rng.integers(len(FAMILIES[family]))]
            parts = files.parts(paths[family])
            if mutate is in_header:
                parts = [part for part in parts if part.suffix == ".safetensors"]
            target = parts[0] if mutate is in_index else parts[rng.integers(len(parts))]
            honest = target.read_bytes()
            target.write_bytes(mutate(honest, rng))
            what, wrong = check(family, paths[family], sealed if family == "zip" and mutate is not in_zip else None)
            target.write_bytes(honest)
            counts[f"{family} {what}"] += 1
            if wrong or RANG or list(temporary.iterdir()):
                broken.append([case, family, mutate.__name__, wrong, len(RANG)])
                RANG.clear()
    print(json.dumps({"counts": counts, "broken": broken}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
