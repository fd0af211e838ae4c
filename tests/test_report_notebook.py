"""A figure of a report without the report."""

from __future__ import annotations

import pytest
import report_folders

from oodjax import report
from oodjax.report import figures
from oodjax.report.data import load
from oodjax.report.style import save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    models = {name: report_folders.SMALL_STUDY[name] for name in ("baseline", "mixup", "ema")}
    return report_folders.make(tmp_path_factory.mktemp("figure"), models, detectors=("msp", "knn", "vim"))


def test_a_figure_is_the_one_of_the_report(folder, tmp_path):
    picture = report.figure(folder, "fig07-ranks")
    study = load(folder)
    (entry,) = [entry for entry in figures.entries(study) if entry.key == "fig07-ranks"]
    save(entry.draw(study), tmp_path / "report", entry.title)
    picture.save(tmp_path / "own.svg")
    picture.save(str(tmp_path / "own.png"))
    for ending in ("svg", "png"):
        assert (tmp_path / f"own.{ending}").read_bytes() == (tmp_path / f"report.{ending}").read_bytes()
    assert picture._repr_svg_() == (tmp_path / "own.svg").read_text(encoding="utf-8")
    assert picture.caption == entry.draw(study).caption
    assert repr(picture) == "Picture('Mean ranks of the detectors')"


def test_another_baseline_is_another_figure(folder):
    usual = report.figure(folder, "fig08-detectors")
    assert report.figure(folder, "fig08-detectors", baseline="baseline").svg == usual.svg
    assert report.figure(folder, "fig08-detectors", baseline="ema").svg != usual.svg


def test_what_cannot_be_drawn_is_said(folder, tmp_path):
    with pytest.raises(report.ReportError, match="no figure 'fig7' of these tables; there are: fig08-detectors, "):
        report.figure(folder, "fig7")
    with pytest.raises(report.ReportError, match="fig18-feature-space cannot be drawn: "):
        report.figure(folder, "fig18-feature-space")
    with pytest.raises(ValueError, match=r"saved as \.svg or \.png, got 'a.pdf'"):
        report.figure(folder, "fig07-ranks").save(tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []
