import itertools

import numpy as np
import pandas as pd
import pytest

from oodjax import analysis

MODELS = pd.DataFrame(
    {
        "model": ["baseline", *(f"m{i}" for i in range(12))],
        "category": ["baseline", *["adversarial"] * 6, *["augmentation"] * 6],
        "accuracy": [0.76, *np.linspace(0.4, 0.7, 6), *np.linspace(0.77, 0.82, 6)],
        "ece": 0.03,
    }
)
DETECTORS = ["msp", "knn", "vim"]
SETS = [("ninco", "near"), ("ssb", "near"), ("textures", "far"), ("inaturalist", "far")]


def results(auroc, seed=0):
    rng = np.random.default_rng(seed)
    accuracy = dict(zip(MODELS["model"], MODELS["accuracy"], strict=True))
    rows = [
        {"model": m, "detector": d, "dataset": s, "ood_category": c, "auroc": auroc(accuracy[m], d) + e}
        for (m, d, (s, c)), e in zip(
            itertools.product(accuracy, DETECTORS, SETS), rng.normal(scale=0.002, size=156), strict=True
        )
    ]
    return pd.DataFrame(rows)


def peak(accuracy, detector):
    """Best at the baseline; knn loses least, msp most, and leads at the baseline."""
    slope = {"msp": 0.9, "knn": 0.2, "vim": 0.5}[detector]
    start = {"msp": 0.94, "knn": 0.90, "vim": 0.92}[detector]
    return start - slope * abs(accuracy - 0.76)


def texts(table, models=MODELS, **options):
    statements = analysis.does_accuracy_predict(table, models, **options)
    assert all(s.text.endswith(".") and s.falsified_if.endswith(".") for s in statements)
    assert not any("nan" in s.text.replace("nan or", "").lower().split() for s in statements)
    return [s.text for s in statements]


def test_rise_and_fall_around_the_baseline():
    overall, sides, best, interaction, safest, ranks, per_model = texts(results(peak))
    assert "over 156 rows of 13 models: ρ = " in overall
    assert sides.startswith("Taking the accuracy 0.76 of 'baseline' as the border, below it auroc rises with accuracy")
    assert "at or above it auroc falls with accuracy (ρ = -" in sides
    assert (
        best.startswith("The model that detects best is 'baseline' (accuracy 0.76") and "most accurate, 'm11'" in best
    )
    assert interaction.startswith("The strongest significant interaction is model:detector, with ")
    assert safest.startswith("The safest detector over all 13 models is knn:") and "(with 'm0')" in safest
    assert ranks.startswith("The best mean rank over models is ")
    assert per_model.startswith("3 of 3 detectors are the best for some of the 13 models: ") or "2 of 3" in per_model


def test_the_numbers_are_those_of_the_other_analyses():
    table = results(peak)
    overall, _, _, interaction, safest, ranks, _ = texts(table)
    joined = analysis.join_models(table, MODELS)
    assert f"ρ = {analysis.spearman(joined).rho:.2f}" in overall
    share = analysis.anova(table).set_index("term").loc["model:detector", "share"]
    assert f"{100 * share:.3g} %" in interaction
    assert f"{analysis.robustness(table)['worst'].iloc[0]:.4g}" in safest
    assert f"{analysis.mean_ranks(table)['mean_rank'].iloc[0]:.3g} (95 %" in ranks


def test_the_sentences_follow_the_data():
    rising = texts(results(lambda accuracy, detector: accuracy))
    assert rising[0].startswith("More accurate models have higher auroc")
    assert "at or above it auroc rises with accuracy" in rising[1]
    assert rising[2].startswith("The model that detects best, 'm11'") and "also the most accurate" in rising[2]
    falling = texts(results(lambda accuracy, detector: -accuracy))
    assert falling[0].startswith("More accurate models have lower auroc") and "below it auroc falls" in falling[1]
    flat = texts(results(lambda accuracy, detector: 0.8))
    assert flat[0].startswith("Accuracy says little about auroc")
    assert "neither rises nor falls" in flat[1]


def test_few_models_are_listed_one_by_one():
    table = results(peak)
    few = texts(table[table["model"].isin(["baseline", "m0"])])
    assert few[-1] == "The best detectors are: msp with 'baseline'; knn with 'm0'."
    assert "nothing can be said (1 model there, at least 2 are needed)" in few[1]


def test_one_model():
    table = results(peak)
    found = texts(table[table["model"] == "baseline"])
    assert found[0] == "Whether accuracy predicts auroc cannot be said: accuracy is constant."
    assert "cannot be said" in found[1] and "the only model is 'baseline'" in found[2]
    assert "detector:ood_category" in found[3]
    assert found[-1] == "The best detectors are: msp with 'baseline'."


def test_one_detector():
    table = results(peak)
    found = texts(table[table["detector"] == "knn"])
    assert "rises with accuracy" in found[1] and "model:ood_category" in found[3]
    assert found[4].endswith("cannot be said: the only detector is 'knn'.")


def test_one_category_and_no_replicates():
    table = results(peak)
    near = texts(table[table["ood_category"] == "near"])
    assert "interaction is model:detector" in near[3]
    single = texts(table[table["dataset"] == "ninco"])
    assert single[3].startswith("The largest interaction is model:detector") and "cannot be tested" in single[3]


def test_constant_response():
    found = texts(results(peak).assign(auroc=0.5))
    assert found[0].endswith("cannot be said: auroc is constant.")
    assert found[3] == "Which interaction is strongest cannot be said: auroc is constant."
    assert found[4].startswith("No detector is safest: all 3 detectors share the best worst case, a mean auroc of 0.5")
    assert found[5] == "No detector ranks above another on average."


def test_missing_combinations_are_named():
    table = results(peak)
    found = texts(table.drop(index=7))
    assert "rows of 13 models: ρ" in found[0]
    for text in found[2:]:
        assert "cannot be said" in text and "model='baseline', detector='knn'" in text


def test_an_unknown_baseline_is_said():
    assert "0 rows for the baseline 'none'" in texts(results(peak), baseline="none")[1]


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"lacks the columns \['auroc'\]"):
        analysis.does_accuracy_predict(results(peak).drop(columns="auroc"), MODELS)
    with pytest.raises(ValueError, match=r"models has no row for \['m11'\]"):
        analysis.does_accuracy_predict(results(peak), MODELS.iloc[:-1])
