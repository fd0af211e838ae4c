"""Detectors with options as rows of a study: searched apart, scored apart, from the same outputs and statistics."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from studies import Ran, scores_of

from oodjax import Outputs, detectors, odin_scores, summarize
from oodjax.plan import plan
from oodjax.results import tabulate, with_kept
from oodjax.study import Study, StudyError

ONE_POINT, ONE_TEMPERATURE = "odin:temperature=10+noise=0.0028", "odin:temperature=1"
ODIN = ("odin", ONE_POINT, ONE_TEMPERATURE)
LABELS = ("vim", "vim:dim=3", "knn:k=7", *ODIN, "gram", "gram:powers=(1,2)", "gen:gamma=1")
GRID, POINT = 4 + 8, 1 + 1  # ODIN's passes


def study(*labels: str) -> Study:
    return tiny.study(1, detectors=labels)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    made = Ran(study(*LABELS), tmp_path_factory.mktemp("labels"))
    planned = plan(made.engine())
    return made, made.run(), planned


def direct(image_set, label, stats, options):
    """Scores without the engine: the network called on all images at once."""
    network = tiny.build(0)
    x = (jnp.asarray(image_set.images, jnp.float32) / 255 - 0.5) / 0.5
    logits, features, maps = tiny.network(network.state, x)
    if label in ODIN:
        t, e = options["temperature"], options["noise"]
        found = odin_scores(lambda x: tiny.network(network.state, x)[0], x, (t,), (e,), np.float32(tiny.STD))
        return np.asarray(found)[:, 0, 0]
    gram, means = summarize(maps) if label.startswith("gram") else (None, None)
    det = detectors.create(label.partition(":")[0], **options).fit(stats)
    return np.asarray(det.score(Outputs(logits, features, gram=gram, layer_means=means)))


def test_every_label_has_its_own_choice_and_scores(ran):
    made, engine, _ = ran
    shelf, kept = engine.shelf(made.study.models[0]), scores_of(engine)
    chosen = {label: shelf.choice(label).options for label in LABELS}
    assert chosen["vim:dim=3"] == {"dim": 3} and chosen["vim"]["dim"] == 8
    assert chosen[ONE_POINT] == {"temperature": 10, "noise": 0.0028} and chosen[ONE_TEMPERATURE]["temperature"] == 1
    assert chosen["gram:powers=(1,2)"]["powers"] == [1, 2] and len(chosen["gram"]["powers"]) == 10
    assert chosen["gen:gamma=1"] == {"gamma": 1, "top_m": 4}
    for one, other in (("vim", "vim:dim=3"), ("gram", "gram:powers=(1,2)"), (ONE_POINT, ONE_TEMPERATURE)):
        assert np.abs(kept["model0", "near", one] - kept["model0", "near", other]).max() > 1e-3


@pytest.mark.parametrize(
    "label",
    ["vim:dim=3", "knn:k=7", *(pytest.param(x, marks=pytest.mark.slow) for x in (ONE_POINT, "gram:powers=(1,2)"))],
)
def test_scores_are_those_of_the_network_called_by_hand(label, ran):
    made, engine, _ = ran
    shelf = engine.shelf(made.study.models[0])
    near = next(s for s in made.study.tests if s.name == "near")
    want = direct(near, label, shelf.statistics(tiny.build(0).head), shelf.choice(label).options)
    # Programs of another batch size add float32 sums in another order.
    np.testing.assert_allclose(shelf.columns(near)[label], want, rtol=2e-4, atol=2e-4 * np.abs(want).max())


def test_labels_of_one_method_share_the_pass_but_for_odin_s_points(ran):
    made, engine, planned = ran
    counts = {s.name: s.count for s in made.study.sets}
    validations, tests = (sum(s.count for s in sets) for sets in (made.study.validations, made.study.tests))
    assert engine.counts.decoded == sum(counts.values())
    assert engine.counts.forwards == sum(counts.values()) + 2 * tests
    assert engine.counts.odin_passes == GRID * validations + len(ODIN) * POINT * tests
    counted = (engine.counts.decoded, engine.counts.forwards, engine.counts.odin_passes)
    assert (planned.decoded, planned.forwards, planned.odin_passes) == counted


def test_a_label_is_a_row_of_the_table(ran):
    made, engine, _ = ran
    results = tabulate(made.study, engine.store).results
    assert list(results.detector.unique()) == list(LABELS)
    rows = results[results.dataset == "near"].set_index("detector")
    assert rows.loc["vim:dim=3", "detector_family"] == rows.loc["vim", "detector_family"] == "hybrid"
    assert json.loads(rows.loc["knn:k=7", "hyperparameters"]) == {"k": 7}


def test_labels_added_later_run_no_network_and_the_earlier_stay_in_the_tables(ran):
    made, _, _ = ran
    before = scores_of(made.engine())
    more = Ran(study("vim", "vim:dim=5", "knn"), made.folder).run()
    assert more.counts.forwards == more.counts.decoded == 0
    whole, unknown = with_kept(more.study, more.store)
    assert whole.detectors == ("vim", "vim:dim=5", "knn", *(label for label in LABELS if label != "vim"))
    assert unknown == []
    results = tabulate(whole, more.store).results
    assert list(results.detector.unique()) == list(whole.detectors)
    for key, scores in before.items():
        np.testing.assert_array_equal(scores_of(made.engine())[key], scores)


def test_what_decides_a_label_s_things_is_not_what_stands_beside_it(ran):
    made, _, _ = ran
    model = made.study.models[0]
    alone = {label: Ran(study(label), made.folder).engine().shelf(model) for label in LABELS}
    together = made.engine().shelf(model)
    for label, shelf in alone.items():
        assert shelf.choice_key(label) == together.choice_key(label), label
        assert shelf.missing_scores() == [], label
    keys = {together.choice_key(label) for label in LABELS}
    assert len(keys) == len(LABELS)


def test_a_point_of_odin_s_alone_takes_no_grid(tmp_path):
    engine = Ran(study(ONE_POINT), tmp_path).run()
    assert engine.counts.odin_passes == POINT * sum(s.count for s in engine.study.tests)
    assert engine.shelf(engine.study.models[0]).choice(ONE_POINT).auroc is None


def test_what_no_model_can_carry_is_said_before_the_other_sets_are_read(tmp_path):
    made = Ran(study("msp", "knn:k=500"), tmp_path)
    words = "^model0: knn:k=500: k 500 exceeds the bank's 200 features; give another value, or leave it out of"
    with pytest.raises(StudyError, match=words):
        made.run()
    again = Ran(study("msp", "knn:k=20"), tmp_path).run()  # what was finished is kept
    assert again.counts.decoded == sum(s.count for s in made.study.sets if s.role != "train")
    with pytest.raises(StudyError, match="knn:k=500 of model0: knn:k=500: k 500 exceeds the bank's 200 features"):
        Ran(study("msp", "ebo", "knn:k=500"), tmp_path).run()
    assert Ran(study("msp", "ebo"), tmp_path).engine().todo(made.study.models[0]).scores == []


def test_a_study_names_each_detector_once_and_by_what_it_says():
    assert study("vim:dim=4.0", "msp").detectors == ("vim:dim=4", "msp")
    with pytest.raises(StudyError, match="two detectors are called vim:dim=4; names must differ"):
        study("vim:dim=4", "vim:dim=4.0")
    with pytest.raises(StudyError, match="unknown detector 'vmi'; there are: msp"):
        study("vmi")
    with pytest.raises(StudyError, match="a study takes odin's temperature and noise, and finds their axes itself"):
        study("odin:temperature=5+temperatures=(5,)")
    whole = study("msp", "vim").including(["all", "knn:k=3", "msp"])
    assert whole.detectors == ("msp", "vim", "knn:k=3")
    assert whole.only(detectors=["knn:k=3.0", "msp"]).detectors == ("msp", "knn:k=3")
    assert whole.only(detectors=["all", "msp"]).detectors == whole.detectors
    with pytest.raises(StudyError, match="unknown detector knn:k=4; there are: msp, vim, knn:k=3"):
        whole.only(detectors=["knn:k=4"])
