"""The pages' code, run as it stands there."""

from __future__ import annotations

import contextlib
import io

import jax
import monitors
import numpy as np
import pages
import pytest

import oodjax
from oodjax import TrainStatistics, detectors, metrics
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
def test_a_detector_of_your_own():
    known, recipes = dict(METHODS), dict(RECIPES)
    try:
        det = pages.run("howto/own-detector.md")["det"]
        train, _, test, head = problem(signed=False)
        scores = np.asarray(det.fit(TrainStatistics.collect(train, head)).score(test), np.float64)
    finally:
        assert RECIPES["noisy_mixup"].augment == ("noise", "mixup")
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
    arrays = {"id_arrays": (validation.logits, validation.features), "ood_arrays": (test.logits, test.features)}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(second, {**given, **arrays, "kernel": head.kernel, "bias": head.bias})
    auroc, fpr95 = map(float, printed.getvalue().split())
    det = detectors.create("knn", k=10).fit(TrainStatistics.collect(train, head))
    assert auroc == metrics.auroc(det.score(validation), det.score(test))
    assert fpr95 == metrics.fpr95(det.score(validation), det.score(test))
