"""Seven of a hundred cells missing at random take nothing away: every table, verdict and answer stands, and says so."""

import numpy as np
import pandas as pd
import pytest
import report_folders

from oodjax.report import first, tables
from oodjax.report.data import load

MODELS = {"baseline": "baseline", **{f"m{i}": "augmentation" for i in range(4)}, **{f"n{i}": "ssl" for i in range(4)}}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = report_folders.make(tmp_path_factory.mktemp("holes"), MODELS, detectors=("msp", "knn", "vim", "gen"))
    whole = load(folder)
    table = pd.read_csv(folder / "results.csv")
    table[np.random.default_rng(0).random(len(table)) >= 0.07].to_csv(folder / "results.csv", index=False)
    return whole, load(folder)


def made(study):
    found = {}
    for entry in tables.entries(study):
        try:
            found[entry.key] = entry.make()
        except ValueError as error:
            found[entry.key] = str(error)
    return found


def test_every_table_stands(studies):
    whole, holes = (made(study) for study in studies)
    assert len(studies[1].results) < len(studies[0].results)
    assert [k for k, v in whole.items() if isinstance(v, str)] == [k for k, v in holes.items() if isinstance(v, str)]
    before, after = (v["detectors"].frame.set_index("detector")["mean_rank"] for v in (whole, holes))
    np.testing.assert_allclose(after[before.index], before, atol=0.5)
    assert "which means are adjusted for" in holes["detectors"].note and "adjusted" not in whole["detectors"].note


def test_every_verdict_stands(studies):
    whole, holes = (first.verdict(study) for study in studies)
    assert [s.text.split()[:2] for s in whole] == [s.text.split()[:2] for s in holes]
    assert sum("are missing and adjusted for" in s.text for s in holes) >= 3
    assert first.first_screen(studies[1]).sentence == holes[0].text


def test_means_are_adjusted_not_skewed(studies):
    """A model that lacks its hard sets is no better for it."""
    whole = studies[0]
    hard = whole.results.groupby("dataset")["auroc"].mean().idxmin()
    lost = (whole.results["model"] == "m1") & (whole.results["dataset"] == hard)
    plain = whole.results[~lost & (whole.results["model"] == "m1")]["auroc"].mean()
    truth = whole.means("auroc")["m1"]
    whole._measured["auroc"] = whole.results[~lost]
    try:
        assert abs(whole.means("auroc")["m1"] - truth) < abs(plain - truth) / 3
    finally:
        del whole._measured["auroc"]
