"""`oodjax.Monitor`: the verdicts of extract and the detector, in programs of a few fixed sizes."""

from __future__ import annotations

import jax
import monitors
import numpy as np
import pytest

import oodjax
from oodjax import monitor as module
from oodjax.models.network import Network
from oodjax.neighbors import place_bank


@pytest.fixture(autouse=True)
def alone():
    module._judge.clear_cache()


@pytest.mark.parametrize("name", ["mds", "odin", "gram", "ats", "knn"])
def test_a_verdict_is_that_of_outputs_and_detector(name):
    det, outputs = monitors.calibrated(name), monitors.outputs("new")
    verdict = oodjax.Monitor(monitors.network(), det, batch_size=32)(monitors.NEW)
    scores = np.asarray(det.score(outputs))
    assert verdict.score.dtype == np.float32 and verdict.label.dtype == np.int32 and verdict.p_value.shape == (23,)
    # ODIN steps by signs of gradients, which flip where one is next to zero.
    tolerance = 2e-3 if name == "odin" else 1e-4
    np.testing.assert_allclose(verdict.score, scores, rtol=tolerance, atol=tolerance * np.abs(scores).max())
    np.testing.assert_array_equal(verdict.label, outputs.logits.argmax(axis=1))
    # The verdict is that of its own score, whatever another program's rounding makes of it.
    known = np.sort(np.asarray(det.score(monitors.outputs("known"))))
    np.testing.assert_array_equal(verdict.in_distribution, verdict.score >= known[3])  # floor(41 x 0.1) = 4
    below = (known[None] <= verdict.score[:, None]).sum(axis=1)
    np.testing.assert_allclose(verdict.p_value, (1 + below) / 41, rtol=1e-6)
    assert 0 < (verdict.p_value < 1).sum()


def test_odin_runs_at_its_own_point_alone():
    watch = oodjax.Monitor(monitors.network(), monitors.calibrated("odin"))
    *_, (temperatures, noises), det = watch.arrays
    assert (temperatures.tolist(), noises.tolist()) == ([100.0], [np.float32(0.0028)])
    assert det.options["temperatures"] == (100,) and watch.detector.options["temperatures"] == (1, 10, 100, 1000)


def test_any_number_of_images_takes_a_few_programs():
    watch = oodjax.Monitor(monitors.network(), monitors.calibrated("mds"), batch_size=8)
    images = np.concatenate([monitors.NEW, monitors.NEW])
    whole = watch(images)
    for count in (1, 2, 3, 5, 7, 8, 9, 11, 16, 17, 31, 46):
        part = watch(images[:count])
        for mine, theirs in zip(part, whole, strict=True):
            np.testing.assert_allclose(mine, theirs[:count], rtol=1e-4)
    assert module._judge._cache_size() == 4  # 1, 2, 4 and 8 rows
    other = oodjax.Monitor(monitors.network(), monitors.fitted("mds").calibrate(monitors.outputs("known"), tpr=0.9))
    other(images[:7])
    assert module._judge._cache_size() == 4  # of the same architecture and method


def test_a_single_image_is_not_padded():
    """Its program works on one row: what it is compiled for."""
    watch = oodjax.Monitor(monitors.network(), monitors.calibrated("mls"))
    watch(monitors.NEW[:1])
    shapes = jax.eval_shape(watch.program, watch.arrays, monitors.NEW[:1])
    assert {leaf.shape for leaf in jax.tree.leaves(shapes)} == {(1,)}
    assert module._judge._cache_size() == 1


def test_a_bank_over_devices_is_one_on_one():
    from oodjax.devices import Devices
    from oodjax.neighbors import _over_mesh

    det = monitors.calibrated("knn")
    sharded = _over_mesh(np.asarray(monitors.stats().features), Devices.all().mesh)
    assert place_bank(monitors.stats().features).shape == sharded.shape
    shared = oodjax.detectors.Detector(
        det.name, det.settings, {**det.params, "bank": sharded}, det.widths, det.reference
    )
    expected = oodjax.Monitor(monitors.network(), det)(monitors.NEW[:4])
    found = oodjax.Monitor(monitors.network(), shared)(monitors.NEW[:4])
    np.testing.assert_array_equal(found.score, expected.score)


def without_maps():
    own = monitors.network()
    return Network(own.apply, own.state, own.head, own.mean, own.std, None, None, own.fingerprint, has_maps=False)


def other_width():
    rng = np.random.default_rng(0)
    head = oodjax.Head(rng.normal(size=(5, 8)), np.zeros(8))
    features = rng.normal(size=(60, 5)).astype(np.float32)
    out = oodjax.Outputs(np.asarray(head(features)), features, np.arange(60) % 8)
    return oodjax.detectors.create("mds").fit(oodjax.TrainStatistics.collect(out, head)).calibrate(out)


def broken():
    own = monitors.network()
    return Network(
        own.apply, jax.tree.map(lambda x: x * np.nan, own.state), own.head, own.mean, own.std, None, None, ""
    )


FAULTS = {
    "not calibrated": (lambda: oodjax.Monitor(monitors.network(), monitors.fitted("mds")), "mds is not calibrated"),
    "not fitted": (lambda: oodjax.Monitor(monitors.network(), oodjax.detectors.create("mds")), "mds is not fitted"),
    "no maps": (lambda: oodjax.Monitor(without_maps(), monitors.calibrated("gram")), "gram reads gram, which needs"),
    "width": (lambda: oodjax.Monitor(monitors.network(), other_width()), "features of width 5, the network has 128"),
    "batch": (lambda: oodjax.Monitor(monitors.network(), monitors.calibrated("mls"), 48), "power of two.*got 48"),
    "one image": (lambda: watch()(monitors.NEW[0]), r"pass image\[None\]"),
    "floats": (lambda: watch()(monitors.NEW / 255), "takes uint8 images.*float64"),
    "a path": (lambda: watch()("photo.jpg"), "takes uint8 images.*photo.jpg"),
    "none": (lambda: watch()(monitors.NEW[:0]), "needs at least one"),
    "size": (lambda: watch()(np.tile(monitors.NEW, (1, 2, 2, 1))), "16 x 16 pixels, got 32"),
    "nan": (lambda: oodjax.Monitor(broken(), monitors.calibrated("mls"))(monitors.NEW[:2]), "2 of 2 scores are NaN"),
}


def watch():
    return oodjax.Monitor(monitors.network(), monitors.calibrated("mls"))


@pytest.mark.parametrize(("call", "words"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_is_said_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_no_network_is_said_in_a_sentence():
    with pytest.raises(TypeError, match="takes an oodjax.Network, got a function"):
        oodjax.Monitor(lambda x: x, monitors.calibrated("mls"))
    with pytest.raises(TypeError, match="takes a fitted and calibrated detector, got 'mls'"):
        oodjax.Monitor(monitors.network(), "mls")
