"""`python -m oodjax.fit`: what it keeps is what the library's own calls make; wrong use is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from image_files import truncate
from PIL import Image

import oodjax
from oodjax import detectors, score, zoo
from oodjax.data.preprocess import cut
from oodjax.fit import main
from oodjax.models import ResNetConfig, checkpoint, initialize
from oodjax.opening import hold_out, open_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    tiny.write_study(folder)
    return folder


@pytest.fixture
def here(photos, monkeypatch):
    monkeypatch.chdir(photos)
    return photos


@pytest.fixture(scope="module")
def network():
    return tiny.build()


def fit(to, *arguments, **options):
    """Fits with the tiny network, `id_=...` for --id; the monitor."""
    given = {"model": "tiny:build", "id": "train", "batch-size": 32, **options}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    assert main([*words, *arguments, "--to", str(to)]) == 0
    return oodjax.load(to, tiny.build())


def made(network, name, train, calibration, tpr=0.95, needs=(), fraction=1.0, validation=None, **options):
    """The same detector by the library's calls."""
    outputs = oodjax.extract(network, train, batch_size=32, needs=needs)
    stats = oodjax.TrainStatistics.collect(outputs, network.head, bank_fraction=fraction)
    held = None if validation is None else oodjax.extract(network, validation, batch_size=32)
    fitted = detectors.create(name, **options).fit(stats, held)
    return fitted.calibrate(oodjax.extract(network, calibration, batch_size=32, needs=fitted.needs), tpr=tpr)


def assert_same(det, expected):
    assert (det.name, det.options, det.reference.tpr) == (expected.name, expected.options, expected.reference.tpr)
    # batches of another length add in another order
    np.testing.assert_allclose(det.reference.scores, expected.reference.scores, rtol=1e-4, atol=1e-5)


def test_a_share_of_the_images_is_held_out(here, network, tmp_path, capsys):
    monitor = fit(tmp_path / "to", detector="knn:k=7")
    source = open_images("train", "--id")
    rest, held = hold_out(source, 0.2, 0)
    assert_same(monitor.detector, made(network, "knn", rest, held, k=7))
    assert monitor.network.class_names == ("class_0", "class_1", "class_2", "class_3")
    printed = capsys.readouterr().out
    assert "40 of the 200 images of --id are held out for the threshold, 20% of every class by seed 0" in printed
    found = monitor.detector.calibration
    assert f"threshold {found.threshold:.6g}:" in printed and "expected false alarms: 4.88%" in printed
    low, high = found.interval
    assert f"between {low:.2%} and {high:.2%} with 95 % confidence, from 40 images" in printed
    outputs = oodjax.extract(network, source, batch_size=32)
    share = (outputs.logits.argmax(axis=1) == source.labels).mean()
    assert f"the model's class is the image's for {share:.1%}; where that is low" in printed
    again = f"next: python -m oodjax.score --monitor {tmp_path / 'to'} --model tiny:build IMAGE_OR_FOLDER..."
    assert printed.splitlines()[-1] == again
    other = fit(tmp_path / "to", detector="knn:k=7", seed=1).detector  # in the place of the first
    assert not np.array_equal(other.reference.scores, monitor.detector.reference.scores)


def test_calibration_images_may_be_named_and_need_no_class(here, network, tmp_path):
    (here / "loose.txt").write_text(
        "".join(f"val/class_{i % 4}/{i:03}.png -1\n" for i in range(0, 60, 2)), encoding="utf-8"
    )
    monitor = fit(tmp_path / "to", detector="mds", calibrate="loose.txt", tpr=0.8)
    train, loose = (open_images(text, "") for text in ("train", "loose.txt"))
    expected = made(network, "mds", train, tiny.Arrays(np.stack([np.asarray(loose.open(i)) for i in range(30)])), 0.8)
    assert_same(monitor.detector, expected)
    assert float(monitor.detector.threshold) == float(monitor.detector.reference.scores[5])  # floor(31 * 0.2) = 6th


@pytest.mark.slow
def test_a_smaller_bank_is_searched(here, network, tmp_path):
    whole, part = (fit(tmp_path / "to", detector="knn", calibrate="val", **o) for o in ({}, {"bank-fraction": 0.3}))
    assert len(part.detector.params["bank"]) < 0.5 * len(whole.detector.params["bank"]) == 100
    train, val = (open_images(text, "") for text in ("train", "val"))
    assert_same(part.detector, made(network, "knn", train, val, fraction=0.3))


def test_a_detector_that_reads_no_training_images_takes_all_for_the_threshold(here, network, tmp_path, capsys):
    odin = fit(tmp_path / "to", detector="odin:temperature=10+noise=0.0028", id="val").detector
    assert "all 60 of --id choose the threshold" in capsys.readouterr().out
    val = open_images("val", "")
    expected = detectors.create("odin", temperature=10, noise=0.0028)
    whole_grid = oodjax.extract(network, val, batch_size=32, needs=("odin",))
    assert_same(odin, expected.calibrate(whole_grid))
    assert len(fit(tmp_path / "to", detector="msp", calibrate="val", id=None).detector.reference.scores) == 60


@pytest.mark.slow
def test_what_is_fitted_to_validation_images_gets_half_of_them(here, network, tmp_path, capsys):
    val, train = (open_images(text, "") for text in ("val", "train"))
    rest, half = hold_out(val, 0.5, 0)
    monitor = fit(tmp_path / "to", detector="tempscale", calibrate="val")
    assert "tempscale is fitted to 30 of them, 30 choose the threshold" in capsys.readouterr().out
    assert_same(monitor.detector, made(network, "tempscale", train, rest, validation=half))


