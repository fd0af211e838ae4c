"""What we listed is ours; everything else in a folder is somebody's."""

import json
import os

import pytest

from oodjax.command_line import UsageError
from oodjax.listing import ForeignFile, read_listing, staging


def publish(folder, files, **facts):
    with staging(folder) as staged:
        for path, text in files.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).write_text(text)
        read_listing(folder, "ours.json", "me").publish(staged, facts)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_listed_files_are_replaced_or_removed_and_others_stay(tmp_path):
    publish(tmp_path, {"index.html": "1", "figures/a.svg": "1", "figures/b.svg": "1", "figures/c.svg": "1"}, answer=42)
    (tmp_path / "figures" / "fig99.svg").write_text("mine")
    (tmp_path / "figures" / "c.svg").write_text("mine now")
    (tmp_path / "index.html").write_text("damaged")
    assert not read_listing(tmp_path, "ours.json", "me").whole()
    publish(tmp_path, {"index.html": "2", "figures/a.svg": "2"})
    found = contents(tmp_path)
    assert json.loads(found.pop("ours.json"))["files"].keys() == {"index.html", "figures/a.svg"}
    assert found == {"index.html": "2", "figures/a.svg": "2", "figures/c.svg": "mine now", "figures/fig99.svg": "mine"}
    assert read_listing(tmp_path, "ours.json", "me").whole()


def test_facts_are_kept_beside_the_files(tmp_path):
    publish(tmp_path, {"a": "1"}, answer=42)
    assert read_listing(tmp_path, "ours.json", "me").facts["answer"] == 42


@pytest.mark.parametrize("theirs", ["index.html", "ours.json", "figures/a.svg", "figures"])
def test_a_foreign_file_is_refused_before_anything_is_written(tmp_path, theirs):
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).write_text('{"made_by": "another", "files": {"index.html": "%s"}}' % ("0" * 64))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=theirs.split("/")[-1]):
        publish(tmp_path, {"index.html": "1", "figures/a.svg": "1"})
    assert contents(tmp_path) == before


def test_a_folder_or_a_link_in_the_way_is_refused(tmp_path):
    publish(tmp_path, {"a": "1", "b": "1"})
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    with pytest.raises(ForeignFile, match="a is in the way"):
        publish(tmp_path, {"a": "2"})
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ForeignFile, match="x is in the way"):
        publish(tmp_path, {"x": "2"})


def test_a_listing_reaches_only_below_its_folder(tmp_path):
    (tmp_path / "thesis").write_text("precious")
    sha = "2e2ba3b4e13bd9d1ae6d6ba0d0f5d6ecb6a9a7d3a0b3b1cbd1f2b1b2b3b4b5b6"
    named = {"../thesis": sha, str(tmp_path / "thesis"): sha, "a/../../thesis": sha, ".hidden": sha, "c": 3}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ours.json").write_text(json.dumps({"made_by": "me", "files": named}))
    assert read_listing(tmp_path / "out", "ours.json", "me").files == {}
    publish(tmp_path / "out", {"a": "1"})
    assert (tmp_path / "thesis").read_text() == "precious"


def test_a_crash_leaves_nothing_foreign(tmp_path, monkeypatch):
    publish(tmp_path, {"a": "1", "b": "1"})
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda old, new: 1 / 0 if new.name == "c" else replace(old, new))
    with pytest.raises(ZeroDivisionError):
        publish(tmp_path, {"a": "2", "c": "2"})
    monkeypatch.undo()
    assert contents(tmp_path)["a"] == "2" and not read_listing(tmp_path, "ours.json", "me").whole()
    publish(tmp_path, {"a": "3", "c": "3"})
    assert set(contents(tmp_path)) == {"a", "c", "ours.json"} and contents(tmp_path)["a"] == "3"


def test_a_failure_leaves_no_folder_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "deep" / "out") as staged:
        (staged / "half").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
