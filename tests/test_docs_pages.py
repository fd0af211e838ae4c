"""The pages' code, run as it stands there."""

from __future__ import annotations

import contextlib
import io

import jax
import monitors
import numpy as np
import pages
import pandas as pd
import pytest
import tiny

import oodjax
from oodjax import Outputs, TrainStatistics, detectors, metrics, presets, run
from oodjax.detectors.base import METHODS
from oodjax.testing import problem
from oodjax.training.recipes import RECIPES


def test_what_is_printed_must_be_what_is_shown():
    pages.check("AUROC 96.31 %\n", "AUROC  96.3 %\n", 0.25, "here")
    with pytest.raises(AssertionError, match="there, line 3"):
        pages.check("AUROC 95.3 %", "AUROC 96.3 %", 0.25, "there, line 3")
    with pytest.raises(AssertionError, match="here: printed 'FPR 96.3 %'"):
        pages.check("FPR 96.3 %", "AUROC 96.3 %", 0.25, "here")


@pytest.mark.slow
def test_the_tutorial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = [block.kind for block in pages.blocks("tutorial.md")]
    assert kinds.count("python") == kinds.count("text") == 5, "each block shows what it prints"
    names = pages.run("tutorial.md")
    assert names["monitor"].detector == names["detector"]


@pytest.mark.slow
def test_a_model_of_each_framework(tmp_path, monkeypatch):
    names = pages.run("howto/own-model.md")
    images = names["images"]
    pixels = (images / np.float32(255) - np.float32(names["PREPARED"]["mean"])) / np.float32(names["PREPARED"]["std"])
    with pages.as_users_have_it():
        direct = {
            "nnx_network": names["model"](pixels),
            "linen_network": names["linen_model"].apply(names["variables"], pixels),
            "equinox_network": jax.vmap(names["equinox_model"])(pixels),
            "jax_network": names["forward"](names["weights"], pixels),
        }
        for name, (logits, features, *_) in direct.items():
            outputs = oodjax.extract(names[name], images)
            # Float32 sums of 27 to 3072 terms, in another order.
            np.testing.assert_allclose(outputs.logits, logits, atol=2e-4, err_msg=name)
            np.testing.assert_allclose(outputs.features, features, atol=2e-4, err_msg=name)


def test_the_way_to_a_deployed_monitor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"images": monitors.TRAIN, "labels": monitors.LABELS, "held_out": monitors.KNOWN, "new": monitors.NEW}
    names = pages.run("howto/deploy.md", {"network": monitors.network(), **given})
    verdict = names["monitor"](monitors.NEW)
    assert names["again"].detector == names["detector"]
    np.testing.assert_array_equal(names["accepted"], verdict.in_distribution)
    np.testing.assert_array_equal(names["in_distribution"], verdict.in_distribution)
    np.testing.assert_allclose(names["score"], verdict.score, rtol=1e-4, atol=1e-4)  # another program, in another order


@pytest.mark.slow
def test_a_detector_of_your_own(tmp_path, monkeypatch):
    known, recipes = dict(METHODS), dict(RECIPES)
    monkeypatch.setattr(presets, "OWN", {})
    try:
        det = pages.run("howto/own-detector.md")["det"]
        train, _, test, head = problem(signed=False)
        scores = np.asarray(det.fit(TrainStatistics.collect(train, head)).score(test), np.float64)
    finally:
        assert RECIPES["noisy_mixup"].augment == ("noise", "mixup")
        whole = presets.find("letters").make(presets.Options(tmp_path, seeds=1))
        assert [s.name for s in whole.sets if s.role == "ood_test"] == ["letters"] and len(whole.sets) == 5
        METHODS.clear()
        METHODS.update(known)
        RECIPES.clear()
        RECIPES.update(recipes)
    h = train.features.astype(np.float64)
    means = np.stack([h[train.labels == c].mean(axis=0) for c in range(head.kernel.shape[1])])
    own = np.linalg.norm(test.features - means[test.logits.argmax(axis=1)], axis=1)
    everything = np.linalg.norm(test.features - h.mean(axis=0), axis=1)
    np.testing.assert_allclose(scores, -((own / everything) ** 2), rtol=1e-5)  # float32 against float64


