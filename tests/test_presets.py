"""Presets: CIFAR-10 from prepared files to tables, plans that are kept, unreadable images, images in two sets."""

from __future__ import annotations

import json

import imagenet_folder
import numpy as np
import pandas as pd
import pytest
from image_files import save, truncate

from oodjax import metrics
from oodjax.data import cifar10
from oodjax.data.loader import Geometry
from oodjax.data.preprocess import cut
from oodjax.data.sets import ImageSet
from oodjax.data.sources import source_of
from oodjax.presets.models import in_memory
from oodjax.run import main


def listing(out):
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in arguments])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1, captured.err
    return captured.err


# CIFAR-10.

SPLITS = {
    "cifar10": {"train": 80, "test": 20},
    "cifar100": {"test": 12},
    "svhn_cropped": {"test": 12},
    "dtd": {"validation": 12, "test": 12},
    "mnist": {"test": 12},
    "fashion_mnist": {"test": 12},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """CIFAR-10 and the OOD sets as tensorflow-datasets keeps them, a few images each."""
    tfds_folder = pytest.importorskip("tfds_folder", reason="tensorflow-datasets is not installed")
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    for place, (dataset, splits) in enumerate(SPLITS.items()):
        tfds_folder.make(folder, dataset, splits, first_seed=10_000 * place)
    return folder


@pytest.mark.slow
def test_cifar10_is_trained_and_scored_in_one_run(prepared, tmp_path, capsys):
    asked = ["--models", "baseline", "--detectors", "mls", "knn", "--datasets", "cifar100", "dtd", "mnist"]
    arguments = ["cifar10", "--data", str(prepared), "--out", str(tmp_path), *asked]
    assert main(arguments) == 0
    results = pd.read_csv(tmp_path / "results.csv")
    assert list(results.dataset) == ["cifar100", "dtd", "mnist"] * 2
    assert list(results.ood_category) == ["near", "far", "extreme"] * 2
    assert (results.n_id == 20).all() and (results.n_ood == 12).all()
    first = listing(tmp_path)
    assert first["decoded_images"] == 72 + 8 + 12 + 20 + 3 * 12  # beside the 72 that training reads at once
    capsys.readouterr()
    narrower = ["cifar10", "--data", str(prepared), "--out", str(tmp_path), *asked[:5], "--datasets", "mnist"]
    assert main(narrower) == 0
    again = listing(tmp_path)
    assert (again["decoded_images"], again["checkpoints"]) == (0, first["checkpoints"])
    assert pd.read_csv(tmp_path / "results.csv").equals(results)


def test_too_few_images_for_a_recipe_are_one_line(prepared, tmp_path, capsys):
    arguments = ["cifar10", "--data", prepared, "--out", tmp_path, "--models", "simclr", "--detectors", "msp"]
    error = refused([*arguments, "--datasets", "mnist"], capsys)
    assert "model simclr: batch_size must be at most the number of images, 72, got 128" in error and "--models" in error


def test_cifar10s_data_set_names_are_checked(prepared, tmp_path, capsys):
    assert "svhn_cropped" in refused(["cifar10", "--data", prepared, "--datasets", "svhn", "--out", tmp_path], capsys)


def test_cifar10s_networks_have_512_features():
    from oodjax.presets.cifar10 import CONFIG, MEAN, STD
    from oodjax.presets.models import Trained
    from oodjax.training.recipes import RECIPES

    model = Trained("baseline", RECIPES["baseline"], None, CONFIG, None, MEAN, STD, 0, cifar10.SIZE)
    assert model.head_shape() == (512, 10)


def test_training_images_are_read_at_one_size_in_order(tmp_path):
    for i in range(5):
        save(tmp_path / "a" / f"{i}.png", i, 40 + i, 50 - i)
    image_set = ImageSet("x", "train", "id", source_of(str(tmp_path)))
    expected = np.stack([cut(image_set.source.open(i), 32, 32) for i in range(5)])
    np.testing.assert_array_equal(in_memory(image_set, Geometry(32, 32), batch_size=3), expected)


# ImageNet; `test_imagenet_study` runs it.


@pytest.fixture
def miniature(tmp_path):
    """OpenOOD's layout, and a folder with something that looks like a checkpoint."""
    imagenet_folder.make(tmp_path / "data")
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mine" / "manifest.json").write_text("{}", encoding="utf-8")
    return tmp_path


MISSING = {
    "no data": ({"--data": None}, ["--data DATA", "--checkpoints FOLDER"]),
    "no checkpoints": ({"--checkpoints": None}, ["--checkpoints FOLDER"]),
    "no such data": ({"--data": "nowhere"}, ["--data: no such folder", "nowhere"]),
    "no such checkpoints": ({"--checkpoints": "nowhere"}, ["--checkpoints", "nowhere is not a folder"]),
    "empty checkpoints": ({"--checkpoints": "data"}, ["--checkpoints", "holds no checkpoint", "converters"]),
    "one checkpoint": ({"--checkpoints": "checkpoints/mine"}, ["--checkpoints", "is a checkpoint itself"]),
    "no converted checkpoint": ({}, ["checkpoints/mine", "manifest"]),
}


@pytest.mark.parametrize("changed, named", MISSING.values(), ids=MISSING)
def test_what_imagenet_needs_is_said_in_one_line(changed, named, miniature, capsys):
    places = {"--data": "data", "--checkpoints": "checkpoints", **changed}
    words = [word for flag, place in places.items() if place for word in (flag, miniature / place)]
    error = refused(["imagenet", *words, "--out", miniature / "out"], capsys)
    assert [word for word in named if word not in error] == [], error
    assert not (miniature / "out").exists()


def test_sets_that_are_missing_are_named_at_once_with_the_way_to_leave_them_out(miniature, capsys):
    (miniature / "data" / "benchmark_imglist" / "imagenet" / "test_ninco.txt").unlink()
    (miniature / "data" / "mnist" / "t10k-images-idx3-ubyte").unlink()
    words = ["imagenet", "--data", miniature / "data", "--checkpoints", miniature / "checkpoints"]
    error = refused([*words, "--out", miniature / "out"], capsys)
    for word in (
        "lacks 2 of 12 sets",
        "ninco (no list",
        "test_ninco.txt",
        "mnist (no mnist/t10k",
        "--datasets ssb_hard",
    ):
        assert word in error
    error = refused([*words, "--datasets", "ssb_hard,textures", "--out", miniature / "out"], capsys)
    assert "of 12 sets" not in error and "checkpoints/mine" in error  # the next thing that is wrong


# Unreadable images, other pixels, contents and images in two sets: a small network on folders.

MODULE = """
import jax.numpy as jnp
import numpy as np
from oodjax import Network

kernel, bias = np.float32([[1, -1], [0.5, 1], [-1, 0.3]]), np.float32([0, 0.1])


def network(images):
    found = images.astype(jnp.float32).mean(axis=(1, 2)) / 50
    return jnp.matmul(found, jnp.asarray(kernel), precision="highest") + jnp.asarray(bias)[None], found


def build():
    return Network.from_function(network, (kernel, bias), resize=24, crop=20)
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """ID and OOD images beside a module; returns the words of a command that scores mls and knn on them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pale_networks.py").write_text(MODULE, encoding="utf-8")
    for seed, (place, each) in enumerate((("train", 8), ("val", 4), ("test", 6))):
        for name in "ab":
            for i in range(each):
                save(tmp_path / place / name / f"{i}.png", 1000 * seed + 100 * ord(name) + i, 30 + i, 40)
    for seed, place in enumerate(("cats", "foxes", "wolves")):
        for i in range(7):
            save(tmp_path / place / f"{i}.jpg", 9000 + 100 * seed + i, 37, 29 + i)
    words = "own --model pale_networks:build --id-train train --id-val val --id-test test --ood-val cats"
    more = "--ood foxes=foxes:near --ood wolves=wolves:far --detectors mls,knn --out out"
    return [*words.split(), *more.split()]


def test_a_bad_image_stops_the_run_or_is_skipped_counted_and_listed(folders, tmp_path, capsys):
    bad = [tmp_path / "foxes" / "3.jpg", tmp_path / "train" / "a" / "2.png"]
    for path in bad:
        truncate(path)
    error = refused(folders, capsys)
    assert str(bad[1].relative_to(tmp_path)) in error and "--on-bad-image skip" in error
    skipping = [*folders, "--on-bad-image", "skip"]
    assert main(skipping) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 images of foxes that cannot be read: foxes/3.jpg: " in printed
    results = pd.read_csv(tmp_path / "out" / "results.csv").set_index(["detector", "dataset"])
    assert results.n_ood["mls", "foxes"] == 6 and results.n_ood["mls", "wolves"] == 7
    whole = results.auroc.to_dict()
    listed = {"id_train": ["train/a/2.png"], "foxes": ["foxes/3.jpg"]}
    assert listing(tmp_path / "out")["images_left_out"] == listed
    assert main(skipping) == 0  # found again, and still said
    assert listing(tmp_path / "out")["decoded_images"] == 0
    assert listing(tmp_path / "out")["images_left_out"] == listed
    assert "left out: 1 images of id_train" in capsys.readouterr().out
    assert "1 images of foxes could not be read" in (tmp_path / "out" / "report" / "index.html").read_text("utf-8")
    for path in bad:
        path.unlink()
    assert main([*folders, "--out", "without"]) == 0
    assert pd.read_csv("without/results.csv").set_index(["detector", "dataset"]).auroc.to_dict() == whole


def test_a_narrower_run_says_of_the_whole_what_is_finished(folders, tmp_path):
    assert main(folders) == 0
    results, before = pd.read_csv("out/results.csv"), listing(tmp_path / "out")
    assert main([*folders, "--detectors", "mls", "--datasets", "foxes"]) == 0
    after = listing(tmp_path / "out")
    assert pd.read_csv("out/results.csv").equals(results)
    assert after["asked"]["detectors"] == ["mls"] and after["decoded_images"] == 0
    assert set(after["hyperparameters"]["model"]) == {"mls", "knn"}
    for name in ("configuration", "data", "checkpoints", "hyperparameters", "kept", "images_left_out"):
        assert after[name] == before[name], name


@pytest.mark.slow
def test_sets_of_tensorflow_datasets_are_named_by_words(folders, prepared, tmp_path, capsys):
    words = [*folders, "--data", str(prepared), "--ood", "digits=tfds:mnist:test:far", "--detectors", "mls"]
    assert main(words) == 0
    results = pd.read_csv(tmp_path / "out" / "results.csv").set_index("dataset")
    assert (results.n_ood["digits"], results.ood_category["digits"]) == (12, "far")
    head = np.float32([[1, -1], [0.5, 1], [-1, 0.3]])

    def mls(source):
        crops = np.stack([cut(source.open(i), 24, 20) for i in range(len(source))]).astype(np.float64)
        return (crops.mean(axis=(1, 2)) / 50 @ head + np.float32([0, 0.1])).max(axis=1)

    inside, outside = mls(source_of("test")), mls(source_of("tfds:mnist:test", data_dir=prepared))
    assert results.auroc["digits"] == pytest.approx(metrics.auroc(inside, outside), abs=1e-9)
    capsys.readouterr()
    error = refused([*words, "--id-val", "tfds:cifar10:test"], capsys)
    assert "id_val has images of class 9, but the model model has 2 classes" in error


def test_a_set_without_a_readable_image_is_refused(folders, tmp_path, capsys):
    for path in (tmp_path / "foxes").iterdir():
        truncate(path)
    error = refused([*folders, "--on-bad-image", "skip", "--detectors", "mls"], capsys)
    assert "none of the 7 images of foxes can be read: foxes/" in error


@pytest.mark.slow
def test_fast_pixels_are_other_pixels_and_named_in_the_manifest(folders, tmp_path):
    """Images 5 times as tall as wide: there the one step takes the axes in another order."""
    for i in range(7):
        save(tmp_path / "wolves" / f"{i}.jpg", 500 + i, 300, 31 + i)
    asked = ["--detectors", "mls"]
    for place, more in (("exact", []), ("fast", ["--fast-pixels"])):
        assert main([*folders, *asked, "--out", place, *more]) == 0
        assert listing(tmp_path / place)["configuration"]["fast_pixels"] is bool(more)

    def logits(place):
        (path,) = (tmp_path / place / "store" / "outputs" / "model" / "wolves").glob("logits-*.npy")
        return np.load(path)

    difference = np.abs(logits("exact") - logits("fast"))
    assert 0 < difference.max() < 2 / 50 * 2.5  # one level of each colour, through the head


@pytest.mark.slow
def test_contents_decide_what_is_current_where_that_is_asked_for(folders, tmp_path):
    """Another image under the same name and of the same size in bytes."""
    path = tmp_path / "wolves" / "0.bmp"
    save(path, 1, 30, 40)
    asked = ["--detectors", "mls"]
    assert main([*folders, *asked]) == 0 and main([*folders, *asked, "--hash-content", "--out", "content"]) == 0
    before, size = pd.read_csv("out/results.csv").auroc[1], path.stat().st_size
    for _ in range(2):
        save(path, 2, 30, 40)
    assert path.stat().st_size == size
    assert main([*folders, *asked]) == 0 and main([*folders, *asked, "--hash-content", "--out", "content"]) == 0
    assert listing(tmp_path / "out")["decoded_images"] == 0
    assert listing(tmp_path / "content")["decoded_images"] == 8  # of the wolves alone
    assert pd.read_csv("out/results.csv").auroc[1] == before


def test_an_image_in_two_sets_is_a_warning_and_a_whole_set_an_error(folders, tmp_path, capsys):
    (tmp_path / "foxes" / "same.jpg").write_bytes((tmp_path / "cats" / "2.jpg").read_bytes())
    (tmp_path / "wolves" / "same.png").write_bytes((tmp_path / "test" / "a" / "1.png").read_bytes())
    assert main([*folders, "--plan"]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: id_test (id_test) and wolves (ood_test) share 1 images",
        "warning: ood_val (ood_val) and foxes (ood_test) share 1 images",
    ]
    for path in (tmp_path / "foxes").iterdir():
        path.unlink()
    for path in (tmp_path / "cats").iterdir():
        (tmp_path / "foxes" / path.name).write_bytes(path.read_bytes())
    error = refused(folders, capsys)
    assert "ood_val (ood_val) and foxes (ood_test) are the same 7 images" in error and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_recipe_that_diverges_is_one_line_and_the_others_are_kept(tmp_path, capsys, monkeypatch):
    from oodjax.training.recipes import RECIPES, Recipe

    monkeypatch.setitem(RECIPES, "short", Recipe("short", "baseline", epochs=1))
    monkeypatch.setitem(RECIPES, "hot", Recipe("hot", "baseline", epochs=1, learning_rate=1e30))
    words = ["digits", "--seeds", "1", "--detectors", "msp", "--datasets", "letters", "--out", str(tmp_path)]
    error = refused([*words, "--models", "short", "hot"], capsys)
    assert "the training of 'hot' diverged" in error and "--models" in error
    assert main([*words, "--models", "short"]) == 0
    stages = [stage["stage"] for stage in listing(tmp_path)["stages"]]
    assert "training" not in stages and list(pd.read_csv(tmp_path / "results.csv").model) == ["short"]
