"""Reports of tables of any origin: other names, percents, one CSV file without a table of models."""

import numpy as np
import pandas as pd
import pytest
import report_folders

from oodjax.report.__main__ import main
from oodjax.report.data import ReportError, load
from oodjax.report.given import Given

HEADINGS = {"model": "Model", "detector": "OOD method", "dataset": "Data", "auroc": "AUROC", "fpr95": "FPR"}
COLUMNS = ",".join(f"{ours}={theirs}" for ours, theirs in HEADINGS.items())
MODELS = {"baseline": "baseline", "a": "augmentation", "b": "augmentation"}


@pytest.fixture
def study(tmp_path):
    return report_folders.make(tmp_path / "ours", MODELS, detectors=("msp", "knn", "vim"))


def foreign(study, path, percent=("auroc", "fpr95", "accuracy", "ece")):
    """The study's tables as one file with other names, in percent."""
    results, facts = pd.read_csv(study / "results.csv"), pd.read_csv(study / "models.csv")
    results = results[["model", "detector", "dataset", "ood_category", "auroc", "fpr95"]].merge(facts, on="model")
    for column in percent:
        results[column] *= 100
    results.rename(columns=HEADINGS).to_csv(path, index=False)
    return path


def test_one_file_in_percent_is_the_same_study(study, tmp_path):
    path = foreign(study, tmp_path / "board.csv")
    ours, theirs = load(study), load(Given(path, columns=HEADINGS))
    columns = ["model", "detector", "dataset", "ood_category", "auroc", "fpr95", "accuracy", "ece", "model_category"]
    pd.testing.assert_frame_equal(theirs.results[columns], ours.results[columns], rtol=1e-9)
    facts = ["model", "category", "accuracy", "ece"]
    pd.testing.assert_frame_equal(theirs.facts[facts], ours.facts[facts], rtol=1e-9)
    assert any(n.startswith("auroc of board.csv is taken for percent, as its values go up to") for n in theirs.notes)
    assert theirs.folder == tmp_path and theirs.manifest == {} and theirs.baseline == "baseline"


def test_the_unit_decides_where_it_is_given(study, tmp_path):
    path = foreign(study, tmp_path / "board.csv", percent=())
    assert load(Given(path, columns=HEADINGS, unit="percent")).results["auroc"].max() <= 1
    assert load(Given(path, columns=HEADINGS, unit="fraction")).results["auroc"].max() > 50
    whole = foreign(study, tmp_path / "percent.csv")
    with pytest.raises(ReportError, match="percent.csv: auroc must be in 0 to 1, got"):
        load(Given(whole, columns=HEADINGS, unit="fraction"))


def test_a_table_of_models_of_any_name_beside_a_file(study, tmp_path):
    pd.read_csv(study / "models.csv").rename(columns={"model": "Model"}).to_csv(tmp_path / "nets.csv", index=False)
    results = pd.read_csv(study / "results.csv").rename(columns=HEADINGS)
    results.to_csv(tmp_path / "board.csv", index=False)
    found = load(Given(tmp_path / "board.csv", tmp_path / "nets.csv", HEADINGS))
    pd.testing.assert_frame_equal(found.facts[["accuracy", "ece"]], load(study).facts[["accuracy", "ece"]])


def test_the_command_writes_the_page_beside_the_file(study, tmp_path, capsys):
    path = foreign(study, tmp_path / "board.csv")
    assert main([str(path), "--columns", COLUMNS]) == 0
    page = tmp_path / "board-report" / "index.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    assert "is taken for percent" in text and "vim" in text
    kept = (tmp_path / "board-report" / "tables" / "results.csv").read_bytes()
    assert kept == path.read_bytes()


def test_a_table_that_knows_nothing_of_its_models(study, tmp_path):
    """A leaderboard: model, detector, set and AUROC are all there is."""
    table = pd.read_csv(study / "results.csv")[["model", "detector", "dataset", "auroc"]]
    table.to_csv(tmp_path / "bare.csv", index=False)
    found = load(Given(tmp_path / "bare.csv"))
    assert found.ood_categories == ["OOD"] and np.isnan(found.facts["accuracy"]).all()
    assert main([str(tmp_path / "bare.csv")]) == 0
    text = (tmp_path / "bare-report" / "index.html").read_text(encoding="utf-8")
    assert "No column holds the models" in text and "all are taken for one" in text and ">nan" not in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--columns", "model=Nothing"], "no table has a column 'Nothing' to be model; there are "),
        (["--columns", "model"], "argument --columns: columns are given as NAME=HEADING, such as model=Model"),
        (["--columns", "method=Model"], "there is no column 'method' to name; there are model, detector"),
        (["--unit", "permille"], "argument --unit: invalid choice: 'permille'"),
        (["--models", "none.csv"], "there is no none.csv"),
    ],
)
def test_what_does_not_fit_is_one_line(study, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main([str(study), *arguments])
    error = capsys.readouterr().err.strip()
    assert caught.value.code == 2 and message in error and "\n" not in error and not (study / "report").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.csv")])
    assert f"there is no {tmp_path / 'none.csv'}" in capsys.readouterr().err
