"""Random argument lists and random target folders: one line, exit code 2, and the user's files as they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_checkpoint import TINY, contents

from converters import fetch
from converters.__main__ import main
from oodjax.models import checkpoint, initialize

pytestmark = pytest.mark.slow

WORDS = [
    *"list all baseline dino vit-mae basline empty.safetensors page.pth other.safetensors nothing.pth user".split(),
    *"link . .. - -- hf://a/b timm/resnet50 https://example.org/x.pth --from --to --layout --arch --verify".split(),
    *"--downloads --classes --mean --std --path --rewrites --help -h --too --to=new --to=-- --from=user".split(),
    *"0 -1 3 1000 nan inf 1e-40 0.5 123.7 a\\b gs: state_dict?| |? strip:module. rename:a regex:a{N}={M}".split(),
    *"timm-resnet50 torchvision-vit_b_16 resnet18 new user/new empty.safetensors/new new[1]".split(),
    *"regex:(=b ;".split(),
    *("", "9" * 30, "x" * 300, "drop:" + "y" * 1000, "\udce9", "\0", "\x1b[31m"),
]
STARTS = [
    ["empty.safetensors", "--layout", "timm-resnet50", "--to"],
    ["other.safetensors", "--layout", "timm-resnet50"],
    ["all", "--from", "user", "--to"],
    ["baseline", "--from", "other.safetensors", "--to"],
    ["baseline", "--to"],
    [],
]


def users_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    (folder / "link").symlink_to("thesis.tex")
    (folder / ".new.partial").mkdir()
    (folder / ".new.partial" / "notes.txt").write_text("mine")


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's with files that hold no checkpoint, without a network."""
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "page.pth").write_text("<html>")
    save_file({"fc.bias": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    save_file({"fc.bias": np.zeros(1000, np.float32)}, tmp_path / "baseline.safetensors")
    users_folder(tmp_path / "user")
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)

    def lost(host: str, port: object) -> None:
        raise OSError(-2, f"no host {host}")

    monkeypatch.setattr(fetch.socket, "getaddrinfo", lost)
    monkeypatch.setattr(fetch, "getproxies", dict)
    return tmp_path


def test_argument_lists(playground: Path, capsys: pytest.CaptureFixture) -> None:
    before = contents(playground)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        drawn = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(0, 7))]
        arguments = STARTS[rng.integers(0, len(STARTS))] + drawn
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = stopped.code
        err = capsys.readouterr().err
        assert contents(playground) == before, arguments
        if code == 0:
            asked = {"list", "all", "-h", "--help"} & set(arguments)
            assert err == "" and asked, arguments
        else:
            refused += 1
            assert code == 2 and err.startswith("converters: ") and err.count("\n") == 1, arguments
            assert err.removesuffix("\n").isprintable() and len(err) < 6000, arguments
    assert refused > 400


def _spoil(folder: Path, rng: np.random.Generator) -> bool:
    """A random change in a checkpoint's folder, or none; whether it may hold work of the user's afterwards."""
    inside = [path for path in folder.rglob("*") if path.is_dir()] + [folder]
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    place, file = inside[rng.integers(len(inside))], files[rng.integers(len(files))]
    name = [".notes", "manifest.json~", "weights.old", "d", "manifest.json", "weights", "\udce9"][rng.integers(7)]
    new, kind = place / name, rng.integers(8)
    if kind == 0:
        file.write_bytes(file.read_bytes() + b" damaged")
    elif kind == 1:
        file.unlink()
    elif kind == 2:
        file.rename(file.with_name("kept-by-hand"))
    elif kind == 3:
        (folder / "manifest.json").write_bytes(b'{"epoch": 3}')
    elif kind > 5 or os.path.lexists(new):
        return False
    elif kind == 4:
        new.write_bytes(b"mine")
    else:
        new.symlink_to(["nowhere", "..", "manifest.json"][rng.integers(3)])
    return kind >= 2


def test_target_folders(tmp_path: Path) -> None:
    """A checkpoint is replaced, damaged or not; a folder with anything else stays as it is, byte for byte."""
    rng = np.random.default_rng(0)
    replaced = 0
    for trial in range(120):
        home = tmp_path / str(trial)
        users_folder(home)
        checkpoint.save(home / "new", initialize(TINY, 0))
        mine = any([_spoil(home / "new", rng) for _ in range(rng.integers(1, 3))])
        before = contents(home)
        if mine:
            with pytest.raises(checkpoint.CheckpointError, match="stays as it is: name a new folder"):
                checkpoint.save(home / "new", initialize(TINY, 1))
            assert contents(home) == before
        else:
            replaced += 1
            hash = checkpoint.save(home / "new", initialize(TINY, 1))
            assert checkpoint.weights_hash(checkpoint.load(home / "new")) == hash
            outside = {name: value for name, value in before.items() if not name.startswith("new")}
            assert {n: v for n, v in contents(home).items() if not n.startswith("new")} == outside
    assert 20 < replaced < 100


def test_failures_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call fails, there is the old checkpoint or the new one, whole, and nothing beside it."""
    users_folder(tmp_path / "home")
    folder = tmp_path / "home" / "new"
    hashes = [checkpoint.save(folder, initialize(TINY, seed)) for seed in (1, 0)]
    outside = {name: value for name, value in contents(tmp_path).items() if not name.startswith("home/new")}
    errors = [OSError(28, "No space left on device"), PermissionError(13, "Permission denied"), KeyboardInterrupt()]
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(30):
        left, raised = [int(rng.integers(0, 30))], errors[rng.integers(3)]

        def failing(call: Callable, left: list[int] = left, raised: BaseException = raised) -> Callable:
            def wrapped(*arguments: object, **options: object) -> object:
                left[0] -= 1
                if left[0] == -1:
                    raise raised
                return call(*arguments, **options)

            return wrapped

        with monkeypatch.context() as patch:
            for name in ("rename", "fsync"):
                patch.setattr(os, name, failing(getattr(os, name)))
            try:
                checkpoint.save(folder, initialize(TINY, 1))
            except (OSError, KeyboardInterrupt):
                failed += 1
        assert checkpoint.weights_hash(checkpoint.load(folder)) in hashes
        assert {n: v for n, v in contents(tmp_path).items() if not n.startswith("home/new")} == outside
        checkpoint.save(folder, initialize(TINY, 0))
    assert failed > 10
