"""The report of whole, partial and broken tables."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import report_folders

from oodjax import metrics
from oodjax.files import write_text
from oodjax.report import ReportError, figures, record, write
from oodjax.report.__main__ import main
from oodjax.report.data import load, paper
from oodjax.report.figures_scores import roc_points
from oodjax.report.scene import text_width
from oodjax.report.style import marks, shorten

FEW_MODELS = {
    m: report_folders.SMALL_STUDY[m] for m in ("baseline", "adversarial_l2_0.5", "adversarial_l2_3", "mixup", "simclr")
}
FEW_DETECTORS = ("msp", "knn", "gram", "vim")
FEW_SETS = {"letters": "near", "digits": "near", "china": "far", "flower": "far"}


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.ids, self.scripts = [], set(), []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.found += [named[k] for k in ("href", "src") if k in named]
        self.ids |= {named["id"]} if "id" in named else set()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return report_folders.make(
        tmp_path_factory.mktemp("study"), FEW_MODELS, FEW_DETECTORS, FEW_SETS, units=True, seed=3
    )


@pytest.fixture
def folder(source, tmp_path):
    """The small study's tables, to be changed by a test."""
    for name in ("results.csv", "models.csv"):
        shutil.copy(source / name, tmp_path / name)
    return tmp_path


def change(folder, edit, name="results.csv"):
    table = pd.read_csv(folder / name)
    edit(table).to_csv(folder / name, index=False)


def blank(drawing, stem, title):
    write_text(stem.with_suffix(".svg"), '<svg viewBox="0 0 1 1"/>')


def drawn(folder):
    """Key -> caption of each figure that can be drawn, and key -> reason of the others; nothing is written."""
    study = load(folder)
    captions, reasons = {}, {}
    for entry in figures.entries(study):
        try:
            captions[entry.key] = entry.draw(study).caption
        except ValueError as error:
            reasons[entry.key] = str(error)
    return captions, reasons


def test_whole_report(source, tmp_path):
    page = write(source, tmp_path / "out", detectors=["knn"])
    text = page.read_text()
    links = _Links()
    links.feed(text)
    for link in links.found:
        if link.startswith("#"):
            assert link[1:] in links.ids
        elif not link.startswith("data:"):
            assert (page.parent / link).stat().st_size > 0, link
    assert "http://" not in text and "https://" not in text
    pictures = {f.stem for f in (page.parent / "figures").glob("*.svg")}
    assert {f"fig{n:02d}" for n in range(1, 21)} <= {p[:5] for p in pictures}
    assert {"fig-roc-1", "fig-scores-1", "fig-embedding", "fig01-paper", "fig16-paper"} <= pictures
    assert pictures == {f.stem for f in (page.parent / "figures").glob("*.png")}
    assert "<text" in (page.parent / "figures" / "fig01-accuracy.svg").read_text()
    assert text.count("False if:") >= 6
    assert json.loads((source / "run.json").read_text())["configuration"]["preset"] in text
    models = pd.read_csv(page.parent / "tables" / "models.csv").set_index("model")
    results = pd.read_csv(source / "results.csv")
    expected = 100 * results[results["model"] == "mixup"]["auroc"].agg(["mean", lambda x: x.std(ddof=0)])
    np.testing.assert_allclose(models.loc["mixup", ["auroc", "auroc_std"]].astype(float), expected)


@pytest.fixture(scope="module")
def drawings(source):
    study = load(source)
    return {entry.key: entry.draw(study) for entry in figures.entries(study)}


def test_captions_carry_the_numbers(source, drawings):
    means = 100 * pd.read_csv(source / "results.csv").groupby("model")["auroc"].mean()
    assert f"{means.min():.1f} ({means.idxmin()})" in drawings["fig01-accuracy"].caption
    assert f"{means.max():.1f} ({means.idxmax()})" in drawings["fig01-accuracy"].caption
    assert "Friedman's test: chi² = " in drawings["fig07-ranks"].caption
    assert "80 rows" in drawings["fig06-variance"].caption


