"""The command line on safetensors files: from a download to logits, and every way in which a file can be wrong."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import models_golden as golden
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import converters
from converters import command
from converters.__main__ import main
from oodjax import zoo
from oodjax.models.checkpoint import CheckpointError
from oodjax.models.network import Network
from oodjax.outputs import Head

ARCH = "torchvision-resnet50"
LOADED = functools.cache(zoo.load)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A downloads folder with the file of "baseline", and the checkpoint that the command line made of it."""
    folder = tmp_path_factory.mktemp("zoo")
    downloads = folder / "downloads"
    downloads.mkdir()
    save_file(golden.state_dict(ARCH), downloads / "baseline.safetensors")
    to = folder / "checkpoints" / "baseline"
    assert main(["baseline", "--from", str(downloads / "baseline.safetensors"), "--to", str(to)]) == 0
    return downloads, to


def error_of(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Runs the command line, which must fail with exit code 2 and one line."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("converters: ")
    return lines[0]


def direct() -> list:
    """Leaves of the model that Python's `convert` makes of the same weights."""
    return jax.tree.leaves(nnx.state(converters.convert(golden.state_dict(ARCH), ARCH)))


def test_a_converted_checkpoint_gives_the_reference_logits(converted: tuple[Path, Path]) -> None:
    downloads, to = converted
    loaded, folded = zoo.load(to), zoo.load(to, fold=True)
    assert folded.module.config.folded and not loaded.module.config.folded
    assert golden.drift(golden.forward(folded.module).logits, golden.expected(ARCH)["logits"]) < 1e-4
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(nnx.state(loaded.module)), direct(), strict=True))
    np.testing.assert_array_equal(loaded.std, np.asarray([0.229, 0.224, 0.225], np.float32))
    manifest = json.loads((to / "manifest.json").read_text())
    content = (downloads / "baseline.safetensors").read_bytes()
    assert manifest["source"] == [{"file": "baseline.safetensors", "sha256": hashlib.sha256(content).hexdigest()}]
    assert manifest["rules"] >= 1 and manifest["shapes"]["head/kernel"] == [2048, 1000]
    assert manifest["layout"] == ARCH and manifest["licence"] == "BSD-3-Clause"


def test_normalisation_is_the_checkpoints_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3), np.uint8)
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.3, 0.4])
    head = Head(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    settings = {"mean": mean, "std": std, "crop": None, "resize": None}
    network = Network.from_function(lambda x: (x[:, 0, 0], x[:, 0, 0], (x,)), head, **settings)
    found = network(pixels).maps[0]
    np.testing.assert_allclose(found, (pixels / 255.0 - mean) / std, rtol=1e-5, atol=1e-6)


def test_all_converts_what_is_there(converted: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    downloads, to = converted
    broken = downloads / "timm" / "resnet50.a1_in1k"
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes((downloads / "baseline.safetensors").read_bytes()[:5000])
    assert main(["all", "--from", str(downloads), "--to", str(to.parent)]) == 2
    out, err = capsys.readouterr()
    assert f"{to}: up to date" in out and "1 converted, 1 failed, 58 missing" in out
    assert "timm-a1 failed:" in out and err.strip() == "converters: all: could not convert timm-a1"
    assert "missing dino.pth: https://dl.fbaipublicfiles.com/dino/" in out and "(as dino-head.pth)" in out
    assert sorted(path.name for path in to.parent.iterdir()) == ["baseline"]


def test_damage_after_conversion_is_noticed(converted: tuple[Path, Path], tmp_path: Path) -> None:
    _, to = converted
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "weights").symlink_to(to / "weights")
    manifest = json.loads((to / "manifest.json").read_text())

    def load_with(**changes: object) -> None:
        (damaged / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        zoo.load(damaged)

    with pytest.raises(CheckpointError, match="not those of its manifest"):
        load_with(weights="0" * 64)
    with pytest.raises(CheckpointError, match="damaged"):
        load_with(files="0" * 64)
    with pytest.raises(CheckpointError, match="unknown architecture 'x'"):
        load_with(architecture="x")
    (damaged / "manifest.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(CheckpointError, match="lacks"):
        zoo.load(damaged)
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "is a web page, not weights"),
        (b"\n<html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b'\x10\0\0\0\0\0\0\0{"a":', "damaged or truncated safetensors"),
    ],
)
def test_what_is_not_weights(tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes, message: str) -> None:
    (tmp_path / "file.safetensors").write_bytes(content)
    error = error_of(capsys, tmp_path / "file.safetensors", "--arch", ARCH, "--to", tmp_path / "to")
    assert message in error and not (tmp_path / "to").exists()


def test_wrong_architecture_and_wrong_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, to = tmp_path / "x.safetensors", tmp_path / "to"
    save_file({"cls_token": np.zeros((1, 1, 768), np.float32), "fc.bias": np.full(1000, np.nan, np.float32)}, path)
    error = error_of(capsys, path, "--arch", ARCH, "--to", to)
    assert "no place for cls_token" in error and "NaN or infinite values in fc.bias" in error
    assert "nothing fills head/kernel" in error and "and 263 more" in error
    assert "no layout 'resnet'" in error_of(capsys, path, "--arch", "resnet", "--to", to)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_missing_arguments_and_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    to = tmp_path / "to"
    assert "--to is missing" in error_of(capsys, "baseline")
    assert "is no checkpoint of the zoo (baseline, at-l2-eps0" in error_of(capsys, "basline", "--to", to)
    assert "no such file" in error_of(capsys, "baseline", "--from", tmp_path / "none.pth", "--to", to)
    assert "no such file" in error_of(capsys, tmp_path / "none.pth", "--arch", ARCH, "--to", to)
    assert "holds no dino.pth and dino-head.pth" in error_of(capsys, "dino", "--from", tmp_path, "--to", to)
    assert "--from must name one folder" in error_of(capsys, "all", "--to", to)
    assert "no such folder" in error_of(capsys, "all", "--from", tmp_path / "none", "--to", to)
    (tmp_path / "dino.pth").touch()
    two = error_of(capsys, "dino", "--from", tmp_path / "dino.pth", "--to", to)
    assert "published in two files" in two and "dino_resnet50_linearweights.pth" in two


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "augmix",
            "uc?id=1z-1V3rdFiwqSECz7Wkmn4VJVefJGJGiF by hand, keep it as augmix.pth.tar",
        ),
        ("styleaugment", "by hand, keep it as styleaugment.pth"),
        ("cutmix", "shared folder that only a browser can open"),
    ],
)
def test_files_that_no_program_can_fetch(name: str, message: str, tmp_path: Path, capsys) -> None:
    assert message in error_of(capsys, name, "--to", tmp_path / "to", "--downloads", tmp_path)


