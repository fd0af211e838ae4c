"""The engine on a small study: counts, compilations, tables, what is kept and what is made anew."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from studies import Ran, scores_of, small

from oodjax import forward, metrics, scoring
from oodjax.detectors import METHODS, NAMES
from oodjax.results import per_model, tabulate

ODIN_GRID, ODIN_POINT = 4 + 8, 1 + 1


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Four networks on two OOD sets, with the engine that did it."""
    made = Ran(small(4), tmp_path_factory.mktemp("study"))
    forward.forward.clear_cache()
    return made, made.run()


def counts_of(study):
    return {s.name: s.count for s in study.sets}


def test_one_program_a_kind_of_pass_serves_every_model(ran):
    assert forward.forward._cache_size() == 3  # training, validation with ODIN's grid, tests with ODIN's point


def test_an_image_is_decoded_once_and_passes_once_a_model(ran):
    made, engine = ran
    study, images = made.study, sum(counts_of(made.study).values())
    assert engine.counts.decoded == images
    assert engine.counts.forwards == images * len(study.models)
    searched, tested = (sum(s.count for s in sets) for sets in (study.validations, study.tests))
    assert engine.counts.odin_passes == len(study.models) * (searched * ODIN_GRID + tested * ODIN_POINT)


def test_decoding_does_not_depend_on_the_number_of_models_but_on_the_fleet(tmp_path):
    one = Ran(small(1, detectors=("msp",)), tmp_path / "one").run()
    three = Ran(small(3, detectors=("msp",)), tmp_path / "three").run()
    alone = Ran(small(3, detectors=("msp",), fleet=1), tmp_path / "alone").run()
    assert one.counts.decoded == three.counts.decoded and alone.counts.decoded == 3 * one.counts.decoded
    assert three.counts.forwards == alone.counts.forwards == 3 * one.counts.forwards
    for key, scores in scores_of(three).items():
        np.testing.assert_array_equal(scores, scores_of(alone)[key])


def test_msp_alone_reads_no_training_image_and_keeps_no_statistics(tmp_path):
    engine = Ran(small(1, detectors=("msp",)), tmp_path).run()
    study = engine.study
    assert engine.counts.decoded == sum(s.count for s in (*study.validations, *study.tests))
    assert engine.counts.odin_passes == 0
    assert not (tmp_path / "store" / "statistics").exists()
    names = {p.name.partition("-")[0] for p in (tmp_path / "store").rglob("*.npy")}
    assert names == {"valid", "logits", "features", "scores"}


def test_tables_hold_the_metrics_of_what_is_kept(ran):
    made, engine = ran
    tables = tabulate(made.study, engine.store)
    assert len(tables.results) == 4 * len(NAMES) * 2
    shelf = engine.shelf(made.study.models[0])
    inside, outside = (shelf.kept(s) for s in made.study.tests[:2])

    def energies(kept):
        return np.log(np.exp(kept.take("logits").astype(np.float64)).sum(axis=1))

    row = tables.results.query("model == 'model0' and detector == 'ebo' and dataset == 'letters'").iloc[0]
    assert row.auroc == pytest.approx(metrics.auroc(energies(inside), energies(outside)), abs=1e-4)
    assert (row.n_id, row.n_ood) == (100, 60)
    assert (row.detector_family, row.ood_category) == ("classification", "near")
    summary = per_model(tables).set_index("model").loc["model0"]
    own = tables.results[tables.results.model == "model0"].auroc
    assert summary.auroc == pytest.approx(100 * own.mean()) and summary.auroc_std == pytest.approx(
        100 * own.std(ddof=0)
    )


