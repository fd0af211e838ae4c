"""What a run shows of its progress, on a terminal and in a log."""

from __future__ import annotations

import io
import sys

import pytest
import rich.jupyter
from rich.console import Console

from oodjax import console as show


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(show.time, "perf_counter", lambda: now[0])
    return now


def run(console: Console, clock: list[float], **options) -> show.Stages:
    with show.Stages(console, **options) as stages, stages.stage("letters, 2 models", 400, "images") as advance:
        for _ in range(4):
            clock[0] += 40
            advance(100)
    return stages


def test_a_log_gets_a_line_a_minute_and_one_at_the_end(clock):
    text = io.StringIO()
    stages = run(Console(file=text, width=200), clock)
    assert text.getvalue().splitlines() == [
        "letters, 2 models: 200 of 400 images, 2.5 a second, 80 s left",
        "letters, 2 models: 400 of 400 images, 2.5 a second, 0 s left",
        "letters, 2 models: 400 of 400 images in 160.0 s",
    ]
    assert stages.record == [{"stage": "letters, 2 models", "images": 400, "seconds": 160.0}]


def test_a_terminal_gets_a_bar_with_the_rate(clock):
    text = io.StringIO()
    run(Console(file=text, width=200, force_terminal=True), clock)
    assert "400/400" in text.getvalue() and "images/s" in text.getvalue() and "s left" not in text.getvalue()


def test_a_process_that_does_not_lead_says_nothing(clock):
    text = io.StringIO()
    stages = run(Console(file=text, width=200), clock, shown=False)
    assert text.getvalue().strip() == "" and stages.record[0]["images"] == 400


def test_a_notebook_without_widgets_gets_lines(clock, monkeypatch):
    """Rich draws its bars in a notebook by ipywidgets; without those it shows a warning and nothing else."""
    shown: list[str] = []
    monkeypatch.setattr(rich.jupyter, "display", lambda segments, text: shown.append(text))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # as where it is not installed
    notebook = Console(force_jupyter=True, width=200)
    with show.waiting(notebook, "drawing"):
        run(notebook, clock)
    said = "".join(shown).split("\n")
    assert said[0].startswith("letters, 2 models: 200 of 400 images, 2.5 a second")
    assert "letters, 2 models: 400 of 400 images in 160.0 s" in said
