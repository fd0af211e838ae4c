"""The wording follows the truth of the table it is fed, and finds nothing where nothing is."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import simulated

from oodjax import analysis
from oodjax.analysis import verdict

ACCURACY, SIDES, RECIPES, INTERACTION, SAFEST, LEADER, PER_MODEL = range(7)


def statements(table, models, **options):
    found = analysis.does_accuracy_predict(table, models, **options)
    assert len(found) == 7 and all(s.text.endswith(".") and s.falsified_if.endswith(".") for s in found)
    assert not any("nan" in re.findall(r"\w+", s.text.lower()) for s in found)
    return found


def texts(table, models, **options):
    return [s.text for s in statements(table, models, **options)]


def around_the_baseline(below, above, n=12, seed=0):
    """n models below the baseline's accuracy and n above it, with their own slopes."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([[0.0], -rng.random(n) - 0.1, rng.random(n) + 0.1])
    level = np.where(x < 0, below * x, above * x) + 0.05 * rng.normal(size=2 * n + 1)
    table, models = simulated.table(models=2 * n + 1, between=0, within=0, seed=seed)
    names = models["model"].tolist()
    table["auroc"] += table["model"].map(dict(zip(names, level, strict=True)))
    return table, models.assign(accuracy=0.8 + 0.1 * x)


def test_a_strong_relation_is_claimed_with_its_interval():
    table, models = simulated.table(models=17, slope=2.0, between=0.5, within=0)
    found = statements(table, models)[ACCURACY]
    assert found.text.startswith("More accurate models have higher auroc: ρ = 0.")
    assert "from resampling 17 models" in found.text and "from permuting them" in found.text
    expected = analysis.correlation_interval(analysis.join_models(table, models))
    assert found.interval == analysis.Interval(expected.rho, expected.low, expected.high, 0.95, "17 models")
    assert f"95 % interval {expected.low:.2f} to {expected.high:.2f}" in found.text and expected.low > 0
    falling = texts(*simulated.table(models=17, slope=-2.0, between=0.5, within=0))[ACCURACY]
    assert falling.startswith("More accurate models have lower auroc: ρ = −0.")


def test_no_relation_is_not_settled_with_few_models_and_little_with_many():
    few = statements(*simulated.table(models=17))[ACCURACY]
    assert few.text.startswith("Whether more accurate models have higher auroc is not settled: ρ = ")
    assert few.interval.low < 0 < few.interval.high
    many = texts(*simulated.table(models=150))[ACCURACY]
    assert many.startswith("Accuracy says little about auroc: ρ = ") and "150 models" in many


def test_rows_that_agree_are_no_evidence():
    """Six models of 10 detectors and 4 sets: 240 rows put p far below 0.001, six models do not."""
    table, models = simulated.table(models=6, detectors=10, seed=3, within=0)
    assert analysis.spearman(analysis.join_models(table, models)).p < 0.001
    assert "is not settled" in texts(table, models)[ACCURACY]


@pytest.mark.parametrize("below, above", [(3.0, 0.0), (0.0, 3.0), (3.0, -3.0)])
def test_one_side_only(below, above):
    text = texts(*around_the_baseline(below, above))[SIDES]
    assert text.startswith("Taking the accuracy 0.800 of 'baseline' as the border, below it ")
    first, second = text.split("; at or above it ")
    for part, slope in ((first, below), (second, above)):
        assert ("auroc rises with accuracy" in part) == (slope > 0)
        assert ("auroc falls with accuracy" in part) == (slope < 0)
        assert ("nothing is settled" in part) == (slope == 0)
        assert "97.5 % interval" in part  # two intervals that hold together
    assert text.endswith("the two intervals hold together.")


def test_a_side_with_few_models_is_not_spoken_of():
    table, models = around_the_baseline(3.0, 3.0)
    models = models.assign(accuracy=models["accuracy"].where(models["accuracy"] <= 0.8, 0.7))
    text = texts(table, models)[SIDES]
    assert "at or above it there are 1 models, too few to say" in text and "95 % interval" in text
    assert "no model is the baseline" in texts(table, models, baseline=None)[SIDES]
    assert "there is no model 'none'" in texts(table, models, baseline="none")[SIDES]


