"""Random damage and random arguments: exit code 0 or 2, one line on stderr, and nobody's file is touched."""

import json
import random
import shutil

import numpy as np
import pytest
import report_folders

from oodjax import run
from oodjax.files import write_text
from oodjax.report import __main__ as report_main
from oodjax.report import figures
from oodjax.report.scene import svg
from oodjax.report.style import paper_colours

pytestmark = pytest.mark.slow

MODELS = {"baseline": "baseline", "mixup": "augmentation", "simclr": "ssl"}
ODD = [
    *("", "0", "-1", "1e999", "nan", "inf", "0.5", "1", "NaN", "x", "ü", "\x00", "\x1b[2J", '"', ",", "\r", "=1+1"),
    *("9" * 400, "瓷" * 90, "../..", "/", "None", "[]", "true", "1_0", "0x1", "١", "\ufeff", " baseline", "baseline"),
    *("mixup", "msp", "\u202e"),
]
VALUES = [None, True, 0, -1, 1.5, 2**70, "", "x", "id_test", [], {}, [1], {"a": 1}, "../x", "\ud800", [[]], {"name": 1}]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return report_folders.make(folder, MODELS, ("msp", "knn"), {"letters": "near", "china": "far"}, units=True, seed=3)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def outcome(main, arguments, capsys):
    """The exit code of a command that kept the contract."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code in (0, 2), arguments
    assert captured.err.count("\n") == (1 if code else 0) and "Traceback" not in captured.err, captured.err
    assert captured.err.isprintable() or captured.err.rstrip("\n").isprintable(), captured.err
    return code


def damage_bytes(content, rng):
    at, much = rng.randrange(len(content) + 1), rng.choice([1, 1, 4, 200])
    harm = rng.randrange(4)
    if harm == 0:
        return content[:at]
    if harm == 1:
        return content[:at] + rng.randbytes(much) + content[at + much :]
    if harm == 2:
        return content[:at] + content[at + much :]
    return content[:at] + rng.randbytes(much) + content[at:]


def damage_cells(content, rng):
    """A CSV table with other cells, or a row or column too many or too few."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(rng.choice([1, 1, 5, 50])):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0 | 1 | 2:
                row[rng.randrange(len(row))] = rng.choice(ODD)
            case 3:
                rows.append(list(row))
            case 4:
                column, odd = rng.randrange(len(rows[0])), rng.choice(ODD)
                rows = [rows[0], *([*r[:column], odd, *r[column + 1 :]] for r in rows[1:])]
            case 5:
                rows.remove(row)
                rows = rows or [[""]]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def damage_json(content, rng):
    """A JSON value with other values somewhere inside."""
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 4])):
        part, key = value, None
        while isinstance(part, (dict, list)) and part and (key is None or rng.random() < 0.7):
            holder, key = part, rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
            part = holder[key]
        if key is not None:
            holder[key] = rng.choice(VALUES)
    return json.dumps(value).encode()


def damage_unit(path, rng):
    arrays = dict(np.load(path))
    name = rng.choice(list(arrays))
    array = arrays[name]
    match rng.randrange(7):
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = array[: rng.choice([0, 1, 2])]
        case 2:
            arrays[name] = np.full_like(array, rng.choice([0, 1, -1, 100]))
        case 3:
            arrays[name] = array.astype(rng.choice(["f2", ">f8", "i1", "?", "S3", "c8", "u8", "O"]))
        case 4:
            arrays[name] = array[..., None]
        case 5:
            arrays[name] = np.where(np.random.default_rng(0).random(array.shape) < 0.01, np.inf, array)
        case 6:
            arrays[name] = array * rng.choice([1e-40, 1e30, 1e38])
    np.savez(path, **arrays)


def damage(path, rng):
    """One file of the results folder, in one way."""
    how = rng.randrange(8)
    if how == 0:
        path.unlink()
        if rng.random() < 0.3:
            path.mkdir()
    elif how <= 2:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
    elif path.suffix == ".csv":
        path.write_bytes(damage_cells(path.read_bytes(), rng))
    elif path.suffix == ".json":
        path.write_bytes(damage_json(path.read_bytes(), rng))
    else:
        with np.errstate(all="ignore"):
            damage_unit(path, rng)


MINE = ["notes.txt", "figures/fig99-mine.png", "figures/mine.svg", "tables/mine.csv", ".a.partial", "tables/.b.partial"]
THEIRS = ["index.html", "report.json", "figures/fig01-accuracy.svg", "tables/anova.csv", "tables/results.csv"]


