"""Tables of others: names, percents and facts are understood, and what was assumed is said."""

import numpy as np
import pandas as pd
import pytest
import simulated

from oodjax import analysis
from oodjax.analysis import columns

HEADINGS = {"model": "Model", "detector": "OOD method", "dataset": "Data", "auroc": "AUROC"}


def ours():
    table, models = simulated.table(models=6)
    return table.assign(auroc=1 / (1 + np.exp(-table["auroc"]))), models


def theirs(percent=True):
    table, models = ours()
    table = table.assign(auroc=table["auroc"] * (100 if percent else 1)).rename(columns=HEADINGS)
    facts = models.assign(accuracy=100 * models["accuracy"]).rename(columns={"model": "Model", "accuracy": "Top-1"})
    return table, facts


def test_other_names_and_percents_are_the_same_table(tmp_path):
    table, models = ours()
    given, facts = theirs()
    named = "model=Model,detector=OOD method,dataset=Data, auroc=AUROC,accuracy=Top-1"
    found = analysis.read_tables(given, facts, named)
    pd.testing.assert_frame_equal(found.results[table.columns], table)
    pd.testing.assert_frame_equal(found.models[models.columns], models)
    assert found.assumed == [
        f"auroc of results is taken for percent, as its values go up to {given['AUROC'].max():g}",
        f"accuracy of models is taken for percent, as its values go up to {facts['Top-1'].max():g}",
    ]
    given.to_csv(tmp_path / "a.csv", index=False)
    facts.to_csv(tmp_path / "b.csv", index=False)
    read = analysis.read_tables(tmp_path / "a.csv", tmp_path / "b.csv", {**HEADINGS, "accuracy": "Top-1"})
    pd.testing.assert_frame_equal(read.results[table.columns], table, rtol=1e-12)
    expected = analysis.correlation_interval(analysis.join_models(table, models))
    assert analysis.correlation_interval(analysis.join_models(*found[:2])) == expected


def test_the_unit_can_be_given():
    small = pd.DataFrame({"model": "a", "detector": ["x", "y"], "dataset": "s", "fpr95": [0.5, 0.75]})
    assert analysis.read_tables(small).results["fpr95"].tolist() == [0.5, 0.75]
    assert analysis.read_tables(small, unit="percent").results["fpr95"].tolist() == [0.005, 0.0075]
    with pytest.raises(ValueError, match="fpr95 must be in 0 to 1, got 50 in 1 of 2 rows; the unit may be given"):
        analysis.read_tables(small.assign(fpr95=[0.5, 50.0]))
    mixed = analysis.read_tables(small.assign(fpr95=[0.5, 50.0]), unit="percent")
    assert mixed.results["fpr95"].tolist() == [0.005, 0.5]
    with pytest.raises(ValueError, match="fpr95 must be in 0 to 100, got -1"):
        analysis.read_tables(small.assign(fpr95=[-1.0, 50.0]), unit="percent")
    with pytest.raises(ValueError, match="unit must be fraction or percent, got 'percents'"):
        analysis.read_tables(small, unit="percents")


def test_facts_of_the_models_come_from_the_results():
    table, models = ours()
    wide = table.merge(models, on="model").drop(columns="ood_category")
    found = analysis.read_tables(wide.rename(columns={"category": "model_category"}))
    pd.testing.assert_frame_equal(found.models[models.columns], models)
    assert found.assumed == ["no column says which OOD category a set is of, so that all are of one"]
    bare = analysis.read_tables(table)
    assert bare.models["accuracy"].isna().all() and bare.models["category"].tolist() == ["baseline", *["model"] * 5]
    assert bare.assumed[1:] == ["no column holds the models' accuracy", "no column holds the models' ece"]
    verdict = analysis.does_accuracy_predict(*bare[:2])
    assert verdict[0].text.startswith("Whether accuracy predicts auroc cannot be said")
    with pytest.raises(ValueError, match="results give model 'baseline' more than one accuracy: "):
        analysis.read_tables(wide.assign(accuracy=wide["accuracy"].where(wide["dataset"] != "a", 0)))


@pytest.mark.parametrize(
    "text, message",
    [
        ("model", "columns are given as NAME=HEADING, such as model=Model, got 'model'"),
        ("model=", "columns are given as NAME=HEADING"),
        ("method=Model", "there is no column 'method' to name; there are model, detector, dataset"),
        ("model=A,model=B", "the column model is given twice, as 'A' and 'B'"),
    ],
)
def test_what_is_no_list_of_columns_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        columns.parse_columns([text])


def test_a_heading_that_is_not_there_is_named(tmp_path):
    table, _ = ours()
    with pytest.raises(ValueError, match="results has no column 'Model'; it has model, detector, dataset"):
        analysis.read_tables(table, columns="model=Model")
    with pytest.raises(ValueError, match=r"results lacks the columns \['detector'\]"):
        analysis.read_tables(table.drop(columns="detector"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="empty.csv cannot be read as a CSV table: No columns"):
        analysis.read_tables(tmp_path / "empty.csv")


def test_a_column_takes_the_place_of_one_that_has_our_name():
    table, _ = ours()
    both = table.assign(score=0.5)
    found = analysis.read_tables(both, columns={"auroc": "score"}).results
    assert (found["auroc"] == 0.5).all() and "score" not in found.columns
