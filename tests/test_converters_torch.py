"""Against torch, torchvision and timm: files as torch writes them, and the real classes block by block."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import tarfile
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models_golden as golden
import numpy as np
import pytest
import zoo_layouts

import converters
from converters import files, reference
from converters.__main__ import main
from converters.errors import ConversionError
from converters.pickles import Placeholder, read_pickle
from oodjax import zoo

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")

RAN: list[str] = []


def run_payload(text: str) -> str:
    RAN.append(text)
    return text


class Payload:
    """Runs a function of this module, and writes a file, when a plain unpickler meets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


class Local:
    def __reduce__(self) -> tuple:
        return run_payload, ("payload",)


class Subclass(torch.Tensor):
    pass


@contextlib.contextmanager
def dill_like() -> Iterator[type]:
    """A class of a module that is gone when the file is read, as the objects in files written with dill."""
    module = types.ModuleType("dill_like")
    kind = type("Schedule", (), {"__module__": "dill_like"})
    module.Schedule = kind  # type: ignore[attr-defined]
    sys.modules["dill_like"] = module
    try:
        yield kind
    finally:
        del sys.modules["dill_like"]


def tensors(arch: str) -> dict[str, Any]:
    return {key: torch.as_tensor(value) for key, value in golden.state_dict(arch).items()}


