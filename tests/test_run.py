"""The command line: bad input is one clear line and exit code 2, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from oodjax.detectors import NAMES
from oodjax.manifest import runs_of
from oodjax.run import main, parser

BAD = {
    "preset": (["nonsense"], ["nonsense", "digits"]),
    "detector": (["--detectors", "msp,foo"], ["foo", *NAMES]),
    "model": (["--models", "resnet9000"], ["resnet9000", "baseline", "simclr"]),
    "dataset": (["--datasets", "svhn"], ["svhn", "letters", "unit_tests"]),
    "precision": (["--precision", "int4"], ["int4", "float32", "bfloat16"]),
    "batch size": (["--batch-size", "0"], ["0", "at least 1"]),
    "huge batch size": (["--batch-size", "1000000000"], ["1000000000", "largest set", "id_test", "at most"]),
    "fleet": (["--fleet", "²"], ["--fleet must be auto or a whole number", "²"]),
    "another preset's options": (["--data", ".", "--id-test", "."], ["digits takes no --data, --id-test"]),
    "no detector": (["--detectors", ","], ["expected names"]),
    "no folder": (["--out", ""], ["expected a folder"]),
    "no value": (["--models=--"], ["--models needs a value"]),
    "batch size type": (["--batch-size", "many"], ["many"]),
    "seed": (["--seed", "-1"], ["-1", "4294967295"]),
    "option": (["--banana"], ["--banana"]),
    "abbreviated option": (["--det", "msp"], ["--det"]),
}


@pytest.mark.parametrize("arguments, named", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(arguments, named, tmp_path, capsys):
    folder = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(folder), *arguments])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1 and captured.out == ""
    for word in named:
        assert word in captured.err
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(file / "inside")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert str(file) in error and "--out" in error and error.count("\n") == 1
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    "theirs", ["results.csv", "models.csv", "run.json", "report/index.html", "report/report.json", "store", "report"]
)
def test_a_foreign_file_is_found_before_anything_is_made(theirs, tmp_path, capsys):
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["--models", "baseline", "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and str(tmp_path / theirs) in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / theirs).read_text() == "precious"


def test_help_explains_each_option_with_its_default():
    done = subprocess.run([sys.executable, "-m", "oodjax.run", "--help"], capture_output=True, text=True, check=True)
    for option in ("--models", "--detectors", "--datasets", "--seed", "--precision", "--batch-size", "--out"):
        assert option in done.stdout
    assert done.stdout.count("default:") >= 7


def test_each_run_that_makes_something_is_recorded():
    job = SimpleNamespace(command="python -m oodjax.run digits", started=datetime(2026, 1, 2, 3, 4, 5, 678, UTC))
    (first,) = runs_of(job, {}, [])  # tables of a store that an older version filled
    assert first.pop("seconds") > 0
    assert first == {"command": "python -m oodjax.run digits", "started": "2026-01-02T03:04:05+00:00"}
    assert runs_of(job, {"runs": [first]}, []) == [first]
    two = runs_of(job, {"runs": [first]}, [{"stage": "scores", "detectors": 2, "seconds": 1.0}])
    assert two[0] == first and two[1].items() > first.items() and len(two) == 2


def test_names_come_with_spaces_or_commas():
    assert parser().parse_args(["--detectors", "msp,knn", "vim"]).detectors == ["msp,knn", "vim"]


def test_an_error_ends_without_a_traceback():
    command = [sys.executable, "-m", "oodjax.run", "digits", "--detectors", "nope"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
