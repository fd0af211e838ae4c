"""Checkpoints on disk: what is there and is not ours stays, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from oodjax.models import ResNetConfig, checkpoint, initialize
from oodjax.presets.models import Trained
from oodjax.study import StudyError
from oodjax.training.recipes import RECIPES

TINY = ResNetConfig((1, 1, 1, 1), (1, 1, 1, 1), (1, 2, 2, 1), 2, "small", "direct", 2, 16)


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: files with their bytes, links with their targets, folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        value = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = value
    return found


def a_thesis(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")


def a_file(folder: Path) -> None:
    folder.write_text("a file")


def a_link(folder: Path) -> None:
    a_thesis(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def a_dangling_link(folder: Path) -> None:
    folder.symlink_to("nowhere")


def a_checkpoint_and_a_file(folder: Path) -> None:
    checkpoint.save(folder, initialize(TINY, 0))
    (folder / "notes.txt").write_text("mine")


def a_file_in_the_weights(folder: Path) -> None:
    checkpoint.save(folder, initialize(TINY, 0))
    (folder / "weights" / "d" / "notes.txt").write_text("mine")


def a_link_in_the_weights(folder: Path) -> None:
    checkpoint.save(folder, initialize(TINY, 0))
    (folder / "weights" / "link").symlink_to("nowhere")


def an_empty_folder_in_the_weights(folder: Path) -> None:
    checkpoint.save(folder, initialize(TINY, 0))
    (folder / "weights" / "mine").mkdir()


def another_program_s_checkpoint(folder: Path) -> None:
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "model.bin").write_bytes(b"theirs")
    (folder / "manifest.json").write_text(json.dumps({"weights": "0" * 64, "files": "0" * 64}))


def a_manifest_of_a_browser(folder: Path) -> None:
    (folder / "weights").mkdir(parents=True)
    (folder / "manifest.json").write_text("[]")


def weights_of_orbax_s_without_our_manifest(folder: Path) -> None:
    checkpoint.save(folder, initialize(TINY, 0))
    (folder / "manifest.json").write_text('{"epoch": 3}')


def a_checkpoint_without_its_manifest(folder: Path) -> None:
    checkpoint.save(folder, initialize(TINY, 0))
    (folder / "manifest.json").unlink()


FOREIGN: list[Callable[[Path], None]] = [
    a_thesis,
    a_file,
    a_link,
    a_dangling_link,
    a_checkpoint_and_a_file,
    a_file_in_the_weights,
    a_link_in_the_weights,
    an_empty_folder_in_the_weights,
    another_program_s_checkpoint,
    a_manifest_of_a_browser,
    weights_of_orbax_s_without_our_manifest,
    a_checkpoint_without_its_manifest,
]


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "to")
    before = contents(tmp_path)
    for write in (checkpoint.refuse_foreign, lambda folder: checkpoint.save(folder, initialize(TINY, 1))):
        with pytest.raises(checkpoint.CheckpointError, match=r"to.*name a new folder") as caught:
            write(tmp_path / "to")
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == before


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    before = contents(tmp_path)
    for place in (Path("."), Path(".."), Path("../x/.."), Path("/"), tmp_path / "file" / "a" / "to"):
        with pytest.raises(checkpoint.CheckpointError, match=r"name a new folder"):
            checkpoint.save(place, initialize(TINY, 1))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a[1]", "a\\b", "gs:", "x" * 256, "\udce9"])
def test_names_that_orbax_or_the_disk_take_for_something_else(tmp_path: Path, name: str) -> None:
    """Orbax wrote "a[1]" without its arrays, over a good checkpoint, and "a\\b" into another folder."""
    with pytest.raises(checkpoint.CheckpointError, match="cannot write to .*; name a new folder") as caught:
        checkpoint.save(tmp_path / name, initialize(TINY, 0))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    if len(name) < 5:
        checkpoint.save(tmp_path / "good", initialize(TINY, 0))
        (tmp_path / "good").rename(tmp_path / name)
        with pytest.raises(checkpoint.CheckpointError, match="cannot read .*; rename it"):
            checkpoint.load(tmp_path / name)


def test_an_empty_folder_and_an_older_checkpoint_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    for seed in (0, 1):
        model = initialize(TINY, seed)
        checkpoint.save(tmp_path / "to", model)
        assert checkpoint.weights_hash(checkpoint.load(tmp_path / "to")) == checkpoint.weights_hash(model)
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_a_damaged_checkpoint_is_replaced(tmp_path: Path) -> None:
    """Content that changed in a file of the name we gave it is damage, not another's work."""

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:40])

    to = tmp_path / "to"
    for damage in (
        lambda: cut(to / "manifest.json"),
        lambda: cut(to / "weights" / "manifest.ocdbt"),
        lambda: (to / "weights" / "_METADATA").unlink(),
        lambda: shutil.rmtree(to / "weights"),
    ):
        checkpoint.save(to, initialize(TINY, 0))
        damage()
        checkpoint.save(to, initialize(TINY, 1))
        assert checkpoint.weights_hash(checkpoint.load(to)) == checkpoint.weights_hash(initialize(TINY, 1))