def small() -> OrderedDict:
    state = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.nn.Parameter(torch.ones(2)))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_payload_runs_nothing_and_the_tensors_are_read(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "marker"
    with dill_like() as kind:
        schedule = kind()
        schedule.step = 3
        content = {
            "model": small(),
            "optimizer": [Payload(marker), Local()],
            "schedule": schedule,
            "amp": {Local(): np.float64(3)},
            "more": OrderedDict(x=bytearray(b"x"), y={1, 2}),
        }
        torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    found, note = read_pickle(tmp_path / "x.ckpt")
    assert not marker.exists() and RAN == []
    assert found["model"]["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["model"]["b"].tolist() == [1, 1]
    assert isinstance(found["schedule"], Placeholder) and all(isinstance(o, Placeholder) for o in found["optimizer"])
    assert "replaced by inert placeholders" in note and "posix.system" in note and "dill_like.Schedule" in note
    with pytest.raises(pickle.UnpicklingError):  # the first path, alone, refuses the file
        torch.load(tmp_path / "x.ckpt", weights_only=True)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_plain_file_takes_the_first_path(tmp_path: Path, zipped: bool) -> None:
    torch.save({"state_dict": small(), "epoch": 3}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found, note = read_pickle(tmp_path / "x.pth")
    assert note == "" and list(found["state_dict"]) == ["a", "b"]


def raw(*operations: bytes) -> bytes:
    return b"\x80\x02" + b"".join(operations) + b"."


@pytest.mark.parametrize(
    "program",
    [
        raw(b"cos\nsystem\n", b"X\x0d\0\0\0touch marker2", b"\x85R"),
        raw(b"cbuiltins\neval\n", b"X\x01\0\0\x001", b"\x85R"),
        raw(b"ctorch._utils\n_rebuild_tensor_v2\n", b"N}X\x01\0\0\0xK\x01s\x86b"),  # sets an attribute of a function
        raw(b"ctorch.serialization\nload\n", b"X\x01\0\0\0x", b"\x85R"),
        raw(b"ctorch._utils\n_import_dotted_name\n", b"X\x09\0\0\0os.system", b"\x85R"),
        raw(b"ccollections\nOrderedDict.fromkeys\n", b")R"),
    ],
    ids=["system", "eval", "attribute", "load", "import", "dotted"],
)
def test_hand_made_pickles_run_nothing(tmp_path: Path, program: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the data of a torch zip file. Either everything is a placeholder or the file is refused."""
    monkeypatch.chdir(tmp_path)
    torch.save({}, tmp_path / "good.pth")
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w", zipfile.ZIP_STORED) as bad:
        for name in good.namelist():
            bad.writestr(name, program if name.endswith("data.pkl") else good.read(name))
    before = dict(vars(torch._utils._rebuild_tensor_v2))
    try:
        found, _ = read_pickle(Path("bad.pth"))
        assert isinstance(found, Placeholder)
    except ConversionError as error:
        assert "changes torch._utils _rebuild_tensor_v2" in str(error)
    assert not Path("marker2").exists() and vars(torch._utils._rebuild_tensor_v2) == before


def test_wanted_tensors_must_be_plain(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sparse, other = torch.eye(3).to_sparse(), torch.ones(2).as_subclass(Subclass)
    for value, kind in ((Local(), "run_payload"), (sparse, "_rebuild_sparse_tensor"), (other, "_rebuild_from_type_v2")):
        torch.save({"model": {"fc.bias": value}}, tmp_path / "x.pth")
        code = main([str(tmp_path / "x.pth"), "--arch", "timm-resnet50", "--to", str(tmp_path / "to")])
        error = capsys.readouterr().err
        assert code == 2 and "not a plain tensor: fc.bias" in error and kind in error
    assert RAN == [] and not (tmp_path / "to").exists()


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "good.pth")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("ckpt.pth", b"x")
    (tmp_path / "text.pth").write_bytes(b"pax" * 1000)
    with tarfile.open(tmp_path / "tar.pth", "w", encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("\x80storages"))
    for name in ("good", "old"):
        content = (tmp_path / f"{name}.pth").read_bytes()
        (tmp_path / f"{name}-cut.pth").write_bytes(content[: len(content) // 2])
    for name, message in (
        ("good-cut.pth", "damaged or truncated"),
        ("old-cut.pth", "cannot be read"),
        ("script.pt", "TorchScript"),
        ("other.zip", "none of torch's; unpack it"),
        ("text.pth", "is not a torch file"),
        ("tar.pth", "is not a torch file"),
    ):
        with pytest.raises(ConversionError, match=message):
            read_pickle(tmp_path / name)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "index"])
def test_torch_reads_the_same_tensors(tmp_path: Path, kind: str) -> None:
    """Of every type, through the readers that --verify compares with; another number is named."""
    from safetensors.torch import save_file

    types_ = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8)
    state = {str(kind): torch.arange(6.0).reshape(2, 3).to(kind) for kind in types_}
    path = tmp_path / "x.pth"
    if kind in ("safetensors", "index"):
        save_file(state, path)
    else:
        state |= {"turned": state["torch.float32"].t(), "negative": torch._neg_view(state["torch.float32"])}
        torch.save({"model": state}, path, _use_new_zipfile_serialization=kind == "zip")
    if kind == "index":
        path = tmp_path / "x.index.json"
        path.write_text(json.dumps({"weight_map": dict.fromkeys(state, "x.pth")}), encoding="utf-8")
    found, theirs = (read(path)[0] for read in (files.read_file, reference.read_file))
    found, theirs = found.get("model", found), theirs.get("model", theirs)
    assert found.keys() == state.keys()
    reference.check_equal(found, theirs, "x")
    changed = {**theirs, "torch.bfloat16": theirs["torch.bfloat16"] + 1, "torch.bool": theirs["torch.uint8"]}
    with pytest.raises(ConversionError, match="another tensor in torch.bfloat16; .* another tensor in torch.bool$"):
        reference.check_equal(found, changed, "x")


def test_torch_is_not_given_what_would_build_objects(tmp_path: Path) -> None:
    torch.save({"model": small(), "more": bytearray(b"x")}, tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True)["more"] == b"x"  # it would, of any size
    with pytest.raises(ConversionError, match="torch reads it only with what built its objects"):
        reference.read_file(tmp_path / "x.pth")


FULL = [
    "at-l2-eps1",
    "autoaugment",
    "augmix",
    "ts-debiased",
    "opticsaugment",
    "prime",
    "diffusion-noise",
    "dino",
    "swav",
    "simclrv2",
    "supcon",
    "vit-deit",
    "vit-augreg",
    "vit-mae",
]


@pytest.mark.parametrize("name", FULL)
def test_a_file_of_every_kind_becomes_the_reference_model(name: str, tmp_path: Path, capsys) -> None:
    """At full size, from the file in its layout through the command line to logits."""
    entry = zoo.get(name)
    arch = entry.layout
    contents = zoo_layouts.layouts(name)[0](tensors(arch))
    paths = [tmp_path / f"{name}.{entry.file_format}", tmp_path / f"{name}-head.pth"][: len(contents)]
    if entry.file_format == "safetensors":
        from safetensors.torch import save_file

        save_file(contents[0], paths[0])
    else:
        with dill_like() as kind:
            if name.startswith("at-"):
                contents[0]["schedule"] = kind()
            for content, path in zip(contents, paths, strict=True):
                torch.save(content, path)
    assert main([name, "--from", *map(str, paths), "--to", str(tmp_path / "to")]) == 0
    assert ("inert placeholders: dill_like.Schedule" in capsys.readouterr().out) == name.startswith("at-")
    loaded = zoo.load(tmp_path / "to")
    out, expected = golden.forward(loaded.module), golden.expected(arch)
    assert golden.drift(out.logits, expected["logits"]) < 1e-4
    assert golden.drift(out.features, expected["features"]) < 1e-4
    np.testing.assert_array_equal(loaded.mean, np.asarray(entry.mean, np.float32))
    np.testing.assert_array_equal(loaded.std, np.asarray(entry.std, np.float32))


def test_a_member_of_a_zip_file_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(tensors("torchvision-resnet50"), tmp_path / "best.ckpt")
    with zipfile.ZipFile(tmp_path / "checkpoints_v1.5.zip", "w") as archive:
        archive.write(tmp_path / "best.ckpt", f"results/{zoo.get('regmixup').member}")
    (tmp_path / "best.ckpt").unlink()
    assert main(["all", "--from", str(tmp_path), "--to", str(tmp_path / "to"), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "1 converted, 0 failed, 59 missing" in out
    assert "compared with torchvision " in out and "'s resnet50 holding the same tensors; what has no tensors" in out
    assert "320 tensors equal, bit by bit, to those that torch's own readers find" in out
    for what, limit in (("from torch", 1e-4), ("of folded batch norm", 1e-4), ("of bfloat16", 0.2)):
        line = next(line for line in out.splitlines() if line.startswith(f"drift {what}: "))
        numbers = [float(word.strip(",")) for word in line.split() if word[0].isdigit()]
        assert len(numbers) == 2 and max(numbers) < limit


def test_tensors_of_torch_convert_as_arrays_do() -> None:
    arch = "timm-resnet50"
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in tensors(arch).items()}
    model = converters.convert(half, arch)
    expected = half["fc.weight"].float().numpy().T
    np.testing.assert_array_equal(np.asarray(model.head.kernel[...]), expected)


def test_counters_of_training_do_not_stop_the_comparison() -> None:
    """They have no influence, so the converter takes any; torch's class would refuse their shape."""
    arch = "torchvision-resnet50"
    state, images = golden.state_dict(arch), np.zeros((1, 32, 32, 3), np.float32)
    key = "bn1.num_batches_tracked"
    expected = reference.outputs(arch, state, images)
    for odd in (np.zeros(7), np.zeros((2, 2), bool), np.int64(3)):
        found = reference.outputs(arch, {**state, key: np.asarray(odd)}, images)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def randomize(module: Any) -> None:
    """Random weights and random batch-norm statistics."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=g)
            elif key.endswith("running_mean") or key.endswith("bias"):
                value.normal_(0, 0.1, generator=g)
            elif value.ndim == 1:
                value.uniform_(0.4, 0.8, generator=g)
            elif value.ndim > 1:
                value.normal_(0, float(1.5 / np.prod(value.shape[1:])) ** 0.5, generator=g)


def to_numpy(x: Any) -> np.ndarray:
    array = x.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.mark.parametrize("arch", golden.ARCHS)
def test_block_by_block_against_the_real_class(arch: str) -> None:
    """Every block of ours, on the inputs of the real class's block, and then the whole.

    float32 sums in another order differ by some 1e-6 standard deviations; the tanh GELU alone differs by over 1e-4.
    """
    module = reference.build(arch)
    randomize(module)
    model = converters.convert(module.state_dict(), arch)
    if "resnet" in arch:
        theirs = [block for stage in range(1, 5) for block in getattr(module, f"layer{stage}")]
        ours = [block for stage in model.stages for block in stage]
    else:
        theirs = list(module.encoder.layers if arch.startswith("torchvision") else module.blocks)
        ours = list(model.blocks)
    calls: list[tuple] = []
    for block in theirs:
        block.register_forward_hook(lambda module, inputs, output: calls.append((inputs[0], output)))
    images = golden.images()
    with torch.no_grad():
        logits = module(torch.as_tensor(images.transpose(0, 3, 1, 2).copy()))
    assert len(calls) == len(ours)
    for block, (inputs, output) in zip(ours, calls, strict=True):
        extra = (False,) if "resnet" in arch else ()
        assert golden.drift(block(to_numpy(inputs), *extra), to_numpy(output)) < 2e-5
    assert golden.drift(golden.forward(model).logits, logits.numpy()) < 1e-4
