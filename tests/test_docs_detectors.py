"""The detectors' pages say what their methods, docstrings and the kept figures of the studies say."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from oodjax import TrainStatistics, detectors, testing
from oodjax.detectors.base import METHODS
from website import detectors as docs
from website import study


@pytest.fixture(scope="module")
def problem():
    train, validation, test, head = testing.problem(signed=False)
    return {"stats": TrainStatistics.collect(train, head), "validation": validation, "outputs": test, "head": head}


def test_a_docstring_is_taken_apart():
    doc = """- min_c d(h, c) (Who et al., CVPR 2031, eqs. 2-3), c the class.

    d as a | b. Cost: a (n, 0.5 D) product. On
    `h`.

    Deviations: the mean, not
    the sum.
    """
    words = docs.read(doc)
    assert words.score == "- min_c d(h, c), c the class."
    assert words.source == "Who et al., CVPR 2031, eqs. 2-3"
    assert words.rest == "d as a | b. On `h`."
    assert words.cost == "a (n, 0.5 D) product"
    assert words.deviations == "the mean, not the sum."


@pytest.mark.parametrize("name", detectors.names())
def test_each_detector_has_a_page_with_formula_source_and_options(name):
    text, method = docs.page(name), METHODS[name]
    words = docs.read(docs.docstring(method))
    assert re.search(r"Source: .*(\b(19|20)\d\d\b|arXiv:\d{4}\.\d+)", text), "a paper with its year"
    assert words.score in docs.docstring(method).replace(f" ({words.source})", "").replace("\n    ", " ") + "."
    for key in method.options:
        (line,) = re.findall(rf"^\| `{key}` \|.*$", text, re.MULTILINE)
        for point in method.grid:
            assert f"`{point[key]}`" in line if key in point else "the default alone" in line
    assert ("logits and labels" in text) == method.reads_validation


@pytest.mark.slow
@pytest.mark.parametrize("name", detectors.names())
def test_the_lines_of_a_page_run(name, problem):
    (code,) = re.findall(r"```python\n(.*?)```", docs.page(name), re.DOTALL)
    names = {"detectors": detectors, "TrainStatistics": TrainStatistics, **problem}
    exec(code, names)
    whole = detectors.create(name, **dict(METHODS[name].options)).fit(problem["stats"], problem["validation"])
    np.testing.assert_array_equal(names["det"].score(problem["outputs"]), whole.score(problem["outputs"]))


def test_figures_are_those_of_the_kept_table():
    table = pd.read_csv(study.DIGITS)
    values = table[table["detector"] == "mds"].set_index("recipe").drop(columns=["detector", "seeds"])
    text = docs.page("mds")
    assert f"mean AUROC {values.to_numpy().mean():.1f} %" in text
    lowest = values.mean(axis=1)
    assert f"falls to {lowest.min():.1f} % with the recipe that suits it least (`{lowest.idxmin()}`)" in text
    near = values[[column for column in values if column.startswith("near/")]].to_numpy().mean()
    assert study.standings()["mds"].by_category["near"] == pytest.approx(near)
    means = table.drop(columns="seeds").set_index(["recipe", "detector"]).mean(axis=1).unstack()
    ranks = means.rank(axis=1, ascending=False).mean()
    assert study.standings()["mds"].mean_rank == pytest.approx(ranks["mds"])
    assert [study.standings()[n].rank for n in ranks.sort_values().index[:3]] == [1, 2, 3]


def test_the_picture_has_a_dot_a_recipe_and_category():
    svg = docs.pictures.strip(study.rows(), "knn")
    recipes = study.rows()["recipe"].nunique()
    assert len(re.findall(r"<use [^>]*fill: #4a7fc1", svg)) == 4 * recipes
    assert "\n" not in svg and svg.count("<svg") == 1


def test_what_the_paper_says_stands_on_the_pages_of_those_it_names():
    assert "first of 21 by mean rank: mean rank 5.15 (95 % interval 4.08 to 6.22)" in docs.page("scale")
    assert "second of 21 by mean rank: mean rank 6.54 (95 % interval 5.84 to 7.24)" in docs.page("gram")
    assert "among the five last of 21 by mean rank." in docs.page("mds")
    assert "**The paper**" not in docs.page("vim")


def test_time_is_the_records():
    assert docs.cost("mds").startswith("80 µs an image beside the forward pass, on 2 CPU cores")
    assert docs.cost("odin") == "3.2 forward passes an image for one setting, 13.2 for the grid"
    assert docs.cost("none that was measured") == ""


def test_kept_figures_are_means_over_seeds(tmp_path, monkeypatch):
    sets = [("far", "sea"), ("near", "cats")]
    rows = [
        {"model": f"{r}.seed{s}", "recipe": r, "detector": d, "ood_category": c, "dataset": n, "auroc": 0.1 + 0.2 * i}
        for i, (r, d, s) in enumerate([("b", "mds", 0), ("b", "mds", 1), ("a", "mds", 0), ("a", "mds", 1)])
        for c, n in sets
    ]
    monkeypatch.setattr(study, "DIGITS", tmp_path / "digits.csv")
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "results.csv", index=False)
    study.write(tmp_path)
    lines = (tmp_path / "digits.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["recipe,seeds,detector,near/cats,far/sea", "b,2,mds,20.0,20.0", "a,2,mds,60.0,60.0"]
    table.drop(columns="recipe").to_csv(tmp_path / "results.csv", index=False)
    study.write(tmp_path)
    lines = (tmp_path / "digits.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:3] == ["b.seed0,1,mds,10.0,10.0", "b.seed1,1,mds,30.0,30.0"]


def test_a_method_that_the_study_did_not_have_gets_a_page_too(monkeypatch):
    def score(params, outputs, scale):
        """Largest logit times a scale (Me, 2030, eq. 1).

        Deviations: none.
        """
        return scale * outputs.logits.max(axis=-1)

    method = detectors.Method("mine", "new family", score, options={"scale": 2}, grid=({"scale": 1}, {"scale": 2}))
    monkeypatch.setitem(METHODS, "mine", method)
    text = docs.page("mine")
    assert "> Largest logit times a scale." in text and "Source: Me, 2030, eq. 1." in text
    assert "| `scale` | `2` | `1`, `2` |" in text
    assert "It was not among the 21 detectors of the study." in text
    assert "| [`mine`](mine.md) | Largest logit times a scale" in docs.index()
    assert "## What it reads" in text and "| cost |" not in text
    assert "| cost | that of `mds` |" in docs.page("gmm")
    assert {"new family": [{"mine": "detectors/mine.md"}]} in docs.navigation()
