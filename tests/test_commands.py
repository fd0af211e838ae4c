"""`oodjax` and `python -m oodjax`: the commands by one name each, and the lists of what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import oodjax
from oodjax import detectors, presets, zoo
from oodjax.__main__ import COMMANDS, main

PLUGIN = """
from oodjax import presets
from oodjax.detectors import Method, register

def score(params, outputs, scale):
    "Largest logit, scaled: only a test's."
    return scale * outputs.logits.max(axis=1)

def study(options):
    "A study of a test's."

presets.register("listed-study", study, takes=("id_test",))
register(Method("listed_max", "own", score, reads=(), options={"scale": 2.0}, grid=({"scale": 1.0}, {"scale": 2.0})))
"""


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_without_a_command_all_are_listed_with_a_line_each(capsys):
    for arguments in ((), ("--help",), ("-h",)):
        code, out, _ = run(capsys, *arguments)
        lines = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
        assert code == 0 and lines == [[command.name, command.does] for command in COMMANDS]
    names = "run report data fit score recommend convert benchmarks list"
    assert " ".join(command.name for command in COMMANDS) == names


def test_the_version_and_the_help_are_light():
    code = "import sys; from oodjax.__main__ import main; main([sys.argv[1]]); print('jax' in sys.modules)"
    for argument, said in (("--version", f"oodjax {oodjax.__version__}"), ("--help", "usage: oodjax COMMAND ...")):
        done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == said and done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.name != "list"], ids=lambda c: c.name)
def test_a_command_is_its_modules(command, capsys):
    code, out, _ = run(capsys, command.name, "--help")
    module = command.module.removesuffix(".__main__")
    assert code == 0 and out.startswith(f"usage: python -m {module} ")
    with pytest.raises(SystemExit):
        import_module(command.module).main(["--help"])
    assert capsys.readouterr().out == out


def test_as_a_process_it_ends_with_the_commands_exit_code(tmp_path):
    for name, arguments in (("oodjax", ("report", str(tmp_path))), ("oodjax.report", (str(tmp_path),))):
        done = subprocess.run([sys.executable, "-m", name, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("oodjax.report: ") and done.stderr.count("\n") == 1


def test_wrong_use_is_one_line(capsys, monkeypatch, tmp_path):
    code, out, err = run(capsys, "scor\ne")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(r"oodjax: unknown command 'scor\ne'; there are: run, report,") and "'score'?" in err
    assert run(capsys, "list", "recipes")[0] == 2
    monkeypatch.setattr("oodjax.__main__.__file__", str(tmp_path / "oodjax" / "__main__.py"))
    code, _, err = run(capsys, "benchmarks")
    assert code == 2 and err == (
        "oodjax: the benchmarks are in the repository, not in the installed package: run it in a checkout\n"
    )


def test_detectors_are_listed_with_what_they_take(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_listed_plugin.py").write_text(PLUGIN, encoding="utf-8")
    code, out, _ = run(capsys, "list", "detectors", "--json", "--plugin", "a_listed_plugin")
    rows = {row["name"]: row for row in json.loads(out)}
    code, out, _ = run(capsys, "list", "presets", "--json", "--plugin", "a_listed_plugin")
    assert json.loads(out)[-1] == {"name": "listed-study", "title": "A study of a test's.", "options": ["--id-test"]}
    del presets.OWN["listed-study"]
    del detectors.METHODS["listed_max"]
    assert code == 0 and list(rows) == [*detectors.names(), "listed_max"]
    assert rows.pop("listed_max") == {
        "name": "listed_max",
        "family": "own",
        "title": "Largest logit, scaled: only a test's.",
        "reads": ["logits"],
        "cost": "nothing",
        "options": {"scale": 2.0},
        "grid": {"scale": [1.0, 2.0]},
        "points": 2,
    }
    assert all(row["title"] for row in rows.values())
    for name, row in rows.items():
        assert row["points"] == len(detectors.grid(name)) and row["family"] == detectors.families()[name]
        assert set(row["options"]) == set(detectors.create(name).options) >= set(row["grid"])
    costs = {name: row["cost"] for name, row in rows.items()}
    assert costs["ebo"] == "nothing" and costs["tempscale"] == "labelled validation images"
    assert costs["knn"] == "training features" and costs["dice"] == "training sums"
    assert costs["gram"] == "maps of the layers, training sums" and costs["odin"].startswith("gradients")


def test_models_and_presets_are_listed(capsys):
    rows = json.loads(run(capsys, "list", "models", "--json")[1])
    assert [row["name"] for row in rows if row["kind"] == "checkpoint"] == [entry.id for entry in zoo.checkpoints()]
    assert [row["name"] for row in rows if row["kind"] == "architecture"] == ["resnet50", "vit_b16"]
    rows = json.loads(run(capsys, "list", "presets", "--json")[1])
    assert [row["name"] for row in rows][:4] == ["digits", "cifar10", "imagenet", "own"]
    assert rows[2]["options"] == ["--data", "--checkpoints"]


def test_a_table_in_a_pipe_has_a_line_a_short_row(capsys):
    out = run(capsys, "list", "models")[1]
    words = [line.split() for line in out.splitlines()]
    for entry in zoo.checkpoints():
        assert any(line[:1] == [entry.id] and entry.category in line and entry.licence in line for line in words)
