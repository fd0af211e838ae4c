"""A user's own study, from the command line or a file, to tables; wrong input is one line."""

from __future__ import annotations

import html
import json
import shlex
import shutil
import sys
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from image_files import save
from PIL import Image

from oodjax import Head, Network, metrics, zoo
from oodjax.data.preprocess import cut
from oodjax.data.sources import source_of
from oodjax.detectors import METHODS
from oodjax.models import ResNetConfig, checkpoint, initialize
from oodjax.report.glossary import DETECTORS
from oodjax.run import main

CLASSES = "abc"
SIDE = 8
MODULE = """
import jax.numpy as jnp
import numpy as np
from oodjax import Head, Network

rng = np.random.default_rng(7)
mix = rng.normal(size=(3, 6)).astype(np.float32)
kernel, bias = rng.normal(size=(6, 3)).astype(np.float32), np.float32([0.1, 0.0, -0.1])


def features(images):
    maps = jnp.einsum("nhwc,cd->nhwd", images.astype(jnp.float32), jnp.asarray(mix), precision="highest")
    return maps, jnp.maximum(maps, 0).mean(axis=(1, 2)) / 100


def plain(images):
    _, found = features(images)
    return jnp.matmul(found, jnp.asarray(kernel), precision="highest") + jnp.asarray(bias)[None], found


def with_maps(images):
    logits, found = plain(images)
    return logits, found, (features(images)[0],)


def build():
    return Network.from_function(plain, (kernel, bias), resize=10, crop=8)


def build_with_maps():
    return Network.from_function(with_maps, Head(kernel, bias), resize=10, crop=8)


def two_classes():
    head = kernel[:, :2], bias[:2]
    return Network.from_function(lambda x: (plain(x)[0][:, :2], plain(x)[1]), head, resize=10, crop=8)


def wrong_head():
    return Network.from_function(plain, (kernel + 1, bias), resize=10, crop=8)


def wrong_later():
    def network(images):
        logits, found = plain(images)
        return jnp.where(images.shape[0] > 2, 2.0, 1.0) * logits, found
    return Network.from_function(network, (kernel, bias), resize=10, crop=8)


def raises():
    raise RuntimeError("the weights are gone")


def returns_logits():
    return Network.from_function(lambda x: plain(x)[0], (kernel, bias), resize=10, crop=8)


def returns_a_string():
    return "network"


not_a_function = 3
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of an ID set in three parts, and two OOD sets; a module with networks beside them."""
    folder = tmp_path_factory.mktemp("own")
    seed = 0
    for place, each in (("train", 10), ("val", 5), ("test", 6)):
        for name in CLASSES:
            for i in range(each):
                seed += 1
                save(folder / place / name / f"{i}.png", seed, 20 + i, 24 - i)
    for place in ("cats", "foxes", "planes"):
        for i in range(9):
            seed += 1
            save(folder / place / f"{i}.jpg", seed, 16 + i, 30)
    (folder / "own_networks.py").write_text(MODULE, encoding="utf-8")
    return folder


@pytest.fixture
def here(photos, monkeypatch):
    monkeypatch.chdir(photos)
    yield photos
    sys.modules.pop("own_networks", None)


def options(out, model="own_networks:build", **changed):
    given = {"model": model, "id-train": "train", "id-val": "val", "id-test": "test", "ood-val": "cats", **changed}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return ["own", *words, "--ood", "foxes=foxes:near", "--ood", "planes=planes:far", "--out", str(out)]


def listing(out):
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def logits_of(path):
    """The network of the module on PIL's crops, in float64."""
    rng = np.random.default_rng(7)
    mix, kernel = rng.normal(size=(3, 6)), rng.normal(size=(6, 3))
    source = source_of(str(path))
    crops = np.stack([cut(source.open(i), 10, SIDE) for i in range(len(source))]).astype(np.float64)
    return np.maximum(crops @ mix.astype(np.float32), 0).mean(axis=(1, 2)) / 100 @ kernel.astype(np.float32) + [
        0.1,
        0,
        -0.1,
    ]


