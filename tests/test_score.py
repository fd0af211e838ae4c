"""`python -m oodjax.score`: its lines are the monitor's own verdicts, in every form."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import oodjax
from oodjax import detectors
from oodjax.score import main

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def monitor():
    network = tiny.build()
    images, labels = tiny.pixels(80, 1, False)
    outputs = oodjax.extract(network, images, labels, batch_size=32)
    det = detectors.create("mds").fit(oodjax.TrainStatistics.collect(outputs, network.head))
    det = det.calibrate(oodjax.extract(network, tiny.pixels(40, 2, False)[0], batch_size=32), tpr=0.9)
    network.manifest["class_names"] = list(NAMES)
    return oodjax.Monitor(network, det, batch_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, monitor):
    """A monitor, 21 images of which some are OOD, and one that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    oodjax.save(folder / "monitor", monitor)
    for place, ood, count in (("known", False, 9), ("new/deep", True, 12)):
        (folder / place).mkdir(parents=True)
        for i, image in enumerate(tiny.pixels(count, 7, ood)[0]):
            Image.fromarray(image).save(folder / place / f"{i:02}.png")
    (folder / "new" / "deep" / "05.jpg").write_text("no image", encoding="utf-8")
    (folder / "new" / "notes.txt").write_text("passed over", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def score(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["--monitor", "monitor", "--model", "tiny:build", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def expected(monitor, paths):
    """path -> (label, score, p-value, verdict) of every image at once."""
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    rows = zip(*(np.asarray(part).tolist() for part in monitor(images)), strict=True)
    return {path: row for path, row in zip(paths, rows, strict=True)}


def check(found, want):
    """Lines as dicts of texts or numbers against the verdicts."""
    assert [line["path"] for line in found] == list(want)
    for line, (label, value, p_value, inside) in zip(found, want.values(), strict=True):
        assert (int(line["label"]), line["class"]) == (label, NAMES[label])
        # float32 at its shortest is exact, but a batch of another length adds in another order
        np.testing.assert_allclose([float(line["score"]), float(line["p_value"])], [value, p_value], rtol=1e-5)
        assert line["verdict"] == ("in" if inside else "out")


def test_json_and_csv_are_the_monitors_verdicts(capsys, monitor, folder):
    paths = [str(p.relative_to(folder)) for p in sorted((folder / "known").iterdir())]
    paths += [f"new/deep/{i:02}.png" for i in range(12)]
    want, bad = expected(monitor, paths), "new/deep/05.jpg"
    assert len({row[3] for row in want.values()}) == 2
    counts = [sum(row[3] is inside for row in want.values()) for inside in (True, False)]
    code, out, err = score(capsys, "known", "new", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and err == f"oodjax.score: {counts[0]} in, {counts[1]} out, 1 unreadable\n"
    assert [line["path"] for line in lines] == [*paths[:14], bad, *paths[14:]]  # by name
    assert lines.pop(14) == {"path": bad, "verdict": "unreadable", "error": "not an image that Pillow can read"}
    check(lines, want)
    code, out, _ = score(capsys, "known", "new", "--csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    empty = dict.fromkeys(("label", "class", "score", "p_value"), "")
    assert code == 1 and lines.pop(14) == {
        "path": bad,
        **empty,
        "verdict": "unreadable",
        "error": "not an image that Pillow can read",
    }
    check(lines, want)


def test_a_line_of_text_has_five_columns(capsys, monitor):
    paths = ["known/03.png", "new/deep/02.png"]
    _, out, _ = score(capsys, *paths, "nothing there.png")
    *lines, last = (line.split("\t") for line in out.splitlines())
    assert last == ["nothing there.png", "-", "-", "-", "unreadable: No such file or directory"]
    for line, (path, (label, value, p_value, inside)) in zip(lines, expected(monitor, paths).items(), strict=True):
        assert line == [path, NAMES[label], f"{value:.6g}", f"{p_value:.4g}", "in" if inside else "out"]


def test_the_exit_code_says_whether_all_are_in(capsys, monitor, folder):
    paths = [f"known/{i:02}.png" for i in range(9)]
    inside = [path for path, row in expected(monitor, paths).items() if row[3]]
    outside = [path for path in (f"new/deep/{i:02}.png" for i in range(12)) if path not in inside]
    assert score(capsys, *inside)[0] == 0
    assert score(capsys, *inside, next(p for p, r in expected(monitor, outside).items() if not r[3]))[0] == 1
    assert score(capsys, *inside, "new/deep/05.jpg")[0] == 1
    assert score(capsys, "new/deep/05.jpg")[1].count("\n") == 1


def test_paths_come_through_a_pipe(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("known/00.png\nnew/deep/05.jpg\r\n\n"))
    _, out, _ = score(capsys, "-", "known/01.png")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["known/00.png", "new/deep/05.jpg", "known/01.png"]


def test_names_that_a_terminal_must_not_see_are_escaped(capsys, folder):
    odd = folder / "odd\x1b[31m\tname.png"
    odd.write_bytes((folder / "known" / "00.png").read_bytes())
    (_, out, _), (_, exact, _) = score(capsys, odd.name), score(capsys, odd.name, "--json")
    odd.unlink()
    assert out.startswith("odd\\x1b[31m name.png\t") and json.loads(exact)["path"] == odd.name


@pytest.mark.slow
def test_of_images_as_they_are_the_first_says_the_size(capsys, folder, tmp_path, monitor):
    """A network that resizes nothing: images of another size are lines too, and so are all where none can be read."""
    import dataclasses

    from oodjax.score import judge

    loose = dataclasses.replace(monitor.network, crop=None)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "large.png")
    made = oodjax.Monitor(loose, monitor.detector, batch_size=8)
    paths = ["new/deep/05.jpg", "known/00.png", str(tmp_path / "large.png")]
    lines = [line for batch in judge(made, paths) for line in batch]
    assert [line.verdict for line in lines][::2] == ["unreadable"] * 2 and lines[1].name in NAMES
    assert "20x20 pixels, but 16x16 in the first image" in lines[2].error
    lines = [line for batch in judge(made, ["new/deep/05.jpg", "nowhere.png"]) for line in batch]
    reasons = ["not an image that Pillow can read", "No such file or directory"]
    assert [(line.verdict, line.error) for line in lines] == [("unreadable", reason) for reason in reasons]


def test_a_reader_that_has_enough_ends_it_without_a_word(folder):
    words = [sys.executable, "-m", "oodjax", "score", "--monitor", "monitor", "--model", "tiny:build", "-", "--csv"]
    running = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    )
    assert running.stdin and running.stdout and running.stderr
    running.stdin.write("known/00.png\n" * 5000)  # more than a pipe holds
    running.stdin.close()
    first = [running.stdout.readline() for _ in range(2)]
    running.stdout.close()
    assert first[0] == "path,label,class,score,p_value,verdict,error\n" and first[1].startswith("known/00.png,")
    assert (running.stderr.read(), running.wait(60)) == ("", 141)
    running.stderr.close()


def environment():
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}


WRONG = {
    "no monitor": (["--monitor", "known", "known"], "--monitor: known holds nothing that oodjax.save wrote"),
    "an endless name": (["--monitor", "m" * 400, "known"], "mmm holds nothing that oodjax.save wrote"),
    "no network": (["--monitor", "monitor", "known"], "is a function of your own: give it by --model MODULE:FUNCTION"),
    "another": (["--monitor", "monitor", "--model", "tiny:build_second", "known"], "with another head: its kernel"),
    "a detector": (["--monitor", "alone", "known"], "alone holds a detector without a network"),
    "a network too many": (["--monitor", "alone", "--model", "tiny:build", "known"], "alone holds a detector alone"),
    "an empty folder": (["--monitor", "monitor", "--model", "tiny:build", "void"], "void holds no images"),
    "two forms": (["--monitor", "monitor", "known", "--json", "--csv"], "not allowed with argument"),
    "nothing": (["--monitor", "monitor"], "required: IMAGE_OR_FOLDER"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_wrong_use_is_one_line(words, said, capsys, folder, monitor):
    (folder / "void").mkdir(exist_ok=True)
    oodjax.save(folder / "alone", monitor.detector)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and captured.out == ""
    assert captured.err.startswith("oodjax.score: ") and said in captured.err