@pytest.mark.slow
def test_a_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = pages.run("howto/notebook.md")
    assert {*names["results"]["detector"]} == {"msp", "knn", "vim"}
    assert (tmp_path / "detectors.png").read_bytes().startswith(b"\x89PNG")
    assert names["figure"].svg == (tmp_path / "study/report/figures/fig08-detectors.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_shortest_paths_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, validation, test, head = problem(signed=False)
    first, second = (block.text for block in pages.blocks("index.md") if block.kind == "python")
    names = {"network": monitors.network(), "images": monitors.TRAIN, "labels": monitors.LABELS}
    exec(first, names := {**names, "held_out": monitors.KNOWN, "new": monitors.NEW})
    np.testing.assert_array_equal(names["label"], monitors.outputs("new").logits.argmax(axis=1))
    given = {"logits": train.logits, "features": train.features, "labels": train.labels}
    arrays = {"id_logits": validation.logits, "id_features": validation.features}
    arrays |= {"ood_logits": test.logits, "ood_features": test.features}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(second, {**given, **arrays, "kernel": head.kernel, "bias": head.bias})
    auroc, fpr95 = map(float, printed.getvalue().split())
    det = detectors.create("knn", k=10).fit(TrainStatistics.collect(train, head))
    assert auroc == metrics.auroc(det.score(validation), det.score(test))
    assert fpr95 == metrics.fpr95(det.score(validation), det.score(test))


def test_images_are_read_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write_study(tmp_path / "photos")
    names = pages.run("data.md")
    batch = names["batch"]
    assert (batch.images.dtype, batch.images.shape) == (np.uint8, (64, 224, 224, 3))
    assert batch.mask.sum() == 200 % 64, "the last one is padded"
    np.testing.assert_array_equal(batch.labels[: 200 % 64], names["source"].labels[-(200 % 64) :])


@pytest.mark.slow
def test_statistics_are_kept_as_the_page_says():
    train, *_, head = problem(signed=False)
    lean = Outputs(train.logits, train.features, train.labels)
    stats = pages.run("statistics.md", {"batches": [lean[:100], lean[100:]], "head": head})["stats"]
    assert stats.kept == {"label_sums", "second", "features"}


@pytest.mark.slow
def test_a_study_of_several_models(tmp_path, monkeypatch):
    """The page's study file, its names put to sets and networks that are there."""
    monkeypatch.chdir(tmp_path)
    tiny.write_study(tmp_path)
    ((_, text, *_),) = [block for block in pages.blocks("howto/own-study.md") if block.kind == "toml"]
    there = {"photos/": "", '= "cats"': '= "ood_val"', '= "foxes"': '= "near"', "tfds:mnist:test": "far"}
    there |= {'checkpoint = "checkpoints/baseline"': 'network = "tiny:build"', "my_package.networks:": "tiny:"}
    for shown, own in there.items():
        assert shown in text
        text = text.replace(shown, own)
    (tmp_path / "study.toml").write_text(text.replace("tiny:build", "tiny:build_second", 1), encoding="utf-8")
    assert run.main(["study.toml", "--detectors", "msp,knn", "--out", "results"]) == 0
    table = pd.read_csv("results/results.csv")
    assert {*table["model"]} == {"baseline", "mine"}
    assert dict(zip(table["dataset"], table["ood_category"], strict=True)) == {"foxes": "near", "digits": "far"}


@pytest.mark.slow
def test_a_network_of_a_function():
    state, pixels = dict(tiny.build().state), np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    given = {
        "load_my_weights": lambda: {name: state[name] for name in ("mix", "kernel", "bias")},
        "my_network": lambda weights, images: (images[:, ::16, ::16] @ weights["mix"][:3],),
    }
    build = pages.run("howto/own-study.md", given)["build"]
    with pages.as_users_have_it():
        found = build()(pixels).logits
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    maps = ((pixels / 255 - mean) / std)[:, ::16, ::16] @ np.asarray(state["mix"], np.float64)[:3]
    logits = maps.mean(axis=(1, 2)) @ np.asarray(state["kernel"], np.float64) + np.asarray(state["bias"])
    np.testing.assert_allclose(found, logits, atol=1e-5)  # float32 against float64


def test_what_a_table_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = pages.run("howto/conclude.md")
    assert names["best"].low < 0.07 < names["best"].high  # net7 is 7 points above net0