ASKED = ("msp", "mls", "ebo", "tempscale", "knn", "gram", "ats")


def test_one_model_and_folders_make_a_table(here, tmp_path, capsys):
    assert main([*options(tmp_path / "out"), "--detectors", *ASKED]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert list(results.detector.unique()) == list(ASKED[:5]) and set(results.dataset) == {"foxes", "planes"}
    left_out = [line for line in printed.out.splitlines() if "left out: " in line and "grid" not in line]
    assert left_out == [
        "note: left out: gram, ats: it reads maps of intermediate layers, which this network does not return"
    ]
    for name in ("foxes", "planes"):
        inside, outside = logits_of(here / "test").max(1), logits_of(here / name).max(1)
        row = results.query(f"detector == 'mls' and dataset == '{name}'").iloc[0]
        assert row.auroc == pytest.approx(metrics.auroc(inside, outside), abs=1e-9)
        assert (row.n_id, row.n_ood, row.ood_category) == (18, 9, {"foxes": "near", "planes": "far"}[name])
    assert listing(tmp_path / "out")["configuration"]["searched"] is True


def test_a_network_with_maps_runs_gram_and_ats(here, tmp_path, capsys):
    assert main([*options(tmp_path, "own_networks:build_with_maps"), "--detectors", "gram,ats"]) == 0
    assert list(pd.read_csv(tmp_path / "results.csv").detector.unique()) == ["gram", "ats"]
    assert "left out: gram" not in capsys.readouterr().out
    found = listing(tmp_path)
    assert [entry["name"] for entry in found["thumbnails"]] == [s["name"] for s in found["data"]]
    assert found["explained"] == {name: DETECTORS[name] for name in ("gram", "ats")}
    (foxes,) = [entry for entry in found["thumbnails"] if entry["name"] == "foxes"]
    assert foxes["count"] == 9 and foxes["file"] in found["files"]
    small = np.asarray(Image.open(tmp_path / foxes["file"]))
    last = cut(source_of(str(here / "foxes")).open(8), 24, 24, fast=True)  # the shorter side of the largest
    np.testing.assert_array_equal(small[:, -24:], last)
    (run,) = found["runs"]
    words = shlex.split(run["command"])
    assert words == ["python", "-m", "oodjax.run", *options(tmp_path, "own_networks:build_with_maps"), *words[-2:]]
    assert words[-2:] == ["--detectors", "gram,ats"] and run["seconds"] > 0
    assert 0 <= (datetime.now(UTC) - datetime.fromisoformat(run["started"])).total_seconds() < 3600
    assert main([*options(tmp_path, "own_networks:build_with_maps"), "--detectors", "gram,ats"]) == 0
    assert listing(tmp_path)["runs"] == [run]  # the second made nothing
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == len(found["thumbnails"])
    assert html.escape(run["command"], quote=True).replace("&#x27;", "&#39;") in page


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["id-val", "ood-val"])
def test_without_a_validation_set_defaults_are_used_and_said(lacking, here, tmp_path, capsys):
    asked = ("msp", "tempscale", "knn")
    assert main([*options(tmp_path, **{lacking: None}), "--detectors", *asked]) == 0
    printed = capsys.readouterr().out
    which = {"id-val": "ID", "ood-val": "OOD"}[lacking]
    assert f"every detector has its default hyper-parameters, as there is no {which} validation set" in printed
    assert listing(tmp_path)["configuration"]["searched"] is False
    assert "No hyper-parameters were searched" in (tmp_path / "report" / "index.html").read_text("utf-8")
    results = pd.read_csv(tmp_path / "results.csv")
    assert set(results.query("detector == 'knn'").hyperparameters) == {'{"k": 30}'}
    ran = [name for name in asked if lacking == "ood-val" or not METHODS[name].reads_validation]
    assert list(results.detector.unique()) == ran
    if lacking == "id-val":
        assert "left out: tempscale: it is fitted to the ID validation set, and there is none" in printed