def with_recipes(shifts, noise=0.1, seed=0):
    """A table of seven recipes whose levels are given; each seed has its own noise."""
    table, models = simulated.table(models=7, seeds=5, between=0, within=0, seed=seed)
    joined = table.merge(models[["model", "recipe", "seed"]], on="model")
    rng = np.random.default_rng(seed)
    luck = {model: noise * rng.normal() for model in models["model"]}
    level = joined["recipe"].map(dict.fromkeys(models["recipe"], 0.0) | shifts)
    base = joined.groupby(["detector", "dataset"])["auroc"].transform("mean")
    return table.assign(auroc=base + level + joined["model"].map(luck)), models


def test_recipes_that_help_and_harm_are_named():
    found = statements(*with_recipes({"m1": 3.0, "m2": -2.0}))[RECIPES]
    assert re.match(r"Mean auroc over seeds is better than 'baseline': m1 \(3\.?\d*, 95 % interval \d", found.text)
    assert "worse than 'baseline': m2 (−" in found.text and "p corrected for 6 comparisons by Holm" in found.text
    assert "4 of 6 recipes are not told apart from it" in found.text
    assert found.interval.unit == "5 seeds of each recipe" and found.interval.excludes_zero


def test_seeds_that_flip_a_finding_take_it_away():
    """What one seed shows as 3 points better is the other way round with others."""
    table, models = with_recipes({}, noise=4.0, seed=3)
    joined = analysis.join_models(table, models)
    one = joined[joined["seed"] == 0].groupby("recipe")["auroc"].mean()
    assert (one - one["baseline"]).abs().max() > 3
    found = statements(table, models)[RECIPES]
    assert found.text.startswith("No recipe is told apart from 'baseline' (p corrected for 6 comparisons by Holm). ")
    assert found.interval.low < 0 < found.interval.high


def test_one_seed_says_nothing_of_recipes():
    table, models = simulated.table(models=7, between=5.0)
    text = texts(table, models)[RECIPES]
    best = table.groupby("model")["auroc"].mean().idxmax()
    assert text.startswith("Which recipe detects better than the baseline cannot be said: one network of each")
    assert f"of {best!r}" in text


def test_seeds_are_recipes_to_the_sentences_about_accuracy():
    table, models = simulated.table(models=8, seeds=3, slope=3.0, between=0.2, within=0.2)
    found = statements(table, models)
    assert "from resampling 8 recipes" in found[ACCURACY].text
    assert "over these 8 recipes" in found[SAFEST].text and "of 8 recipes" in found[PER_MODEL].text
    assert texts(table, models, baseline="baseline.seed1") == [s.text for s in found]  # a model stands for its recipe


def test_the_safest_and_the_best_detector():
    table, models = simulated.table(models=17, effects=(3.0,), between=0.3)
    found = statements(table, models)
    means = table.groupby(["detector", "model"])["auroc"].mean().unstack()
    worst = means.min(axis=1)
    assert found[SAFEST].text.startswith("The best worst case over these 17 models is that of d0")
    assert f"falls below {worst['d0']:.1f} (with {means.loc['d0'].idxmin()!r})" in found[SAFEST].text
    assert f"at least {100 * (0.05 / 3) ** (1 / 17):.3g} % of further models" in found[SAFEST].text
    assert "d0 is chosen again in 100 % of resamples" in found[SAFEST].text
    assert found[LEADER].text.startswith("d0 has the highest mean auroc on average, ")
    corrected = "(paired differences, p corrected for all 3 pairs by Holm)"
    assert f"told apart from all 2 others {corrected}" in found[LEADER].text
    row = analysis.mean_interval(table).set_index("detector").loc["d0"]
    assert found[LEADER].interval[:3] == pytest.approx((row["mean"], row["low"], row["high"]))
    assert found[PER_MODEL].text.startswith("d0 is the best with 17 of 17 models (100 %, 95 % interval 80.5 % to 100 %")