def test_where_downloads_are_looked_for() -> None:
    from converters.files import candidates, second_candidates

    assert candidates(zoo.get("augmix"))[:3] == ["augmix.safetensors", "augmix.pth", "augmix.pth.tar"]
    assert "resnet50_l2_eps1.ckpt" in candidates(zoo.get("at-l2-eps1"))
    assert "timm/resnet50.a1_in1k/model.safetensors" in candidates(zoo.get("timm-a1"))
    assert not {"model.safetensors", "best.ckpt", "ckpt.pth"} & {n for c in zoo.checkpoints() for n in candidates(c)}
    assert {"dino-head.pth", "dino_resnet50_linearweights.pth"} <= set(second_candidates(zoo.get("dino")))


def test_list_shows_all() -> None:
    found = subprocess.run([sys.executable, "-m", "converters", "list"], capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    assert len(lines) == 61 and lines[0].split() == ["id", "arch", "category", "accuracy", "licence", "source"]
    assert lines[1].split()[:5] == ["baseline", "resnet50", "baseline", "76.19", "BSD-3-Clause"]
    assert command.table() == found.stdout.rstrip("\n")


def test_the_list_into_a_pipe_that_closes() -> None:
    command_line = f"{sys.executable} -m converters list | head -n 1"
    found = subprocess.run(command_line, shell=True, capture_output=True, text=True, check=True)
    assert found.stdout.split()[:2] == ["id", "arch"] and found.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--to", "x"], "list: list takes no options, not --to"),
        (["all", "--layout", ARCH, "--from", ".", "--to", "x"], "all: all takes --from, --to, --verify, not --layout"),
        (["all", "--from", "a", "b", "--to", "x"], "--from must name one folder"),
        (["all", "--from", ".", "--to", "file"], "file: is not a folder"),
        (["baseline", "--classes", "10", "--to", "x"], "baseline: a checkpoint of the zoo takes --from, --to"),
        (["baseline", "--mean", "0", "0", "0", "--to", "x"], "--downloads, not --mean"),
        (["baseline", "--layout", ARCH, "--to", "x"], "--downloads, not --layout"),
        (["baseline", "--from", ".", "--downloads", ".", "--to", "x"], "takes --from or --downloads, not both"),
        (["./file", "--from", "file", "--layout", ARCH, "--to", "x"], "./file: a file takes --to, --layout"),
        (["./file", "--to", "x"], "--layout is missing, the names of its tensors: torchvision-resnet50, timm-"),
        (["./file", "--layout", ARCH, "--to", "x", "--mean", "123.7", "116", "103"], "--mean is [123.7, 116.0, 103.0]"),
        (["./file", "--layout", ARCH, "--to", "x", "--mean", "nan", "0", "0"], "--mean is [nan, 0.0, 0.0], expected"),
        (["./file", "--layout", ARCH, "--to", "x", "--std", "1e-40", "1", "1"], "--std is [1e-40, 1.0, 1.0], expected"),
        (["./file", "--layout", "timm-vit_base_patch16_224", "--to", "x", "--classes", "0"], "--classes 0: must lie"),
        (["./file", "--layout", ARCH, "--to", "x", "--classes", "9" * 20], "must lie in 1..1000000"),
        (["./file", "--layout", ARCH, "--to", "x", "--rewrites", "rename:a"], "cannot read the rewrite 'rename:a'"),
        (["./file", "--layout", ARCH, "--to", "file"], "file is not a folder; name a new folder"),
        (["./file", "--layout", ARCH, "--to", "link"], "link is a link to nowhere, which does not exist; name a new"),
        (["./file", "--layout", ARCH, "--to", ".."], ".. is no name of its own: name a new folder"),
        (["./file", "--layout", ARCH, "--to", "full"], "full is not only a checkpoint of ours (it holds 'thesis.tex')"),
        (["baseline", "--to", "full"], "full is not only a checkpoint of ours"),
        (["./file", "--layout", ARCH, "--to", "x[1]"], "cannot write to x[1]: Orbax"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_source_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list, message: str
) -> None:
    """The source is empty: reading it would be another error."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    assert message in error_of(capsys, *arguments)
    assert sorted(tmp_path.rglob("*")) == before and Path("full/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "arguments",
    [[], ["list", "list"], ["baseline", "--to"], ["x", "--mean", "1", "2"], ["x", "--classes", "y"], ["x", "--to", ""]],
)
def test_what_cannot_be_parsed_is_one_line(capsys: pytest.CaptureFixture, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.startswith("converters: ") and err.count("\n") == 1


def test_rewrites_keep_the_default_path_and_a_path_keeps_the_default_rewrites() -> None:
    nested = {"state_dict": {"module.a": np.zeros(1)}}
    assert list(command.envelope(None, "rename:module.=b.").open(nested, "x")) == ["b.a"]
    assert list(command.envelope("state_dict", None).open(nested, "x")) == ["a"]
    assert list(command.envelope("", "strip:state.").open({"state.b": np.zeros(1)}, "x")) == ["b"]
    assert list(command.envelope(None, None).open(nested, "x")) == ["a"]


@pytest.mark.parametrize(
    "step",
    [
        "",
        "x",
        "rename",
        "rename:",
        "rename:a",
        "rename:=b",
        "regex:a{N}={M}",
        "regex:a{N}.{N}=b",
        "regex:a{=b",
        "regex:a{N}=b{N!r:>99}",
        "regex:a{N}=b{N.real}",
        "regex:{0}=b",
        "strip:a=b",
        "drop:",
        "drop-prefix",
        "rule:a=b",
    ],
)
def test_rewrites_that_cannot_be_read(step: str) -> None:
    if not step:
        assert command.envelope(None, step).rewrites == ()
        return
    with pytest.raises(ValueError, match=f"cannot read the rewrite '{re.escape(step)}'"):
        command.envelope(None, step)


def test_numbered_rewrites() -> None:
    found = command.envelope("", "regex:net.{N}.{S}=layer{S}.{N}").open({"net.1.20.x": np.ones(1)}, "x")
    assert list(found) == ["layer20.1.x"]


def test_all_leaves_what_is_not_a_checkpoint(converted: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    downloads, _ = converted
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "thesis.tex").write_text("years of work")
    assert main(["all", "--from", str(downloads), "--to", str(tmp_path)]) == 2
    assert "baseline failed: " in (out := capsys.readouterr().out) and "it holds 'thesis.tex'" in out
    assert (tmp_path / "baseline" / "thesis.tex").read_text() == "years of work"


def test_up_to_date_is_what_the_table_says_and_the_folder_holds(converted: tuple[Path, Path], tmp_path: Path) -> None:
    downloads, to = converted
    entry, paths = zoo.get("baseline"), [downloads / "baseline.safetensors"]
    assert command.is_current(entry, paths, to)
    for change in ({"mean": (0, 0, 0)}, {"std": (1, 1, 1)}, {"layout": "timm-resnet50"}):
        assert not command.is_current(dataclasses.replace(entry, **change), paths, to)
    (tmp_path / "other").write_bytes(b"another file")
    assert not command.is_current(entry, [tmp_path / "other"], to)
    damaged = Path(shutil.copytree(to, tmp_path / "damaged"))
    (damaged / "weights" / "_METADATA").write_bytes(b"{}")
    assert not command.is_current(entry, paths, damaged)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 8, 8, 3), np.uint16),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 1), np.uint8),
        np.zeros((1, 8, 0, 3), np.uint8),
        [[[[0, 0, 0]]]],
        "image.png",
        None,
    ],
)
def test_images_must_be_bytes_with_colours_last(converted: tuple[Path, Path], images: object) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \(n, height, width, 3\), got .* of shape"):
        LOADED(converted[1])(images)


def test_a_loaded_network_is_shown_in_a_line(converted: tuple[Path, Path]) -> None:
    loaded = LOADED(converted[1])
    assert repr(loaded) == (
        "Network(resnet50, 1000 classes, from baseline.safetensors, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, "
        "resize 256, crop 224)"
    )
    assert loaded == loaded and len({loaded, loaded}) == 1
