"""Modules that register a user's own: named on a command line, or announced by an installed distribution."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from oodjax import detectors, keys, plugins
from oodjax.command_line import Parser, add_plugins, split_names
from oodjax.detectors.base import METHODS
from oodjax.plugins import PluginError

DETECTOR = '''
from oodjax.detectors import Method, register
from {package}helper import largest

def score(params, outputs):
    """- largest logit."""
    return largest(outputs.logits)

register(Method("{name}", "own", score))
'''
HELPER = """
def largest(logits):
    return -logits.max(axis=-1)
"""


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers and imports is forgotten after it."""
    methods, modules, path = dict(METHODS), set(sys.modules), list(sys.path)
    yield
    METHODS.clear()
    METHODS.update(methods)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def install(folder: Path, package: str, value: str) -> Path:
    """A distribution of one package as pip leaves it, that announces `value`."""
    write(folder / f"{package}-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    write(folder / f"{package}-1.0.dist-info" / "entry_points.txt", f"[{plugins.GROUP}]\nown = {value}\n")
    return folder / package


def test_a_module_of_the_current_folder_registers_its_detector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in_here.py", DETECTOR.format(package="here_", name="here"))
    write(tmp_path / "here_helper.py", HELPER)
    plugins.load(["in_here"])
    assert detectors.names()[-1] == "here" and detectors.families()["here"] == "own"
    plugins.load(["in_here"])  # once more changes nothing
    assert detectors.names().count("here") == 1


def test_an_installed_distribution_announces_its_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    package = install(tmp_path / "site-packages", "announced", "announced.methods")
    write(package / "__init__.py", "")
    write(package / "methods.py", DETECTOR.format(package="announced.", name="announced"))
    helper = write(package / "helper.py", HELPER)
    assert "announced" not in detectors.names()
    plugins.load()
    assert detectors.names()[-1] == "announced"
    before = keys._method_key(METHODS["announced"])
    write(helper, "# worded otherwise\n" + HELPER)
    assert keys._method_key(METHODS["announced"]) == before
    write(helper, HELPER.replace("max", "min"))
    assert keys._method_key(METHODS["announced"]) != before


def test_a_study_file_s_folder_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "study" / "beside.py", DETECTOR.format(package="beside_", name="beside"))
    write(tmp_path / "study" / "beside_helper.py", HELPER)
    plugins.load(["beside"], tmp_path / "study")
    assert detectors.names()[-1] == "beside"


TWICE = 'from oodjax.detectors import Method, register\nregister(Method("msp", "own", lambda params, outputs: 0))\n'
BROKEN = {
    "no module": (
        None,
        "plugin 'nowhere_b': there is no module nowhere_b; looked for in /.* and among",
    ),
    "no name": (None, "plugin 'a b': expected the name of a module, for example my_detectors"),
    "a file": (None, "plugin 'some/mine.py': expected the name of a module, not its file: mine"),
    "its import": ("import not_here_b\n", "plugin 'broken': it imports not_here_b, which is not installed"),
    "raises": ("raise OSError('no\\nluck')\n", "plugin 'broken' raised OSError: no"),
    "ends": ("raise SystemExit(3)\n", "plugin 'broken' raised SystemExit: 3"),
    "syntax": ("def (\n", "plugin 'broken' raised SyntaxError: invalid syntax"),
    "taken name": (TWICE, "plugin 'broken' raised ValueError: 'msp' is a detector of the study"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_one_sentence(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, words = BROKEN[case]
    module = {"no module": "nowhere_b", "no name": "a b", "a file": "some/mine.py"}.get(case, "broken")
    if text is not None:
        write(tmp_path / "broken.py", text)
    with pytest.raises(PluginError, match=words):
        plugins.load([module])


def test_a_broken_distribution_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    install(tmp_path / "site-packages", "announced_b", "announced_b.methods")
    with pytest.raises(
        PluginError, match=r"^plugin announced_b.methods \(entry point own of announced_b\): there is no"
    ):
        plugins.load()


def test_commands_take_several_plugins_and_labels_with_commas_in_brackets():
    parser = Parser(prog="test")
    add_plugins(parser)
    assert vars(parser.parse_args([])) == {}
    assert parser.parse_args(["--plugin", "a", "--plugin", "b.c"]).plugin == ["a", "b.c"]
    text = "msp,gram:powers=(1,2),vim:dim=4"
    assert split_names([text, "knn", ",,"]) == ["msp", "gram:powers=(1,2)", "vim:dim=4", "knn"]
    assert split_names(["a(b,c"]) == ["a(b,c"]