def test_the_choice_is_the_first_best_point_on_validation(ran):
    """ODIN's and KNN's grids, scored again here from the kept validation outputs."""
    from oodjax.detectors import search_space
    from oodjax.scoring import scores

    made, engine = ran
    model = made.study.models[1]
    shelf = engine.shelf(model)
    stats = shelf.statistics(model.load("float32").head)
    inside, outside = (shelf.kept(s) for s in made.study.validations)
    for name in ("odin", "knn", "ash"):
        points = [p.fit(stats) for p in search_space(name, stats)[0]]
        values = metrics.auroc(scores(points, inside), scores(points, outside))
        chosen, best = shelf.choice(name), int(np.argmax(values))
        assert chosen.auroc == values[best]
        assert chosen.options == {k: points[best].options[k] for k in chosen.options}


def test_a_second_run_does_nothing_and_says_the_same(ran):
    made, engine = ran
    again = made.run()
    assert (again.counts.decoded, again.counts.forwards, again.progress.stages) == (0, 0, {})
    assert made.warnings == []


def test_a_missing_array_alone_is_made_again(ran):
    made, engine = ran
    shelf = engine.shelf(made.study.models[2])
    image_set = made.study.tests[1]
    path = engine.store.path(shelf.outputs_group(image_set), "odin", shelf.array_keys(image_set)["odin"])
    before = path.read_bytes()
    path.unlink()
    scores = engine.store.root / shelf.scores_group(image_set)
    for file in scores.iterdir():
        file.unlink()
    again = made.run()
    assert path.read_bytes() == before
    assert again.counts.decoded == image_set.count and again.counts.forwards == image_set.count
    assert [line for line in made.warnings if "odin" in line]


def test_damage_costs_one_line_and_changes_no_score(ran):
    made, engine = ran
    before = scores_of(engine)
    victims = sorted((engine.store.root).rglob("*.npy"))[::7]
    for i, path in enumerate(victims):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if i % 2 else content[:-1] + bytes([content[-1] ^ 1]))
    made.warnings.clear()
    after = scores_of(made.run())
    assert after.keys() == before.keys()
    for key, scores in after.items():
        np.testing.assert_array_equal(scores, before[key])
    assert made.warnings and all("made anew" in line for line in made.warnings)


def test_another_models_outputs_are_never_used(ran):
    made, engine = ran
    before = scores_of(engine)
    first, second = (engine.store.root / "outputs" / f"model{i}" / "letters" for i in (0, 1))
    swap = first.with_name("swap")
    for a, b in ((first, swap), (second, first), (swap, second)):
        a.rename(b)
    scores = [engine.store.root / "scores" / f"model{i}" / "letters" for i in (0, 1)]
    for folder in scores:
        for file in folder.iterdir():
            file.unlink()
    after = scores_of(made.run())
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


