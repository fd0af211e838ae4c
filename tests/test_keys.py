"""Keys hold what decides the numbers and nothing else: code by what it does, of the package and of the user."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shutil
from pathlib import Path

import pytest
import tiny

import oodjax
from oodjax import detectors, fingerprints, keys
from oodjax.detectors import METHODS, Method, names

STUDY = tiny.study(1)
POINTS = ((1.0,), (0.0,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return shutil.copytree(Path(oodjax.__file__).parent, tmp_path_factory.mktemp("package") / "oodjax")


@pytest.fixture
def package(whole, monkeypatch):
    """A copy of the package's source that keys are taken of; what a test edits is put back."""
    monkeypatch.setattr(fingerprints, "PACKAGE", whole)
    forget()
    before = {path: path.read_text(encoding="utf-8") for path in whole.rglob("*.py")}
    yield whole
    for path, text in before.items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    forget()


def forget() -> None:
    """What has been read of the package's source."""
    fingerprints.package_code.cache_clear()
    keys._method_keys.clear()


def all_keys() -> dict[str, str]:
    forget()
    outputs = keys.outputs_key(STUDY, {"weights": "a"}, STUDY.id_test)
    partial = dataclasses.replace(STUDY, bank_fraction=0.5)
    return {
        "outputs": outputs,
        "layer_means": keys.layer_means_key("outputs"),
        "odin in the pass": keys.odin_key("outputs", POINTS),
        "statistics": keys.statistics_key(STUDY, "outputs"),
        "histogram": keys.statistics_key(partial, "outputs"),
        "gram in the pass": keys.in_pass_key("gram", [{}], "outputs", "statistics"),
        "choice": keys.selection_key("msp", ["outputs"]),
        **{name: keys.scores_key(name, {}, ["outputs"]) for name in names()},
    }


def before_returns(text: str, line: str, most: int | None = None) -> str:
    """The text with a line more before its first `most` return statements."""
    found = sorted(n.lineno for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Return))[:most]
    lines = text.split("\n")
    for number in reversed(found):
        indent = re.match(" *", lines[number - 1])[0]
        lines.insert(number - 1, indent + line)
    return "\n".join(lines)


def reword(path: Path) -> None:
    """Another docstring, more comments, other places of the lines."""
    text = path.read_text(encoding="utf-8").replace('"""', '"""Worded otherwise. ', 1)
    path.write_text("# a comment\n\n" + before_returns(text, "# why"), encoding="utf-8")


def change(path: Path) -> None:
    """One more statement in the first function that returns something."""
    path.write_text(before_returns(path.read_text(encoding="utf-8"), "changed = True", 1), encoding="utf-8")


def test_a_change_of_wording_changes_no_key(package):
    before = all_keys()
    for path in package.rglob("*.py"):
        reword(path)
    assert all_keys() == before


EVERY, MAPS = set(names()), {"layer_means", "gram in the pass"}
IN_PASS = {"gram in the pass", "choice"}  # made of a detector's code as its scores are
OF_FEATURE = {name for name in names() if METHODS[name].family == "feature"}
EDITS = {
    "data/loader.py": {"outputs"},
    "data/preprocess.py": {"outputs"},
    "forward.py": {"outputs"},
    "models/resnet.py": {"outputs"},
    "models/vit.py": {"outputs"},
    "models/normalize.py": {"outputs"},
    "taps.py": MAPS | {"statistics", "histogram"},
    "odin.py": {"odin in the pass"},
    "accumulate.py": {"statistics", "histogram"},
    "fold.py": {"statistics", "histogram"},
    "bank.py": {"statistics", "histogram"},
    "percentiles.py": {"histogram"} | EVERY | IN_PASS,
    "statistics.py": EVERY | IN_PASS,
    "scoring.py": EVERY | IN_PASS,
    "moments.py": EVERY | IN_PASS,
    "neighbors.py": EVERY | IN_PASS,
    "softmax.py": {"odin in the pass"} | EVERY | IN_PASS,
    "detectors/feature.py": OF_FEATURE,  # the later ones of features take from it
    "detectors/later/feature.py": {"residual", "gmm", "mdspp"},
    "detectors/later/rows.py": set(names()[21:]) - {"relation"},
    "metrics.py": {"choice"},
    "console.py": set(),
    "run.py": set(),
    "report/page.py": set(),
    "execute.py": set(),
    "store.py": set(),
}


