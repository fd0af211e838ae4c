"""The command lines that README and documentation show."""

from __future__ import annotations

import csv
import io
import json
from importlib import import_module
from pathlib import Path

import pages
import pandas as pd
import pytest
import report_folders
import tiny

from oodjax.__main__ import COMMANDS
from oodjax.__main__ import main as oodjax
from oodjax.report.__main__ import main as report

ROOT = pages.DOCS.parent
HOMES = {command.name: command.module for command in COMMANDS}
SHOWN = {
    " ".join(words): words
    for page in (ROOT / "README.md", *sorted(pages.DOCS.rglob("*.md")))
    for words in pages.commands(page.read_text(encoding="utf-8"))
}


def test_commands_are_found_in_all_their_forms():
    text = """
```
python -m oodjax.run own --a b \\
    --c d   # why
oodjax score x > y
```
    srun python -m oodjax.run far
```python
python -m oodjax.data
```
"""
    own = ["oodjax.run", "own", "--a", "b", "--c", "d"]
    assert pages.commands(text) == [own, ["oodjax", "score", "x"], ["oodjax.run", "far"]]
    assert len(SHOWN) >= 20


@pytest.mark.parametrize("line", SHOWN)
def test_each_command_that_is_shown_is_one_that_exists(line):
    module, *words = SHOWN[line]
    if module == "oodjax":
        module, words = HOMES[words[0]], words[1:]
    homes = {"oodjax.report": "oodjax.report.__main__", "oodjax.data": "oodjax.data.__main__"}
    parser = import_module(homes.get(module, "converters.__main__" if module == "converters" else module)).parser()
    parser.parse_args(words)
    assert {word for word in words if word.startswith("--")} <= {*parser._option_string_actions}, "nothing abbreviated"


def test_the_way_from_a_model_to_verdicts_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.write_study(tmp_path / "photos")
    for name, here in (("test", "held-out"), ("far", "new")):
        (tmp_path / "photos" / name).rename(tmp_path / "photos" / here)
    Path("my_model.py").write_text("from tiny import build as build\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = pages.commands((pages.DOCS / "howto/commands.md").read_text(encoding="utf-8"))
    recommend, fit, score, as_csv, *lists = [words[1:] for words in lines]
    assert oodjax([*recommend, "--detectors", "msp,mds"]) == 0
    assert "recommended: " in capsys.readouterr().out
    assert oodjax(fit) == 0
    assert "accept 0.9" in capsys.readouterr().out
    code = oodjax(score)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    verdicts = [row[-1] for row in rows]
    assert len(rows) == len(list(Path("photos/new").rglob("*.png"))) and {*verdicts} <= {"in", "out"}
    assert all((float(row[3]) > 1 - 0.9) == (row[-1] == "in") for row in rows)
    assert code == int("out" in verdicts)
    assert oodjax(as_csv) == code
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in found] == [row[0] for row in rows]
    for what, one in zip(lists, ("vim", "baseline", "digits"), strict=True):
        assert oodjax([*what, "--json"]) == 0
        assert one in {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_a_table_from_elsewhere_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = pages.commands((pages.DOCS / "howto/report.md").read_text(encoding="utf-8"))
    (words,) = [words[1:] for words in lines if "--columns" in words]
    headings = dict(name.split("=") for name in words[words.index("--columns") + 1].split(","))
    folder = report_folders.make(tmp_path / "study", {"baseline": "baseline", "ema": "improved"}, ("msp", "vim"))
    table = pd.read_csv(folder / "results.csv").rename(columns=headings)
    percent = (100 * table["AUROC"]).round(1)
    table.assign(AUROC=percent)[[*headings.values()]].to_csv("board.csv", index=False)
    assert report(words) == 0
    capsys.readouterr()
    (page,) = Path().rglob("index.html")
    mean = f"{percent[(table['Method'] == 'vim') & (table['Net'] == 'ema')].mean():.1f}"
    assert page.parent.name == "board-report" and mean in page.read_text(encoding="utf-8")