def test_the_worst_case_holds_for_as_many_further_models_as_it_says():
    """Detectors are alike and the best worst case is taken: still at least that share stays above it."""
    rng, n, detectors = np.random.default_rng(0), 12, 5
    worst = rng.normal(size=(20_000, n, detectors)).min(axis=1).max(axis=1)
    kept = scipy.stats.norm.sf(worst) >= (0.05 / detectors) ** (1 / n)
    assert 0.945 <= kept.mean() <= 0.96


def test_detectors_that_do_not_differ():
    found = texts(*simulated.table(models=17, seed=1))
    assert "but is told apart from none of the 2 others" in found[LEADER]
    table, models = simulated.table(models=7)
    constant = texts(table.assign(auroc=0.5), models)
    assert constant[ACCURACY] == "Whether accuracy predicts auroc cannot be said: auroc is constant."
    assert constant[INTERACTION] == "Which interaction is largest cannot be said: auroc is constant."
    assert constant[SAFEST].startswith("No detector is safest: all 3 detectors share the best worst case over 7 models")
    assert constant[LEADER].endswith("cannot be said: all 3 detectors have the same mean auroc.")


def test_the_largest_interaction_and_noise():
    table, models = simulated.table(models=17, within=0)
    found = statements(table, models, term_name=lambda term: term.replace(":", " × "))[INTERACTION]
    assert found.text.startswith("The largest interaction is model × detector, with ")
    assert "98.8 % interval" in found.text and "more than noise, and larger than the next, " in found.text
    share = analysis.anova(table).set_index("term").loc["model:detector", "share"]
    assert found.interval.estimate == pytest.approx(share)
    assert "from leaving out 17 models in turn, 204 rows" in found.text
    noise = table.assign(auroc=np.random.default_rng(0).normal(size=len(table)))
    assert texts(noise, models)[INTERACTION].startswith("No interaction is told apart from noise; the largest is ")
    single = texts(table[table["dataset"].isin(["a", "c"])], models)[INTERACTION]
    assert "without replicates it cannot be told from noise" in single
    one = texts(table[table["detector"] == "d0"], models)
    assert "model:ood_category" in one[INTERACTION]
    assert one[SAFEST].endswith("cannot be said: the only detector is 'd0'.")


def test_few_models_are_listed_one_by_one():
    table, models = simulated.table(models=3, between=0.1, effects=(3.0,))
    found = texts(table, models)
    assert "3 models, at least 5 are needed for an interval; ρ = " in found[ACCURACY]
    assert re.search(r"models? below it and .* at or above it, at least 5 are needed on a side", found[SIDES])
    assert found[PER_MODEL].startswith("In this table the best detectors are: d0 with 'baseline'; d0 with 'm1'; d0 ")
    assert found[PER_MODEL].endswith("3 models say nothing of others.")


def test_one_model():
    table, models = simulated.table(models=3, effects=(3.0,))
    found = texts(table[table["model"] == "baseline"], models)
    for text in (found[i] for i in (ACCURACY, RECIPES, SAFEST, PER_MODEL)):
        assert text.endswith("cannot be said: the only model is 'baseline'.")
    assert "d0 has the highest mean auroc with this model" in found[LEADER] and "resampling 4 OOD sets" in found[LEADER]


def test_seven_percent_missing_takes_nothing_away():
    table, models = simulated.table(models=17, slope=2.0, detectors=6, within=0)
    holes = table[np.random.default_rng(0).random(len(table)) >= 0.07]
    whole, found = texts(table, models), texts(holes, models)
    assert [a.split()[:4] for a in whole] == [b.split()[:4] for b in found]
    note = f"({len(table) - len(holes)} of 408 cells are missing and adjusted for)"
    assert all(note in found[i] for i in (ACCURACY, SAFEST, LEADER)) and f"{len(holes)} rows" in found[INTERACTION]
    same = table.assign(auroc=table["auroc"].where(table.index.isin(holes.index)))
    assert texts(same, models) == found  # a missing value is a missing row


def claims(table, models):
    """Which questions' answers claim a finding about models, recipes or detectors in general."""
    found = texts(table, models)
    return [
        found[ACCURACY].startswith("More accurate"),
        "rises" in found[SIDES] or "falls" in found[SIDES],
        found[RECIPES].startswith("Mean auroc"),
        found[INTERACTION].startswith("The largest") and "more than noise" in found[INTERACTION],
        "and is told apart from" in found[LEADER],
    ]


