"""Random arguments of fit and score: their exit codes, one line on stderr, and nobody's file is touched."""

from __future__ import annotations

import random

import pytest
import tiny
from test_fuzz_commands import arguments, contents

from oodjax import fit, score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    tiny.write_study(folder)
    (folder / "mine").write_text("precious", encoding="utf-8")
    return folder


def outcome(main, given, capsys):
    try:
        code = main([text.replace("\x00", "\x01") for text in given])
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert error.count("\n") == (0 if main is fit.main and not code else 1) and "Traceback" not in error, error
    assert error.rstrip("\n").isprintable(), error
    return code


@pytest.mark.parametrize("seed", range(60))
def test_any_arguments_of_a_fit_give_a_monitor_or_one_line(photos, tmp_path, seed, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    before = contents(photos)
    good = {
        "--model": ["tiny:build"],
        "--id": ["train", "val", "."],
        "--calibrate": ["test", "val", "near", "far/class_0"],
        "--detector": ["msp", "knn:k=3", "mds", "ash:percentile=80", "gram", "odin", "neco"],
        "--tpr": ["0.9", "0.5"],
        "--seed": ["3"],
        "--batch-size": ["16"],
        "--bank-fraction": ["0.5"],
        "--precision": ["float32"],
    }
    rng = random.Random(seed)
    given = arguments(rng, list(good), good)
    given += [word for name in ("--model", "--id") if name not in given for word in (name, good[name][0])]
    if {"-h", "--help"} & set(given):
        given = []
    code = outcome(fit.main, [*given, "--to", str(tmp_path / "to")], capsys)
    assert code in (0, 2) and (tmp_path / "to").exists() == (code == 0)
    assert contents(photos) == before


@pytest.mark.parametrize("seed", range(60))
def test_any_arguments_of_a_score_give_lines_or_one_line(photos, tmp_path_factory, seed, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    kept = tmp_path_factory.getbasetemp() / "kept"
    if not kept.exists():
        assert fit.main(["--model", "tiny:build", "--detector", "msp", "--id", "val", "--to", str(kept)]) == 0
        capsys.readouterr()
    before = contents(photos)
    good = {
        "--model": ["tiny:build"],
        "--monitor": [str(kept)],
        "--json": ["near"],
        "--csv": ["test/class_0/000.png"],
        "far": ["far"],
    }
    rng = random.Random(seed)
    given = arguments(rng, list(good), good)
    given += [word for name in ("--monitor", "--model") if name not in given for word in (name, good[name][0])]
    if {"-h", "--help", "/", "~", "*", "../.."} & set(given):
        given = []
    monkeypatch.setattr("sys.stdin", iter(()))
    assert outcome(score.main, [*given, "near/class_1"] if given else [], capsys) in (0, 1, 2)
    assert contents(photos) == before
