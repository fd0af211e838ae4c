"""A user's own study by name, and own recipes in the studies that train."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny

from oodjax import presets
from oodjax.data import digits
from oodjax.presets import NAMES, OWN, Options, find, make, names, register
from oodjax.run import main
from oodjax.study import StudyError
from oodjax.training import RECIPES, Recipe
from oodjax.training import register as register_recipe
from oodjax.training.recipes import STUDY


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is forgotten after it."""
    before, recipes = dict(OWN), dict(RECIPES)
    yield
    for table, former in ((OWN, before), (RECIPES, recipes)):
        table.clear()
        table.update(former)


def mine(options):
    """Two networks on patterns."""
    return tiny.study(1, detectors=("msp",), **options.settings(32))


def test_a_registered_study_is_made_of_the_options():
    assert register("patterns", mine, takes=("data",)) is mine
    assert names() == (*NAMES, "patterns") and find("patterns").takes == ("data",)
    study = make("patterns", Options(Path("out"), seed=3, precision="bfloat16", data=Path("there")))
    assert (study.seed, study.precision, study.batch_size, study.detectors) == (3, "bfloat16", 32, ("msp",))
    with pytest.raises(StudyError, match="patterns takes no --root; it takes --data"):
        make("patterns", Options(Path("out"), root=Path("there")))
    with pytest.raises(StudyError, match=r"unknown preset 'pattern'; there are: digits, .*Did you mean 'patterns'"):
        make("pattern", Options(Path("out")))


FAULTS = {
    "twice": (lambda: [register("a", mine), register("a", mine)], ValueError, "'a' is registered already: .* replace="),
    "ready-made": (lambda: register("digits", mine, replace=True), ValueError, "'digits' is a ready-made study"),
    "no word": (lambda: register("a.toml", mine), ValueError, "must be letters, digits, _ and -, got 'a.toml'"),
    "no function": (lambda: register("a", "mine"), TypeError, "is made by a function of the options, got"),
    "no field": (lambda: register("a", mine, takes=("images",)), ValueError, "takes must be a tuple of seeds, data, "),
    "text": (lambda: register("a", mine, takes="data"), ValueError, "takes must be a tuple of"),
}


@pytest.mark.parametrize(("call", "kind", "words"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_registered_is_said_in_a_sentence(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_a_registered_study_that_fails_is_one_sentence():
    register("a", lambda options: 1 / 0)
    with pytest.raises(StudyError, match="preset 'a' raised ZeroDivisionError: division by zero"):
        make("a", Options(Path("out")))
    register("a", lambda options: 3, replace=True)
    with pytest.raises(StudyError, match="preset 'a' returned 3, expected an oodjax.study.Study"):
        make("a", Options(Path("out")))


def test_a_registered_recipe_is_part_of_a_study_where_it_is_named(tmp_path, monkeypatch):
    loaded = digits.load(0)
    monkeypatch.setattr(digits, "load", lambda seed: loaded)
    register_recipe(Recipe("quick", "augmentation", augment=("noise",), epochs=1))
    for seeds, named in ((1, ["quick"]), (2, ["quick.seed0", "quick.seed1"])):
        whole = make("digits", Options(tmp_path, seeds=seeds))
        assert {m.name for m in whole.only().models}.isdisjoint(named) and len(whole.only().models) == len(
            STUDY
        ) * seeds
        assert len(whole.only(models=["all"]).models) == len(STUDY) * seeds
        assert [m.name for m in whole.only(models=["quick"]).models] == named
        with pytest.raises(StudyError, match=r"unknown model quik; there are: baseline, .*quick.* Did you mean 'quick"):
            whole.only(models=["quik"])
    model = make("digits", Options(tmp_path, seeds=1)).only(models=["quick"]).models[0]
    assert model.category == "augmentation" and model.facts() is None
    monkeypatch.setattr(type(model), "facts", lambda self: {} if self.name == "quick" else None)  # it is trained
    assert [m.name for m in make("digits", Options(tmp_path, seeds=1)).only().models][-1] == "quick"


PLUGIN = '''
import tiny
from oodjax import presets, training

training.register(training.Recipe("quick", "baseline", epochs=1))


def patterns(options):
    """Networks with random weights on patterns."""
    return tiny.study(1, detectors=("msp", "mls"), **options.settings(32))


presets.register("patterns", patterns)
'''


@pytest.mark.slow
def test_a_run_names_a_plugin_s_study_and_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin_of_a_study.py").write_text(PLUGIN, encoding="utf-8")
    assert main(["patterns", "--plugin", "plugin_of_a_study", "--detectors", "mls"]) == 0
    folder = tmp_path / "oodjax-results" / "patterns"
    assert list(pd.read_csv(folder / "results.csv").detector.unique()) == ["mls"]
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["asked"]["detectors"] == ["mls"]
    words = ["--seeds", "1", "--models", "quick", "--detectors", "msp", "--datasets", "letters", "--out", "out"]
    assert main(["digits", "--plugin", "plugin_of_a_study", *words]) == 0
    assert list(pd.read_csv(tmp_path / "out" / "models.csv").model) == ["quick"]
    assert presets.names()[-1] == "patterns"
    capsys.readouterr()
