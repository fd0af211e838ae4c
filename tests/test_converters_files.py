"""Files of torch and safetensors, honest and hostile: the exact tensors, or one line, within bounds of memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from torch_files import number, table, tensor, text, write_legacy, write_safetensors, write_zip

from converters import command, files
from converters.envelopes import Envelope
from converters.errors import ConversionError, problem
from oodjax import zoo

SIX = {"0": np.arange(6, dtype=np.float32)}
CALL = b"\x85R"


def values(path: Path) -> dict[str, Any]:
    content, _ = files.read_file(path)
    return {key: value.tolist() for key, value in content.items()}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_are_read_as_torch_lays_them_out(tmp_path: Path, legacy: bool) -> None:
    view = b"N" if legacy else b""
    program = table(
        whole=tensor("0", (2, 3), view=view),
        turned=tensor("0", (3, 2), stride=(1, 3), view=view),
        column=tensor("0", (2,), length=6, offset=1, stride=(3,), view=view),
        repeated=tensor("0", (2, 2), length=6, offset=5, stride=(0, 0), view=view),
        scalar=tensor("0", (), length=6, offset=4, view=view),
        empty=tensor("0", (0, 7), length=6, view=view),
        negative=tensor("0", (6,), marks="neg", view=view),
        parameter=b"ctorch._utils\n_rebuild_parameter\n" + tensor("0", (6,), view=view) + b"\x88}\x87R",
    )
    path = (write_legacy if legacy else write_zip)(tmp_path / "x.pth", program, SIX)
    assert values(path) == {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "column": [1, 4],
        "repeated": [[5, 5], [5, 5]],
        "scalar": 4,
        "empty": [],
        "negative": [0, -1, -2, -3, -4, -5],
        "parameter": [0, 1, 2, 3, 4, 5],
    }
    assert files.read_file(path)[1] == ""


def test_types_and_marks_keep_their_values(tmp_path: Path) -> None:
    storages = {
        "Half": np.float16([1.5, -2]),
        "BFloat16": np.asarray([1.5, 3e38], ml_dtypes.bfloat16),
        "Long": np.asarray([2**60, -1]),
        "ComplexFloat": np.complex64([1 + 2j, -3j]),
    }
    program = table(
        **{name: tensor(name, (2,), storage=name) for name in storages},
        conjugate=tensor("ComplexFloat", (2,), storage="ComplexFloat", marks="conj"),
    )
    content, _ = files.read_file(write_zip(tmp_path / "x.pth", program, storages))
    for name, expected in storages.items():
        assert content[name].dtype == expected.dtype and content[name].tobytes() == expected.tobytes()
    assert content["conjugate"].tolist() == [1 - 2j, 3j]


def test_a_view_of_an_old_file_begins_where_it_says(tmp_path: Path) -> None:
    view = b"(" + text("v") + number(2) + number(3) + b"t"
    program = table(a=tensor("0", (3,), length=6, view=view))
    assert values(write_legacy(tmp_path / "x.pth", program, SIX)) == {"a": [2, 3, 4]}
    with pytest.raises(ConversionError, match="reaches beyond its storage"):
        beyond = table(a=tensor("0", (4,), length=6, view=view))
        files.read_file(write_legacy(tmp_path / "x.pth", beyond, SIX))


def good(tmp_path: Path, extra: bytes = b"N", **members: bytes) -> Path:
    """A zip file with the tensor `a`, and a second value of the operations `extra`."""
    return write_zip(tmp_path / "x.pth", table(extra=extra, a=tensor("0", (6,))), SIX, **members)


def deflated(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02(" + b"}" * 200_000_000 + b"t.")
    return tmp_path / "x.pth"


def shared_members(tmp_path: Path) -> Path:
    """A hundred names for one member of a few MB."""
    path = write_zip(tmp_path / "x.pth", table(), {"0": np.zeros(1_000_000, np.float32)})
    with zipfile.ZipFile(path, "a") as archive:
        last = archive.infolist()[-1]
        for index in range(1, 100):
            again = zipfile.ZipInfo(f"archive/data/{index}")
            again.header_offset, again.CRC = last.header_offset, last.CRC
            again.file_size = again.compress_size = last.file_size
            archive.filelist.append(again)
        archive.writestr("archive/end", b"")
    return path


def long_table(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        for index in range(80):
            archive.writestr(f"archive/{index:060000}", b"")
    return tmp_path / "x.pth"


def pickled(extra: bytes) -> Callable[[Path], Path]:
    return lambda tmp_path: good(tmp_path, extra)


def header(content: Any, body: bytes = b"", length: int | None = None) -> Callable[[Path], Path]:
    return lambda tmp_path: write_safetensors(tmp_path / "x.safetensors", content, body, length=length)


def entry(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


EIGHT = struct.pack("<Q", 2**40)
PAIRS = b"](" + b"K\x01K\x01\x86" * 100_000 + b"e\x85"
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "deflated pickle": (deflated, "archive/data.pkl is compressed by method 8"),
    "shared members": (shared_members, "members are larger than the file"),
    "long table": (long_table, "table of contents is too long"),
    "memo": (pickled(b"]r" + struct.pack("<I", 60_000_000)), "a=0.0..5.0"),
    "decimal memo": (pickled(b"]p" + str(2**61 - 1).encode() + b"\n"), "impossible number"),
    "operations": (pickled(b"(" + b"\x8f" * 3_000_000 + b"t"), "more operations than any file of weights"),
    "copies": (
        pickled(b"(ccollections\nOrderedDict\nq\x01" + PAIRS + b"q\x02R" + b"h\x01h\x02R" * 1000 + b"t"),
        "more operations than any file of weights",
    ),
    "text": (pickled(b"\x8d" + EIGHT), "pickle is damaged"),
    "bytes": (pickled(b"\x8e" + EIGHT), "pickle is damaged"),
    "bytearray": (pickled(b"\x96" + EIGHT), "pickle is damaged"),
    "long number": (pickled(b"\x8b" + struct.pack("<I", 2**31 - 1)), "pickle is damaged"),
    "digits": (pickled(b"L" + b"9" * 5_000_000 + b"L\n"), "pickle is damaged"),
    "frame": (pickled(b"\x95" + struct.pack("<Q", 2**62) + b"N"), "a=0.0..5.0"),
    "allocation": (pickled(b"c__builtin__\nbytearray\n" + number(2**40) + CALL), "a=0.0..5.0"),
    "storage alone": (pickled(b"ctorch\nFloatStorage\n" + number(2**40) + CALL), "a=0.0..5.0"),
    "nested key": (pickled(b"})" + b"2\x86" * 200 + b"Ns"), "a=0.0..5.0"),
    "repeated": (pickled(tensor("0", (10**6, 10**6), length=6, stride=(0, 0))), "more elements than the file could"),
    "huge empty": (pickled(tensor("0", (0, 2**60), length=6)), "more elements than the file could"),
    "too large": (pickled(tensor("0", (7,), length=6)), "reaches beyond its storage"),
    "offset": (pickled(tensor("0", (6,), length=6, offset=1)), "reaches beyond its storage"),
    "negative": (pickled(tensor("0", (6,), length=6, stride=(-1,))), "claims more elements"),
    "claimed": (pickled(tensor("0", (2**30,))), "claims more elements"),
    "short record": (pickled(tensor("0", (9,), stride=(0,), length=9)), "0 is not as long as the tensors say"),
    "other type": (pickled(tensor("0", (6,), storage="Half")), "0 is not as long as the tensors say"),
    "no record": (pickled(tensor("../../x", (6,))), "the storage ../../x is missing"),
    "endless header": (header(b"{", length=2**62), "its header claims 4,611,686,018,427,387,904 bytes"),
    "long header": (header(b"{" + b" " * 9_000_000 + b"}"), "its header claims 9,000,002 bytes"),
    "overlap": (header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "damaged or truncated safetensors"),
    "hole": (header({"a": entry([2], 0, 8)}, bytes(12)), "damaged or truncated safetensors"),
    "too few bytes": (header({"a": entry([2**31, 2**31], 0, 8)}, bytes(8)), "damaged or truncated safetensors"),
    "deep header": (header(b'{"a":' + b"[" * 100_000), "damaged or truncated safetensors"),
}

CHILD = """
import resource, sys
from pathlib import Path
from converters import command, files
from converters.envelopes import Envelope
from converters.errors import ConversionError, problem
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[1]), -1))
for name in sys.argv[2:]:
    try:
        content, _ = files.read_file(Path(name))
        print(f"a={content['a'].min()}..{content['a'].max()}")
    except ConversionError as error:
        print(error.summary())