@pytest.mark.slow
def test_without_training_images_those_run_that_need_none(here, tmp_path, capsys):
    assert main([*options(tmp_path, **{"id-train": None}), "--detectors", "msp", "knn", "mds"]) == 0
    assert list(pd.read_csv(tmp_path / "results.csv").detector.unique()) == ["msp"]
    assert "left out: mds, knn: it reads training statistics, and there is no ID" in capsys.readouterr().out
    assert listing(tmp_path)["decoded_images"] == 15 + 9 + 18 + 9 + 9


STUDY = """
[id]
train = "train"
validation = "val"
test = "test.txt"
root = "test"
[ood.validation]
cats = "cats"
[ood.near]
foxes = "foxes"
[ood.odd]
planes = "planes"
[models.first]
network = "own_networks:build"
category = "baseline"
[models.second]
network = "own_networks:build_with_maps"
"""


def write_study(folder, text=STUDY):
    lines = [f"{name}/{i}.png {label}" for label, name in enumerate(CLASSES) for i in range(6)]
    (folder / "test.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "study.toml").write_text(text, encoding="utf-8")
    return folder / "study.toml"


def test_a_file_names_several_models_relative_to_itself(photos, tmp_path, monkeypatch, capsys):
    """From another folder: images, lists and modules are found beside the file."""
    monkeypatch.chdir(tmp_path)
    file = write_study(photos)
    assert main([str(file), "--detectors", "mls", "ats", "--out", "out"]) == 0
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    rows = [(r.model, r.model_category, r.detector, r.dataset, r.ood_category) for r in results.itertuples()]
    sets = [("foxes", "near"), ("planes", "odd")]
    assert rows == [
        *(("first", "baseline", "mls", *s) for s in sets),
        *(("second", "own", "mls", *s) for s in sets),
        *(("second", "own", "ats", *s) for s in sets),
    ]
    inside, outside = logits_of(photos / "test").max(1), logits_of(photos / "planes").max(1)
    assert results.auroc[1] == pytest.approx(metrics.auroc(inside, outside), abs=1e-9)
    assert "left out: ats of first: it reads maps" in capsys.readouterr().out
    assert listing(tmp_path / "out")["decoded_images"] == 30 + 15 + 9 + 18 + 9 + 9  # once for both models
    sys.modules.pop("own_networks", None)


def save_checkpoint(folder):
    """What the converters write, of a network that is small enough for a test."""
    model = initialize(ResNetConfig.study(len(CLASSES)), 5)
    shapes = {name: list(array.shape) for name, array in checkpoint.flat_arrays(model).items()}
    facts = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize": 18, "crop": 16}
    checkpoint.save(folder, model, architecture="resnet50", layout="torchvision-resnet50", shapes=shapes, **facts)


@pytest.mark.slow
def test_a_checkpoint_and_a_network_share_each_decoded_image_at_two_sizes(here, tmp_path):
    save_checkpoint(here / "checkpoints" / "small")
    text = STUDY.partition("[models.second]")[0] + '[models.small]\ncheckpoint = "checkpoints/small"\n'
    assert main([str(write_study(here, text)), "--detectors", "mls", "--out", str(tmp_path)]) == 0
    assert listing(tmp_path)["decoded_images"] == 15 + 9 + 18 + 9 + 9  # no training set: mls reads none
    results = pd.read_csv(tmp_path / "results.csv").set_index(["model", "dataset"])
    loaded = zoo.load(here / "checkpoints" / "small")

    def mls(name):
        source = source_of(str(here / name))
        return np.asarray(loaded(np.stack([cut(source.open(i), 18, 16) for i in range(len(source))])).logits).max(1)

    for name in ("foxes", "planes"):
        assert results.auroc["small", name] == pytest.approx(metrics.auroc(mls("test"), mls(name)), abs=1e-9)
        first = metrics.auroc(logits_of(here / "test").max(1), logits_of(here / name).max(1))
        assert results.auroc["first", name] == pytest.approx(first, abs=1e-9)


def refused(arguments, capsys):
    """The one line of a command that was refused."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in arguments])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and captured.out == "", captured
    return captured.err


WRONG = {
    "no model": ({"model": None}, ["--model"]),
    "no test set": ({"id-test": None}, ["--id-test"]),
    "missing folder": ({"id-train": "nowhere"}, ["--id-train", "nowhere is not there", "list file", "tfds:NAME:SPLIT"]),
    "no classes": ({"id-train": "cats"}, ["--id-train", "cats has no classes", "class folders"]),
    "empty folder": ({"ood-val": "empty"}, ["--ood-val", "holds no images"]),
    "empty word": ({"id-val": ""}, ["--id-val", "empty word"]),
    "tfds without a split": ({"id-val": "tfds:mnist"}, ["--id-val", "tfds:NAME:SPLIT"]),
    "unknown class": ({"id-test": "strangers"}, ["--id-test", "not known: z", "known are a, b, c"]),
    "no such user": ({"id-val": "~nobody-of-that-name/x"}, ["--id-val", "home"]),
    "no checkpoint": ({"model": "train"}, ["--model", "train is no checkpoint", "converters", "module:function"]),
    "an endless model": ({"model": "m" * 400}, ["--model", "is no checkpoint"]),
    "an endless set": ({"id-val": "s" * 400}, ["--id-val", "is not there"]),
    "no module": ({"model": "nothing_there:build"}, ["nothing_there:build", "no module nothing_there"]),
    "no function": ({"model": "own_networks:nope"}, ["own_networks:nope", "no function nope"]),
    "no colon": ({"model": "own_networks:"}, ["own_networks:", "module:function"]),
    "no callable": ({"model": "own_networks:not_a_function"}, ["no function not_a_function"]),
    "function raises": ({"model": "own_networks:raises"}, ["raises", "RuntimeError: the weights are gone"]),
    "module raises": ({"model": "broken:build"}, ["broken:build", "NameError", "undefined_name"]),
    "module needs another": ({"model": "needy:build"}, ["needy:build", "no_such_library"]),
    "wrong return": ({"model": "own_networks:returns_a_string"}, ["returns_a_string", "oodjax.Network"]),
    "logits alone": ({"model": "own_networks:returns_logits"}, ["(logits, features)", "shape (2, 3)"]),
    "wrong head": ({"model": "own_networks:wrong_head"}, ["logits differ from head(features)"]),
    "too few classes": ({"model": "own_networks:two_classes"}, ["id_train", "class 2", "2 classes", "0 to 1"]),
    "stray option": ({"checkpoints": "train"}, ["own takes no --checkpoints", "--model"]),
}


@pytest.mark.parametrize("changed, named", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_that_names_the_option(changed, named, here, tmp_path, capsys):
    (here / "empty").mkdir(exist_ok=True)
    save(here / "strangers" / "z" / "0.png", 0)
    (here / "broken.py").write_text("build = undefined_name", encoding="utf-8")
    (here / "needy.py").write_text("import no_such_library", encoding="utf-8")
    out = tmp_path / "out"
    error = refused(options(out, **{"model": "own_networks:build", **changed}), capsys)
    assert [word for word in named if word not in error] == [], error
    assert not out.exists()


@pytest.mark.parametrize("text", ["foxes", "foxes=foxes", "=foxes:near", "foxes=:near", "foxes=foxes:", "foxes=a:b/c"])
def test_an_ood_set_is_name_place_and_category(text, here, tmp_path, capsys):
    error = refused([*options(tmp_path / "out"), "--ood", text], capsys)
    assert text in error and "NAME=SET:CATEGORY" in error


def test_two_sets_of_one_name_are_refused(here, tmp_path, capsys):
    assert "two sets are called foxes" in refused([*options(tmp_path), "--ood", "foxes=planes:far"], capsys)


def test_no_detector_that_can_run_is_refused_before_anything_is_made(here, tmp_path, capsys):
    arguments = [*options(tmp_path / "out", **{"id-train": None}), "--detectors", "mds", "ats"]
    error = refused(arguments, capsys)
    assert "mds" in error and "training statistics" in error and "ats" in error and not (tmp_path / "out").exists()


FILES = {
    "unknown key": (STUDY.replace("[id]", "[id]\ntesting = 3"), ["[id]", "unknown testing", "train, validation, test"]),
    "unknown table": (STUDY + "[metrics]\n", ["unknown metrics", "id, ood, models, detectors, plugins"]),
    "unknown key of a model": (STUDY + "layers = 3\n", ["[models.second]", "unknown layers"]),
    "no toml": ("= 3", ["cannot be read as a study file"]),
    "two ways": (STUDY + 'checkpoint = "x"\n', ["[models.second]", "either"]),
    "neither": (STUDY + "[models.third]\n", ["[models.third]", "neither"]),
    "no checkpoint": (STUDY + '[models.third]\ncheckpoint = "train"\n', ["[models.third] checkpoint", "no checkpoint"]),
    "a number": (STUDY.replace('"foxes"', "7"), ["[ood.near]", "foxes", "7"]),
    "a number for a category": (STUDY + "category = 4\n", ["[models.second]", "category", "4"]),
    "missing folder": (STUDY.replace('"foxes"', '"wolves"'), ["[ood.near] foxes", "wolves is not there"]),
    "no test": (STUDY.replace('test = "test.txt"', ""), ["ID test"]),
    "no OOD": (STUDY.partition("[ood.near]")[0] + "[models" + STUDY.partition("[models")[2], ["OOD test"]),
    "no model": (STUDY.partition("[models")[0], ["names no model", "[models.NAME]"]),
    "category id": (STUDY.replace("ood.odd", "ood.id"), ["[ood.id]", "not 'id'"]),
}


@pytest.mark.parametrize("text, named", FILES.values(), ids=FILES)
def test_a_wrong_file_is_one_line(text, named, here, tmp_path, capsys):
    file = write_study(here, text)
    error = refused([file, "--out", tmp_path / "out"], capsys)
    assert [word for word in named if word not in error] == [], error
    assert str(file) in error or "needs" in error
    assert not (tmp_path / "out").exists()


def test_a_label_that_the_model_does_not_have_is_refused(here, tmp_path, capsys):
    (here / "labels.txt").write_text("a/0.png 0\nb/0.png 7\n", encoding="utf-8")
    error = refused([*options(tmp_path / "out", **{"id-test": "labels.txt"}), "--root", "test"], capsys)
    assert "id_test has images of class 7" in error and "model has 3 classes, 0 to 2" in error


def test_fewer_class_folders_than_classes_are_a_warning(here, tmp_path, capsys):
    for name in "ab":
        shutil.copytree(here / "test" / name, tmp_path / "some" / name)
    given = {"id-train": None, "id-val": None, "id-test": tmp_path / "some"}
    assert main([*options(tmp_path / "out", **given), "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "warning: id_test has 2 class folders, fewer than the classes of model" in printed and "0 to 1" in printed


def test_logits_that_are_not_the_heads_stop_the_first_pass(here, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*options(tmp_path, "own_networks:wrong_later"), "--detectors", "msp"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "model on cats" in error or "model on id_val" in error
    assert "logits differ from head(features)" in error and "check_head" not in error


def test_from_function_names_what_does_not_fit():
    kernel, bias = np.ones((4, 3), np.float32), np.zeros(3, np.float32)

    def network(classes=3, features=4, fill=0.0):
        return lambda images: (
            np.full((len(images), classes), fill, np.float32),
            np.zeros((len(images), features), np.float32),
        )

    with pytest.raises(
        ValueError, match=r"returns features .*expected shape \(2, 4\): the head is of 4 features and 3"
    ):
        Network.from_function(network(features=5), (kernel, bias))
    with pytest.raises(ValueError, match="logits hold NaN or infinite"):
        Network.from_function(network(fill=np.nan), (kernel, bias))
    with pytest.raises(ValueError, match="mean and std come together"):
        Network.from_function(network(), (kernel, bias), mean=(0, 0, 0))
    with pytest.raises(ValueError, match=r"feature_maps\[0\] must have shape"):
        Network.from_function(lambda x: (*network()(x), (np.zeros((2, 3), np.float32),)), (kernel, bias))
    assert Network.from_function(network(), Head(kernel, bias)).has_maps is False
