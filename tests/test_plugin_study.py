"""A study file that names plugins and labels; a plugin's detector is scored anew when its source has changed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from studies import Ran, scores_of

from oodjax import presets, scoring
from oodjax.detectors.base import METHODS
from oodjax.study import Study, StudyError

PLUGIN = '''
from oodjax.detectors import Method, register


def fit(stats, validation, scale):
    return {"center": stats.mean}


def score(params, outputs, scale):
    """- scaled squared distance to the mean training feature."""
    return -scale * ((outputs.features - params["center"][None]) ** 2).sum(axis=-1)


register(Method("center", "own", score, needs=("features",), fit=fit, reads=("label_sums",), options={"scale": 1.0}))
'''
HEAD = 'detectors = ["msp", "vim:dim=3", "center", "center:scale=-1"]\nplugins = ["center_plugin"]\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study file with a plugin beside it; what it registers is forgotten after the test."""
    methods, path = dict(METHODS), list(sys.path)
    file = tiny.write_study(tmp_path)
    file.write_text(HEAD + file.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "center_plugin.py").write_text(PLUGIN, encoding="utf-8")
    yield tmp_path
    METHODS.clear()
    METHODS.update(methods)
    sys.path[:] = path
    sys.modules.pop("center_plugin", None)


def study_of(folder: Path) -> Study:
    made = presets.make("own", presets.Options(folder=folder / "out", file=folder / "tiny.toml"))
    return dataclasses.replace(made, models=made.models[:1])


def test_a_study_file_names_plugins_and_labels(folder):
    study = study_of(folder)
    assert study.detectors == ("msp", "vim:dim=3", "center", "center:scale=-1")
    assert study.including(["all", "center:scale=2"]).detectors[-1] == "center:scale=2"
    before = scores_of(Ran(study, folder / "out").run())
    ours, theirs = (before["first", "near", label] for label in ("center", "center:scale=-1"))
    np.testing.assert_allclose(ours, -theirs, rtol=1e-6)
    assert np.ptp(ours) > 0

    def again(text: str) -> list[str]:
        """What is to be scored once the plugin's text is this."""
        (folder / "center_plugin.py").write_text(text, encoding="utf-8")
        METHODS.pop("center")
        sys.modules.pop("center_plugin")
        importlib.invalidate_caches()
        scoring.score_points.clear_cache()
        study = study_of(folder)
        return Ran(study, folder / "out").engine().todo(study.models[0]).scores

    assert again(PLUGIN.replace('"""- scaled', '"""Minus the scaled')) == []
    assert again(PLUGIN.replace("** 2", "** 4")) == ["center", "center:scale=-1"]
    engine = Ran(study_of(folder), folder / "out").run()
    after = scores_of(engine)
    assert engine.counts.forwards == 0
    assert np.abs(after["first", "near", "center"] - ours).max() > 1e-3
    np.testing.assert_array_equal(after["first", "near", "vim:dim=3"], before["first", "near", "vim:dim=3"])


WRONG = {
    "no list": ('detectors = "msp"\n', "detectors must be a list of texts in quotes, got 'msp'"),
    "nothing": ("detectors = []\n", "detectors must name one or more"),
    "unknown": ('detectors = ["mps"]\n', "tiny.toml: detectors: unknown detector 'mps'; there are: msp"),
    "option": ('detectors = ["vim:dims=3"]\n', "vim has no hyper-parameter dims; it takes: dim"),
    "twice": ('detectors = ["vim:dim=3", "vim:dim=3.0"]\n', "two detectors are called vim:dim=3"),
    "plugin": ('plugins = ["not_there_c"]\n', "plugin 'not_there_c': there is no module not_there_c; looked for in /"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_lists_in_a_study_file_are_one_sentence(case, folder):
    text, words = WRONG[case]
    file = folder / "tiny.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(HEAD, text), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        study_of(folder)
    assert words in str(caught.value) and isinstance(caught.value, StudyError) == (case != "plugin")


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", *words]
    places = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(tiny.__file__).parent), *sys.path])}
    return subprocess.run(line, cwd=folder, env=places, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_the_command_lines_take_a_plugin_and_labels(folder):
    """In processes of their own: study, tables, report; without the plugin its rows are named and left out."""
    file = folder / "tiny.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(HEAD, ""), encoding="utf-8")
    run = ["oodjax.run", "tiny.toml", "--models", "first", "--out", "out"]
    done = command(folder, *run, "--plugin", "center_plugin", "--detectors", "mls,vim:dim=3", "center:scale=2")
    assert done.returncode == 0, done.stderr
    assert list(pd.read_csv(folder / "out" / "results.csv").detector.unique()) == ["mls", "vim:dim=3", "center:scale=2"]
    done = command(folder, *run, "--plugin", "center_plugin", "--detectors", "ebo")
    labels = list(pd.read_csv(folder / "out" / "results.csv").detector.unique())
    assert done.returncode == 0 and labels == ["mls", "ebo", "vim:dim=3", "center:scale=2"]
    report = ["oodjax.report", "out", "--out", "page", "--detectors"]
    assert command(folder, *report, "vim:dim=3.0", "--plugin", "center_plugin").returncode == 0
    assert "center:scale=2" in (folder / "page" / "index.html").read_text(encoding="utf-8")
    wrong = command(folder, *report, "vim:dim=4")
    assert wrong.returncode == 2 and "Did you mean 'vim:dim=3'?" in wrong.stderr and wrong.stderr.count("\n") == 1
    done = command(folder, *run, "--detectors", "mls")
    assert "kept, but not in the tables: center:scale=2: no such detector is registered here" in done.stdout
    listed = json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))
    assert listed["configuration"]["detectors"] == ["mls", "ebo", "vim:dim=3"]
    wrong = command(folder, *run, "--plugin", "center", "--detectors", "mls")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "there is no module center" in wrong.stderr