"""


def test_no_file_takes_more_memory_than_its_size_allows(tmp_path: Path) -> None:
    """Each is read in 300 MB: 100 bytes an operation, for two million of them, and the largest file beside that."""
    paths = []
    for index, (write, _) in enumerate(HOSTILE.values()):
        (tmp_path / str(index)).mkdir()
        paths.append(write(tmp_path / str(index)))
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(300 * 2**20), *map(str, paths)], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr[-2000:]
    lines = found.stdout.splitlines()
    expected = [part for _, part in HOSTILE.values()]
    wrong = {k: line[-300:] for k, line, part in zip(HOSTILE, lines, expected, strict=True) if part not in line}
    assert wrong == {}


def test_what_is_beside_the_tensors_does_not_touch_them(tmp_path: Path) -> None:
    """Sets, nested keys, cycles and states of objects become plain containers or placeholders."""
    items = b"\x8f(K\x01K\x01\x90"
    cycle = b"}q\x08(" + text("own") + b"h\x08u"
    state = b"ccollections\nOrderedDict\n)R}(" + text("items") + b"Nub"
    content, note = files.read_file(good(tmp_path, b"](" + items + cycle + state + b"e"))
    assert content["a"].tolist() == SIX["0"].tolist() and note == ""
    found = content["extra"]
    assert found[0] == [1, 1] and found[1]["own"] is found[1] and list(found[2].items()) == []


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (b"\x80\x02ctorchvision.models.resnet\nResNet\n)\x81}b.", "torchvision.models.resnet.ResNet"),
        (b"\x80\x02ctorch.nn.modules\nLinear\n)R.", "torch.nn.modules.Linear"),
        (table(model=b"cmy\nNet\n)\x81}b", epoch=b"N"), "my.Net"),
    ],
    ids=["new", "call", "wrapped"],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_whole_module_asks_for_its_state_dict(tmp_path: Path, program: bytes, name: str, write: Callable) -> None:
    content, _ = files.read_file(write(tmp_path / "x.pth", program, {}))
    with pytest.raises(
        ConversionError, match=f"whole object of {name}, .* torch.save\\(model.state_dict\\(\\), PATH\\)"
    ):
        Envelope.parse("model?", "").open(content, "x.pth")


def test_a_zip_file_that_torch_does_not_write(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(ConversionError, match=match) as raised:
            files.read_file(tmp_path / "x.pth")
        assert len(str(raised.value).splitlines()) == 1

    for method in (0x63, 12, 14, 97):
        content = bytearray(good(tmp_path).read_bytes())
        content[content.index(b"PK\x01\x02") + 10] = method
        (tmp_path / "x.pth").write_bytes(content)
        refused(f"archive/data.pkl is compressed by method {method}")
    content = bytearray(good(tmp_path).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.pth").write_bytes(content)
    refused(r"is encrypted \(archive/data.pkl\): unpack it")
    content = bytearray(good(tmp_path).read_bytes())
    where = content.index(b"PK\x05\x06") + 16
    content[where : where + 4] = struct.pack("<I", struct.unpack_from("<I", content, where)[0] + 1000)
    (tmp_path / "x.pth").write_bytes(content)
    refused("damaged or truncated zip file")  # its members would begin before the file does
    content = good(tmp_path).read_bytes()
    (tmp_path / "x.pth").write_bytes(content.replace(SIX["0"].tobytes(), np.ones(6, np.float32).tobytes()))
    refused("damaged or truncated zip file .*CRC")
    good(tmp_path, byteorder=b"big")
    refused("big-endian machine")
    write_legacy(tmp_path / "x.pth", table(a=tensor("0", (6,), view=b"N")), SIX, little=False)
    refused("big-endian machine")


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    content = bytearray(good(tmp_path).read_bytes())
    for mark, offset in ((b"PK\x01\x02", 16), (b"PK\x03\x04", 14)):
        at = -1
        while (at := content.find(mark, at + 1)) >= 0:
            content[at + offset : at + offset + 4] = bytes(4)
    (tmp_path / "x.pth").write_bytes(content)
    assert files.read_file(tmp_path / "x.pth")[0]["a"].tolist() == SIX["0"].tolist()


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_truncated_file_is_named_so_wherever_it_ends(tmp_path: Path, write: Callable) -> None:
    path = write(tmp_path / "x.pth", table(a=tensor("0", (6,), view=b"N" if write is write_legacy else b"")), SIX)
    content = path.read_bytes()
    for end in range(4, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(ConversionError, match="damaged or truncated") as raised:
            files.read_file(path)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"])
def test_types_of_a_byte_and_less_are_named(tmp_path: Path, kind: str) -> None:
    both = {"fc.weight": entry([2, 2], 0, 2 if kind == "F4" else 4, kind), "fc.bias": entry([1], 4, 8)}
    both["fc.bias"]["data_offsets"] = [both["fc.weight"]["data_offsets"][1]] * 2
    both["fc.bias"]["data_offsets"][1] += 4
    size = both["fc.bias"]["data_offsets"][1]
    body = bytes(size - 4) + np.float32([2.5]).tobytes()
    content, _ = files.read_file(write_safetensors(tmp_path / "x.safetensors", both, body))
    assert content["fc.bias"].tolist() == [2.5]
    with pytest.raises(ConversionError, match=rf"fc.weight \(numbers of type {kind}"):
        Envelope().open(content, "x")


def test_bfloat16_is_read_from_safetensors(tmp_path: Path) -> None:
    array = np.asarray([1.5, -3e38], ml_dtypes.bfloat16)
    path = write_safetensors(tmp_path / "x.safetensors", {"a": entry([2], 0, 4, "BF16")}, array.tobytes())
    content, _ = files.read_file(path)
    assert content["a"].dtype == ml_dtypes.bfloat16 and content["a"].tobytes() == array.tobytes()


def sharded(folder: Path, **index: str) -> Path:
    """Two shards with one tensor each, and an index."""
    for i, key in enumerate("ab"):
        body = np.float32([i, 2]).tobytes()
        write_safetensors(folder / f"model-0000{i + 1}-of-00002.safetensors", {key: entry([2], 0, 8)}, body)
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    path = folder / "model.safetensors.index.json"
    content = {"metadata": {"total_size": 16}, "weight_map": {"a": first, "b": second, **index}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    assert values(path) == {"a": [0, 2], "b": [1, 2]}
    assert files.parts(path) == [path, *sorted(tmp_path.glob("*.safetensors"))]
    write_zip(tmp_path / "second.bin", table(c=tensor("0", (6,))), SIX)
    assert values(sharded(tmp_path, c="second.bin"))["c"] == SIX["0"].tolist()


def test_an_index_that_does_not_fit_its_shards(tmp_path: Path) -> None:
    def refused(path: Path, match: str) -> None:
        with pytest.raises(ConversionError, match=match):
            files.read_file(path)

    refused(sharded(tmp_path, c="none.safetensors"), "a shard that is not beside it: none.safetensors")
    first = "model-00001-of-00002.safetensors"
    refused(sharded(tmp_path, c=first), f"lacks what its index says it holds: c of {first}")
    refused(sharded(tmp_path, b=first), "a shard that it does not name: model-00002-of-00002.safetensors")
    refused(sharded(tmp_path, b=first), f"b of {first}")
    body = np.float32([0, 2]).tobytes() * 2
    path = sharded(tmp_path)
    write_safetensors(tmp_path / first, {"a": entry([2], 0, 8), "more": entry([2], 8, 16)}, body)
    refused(path, f"holds what its index does not name: more of {first}")
    path = sharded(tmp_path)
    (tmp_path / first).rename(tmp_path / "other")
    refused(path, f"not beside it: {first}")
    for name in ("../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "a\nb", "a" * 256, path.name):
        refused(sharded(tmp_path, c=name), "names what is no file of weights")
    for text_ in (
        "{}",
        "[]",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        "{" * 200_000,
        "[" * 200_000,
        "x" * 9_000_000,
    ):
        path.write_text(text_, encoding="utf-8")
        refused(path, "is no index of shards")


def test_a_member_that_claims_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = next(entry for entry in zoo.checkpoints() if entry.member)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def refused(match: str) -> None:
        with pytest.raises(ConversionError, match=match), files.find(checkpoint, tmp_path):
            raise AssertionError("found")
        assert list(temporary.iterdir()) == []

    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"results/{checkpoint.member}", bytes(50_000_000))
    refused("claims 50,000,000 bytes")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    refused("is encrypted")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(f"results/{checkpoint.member}", b"weights")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 97
    (tmp_path / "x.zip").write_bytes(content)
    refused("damaged or truncated zip file")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for folder in ("first", "second"):
            archive.writestr(f"{folder}/{checkpoint.member}", folder)
    refused(f"several files of that name .first/{checkpoint.member}, second/")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"results/{checkpoint.member}", b"weights")
    with files.find(checkpoint, tmp_path) as paths:
        assert [path.read_bytes() for path in paths] == [b"weights"]
    assert list(temporary.iterdir()) == []


def test_names_from_a_file_are_printed_escaped_and_cut(tmp_path: Path) -> None:
    evil = "\x1b[2J\r\n\u202e" + "n" * 5000
    with pytest.raises(ConversionError) as raised:
        Envelope().open({evil: 3, "b\udc80": 4, "c" * 300: 5}, "x")
    for line in (str(raised.value), raised.value.summary()):
        assert line.isprintable() and len(line) < 1000
        assert r"\x1b[2J\r\n\u202ennn" in line and r"b\udc80" in line and "(5013 characters)" in line
    _, note = files.read_file(good(tmp_path, b"c" + evil.replace("\n", "").replace("\u202e", "").encode() + b"\nx\n)R"))
    assert note.isprintable() and len(note) < 1000 and r"\x1b[2J" in note and "\u202e" not in note
    many = b"(" + b"".join(f"cm\nx{i}\n)R".encode() for i in range(500)) + b"t"
    _, note = files.read_file(good(tmp_path, many))
    assert note.endswith("m.x107, m.x108 and 488 more") and len(note) < 400


def test_a_value_out_of_a_file_does_not_fill_the_terminal() -> None:
    error = problem("config.json", f"mean is {[1] * 1_000_000}, expected three numbers\x07")
    assert error.summary().startswith("config.json: mean is [1, 1, ") and len(error.summary()) < 1800
    assert error.summary().endswith("1, 1], expected three numbers\\x07")


def test_what_is_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is a folder; name the file of weights in it"):
        files.read_file(tmp_path)
    with pytest.raises(ConversionError, match="no such file"):
        files.read_file(tmp_path / "x")
    missing = tmp_path.relative_to(tmp_path.parent) / "model.safetensors.index.json"  # looks like a repository's name
    assert command.resolve(str(missing), tmp_path) == (missing, None)
