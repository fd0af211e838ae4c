"""Files are there whole or not at all."""

import ast
import os
import stat
from pathlib import Path

import pytest

import oodjax
from oodjax.files import (
    fingerprint,
    partial_name,
    remove_partial,
    write_text,
    write_whole,
)


def test_a_failing_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    write_text(path, "old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_permissions_are_those_that_the_umask_leaves(tmp_path):
    for mask, mode in ((0o077, 0o600), (0o022, 0o644), (0o002, 0o664)):
        former = os.umask(mask)
        try:
            write_text(tmp_path / f"{mode}.txt", "x")
        finally:
            os.umask(former)
        assert stat.S_IMODE((tmp_path / f"{mode}.txt").stat().st_mode) == mode


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    write_text(tmp_path / ("n" * 255), "whole")
    assert (tmp_path / ("n" * 255)).read_text() == "whole"


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    units, theirs = tmp_path / "units", [".thesis.partial", ".units.npz.abc.partial", "oodjax-0123456789abcdef.partial"]
    units.mkdir()
    for name in (*theirs, "u.npz"):
        (units / name).write_text("precious")
    (units / ".mine.partial").mkdir()
    (units / partial_name()).write_text("half")
    (units / partial_name()).mkdir()
    (units / partial_name()).symlink_to(units / ".mine.partial")
    (tmp_path / partial_name()).write_text("in a folder that is not named")
    remove_partial(units, tmp_path / "missing")
    assert {p.name for p in units.iterdir()} == {*theirs, "u.npz", ".mine.partial"}
    assert len(list(tmp_path.iterdir())) == 2


def test_fingerprints_depend_on_content_alone():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})


def test_every_text_file_is_opened_as_utf8():
    """Otherwise what is written under one locale could not be read under another."""
    root = Path(oodjax.__file__).parents[1]
    sources = [p for part in ("oodjax", "converters", "benchmarks") for p in sorted((root / part).rglob("*.py"))]
    found = {
        f"{path.relative_to(root)}:{call.lineno}"
        for path in sources
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _opens_text(call) and "encoding" not in {k.arg for k in call.keywords}
    }
    assert not found


def _opens_text(call):
    name, method = getattr(call.func, "attr", getattr(call.func, "id", "")), isinstance(call.func, ast.Attribute)
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name == "open":
        return "b" not in modes[-1] if modes else not call.args
    return method and name in ("read_text", "write_text")
