"""Reports of damaged folders and into folders that are not ours alone."""

import csv
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import report_folders

from oodjax.report import ReportError, figures, write
from oodjax.report.__main__ import main
from oodjax.report.data import load
from oodjax.report.page import up_to_date
from oodjax.report.reading import CannotSay
from oodjax.store import Store

MODELS = {"baseline": "baseline", "mixup": "augmentation", "simclr": "ssl"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return report_folders.make(folder, MODELS, ("msp", "knn"), {"letters": "near", "china": "far"}, units=True, seed=3)


@pytest.fixture
def folder(source, tmp_path):
    return shutil.copytree(source, tmp_path / "results")


@pytest.fixture
def one_figure(monkeypatch):
    """Reports with the first figure alone."""
    every = figures.entries
    monkeypatch.setattr(figures, "entries", lambda *arguments: [next(every(*arguments))])


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refuse(capsys, *arguments):
    """The one line that a refused report says."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and captured.out == ""
    return captured.err


@pytest.mark.parametrize("theirs", ["index.html", "tables/models.csv", "figures/fig08-detectors.svg", "report.json"])
def test_a_foreign_file_is_refused(folder, tmp_path, theirs, capsys):
    out = tmp_path / "thesis"
    (out / theirs).parent.mkdir(parents=True)
    (out / theirs).write_text("precious")
    before = contents(out)
    assert f"{out / theirs} is in the way" in refuse(capsys, folder, "--out", out)
    assert contents(out) == before


def test_other_files_stay_and_a_stale_figure_goes(folder, tmp_path, one_figure, monkeypatch):
    out = tmp_path / "thesis"
    (out / "figures").mkdir(parents=True)
    for name in ("figures/fig99-mine.png", "figures/fig02.svg", "tables.csv", ".hidden.partial"):
        (out / name).write_text("precious")
    mine = contents(out)
    write(folder, out)
    assert {"figures/fig08-detectors.svg", "figures/fig08-detectors.png", "index.html"} <= contents(out).keys()
    monkeypatch.setattr(figures, "entries", lambda *arguments: [])
    write(folder, out)
    assert {n: b for n, b in contents(out).items() if n in mine} == mine
    assert "figures/fig08-detectors.svg" not in contents(out)


def test_a_stopped_report_leaves_the_one_before(folder, monkeypatch, one_figure):
    one = figures.entries
    write(folder)
    before = contents(folder)

    def interrupted(study, detectors=()):
        yield from one(study, detectors)
        if interrupted.armed:
            raise KeyboardInterrupt
        interrupted.armed = True

    interrupted.armed = False  # the first call names the files
    monkeypatch.setattr(figures, "entries", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(folder)
    assert contents(folder) == before
    interrupted.armed = False
    with pytest.raises(KeyboardInterrupt):
        write(folder, folder / "new" / "report")
    assert contents(folder) == before and not (folder / "new").exists()


@pytest.mark.parametrize("name", ["index.html", "figures/fig08-detectors.png", "tables/models.csv"])
def test_what_is_damaged_or_deleted_is_drawn_again(folder, one_figure, name):
    write(folder)
    whole, path = contents(folder / "report"), folder / "report" / name
    assert up_to_date(folder)
    for harm in (lambda: path.write_bytes(path.read_bytes()[:-9]), path.unlink):
        harm()
        assert not up_to_date(folder)
        write(folder)
        assert up_to_date(folder) and contents(folder / "report") == whole


@pytest.mark.parametrize("name", ["results.csv", "models.csv", "run.json"])
def test_a_report_of_other_tables_is_out_of_date(folder, one_figure, name):
    write(folder)
    content = (folder / name).read_text()
    (folder / name).write_text(content.replace('"seed": 3', '"seed": 4') if name == "run.json" else f"{content}\n")
    assert not up_to_date(folder)


def test_what_the_last_run_did_does_not_make_a_report_out_of_date(folder, one_figure):
    write(folder)
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "stages": [{"seconds": 3}], "decoded_images": 9}))
    assert up_to_date(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1", "run.json cannot be read as JSON"),
        ("[1]", "run.json must hold a JSON object, got a list"),
        ('{"runs": [{"command": 3}]}', r"runs\[0\].command must be a text, got a whole number"),
        (
            '{"runs": [{"command": "a", "started": "b", "seconds": "c"}]}',
            r"runs\[0\].seconds must be a number, got a text",
        ),
        ('{"thumbnails": [{"name": "a", "file": "b"}]}', r"thumbnails\[0\].count must be a whole number, got null"),
        ('{"files": []}', "files must be an object, got a list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"data": "digits"}', "data must be a list, got a text"),
        ('{"data": ["digits"]}', r"data\[0\] must be an object, got a text"),
        ('{"data": [{"name": 3}]}', r"data\[0\].name must be a text, got a whole number"),
        ('{"data": [{"count": true}]}', r"data\[0\].count must be a whole number, got a truth value"),
        ('{"kept": []}', "kept must be an object, got a list"),
        ('{"kept": {"mixup": {"china": null}}}', "kept.mixup.china must be an object, got null"),
        ('{"configuration": 4}', "configuration must be an object"),
        (b'{"a": "\xff"}', "run.json cannot be read as JSON"),
    ],
)
def test_a_damaged_manifest_is_one_line(folder, content, said):
    (folder / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReportError, match=said):
        load(folder)


def test_a_manifest_may_hold_less_and_anything_to_show(folder, one_figure):
    strange = {"data": [{"role": "id_test"}], "configuration": {"\x01odd\ud800": ["\x02", None]}, "more": [[[]]]}
    (folder / "run.json").write_text(json.dumps(strange))
    text = write(folder).read_text(encoding="utf-8")
    assert "\\x01odd\\ud800" in text and "\x01" not in text and "\x02" not in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "results.csv is empty"),
        (b"model,model\na,b\n", "more than one column 'model'"),
        (b"{}\nextra,1\n", "line {} has 2 fields, the headings are 15"),
        (b"{}" + b"x," * 15 + b"x\n", "line {} has 16 fields, the headings are 15"),
        (b"{}\xff", "not UTF-8: byte 0xff in line {}"),
        (b'{}"open', "cannot be read as a CSV table: unexpected end of data"),
    ],
)
def test_a_damaged_table_is_one_line(folder, content, said):
    whole = (folder / "results.csv").read_bytes()
    lines = whole.count(b"\n") + 1
    at = lines + 1 if b"{}\n" in content else lines
    (folder / "results.csv").write_bytes(content.replace(b"{}", whole))
    with pytest.raises(ReportError, match=said.replace("{}", str(at))):
        load(folder)


def test_a_row_longer_than_the_headings_is_refused_even_when_all_are(folder):
    rows = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join([rows[0], *(f"extra,{row}" for row in rows[1:])]))
    with pytest.raises(ReportError, match="line 2 has 1[67] fields, the headings are 15"):
        load(folder)


def test_a_table_of_excel_reads_as_ours(folder):
    plain = load(folder)
    for name in ("results.csv", "models.csv"):
        content = (folder / name).read_bytes().replace(b"\n", b"\r\n")
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content + b"\r\n")
    assert load(folder).results.equals(plain.results)


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\n", "\x85", "\u2028", "\uffff"])
def test_control_characters_in_names_are_refused(folder, character, capsys):
    rename(folder, "mixup", f"mix{character}up")
    error = refuse(capsys, folder)
    assert "results.csv: model holds a control character: 'mix\\" in error and not (folder / "report").exists()


def rename(folder, old, new):
    for name in ("results.csv", "models.csv"):
        with (folder / name).open(newline="", encoding="utf-8") as file:
            rows = [[new if field == old else field for field in row] for row in csv.reader(file)]
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def test_endless_and_foreign_names_give_whole_figures(folder, one_figure):
    rename(folder, "mixup", "m" * 5000)
    rename(folder, "simclr", "‮瓷&<\U0001f9ff>\"'")
    write(folder)
    ElementTree.parse(folder / "report" / "figures" / "fig08-detectors.svg")


def test_files_are_utf8_in_any_locale(folder):
    rename(folder, "mixup", "Größe瓷")
    code = "from oodjax.report import figures, write; import sys; every = figures.entries\n"
    code += "figures.entries = lambda *a: [next(every(*a))]; write(sys.argv[1])"
    settings = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, env=settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Größe瓷" in (folder / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros(9, np.float32), "shape .9,. of float32"),
        (np.zeros((0, 2), np.float32), "shape .0, 2. of float32"),
        (np.full((9, 2), "x"), "of <U1"),
        (np.full((9, 2), 1j), "of complex128"),
        (np.full((9, 2), np.nan), "18 that are NaN or infinite"),
    ],
)
def test_kept_scores_that_are_no_table_of_numbers_are_named(folder, scores, said):
    key = json.loads((folder / "run.json").read_text())["kept"]["mixup"]["china"]["scores"]
    Store(folder).put("scores/mixup/china", {"scores": (key, scores)})
    with pytest.raises(CannotSay, match=f"scores of mixup on china.*{said}"):
        load(folder).scores("mixup", "china", "msp")
    assert load(folder).scores("mixup", "letters", "msp").shape == (204,)


def test_what_cannot_be_read_is_not_called_unwritable(folder, capsys):
    (folder / "results.csv").unlink()
    assert f"there is no results.csv in {folder}" in refuse(capsys, folder)
    (folder / "results.csv").mkdir()
    assert "results.csv cannot be read: Is a directory" in refuse(capsys, folder)


@pytest.mark.parametrize(
    "given", [["--detectors", ","], ["--detectors", ""], ["--out", ""], ["--out=--"], ["--baseline", ""]]
)
def test_empty_values_are_refused(folder, given, capsys):
    assert given[0].strip("-=") in refuse(capsys, folder, *given)