def test_every_model_has_its_own_mark(tmp_path):
    study = load(report_folders.make(tmp_path, report_folders.PAPER_STUDY, ("msp",), {"china": "far"}))
    found = marks(study)
    assert len(found) == 56 and len(set(found.values())) == 56
    assert len({m.colour for m in found.values()}) == 6


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda t: t.iloc[1:], "1 of 80 combinations of model, detector and set have no row"),
        (lambda t: t[t["model"] == "baseline"], "of each detector with baseline on 4 "),
        (lambda t: t[t["detector"] == "msp"], "The only detector is msp"),
        (lambda t: t.assign(auroc=0.5), "AUROC is constant"),
        pytest.param(lambda t: t[t["dataset"] == "china"], "", marks=pytest.mark.slow),
        pytest.param(lambda t: t.drop(columns="fpr95"), "no column fpr95", marks=pytest.mark.slow),
        (lambda t: t.assign(fpr95=np.nan), "fpr95 is NaN in every row"),
        pytest.param(
            lambda t: t.assign(auroc_incorrect_vs_ood=t["auroc"].where(t["model"] != "mixup")),
            "undefined for mixup",
            marks=pytest.mark.slow,
        ),
        (
            lambda t: t.assign(auroc=t["auroc"].mask(t["model"].eq("mixup") & t["detector"].eq("vim"))),
            "AUROC is missing in 4 of 80 cells of model, detector and set, which means are adjusted for",
        ),
        (lambda t: t[t["model"] != "baseline"], "No model is the baseline"),
        pytest.param(lambda t: t.assign(weather="fine", accuracy="high"), "", marks=pytest.mark.slow),
        (lambda t: t.replace({"knn": "<b>knn</b> $x_1$", "china": "瓷" * 9, "msp": "m" * 90}), "&lt;b&gt;knn"),
    ],
    ids=[
        "hole",
        "one model",
        "one detector",
        "constant",
        "one set",
        "no column",
        "all NaN",
        "no mistakes",
        "NaN cells",
        "no baseline",
        "unknown columns",
        "odd names",
    ],
)
@pytest.mark.parametrize("rendered", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "rendered"])
def test_partial_tables_give_a_report_that_says_so(folder, edit, reason, rendered, monkeypatch):
    change(folder, edit)
    if not rendered:
        monkeypatch.setattr("oodjax.report.page.save", blank)
    text = write(folder).read_text()
    assert reason in text.replace("\N{NO-BREAK SPACE}", " ").replace("&#39;", "'")
    assert "Traceback" not in text
    for picture in (folder / "report" / "figures").glob("*.svg"):
        assert "nan" not in re.sub(r"<path[^>]*>", "", picture.read_text()).split()


