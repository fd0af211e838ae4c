"""Files are there whole or not at all."""

import numpy as np
import pytest

from oodjax.files import (
    code_fingerprint,
    fingerprint,
    read_arrays,
    remove_partial,
    write_arrays,
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


def test_arrays_come_back_and_equal_arrays_give_equal_bytes(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, -1], np.int32)}
    for name in ("x.npz", "y.npz"):
        write_arrays(tmp_path / name, arrays)
    back = read_arrays(tmp_path / "x.npz")
    assert back.keys() == arrays.keys() and all((back[k] == arrays[k]).all() for k in arrays)
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / ".u.npz.abc.partial").write_text("half")
    (tmp_path / ".baseline.partial").mkdir()
    (tmp_path / ".baseline.partial" / "weights").write_text("half")
    write_text(tmp_path / "units" / "u.npz", "whole")
    remove_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["u.npz", "units"]


def test_fingerprints_depend_on_content_alone():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    assert code_fingerprint("outputs.py") != code_fingerprint("taps.py")
    with pytest.raises(FileNotFoundError, match="nothing.py"):
        code_fingerprint("nothing.py")
