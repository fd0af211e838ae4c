"""What the benchmarks measure: the detectors that are named, one's own among them; times are not judged here."""

from __future__ import annotations

import pytest

from benchmarks import scoring
from benchmarks.__main__ import main


@pytest.fixture
def few(monkeypatch):
    """Outputs that are small enough for a test."""
    for name, value in {"D": 12, "K": 5, "LAYERS": 2, "CHANNELS": 4, "TRAIN": 300, "BATCH": 20}.items():
        monkeypatch.setattr(scoring, name, value)


def test_a_label_and_a_later_detector_are_measured_without_a_textbook_form(few, capsys):
    found = scoring.run(40, ("mls", "knn:k=5", "entropy", "odin"))
    assert list(found) == ["mls", "knn:k=5", "entropy"]
    assert [("ratio" in row, row["samples"]) for row in found.values()] == [(True, 40), (False, 40), (False, 40)]
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--detectors", "msp,mps"], "benchmarks: unknown detector 'mps'; there are: msp"),
        (["--detectors", "vim:dims=3"], "benchmarks: vim has no hyper-parameter dims; it takes: dim"),
        (["--plugin", "not_there_d"], "benchmarks: plugin 'not_there_d': there is no module not_there_d"),
    ],
)
def test_wrong_names_are_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--parts", "scoring", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith(said) and error.count("\n") == 1