def null_table(seed, seeds):
    rng = np.random.default_rng([seed, 1])  # not the draws of accuracy
    table, models = simulated.table(models=12, seeds=seeds, seed=seed, between=0, within=1)
    networks = dict(zip(models["model"], rng.normal(size=len(models)), strict=True))
    noise = table["model"].map(networks) + 0.4 * rng.normal(size=len(table))
    return table.assign(auroc=noise), models


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 4])
def test_nothing_is_found_where_nothing_is(seeds):
    """Networks differ, but not by accuracy, recipe, or detector: each question claims at most 5 % of the time."""
    found = np.mean([claims(*null_table(seed, seeds)) for seed in range(150)], axis=0)
    assert (found <= 0.085).all(), found  # 150 tables leave a standard error of 1.8 %


@pytest.mark.slow
def test_the_claim_about_accuracy_holds_its_level():
    """The question of the page alone, on many tables of ten models without any relation."""
    claimed = []
    for seed in range(300):
        asked = verdict.question_of(*simulated.table(models=10, seed=seed, detectors=2))
        claimed.append(verdict.overall(asked).text.startswith("More accurate"))
    assert np.mean(claimed) <= 0.07  # 300 tables leave a standard error of 1.3 %


def test_tables_that_do_not_fit_are_refused():
    table, models = simulated.table(models=6)
    with pytest.raises(ValueError, match=r"lacks the columns \['auroc'\]"):
        analysis.does_accuracy_predict(table.drop(columns="auroc"), models)
    with pytest.raises(ValueError, match=r"models has no row for \['m5'\]"):
        analysis.does_accuracy_predict(table, models.iloc[:-1])
    with pytest.raises(ValueError, match="level must be a share"):
        analysis.does_accuracy_predict(table, models, level=95)
    with pytest.raises(ValueError, match="auroc is NaN in every row"):
        analysis.answer(table.assign(auroc=np.nan), models)


def test_the_answer_of_many_models():
    table, models = simulated.table(models=9, seeds=3, slope=3.0, between=0.2, effects=(2.0,))
    found, lines = analysis.answer(table, models), statements(table, models)
    assert found.question == "Does accuracy predict OOD detection (auroc)?"
    assert found.sentence == lines[ACCURACY].text and found.interval == lines[ACCURACY].interval
    assert found.advice == [lines[i].text for i in (SAFEST, LEADER, RECIPES)]
    assert [u.split(":")[0] for u in found.unknown] == ["How other OOD sets would turn out"]


def test_the_answers_of_one_and_of_few_models():
    table, models = simulated.table(models=4, effects=(3.0,))
    few = analysis.answer(table, models)
    assert few.question == "Which detector is safe with these models?" and few.sentence.startswith("d0 has the highest")
    assert few.interval.unit == "4 models" and few.advice[0].startswith("The best worst case over these 4 models")
    assert any(u.startswith("Whether accuracy matters: 4 models give no interval") for u in few.unknown)
    assert any(u.startswith("What another seed would give") for u in few.unknown)
    mine = table[table["model"] == "m1"]
    one = analysis.answer(mine, models)
    worst = mine.groupby(["detector", "dataset"])["auroc"].mean().unstack().min(axis=1)
    assert one.question == "Which detector is safe with this model?" and one.interval.unit == "4 OOD sets"
    assert one.advice == [
        f"Take {worst.idxmax()}: of all detectors its lowest auroc over the 4 OOD sets is the highest, "
        f"{worst.max():.1f} (on a)."
    ]
    assert one.unknown[0].startswith("How other models fare")


def test_an_interval_of_shares_stays_within_them():
    table, models = simulated.table(models=3, effects=(3.0,))
    shares = table.assign(auroc=100 / (1 + np.exp(-4 - 2 * table["auroc"])))
    found = analysis.answer(shares, models).interval
    assert 0 <= found.low < found.estimate < found.high == 100
    row = analysis.mean_interval(shares).set_index("detector")["high"]
    assert row.max() > 100
    assert pd.isna(analysis.answer(shares[shares["detector"] == "d0"], models).interval)
