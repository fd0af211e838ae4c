"""Recipes trained with several seeds: names, tables, what is printed, and what is found again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console

from oodjax.console import print_tables
from oodjax.presets import Options, make
from oodjax.presets.models import Trained
from oodjax.results import Tables, per_recipe
from oodjax.run import main
from oodjax.study import StudyError
from oodjax.training.recipes import RECIPES, Recipe

# Names and choices: nothing is trained.


def test_each_seed_of_a_recipe_is_a_model_on_the_same_data(tmp_path):
    study = make("digits", Options(tmp_path, seed=3, seeds=2))
    names = [m.name for m in study.models]
    assert names == [f"{recipe}.seed{seed}" for recipe in RECIPES for seed in (3, 4)]
    assert study.replicates == {f"{recipe}.seed{seed}": (recipe, seed) for recipe in RECIPES for seed in (3, 4)}
    assert [m.seed for m in study.models[:2]] == [3, 4]
    assert len({m.train for m in study.models}) == 1
    assert [s.sha256 for s in study.sets] == [s.sha256 for s in make("digits", Options(tmp_path, seed=3, seeds=1)).sets]
    assert len({m._key for m in study.models}) == len(study.models)


def test_one_seed_goes_by_the_recipes_name(tmp_path):
    study = make("digits", Options(tmp_path, seeds=1))
    assert [m.name for m in study.models] == list(RECIPES) and study.replicates == {}


def test_the_default_of_digits_gives_an_interval(tmp_path):
    seeds = {seed for _, seed in make("digits", Options(tmp_path)).replicates.values()}
    assert len(seeds) >= 3


def test_a_recipe_names_all_of_its_seeds_and_a_model_one(tmp_path):
    study = make("digits", Options(tmp_path, seeds=3))
    both = study.only(models=("ema.seed2", "baseline"))
    assert [m.name for m in both.models] == ["baseline.seed0", "baseline.seed1", "baseline.seed2", "ema.seed2"]
    assert both.replicates == {m.name: study.replicates[m.name] for m in both.models}
    with pytest.raises(StudyError, match=r"unknown model baseline.seed3; there are: baseline, .*baseline.seed0\. Did"):
        study.only(models=("baseline.seed3",))


def test_checkpoints_of_the_first_seed_are_found_by_a_study_of_several(tmp_path):
    one, several = (make("digits", Options(tmp_path, seed=5, seeds=n)) for n in (1, 2))
    by_name = {m.name: m for m in several.models}
    for model in one.models:
        assert by_name[f"{model.name}.seed5"].folder == model.folder
        assert by_name[f"{model.name}.seed5"]._key == model._key
        assert by_name[f"{model.name}.seed6"].folder != model.folder


@pytest.mark.parametrize(
    "words, named",
    {
        "none": (["digits", "--seeds", "0"], ["--seeds must lie in 1..1000", "got 0"]),
        "too many": (["cifar10", "--seeds", "1001"], ["1..1000", "1001"]),
        "beyond the last seed": (["digits", "--seed", "4294967295", "--seeds", "2"], ["4294967296"]),
        "checkpoints": (["imagenet", "--seeds", "2"], ["imagenet takes no --seeds"]),
        "own models": (["own", "--seeds", "2", "--model", "x:y"], ["own takes no --seeds"]),
    }.values(),
)
def test_seeds_that_cannot_be_are_one_line(words, named, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--out", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert [word for word in named if word not in captured.err] == []


# What is printed, against pandas and SciPy by hand.


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    models = pd.DataFrame(
        [
            {
                "model": f"{r}.seed{s}",
                "recipe": r,
                "seed": s,
                "category": c,
                "accuracy": rng.random(),
                "ece": rng.random(),
            }
            for r, c in (("plain", "baseline"), ("mixed", "augmentation"))
            for s in range(4)
        ]
    )
    cells = pd.DataFrame(
        [{"detector": d, "dataset": x, "ood_category": x} for d in ("a", "b") for x in ("far", "near")]
    )
    results = models[["model", "recipe", "seed"]].merge(cells, how="cross")
    return Tables(results.assign(auroc=rng.random(len(results)), fpr95=rng.random(len(results))), models)


def test_recipes_have_the_means_and_t_intervals_of_their_seeds(tables):
    found = per_recipe(tables).set_index("recipe")
    assert list(found.index) == ["plain", "mixed"] and list(found.category) == ["baseline", "augmentation"]
    for recipe in found.index:
        seeds = tables.results[tables.results.recipe == recipe].groupby("seed")[["auroc", "fpr95"]].mean()
        seeds = seeds.join(tables.models[tables.models.recipe == recipe].set_index("seed")[["accuracy", "ece"]])
        for name in ("accuracy", "ece", "auroc", "fpr95"):
            values = 100 * seeds[name].to_numpy()
            low, high = scipy.stats.t.interval(0.95, 3, values.mean(), values.std(ddof=1) / 2)
            row = found.loc[recipe, [name, f"{name}_low", f"{name}_high"]].to_numpy(float)
            np.testing.assert_allclose(row, [values.mean(), low, high], rtol=1e-9, err_msg=name)


def test_a_recipe_is_one_printed_row_with_its_interval(tables):
    names = {"mixed": max(RECIPES, key=len)}
    tables = Tables(tables.results.replace({"recipe": names}), tables.models.replace({"recipe": names}))
    console = Console(record=True, width=80)
    print_tables(console, tables)
    printed = console.export_text()
    row = per_recipe(tables).set_index("recipe").loc[names["mixed"]]
    for name in ("accuracy", "auroc", "fpr95"):
        assert f"{row[name]:.1f} [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]" in printed
    assert "mean over 4 seeds" in printed and "seed0" not in printed
    (leaders,) = (line for line in printed.splitlines() if "best detectors" in line)
    means = 100 * tables.results.groupby("detector").auroc.mean()
    assert f": {means.idxmax()} {means.max():.1f} [" in leaders


# Through the command line, with one epoch of training.


@pytest.fixture
def words(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "short", Recipe("short", "baseline", epochs=1))
    return ["digits", "--models", "short", "--detectors", "msp", "--datasets", "letters", "--out", str(tmp_path)]


def made_by(monkeypatch) -> list[str]:
    """Names of the models that are trained from here on."""
    names, make_one = [], Trained.make

    def make_and_tell(self):
        make_one(self)
        names.append(self.name)

    monkeypatch.setattr(Trained, "make", make_and_tell)
    return names


@pytest.mark.slow
def test_several_seeds_are_columns_and_one_is_as_before(words, tmp_path, monkeypatch):
    trained = made_by(monkeypatch)
    assert main([*words, "--seeds", "1"]) == 0
    before = pd.read_csv(tmp_path / "results.csv"), pd.read_csv(tmp_path / "models.csv")
    assert list(before[0].model) == ["short"] and list(before[1].columns) == ["model", "category", "accuracy", "ece"]
    assert list(before[0].columns[:3]) == ["model", "model_category", "detector"]
    assert main([*words, "--seeds", "2"]) == 0
    assert trained == ["short", "short.seed1"]  # the first was found again
    results, models = pd.read_csv(tmp_path / "results.csv"), pd.read_csv(tmp_path / "models.csv")
    for table in (results, models):
        assert list(table.columns[:3]) == ["model", "recipe", "seed"]
        assert table[["model", "recipe", "seed"]].to_numpy().tolist() == [
            ["short.seed0", "short", 0],
            ["short.seed1", "short", 1],
        ]
    assert results.auroc[0] == before[0].auroc[0] and results.auroc[1] != results.auroc[0]
    manifest = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert manifest["configuration"]["seeds"] == [0, 1] and manifest["configuration"]["seed"] == 0
    assert set(manifest["checkpoints"]) == {"short.seed0", "short.seed1"}
    assert main([*words, "--seeds", "1"]) == 0
    for table, name in zip(before, ("results.csv", "models.csv"), strict=True):
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), table)


@pytest.mark.slow
def test_a_run_that_was_killed_after_the_first_seed_trains_the_rest(words, tmp_path, monkeypatch):
    whole = Trained.make

    def killed(self):
        if self.seed == 1:
            raise KeyboardInterrupt
        whole(self)

    monkeypatch.setattr(Trained, "make", killed)
    assert main([*words, "--seeds", "3"]) == 130
    monkeypatch.setattr(Trained, "make", whole)
    first = json.loads((tmp_path / "checkpoints" / "short" / "manifest.json").read_text(encoding="utf-8"))
    trained = made_by(monkeypatch)
    assert main([*words, "--seeds", "3"]) == 0
    assert trained == ["short.seed1", "short.seed2"]
    assert json.loads((tmp_path / "checkpoints" / "short" / "manifest.json").read_text(encoding="utf-8")) == first
    assert list(pd.read_csv(tmp_path / "results.csv").seed) == [0, 1, 2]


def warnings_of(capsys) -> list[str]:
    """What a run said about the tables that it replaces."""
    return [line for line in capsys.readouterr().out.splitlines() if "holds tables" in line]


@pytest.mark.slow
def test_a_run_says_that_it_replaces_tables_of_other_settings(words, tmp_path, capsys):
    plain = [*words, "--seeds", "1"]
    assert main(plain) == 0 and main(plain) == 0
    assert warnings_of(capsys) == []
    said = f"warning: {tmp_path} holds tables of precision float32, not bfloat16: they are replaced; --out keeps them"
    assert main([*plain, "--precision", "bfloat16", "--plan"]) == 0
    assert warnings_of(capsys) == [said]
    before = pd.read_csv(tmp_path / "results.csv")
    assert main([*plain, "--precision", "bfloat16"]) == 0
    assert warnings_of(capsys) == [said]
    manifest = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert manifest["configuration"]["precision"] == "bfloat16" and manifest["warnings"] == [said[9:]]
    assert not pd.read_csv(tmp_path / "results.csv").equals(before)


def test_each_setting_that_changes_numbers_is_told():
    from oodjax.presets.doubts import replaced

    former = {"preset": "digits", "seed": 0, "precision": "float32", "bank_fraction": 1.0, "fast_pixels": False}
    assert replaced("results", former, former) == [] == replaced("results", {}, former)
    for name, value in {"preset": "own", "seed": 1, "bank_fraction": 0.5, "fast_pixels": True, "seeds": [0, 1]}.items():
        (line,) = replaced("results", former, {**former, name: value})
        assert f"of {name.replace('_', ' ')} {former.get(name, 'one alone')}, not {value}: " in line
    (line,) = replaced("results", {**former, "seed": 1, "precision": "bfloat16"}, former)
    assert "of seed 1, not 0, and of precision bfloat16, not float32: " in line
    assert replaced("results", {**former, "batch_size": 2}, {**former, "batch_size": 3}) == []  # moves no number