CHANGES = {
    "precision": {"precision": "bfloat16"},
    "bank_fraction": {"bank_fraction": 0.5},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_setting_finds_nothing_and_changes_scores(ran, tmp_path, change):
    made, engine = ran
    other = Ran(
        dataclasses.replace(made.study, models=made.study.models[:1], detectors=("knn",), **change), made.folder
    )
    assert other.engine().todo(other.study.models[0]).scores == ["knn"]
    alone = Ran(other.study, tmp_path)
    changed = scores_of(alone.run())["model0", "letters", "knn"]
    assert np.abs(changed - scores_of(engine)["model0", "letters", "knn"]).max() > 0


@pytest.mark.slow
def test_batch_size_does_not_change_scores(ran, tmp_path):
    made, engine = ran
    study = dataclasses.replace(made.study, models=made.study.models[:1], batch_size=50)
    again, before = scores_of(Ran(study, tmp_path).run()), scores_of(engine)
    for key, scores in again.items():
        # A sign of ODIN's gradient may flip at zero; everything else agrees to float32's rounding.
        spread = before[key].std() + 1e-6
        assert np.abs(scores - before[key]).max() / spread < 2e-2, key


def test_a_narrower_run_keeps_what_a_wider_one_made(ran):
    made, engine = ran
    before = tabulate(made.study, engine.store).results
    narrow = Ran(made.study.only(detectors=["mds"], models=["model1"], datasets=["letters"]), made.folder).run()
    assert narrow.counts.decoded == 0
    after = tabulate(made.study, narrow.store).results
    assert after.equals(before)


def test_a_detector_added_later_runs_no_network(tmp_path):
    first = Ran(small(1, detectors=("msp", "knn")), tmp_path).run()
    assert first.counts.forwards > 0
    more = Ran(small(1, detectors=("msp", "knn", "ebo", "gen", "gradnorm")), tmp_path).run()
    assert more.counts.forwards == 0
    whole = Ran(small(1, detectors=("msp", "knn", "ebo", "gen", "gradnorm")), tmp_path / "whole").run()
    for key, scores in scores_of(whole).items():
        np.testing.assert_array_equal(scores, scores_of(more)[key])


def test_statistics_that_are_missing_cost_the_training_pass_alone(tmp_path):
    Ran(small(1, detectors=("msp", "knn")), tmp_path).run()
    more = Ran(small(1, detectors=("knn", "mds")), tmp_path).run()
    assert more.counts.forwards == more.counts.decoded == 200
    again = Ran(small(1, detectors=("msp", "knn")), tmp_path).run()
    assert again.counts.forwards == 0  # the bank is still there


def flipped(params, outputs):
    return -jax.scipy.special.logsumexp(outputs.logits, axis=-1)


def test_a_changed_method_is_scored_again_and_nothing_else(tmp_path, monkeypatch):
    study = small(1, detectors=("msp", "ebo"))
    before = scores_of(Ran(study, tmp_path).run())
    monkeypatch.setitem(METHODS, "ebo", dataclasses.replace(METHODS["ebo"], score=flipped))
    scoring.score_points.clear_cache()  # compiled programs are found by a detector's name
    made = Ran(study, tmp_path)
    assert made.engine().todo(study.models[0]).scores == ["ebo"]
    engine = made.run()
    scoring.score_points.clear_cache()
    assert engine.counts.forwards == 0
    after = scores_of(engine)
    np.testing.assert_allclose(after["model0", "letters", "ebo"], -before["model0", "letters", "ebo"], rtol=1e-5)
    np.testing.assert_array_equal(after["model0", "letters", "msp"], before["model0", "letters", "msp"])


def test_without_validation_defaults_are_used(tmp_path):
    study = small(1)
    bare = dataclasses.replace(
        study, sets=tuple(s for s in study.sets if s.role != "ood_val"), detectors=("knn", "odin", "tempscale", "gram")
    )
    engine = Ran(bare, tmp_path).run()
    shelf = engine.shelf(bare.models[0])
    assert shelf.choice("odin").options == {"temperature": 1000, "noise": 0.0014} and shelf.choice("odin").auroc is None
    assert shelf.choice("knn").options == {"k": 50}
    assert set(shelf.columns(bare.id_test)) == {"knn", "odin", "tempscale", "gram"}
    assert engine.counts.odin_passes == sum(s.count for s in bare.tests) * ODIN_POINT


def test_without_training_data_only_those_run_that_need_none(tmp_path):
    study = small(1)
    bare = dataclasses.replace(study, sets=tuple(s for s in study.sets if s.role not in ("train", "id_val")))
    engine = Ran(bare, tmp_path).run()
    shelf = engine.shelf(bare.models[0])
    assert set(shelf.detectors) == {"msp", "mls", "ebo", "odin", "gen", "ash", "scale", "gradnorm"}
    assert set(shelf.columns(bare.id_test)) == set(shelf.detectors)
    assert "training" in shelf.objection("mds") and "validation" in shelf.objection("tempscale")
    full = scores_of(Ran(dataclasses.replace(study, detectors=("msp", "gradnorm")), tmp_path / "full").run())
    for key, scores in full.items():
        np.testing.assert_array_equal(scores_of(engine)[key], scores)