@pytest.mark.parametrize(
    ("edit", "name", "message"),
    [
        (lambda t: t.drop(columns=["auroc", "dataset"]), "results.csv", "lacks the columns dataset, auroc"),
        (lambda t: t.assign(auroc=200 * t["auroc"]), "results.csv", "auroc must be in 0 to 100"),
        (
            lambda t: t.assign(auroc=t["auroc"].mask(t.index == 3, 50)),
            "results.csv",
            "auroc must be in 0 to 1, got '50",
        ),
        (lambda t: t.assign(auroc="good"), "results.csv", "got 'good' in data row 1"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "results.csv", "more than one row for model baseline"),
        (lambda t: t.iloc[:0], "results.csv", "has no rows"),
        (lambda t: t.assign(ood_category=t["ood_category"].mask(t.index == 0, "far")), "results.csv", "more than one"),
        (lambda t: t.iloc[1:], "models.csv", "no row for baseline"),
        (lambda t: t.assign(accuracy=np.nan), "models.csv", "accuracy or ece is missing"),
    ],
)
def test_broken_tables_are_one_clear_line(folder, edit, name, message, capsys):
    change(folder, edit, name)
    with pytest.raises(ReportError, match=message):
        load(folder)
    with pytest.raises(SystemExit) as stop:
        main([str(folder)])
    out = capsys.readouterr()
    assert stop.value.code == 2 and message in out.err and out.err.count("\n") == 1 and not out.out
    assert not (folder / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["{}", "--detectors", "msp,oracle"], "unknown detector oracle; the results have: msp, knn"),
        (["{}", "--detectors", "nearest-neighbours"], "Did you mean 'knn'?"),
        (["{}", "--plugin", "no_such_plugin"], "plugin 'no_such_plugin': there is no module no_such_plugin"),
        (["{}", "--baseline", "best"], "the baseline best is not among the models baseline"),
        (["{}", "--out", "{}/models.csv"], "is not a folder"),
        (["{}", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_command_line_errors(folder, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main([a.format(folder) for a in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def test_without_units_features_are_said_to_be_absent(folder):
    captions, reasons = drawn(folder)
    for key in ("fig18-feature-space", "fig19-max-logit", "fig20-activations", "fig-embedding", "fig-roc-1"):
        assert "run.json" in reasons[key]
    assert len(captions) >= 18


def test_architectures_when_models_name_them(folder):
    change(folder, lambda t: t.assign(architecture=["resnet50"] * 3 + ["vit"] * 2), "models.csv")
    captions, _ = drawn(folder)
    assert "resnet50" in captions["fig21-architectures"] and "(2 models)" in captions["fig21-architectures"]
    means = 100 * pd.read_csv(folder / "results.csv").pivot_table(index="model", columns="detector", values="auroc")
    vit = means.loc[["mixup", "simclr"]].mean() - means.drop(["mixup", "simclr"]).mean()
    assert f"{vit.idxmax()} changes by {vit.max():.1f}" in captions["fig22-architectures-detectors"]


def test_differences_from_the_paper(tmp_path, monkeypatch):
    monkeypatch.setattr("oodjax.report.page.save", blank)
    models = {"baseline": "baseline", "at-l2-eps1": "adversarial", "own": "adversarial"}
    folder = report_folders.make(tmp_path, models, FEW_DETECTORS, FEW_SETS, preset="digits")
    assert "from the paper" not in write(folder).read_text()  # to which its reader has nothing to compare
    assert not (folder / "report/tables/paper.csv").exists()
    report_folders.make(tmp_path, models, FEW_DETECTORS, FEW_SETS, preset="imagenet")
    write(folder)
    table = pd.read_csv(folder / "report/tables/paper.csv").set_index("model")
    assert list(table.index) == ["baseline", "at-l2-eps1"]
    assert table.at["at-l2-eps1", "accuracy_paper"] == 70.5 and table.at["baseline", "auroc_paper"] == 89.07
    own = 100 * pd.read_csv(folder / "results.csv").groupby("model")["auroc"].mean()["baseline"]
    assert table.at["baseline", "auroc_difference"] == pytest.approx(own - 89.07)
    assert len(paper()) == 56


def test_shorten_keeps_as_much_as_fits():
    assert shorten("short", 200, 10) == "short"
    cut = shorten("a very long name of a data set", 80, 10)
    assert "…" in cut and text_width(cut, 10) <= 80
    first, last = cut.split("…")
    assert text_width(f"{first}ry lon"[: len(first) + 1] + f"…{last}", 10) > 80 - text_width("m", 10)
    assert text_width(shorten("i" * 5000, 200, 10), 10) == pytest.approx(200, abs=text_width("ii", 10))
    assert shorten("wide", 1, 10) == "w…"


def test_module_runs_and_leaves_jax_alone(folder):
    code = "import sys; import oodjax.report.page; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("digits", [1, 9])
def test_roc_curves_enclose_the_auroc(digits):
    rng = np.random.default_rng(digits)
    inside, outside = rng.normal(1, 1, 700).round(digits), rng.normal(0, 1, 500).round(digits)
    false, true = roc_points(inside, outside)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1) and len(true) <= 200
    assert {(round(f * 500), round(t * 700)) for f, t in zip(false, true, strict=True)} <= {
        ((outside >= s).sum(), (inside >= s).sum()) for s in [np.inf, *inside, *outside]
    }
    # the chords between 200 of the corners cut off less than the corners that are left out rise
    assert np.trapezoid(true, false) == pytest.approx(metrics.auroc(inside, outside), abs=2e-3 if digits > 1 else 1e-12)


def test_facts_of_the_manifest_have_names_that_stand_alone():
    manifest = {
        "configuration": {"batch_size": 8, "fast_pixels": False, "searched": True, "models": ["a", "b"]},
        "device": {"kind": "cpu", "count": 1},
        "versions": {"jax": "0.10"},
    }
    assert record.provenance(manifest) == [
        ("batch size", "8"),
        ("fast pixels", "no"),
        ("hyper-parameters searched", "yes"),
        ("models", "2: a, b"),
        ("devices", "cpu"),
        ("number of devices", "1"),
        ("jax", "0.10"),
    ]


@pytest.mark.parametrize("facts", [True, False], ids=["with accuracy", "without"])
def test_one_table_is_enough(source, tmp_path, facts, capsys):
    results, models = (pd.read_csv(source / name) for name in ("results.csv", "models.csv"))
    table = results.merge(models.drop(columns="category"), on="model") if facts else results
    table.drop(columns=["ood_category"] if not facts else []).to_csv(tmp_path / "mine.csv", index=False)
    assert main([str(tmp_path / "mine.csv")]) == 0
    page = tmp_path / "mine-report" / "index.html"
    assert capsys.readouterr().out == f"{page}\n"
    written = pd.read_csv(page.parent / "tables" / "models.csv").set_index("model")
    expected = 100 * models.set_index("model")["accuracy"]
    np.testing.assert_allclose(written["accuracy"], expected if facts else expected * np.nan)
    np.testing.assert_allclose(written["auroc"], 100 * results.groupby("model")["auroc"].mean()[written.index])
    assert list(written["category"]) == list(models.set_index("model")["category"][written.index])
    text = page.read_text("utf-8")
    assert ("No column holds the models&#39; accuracy." in text) is not facts
    assert "nan" not in re.sub(r"<path[^>]*>", "", text).replace("\N{NO-BREAK SPACE}", " ").split()
    figures = {path.stem for path in (page.parent / "figures").glob("*.svg")}
    assert ("fig01-accuracy" in figures) is facts and {"fig07-ranks", "fig08-detectors"} <= figures