@pytest.mark.slow
def test_what_reads_maps_gets_them(here, network, tmp_path):
    val, train = (open_images(text, "") for text in ("val", "train"))
    monitor = fit(tmp_path / "to", detector="gram", calibrate="val")
    assert_same(monitor.detector, made(network, "gram", train, val, needs=("gram", "layer_means")))


def test_images_that_cannot_be_read_are_left_out_and_named(here, network, tmp_path, capsys):
    tiny.write_study(tmp_path)
    broken = [truncate(tmp_path / "train" / f"class_{i % 4}" / f"{i:03}.png", 0.3) for i in (0, 5)]
    broken += [truncate(tmp_path / "val" / "class_3" / "003.png", 0.3)]
    monitor = fit(tmp_path / "to", id=tmp_path / "train", calibrate=tmp_path / "val", detector="mds")
    left = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert [line.split()[2].rstrip(":") for line in left] == [str(path) for path in broken]
    assert len(monitor.detector.reference.scores) == 59


WRONG = {
    "no model": ({"model": "nowhere"}, "--model: nowhere is no checkpoint"),
    "an endless name": ({"model": "9" * 400}, "is no checkpoint that `python -m converters` wrote"),
    "no function": ({"model": "tiny:nothing"}, "no function nothing"),
    "no images": ({"id": "nowhere"}, "--id: nowhere is not there"),
    "no classes": ({"id": "near/class_0"}, "--id: folder class_0 has images without a class"),
    "nothing to fit to": ({"id": None}, "--id is missing: mds is fitted to training images"),
    "nothing at all": ({"id": None, "detector": "msp"}, "--id is missing: the threshold needs images"),
    "unknown detector": ({"detector": "mahalanobis"}, "unknown detector 'mahalanobis'"),
    "unknown option": ({"detector": "knn:j=3"}, "knn has no hyper-parameter j; it takes: k"),
    "too many neighbours": ({"detector": "knn:k=161"}, "k 161 exceeds the bank's 160 features"),
    "no share": ({"tpr": 1.5}, "--tpr: tpr must be a number between 0 and 1"),
    "too few": ({"tpr": 0.999}, "mds: 40 samples are too few to promise a tpr of 0.999: give at least 999"),
    "batch": ({"batch-size": 0}, "--batch-size must be at least 1, got 0"),
    "bank": ({"bank-fraction": 0}, "--bank-fraction must lie in (0, 1], got 0"),
    "seed": ({"seed": -1}, "seed must lie in 0.."),
    "precision": ({"precision": "bfloat16"}, "computes in its own precision"),
    "the same images": ({"calibrate": "train"}, "--calibrate: 200 of its images stand in --id too"),
    "another class": ({"calibrate": "strangers"}, "--calibrate: strangers holds a class that is not known: z"),
    "plugin": ({"plugin": "no_such_plugin"}, "there is no module no_such_plugin"),
    "a foreign folder": ({"to": "test"}, "test is not only a saved detector or monitor of ours"),
}


@pytest.mark.parametrize(("changed", "said"), WRONG.values(), ids=WRONG)
def test_wrong_use_is_one_line_and_writes_nothing(changed, said, here, tmp_path, capsys):
    (here / "strangers" / "z").mkdir(parents=True, exist_ok=True)
    (here / "strangers" / "z" / "0.png").write_bytes((here / "test" / "class_0" / "000.png").read_bytes())
    given = {"model": "tiny:build", "id": "train", "detector": "mds", "to": tmp_path / "to", **changed}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and error.startswith("oodjax.fit: ") and said in error
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_a_checkpoint_travels_with_its_monitor_in_the_precision_asked_for(here, tmp_path, capsys):
    model = initialize(ResNetConfig.study(4), 5)
    shapes = {name: list(array.shape) for name, array in checkpoint.flat_arrays(model).items()}
    facts = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize": 18, "crop": 16}
    checkpoint.save(
        tmp_path / "c", model, architecture="resnet50", layout="torchvision-resnet50", shapes=shapes, **facts
    )
    exact = zoo.load(tmp_path / "c", fold=True)
    scores = {}
    for precision in ("float32", "bfloat16"):
        words = ["--model", str(tmp_path / "c"), "--id", "val", "--detector", "mls", "--precision", precision]
        assert main([*words, "--to", str(tmp_path / precision)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(f"--monitor {tmp_path / precision} IMAGE_OR_FOLDER...")
        monitor = oodjax.load(tmp_path / precision)
        scores[precision] = np.asarray(monitor.detector.reference.scores)
        assert score.main(["--monitor", str(tmp_path / precision), "test", "--json"]) in (0, 1)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        pixels = np.stack([cut(Image.open(line["path"]), 18, 16) for line in lines])
        verdict = monitor(pixels)
        np.testing.assert_allclose([line["score"] for line in lines], verdict.score, rtol=1e-5)
        assert [line["label"] for line in lines] == verdict.label.tolist() and len(lines) == 60
    expected = np.sort(oodjax.extract(exact, open_images("val", ""), batch_size=64).logits.max(axis=1))
    np.testing.assert_allclose(scores["float32"], expected, rtol=1e-5)
    differences = np.abs(scores["bfloat16"] - expected)
    assert 0 < differences.max() < 0.05 * np.abs(expected).max()  # bfloat16 has 8 bits