def save_svg(drawing, stem, title):
    write_text(stem.with_suffix(".svg"), svg(drawing.scene, paper_colours(), title))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_results_give_a_report_or_one_line(source, tmp_path, seed, capsys, monkeypatch):
    monkeypatch.setattr("oodjax.report.page.save", save_svg)  # the page holds no PNG
    rng = random.Random(seed)
    folder, out = shutil.copytree(source, tmp_path / "results"), tmp_path / "out"
    tables = [folder / "results.csv", folder / "models.csv", folder / "run.json"]
    files = tables + sorted(folder.rglob("*.npz"))[:3]
    for path in rng.sample(files, rng.choice([1, 1, 1, 3])):
        damage(path, rng)
    for name in MINE:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"mine {name}")
    if rng.random() < 0.2:
        (out / rng.choice(THEIRS)).write_text(rng.choice(["precious", "{}", '{"made_by": "another"}']))
    before, inputs = contents(out), contents(folder)
    code = outcome(report_main.main, [folder, "--out", out], capsys)
    after = contents(out)
    assert contents(folder) == inputs
    assert after == before if code else before.items() <= after.items() and "index.html" in after


WORDS = [*ODD, "--", "-", "--out", "--models", "all", "a/b", "~", "*", "$HOME", "-h1", "--out=", "é\udcff", "digits"]


def arguments(rng, options, good):
    given = []
    for _ in range(rng.randrange(1, 5)):
        name = rng.choice(options)
        value = rng.choice(WORDS if rng.random() < 0.7 else good.get(name, WORDS)).replace("\x00", "\x01")
        match rng.randrange(4):
            case 0:
                given.append(f"{name}={value}")
            case 1 | 2:
                given += [name, value]
            case 3:
                given.append(rng.choice([name, value]))
    return given


@pytest.mark.parametrize("seed", range(50))
def test_any_arguments_of_a_report_give_a_report_or_one_line(source, tmp_path, seed, capsys, monkeypatch):
    every = figures.entries
    monkeypatch.setattr(figures, "entries", lambda *given: [next(every(*given))])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("precious")
    good = {"--out": ["out", "new/deep", "mine"], "--detectors": ["knn", "msp,knn"], "--baseline": ["mixup"]}
    given = arguments(random.Random(seed), [*good, "--colour"], good)
    if {"-h", "--help"} & set(given):
        given = []
    inputs = contents(source)
    outcome(report_main.main, [shutil.copytree(source, "copy"), *given], capsys)
    assert (tmp_path / "mine").read_text() == "precious"
    assert contents(source) == inputs and inputs.items() <= contents(tmp_path / "copy").items()


@pytest.mark.parametrize("seed", range(50))
def test_any_bad_arguments_of_a_run_give_one_line(tmp_path, seed, capsys, monkeypatch):
    """Each list holds a bad argument, for a good one would start a study."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("precious")
    good = {
        "--out": ["out", "new/deep"],
        "--models": ["baseline"],
        "--detectors": ["knn"],
        "--datasets": ["letters"],
        "--seed": ["0"],
        "--precision": ["bfloat16"],
        "--batch-size": ["64"],
        "--fleet": ["auto", "2"],
        "--bank-fraction": ["0.5"],
        "--on-bad-image": ["skip"],
        "--data": ["."],
        "--checkpoints": ["."],
        "--model": ["digits:load"],
        "--id-train": ["."],
        "--id-test": ["mine"],
        "--ood": ["a=mine:far"],
        "--root": ["."],
    }
    bad = [
        ["--out", "mine"],
        ["--out=mine/below"],
        ["--models=resnet"],
        ["--detectors", "knn,odn"],
        ["--seed", "-1"],
        ["--batch-size", "0"],
        ["--batch-size=99999999999999999999"],
        ["--precision", "int4"],
        ["--datasets", ","],
        ["--banana"],
        ["--out", "n" * 300],
        ["--out=--"],
    ]
    rng = random.Random(seed)
    preset = rng.choice([[], [], ["digits"], ["own"], ["imagenet"], ["mine.toml"], [rng.choice(ODD)]])
    given = [*arguments(rng, list(good), good), *rng.choice(bad)]
    given = [text.replace("\x00", "\x01") for text in [*preset, *given]]
    assert outcome(run.main, given, capsys) == 2
    assert contents(tmp_path) == {"mine": b"precious"} and len(list(tmp_path.iterdir())) == 1