@pytest.mark.parametrize("file, changed", EDITS.items(), ids=EDITS)
def test_a_changed_function_changes_the_keys_of_what_it_decides_alone(file, changed, package):
    before = all_keys()
    change(package / file)
    after = all_keys()
    assert {name for name in after if after[name] != before[name]} == changed


DETECTOR = '''
"""A detector of one's own."""
import jax.numpy as jnp
from oodjax.detectors import Method

def _sign():
    return 1

def score(params, outputs):
    return _sign() * jnp.max(outputs.logits, axis=1)

def fit(stats, validation):
    return {"count": stats.count}

METHOD = Method("mine", "classification", score, fit=fit, version=None)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Registers the detector that a text defines; returns the key of its scores."""
    monkeypatch.syspath_prepend(tmp_path)
    numbers = iter(range(100))

    def key(text: str) -> str:
        path = tmp_path / "own_detector.py"
        path.write_text(text + "\n" * next(numbers), encoding="utf-8")  # no compiled file of the same size and time
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        module = importlib.import_module("own_detector")
        module = importlib.reload(module)
        monkeypatch.setitem(METHODS, "mine", module.METHOD)
        return keys.scores_key("mine", {}, ["outputs"])

    return key


def test_a_users_detector_enters_with_its_source(mine):
    before = mine(DETECTOR)
    assert mine(DETECTOR.replace("def fit", "# why\ndef fit").replace("of one's own", "of mine")) == before
    for old, new in (("return 1", "return -1"), ("jnp.max", "jnp.min"), ("stats.count", "stats.count + 1")):
        assert mine(DETECTOR.replace(old, new)) != before, new


def test_a_declared_version_stands_in_its_place(mine):
    declared = DETECTOR.replace("version=None", "version='1'")
    before = mine(declared)
    assert before != mine(DETECTOR)
    assert mine(declared.replace("return 1", "return -1")) == before
    assert mine(declared.replace("version='1'", "version='2'")) != before


def test_a_users_part_of_one_of_our_methods_enters_with_its_source(monkeypatch):
    def fit(stats, validation, **options):
        return METHODS["mds"].fit(stats, validation, **options)

    before = keys.scores_key("mds", {}, ["outputs"])
    monkeypatch.setitem(METHODS, "mds", dataclasses.replace(METHODS["mds"], fit=fit))
    assert keys.scores_key("mds", {}, ["outputs"]) != before


def test_what_a_users_detector_is_built_on_enters_too(mine, package):
    versioned = DETECTOR.replace("version=None", "version='1'")
    before = [mine(text) for text in (DETECTOR, versioned)]
    change(package / "statistics.py")
    forget()
    assert all(key not in before for key in (mine(DETECTOR), mine(versioned)))


def test_a_recipe_enters_with_the_source_of_its_augmentations(monkeypatch, tmp_path):
    from oodjax.models import ResNetConfig
    from oodjax.presets.models import Trained
    from oodjax.training.recipes import RECIPES

    def key(function) -> str:
        recipe = dataclasses.replace(RECIPES["baseline"], augment=(function,))
        monkeypatch.setitem(RECIPES, "mine", recipe)
        train = tiny.image_set("train")
        return Trained("mine", RECIPES["mine"], tmp_path, ResNetConfig.study(4), train, tiny.MEAN, tiny.STD, 0)._key

    def darker(key, images, targets):
        return images * 0.5, targets

    before = key(darker)

    def darker(key, images, targets):  # noqa: F811
        """Worded otherwise."""
        return images * 0.5, targets

    assert key(darker) == before

    def darker(key, images, targets):  # noqa: F811
        return images * 0.25, targets

    assert key(darker) != before


def test_a_method_without_functions_of_its_own_is_the_same_method():
    again = Method(**{f.name: getattr(METHODS["knn"], f.name) for f in dataclasses.fields(Method)})
    assert keys._method_key(again) == keys.method_key("knn") != keys.method_key("vim")
    assert "knn" in detectors.NAMES