def test_what_another_version_wrote_is_known_by_its_checksum(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "to", initialize(TINY, 0))
    (tmp_path / "to" / "weights" / "of-another-version").write_bytes(b"x")
    path = tmp_path / "to" / "manifest.json"
    files = checkpoint._digest_files(tmp_path / "to" / "weights")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files}))
    checkpoint.refuse_foreign(tmp_path / "to")
    (tmp_path / "to" / "weights" / "of-another-version").write_bytes(b"y")
    with pytest.raises(checkpoint.CheckpointError, match="of-another-version"):
        checkpoint.refuse_foreign(tmp_path / "to")


def test_neighbours_with_the_names_of_unfinished_work_stay(tmp_path: Path) -> None:
    a_thesis(tmp_path / ".to.partial")
    (tmp_path / ".to.old").write_text("mine")
    before = contents(tmp_path)
    checkpoint.save(tmp_path / "to", initialize(TINY, 0))
    assert {name: value for name, value in contents(tmp_path).items() if name.split("/")[0] != "to"} == before


@pytest.mark.parametrize("moves", [0, 1])
def test_the_old_checkpoint_survives_until_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Interrupted before either of the two renames: the old one away, the new one to its place."""
    kept = checkpoint.save(tmp_path / "to", initialize(TINY, 0))
    rename, done = os.rename, []

    def interrupted(source: Path, target: Path) -> None:
        if len(done) == moves:
            done.append(target)
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(checkpoint.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "to", initialize(TINY, 1))
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "to")) == kept
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "to", initialize(TINY, 0))
    save = checkpoint.ocp.StandardCheckpointer.save

    def slow(checkpointer: object, path: Path, arrays: object) -> None:
        (tmp_path / "to" / "notes.txt").write_text("written in the meantime")
        save(checkpointer, path, arrays)

    monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, "save", slow)
    with pytest.raises(checkpoint.CheckpointError, match="notes.txt"):
        checkpoint.save(tmp_path / "to", initialize(TINY, 1))
    assert (tmp_path / "to" / "notes.txt").read_text() == "written in the meantime"
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_a_failed_write_leaves_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = checkpoint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=10))
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(tmp_path / "there" / "a" / "b" / "to", initialize(TINY, 0))
    assert contents(tmp_path) == {"there": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "no ResNetConfig in its manifest"),
        ({"config": {"depth": 3}}, "no ResNetConfig in its manifest"),
        ({"config": {"depths": 3}}, "no ResNetConfig in its manifest"),
        ({"files": None}, "is damaged"),
        ({"weights": 3}, "not those of its manifest"),
    ],
)
def test_a_manifest_changed_by_hand_is_named(tmp_path: Path, change: dict, message: str) -> None:
    checkpoint.save(tmp_path / "to", initialize(TINY, 0))
    manifest = json.loads((tmp_path / "to" / "manifest.json").read_text())
    for name, value in change.items():
        changed = {key: kept for key, kept in (manifest | {name: value}).items() if kept is not None}
        (tmp_path / "to" / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(tmp_path / "to")


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_table_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="manifest.json is damaged"):
        checkpoint.read_manifest(tmp_path)


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "to", initialize(TINY, 0))
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "to", tmp_path / "to" / "manifest.json")]
    assert modes == [0o750, 0o640]


def test_a_study_asks_before_it_trains(tmp_path: Path) -> None:
    """There is no data to train on here: training would be another error."""
    a_thesis(tmp_path / "baseline")
    model = Trained("baseline", RECIPES["baseline"], tmp_path / "baseline", TINY, None, (0.5,) * 3, (0.5,) * 3, 0)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="it holds 'thesis.tex'.*stays as it is"):
        model.make()
    assert (tmp_path / "baseline" / "thesis.tex").read_text() == "years of work"
