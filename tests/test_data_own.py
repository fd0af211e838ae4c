"""Labels of a user's own folders: a class is the same number in every set."""

from dataclasses import replace

import pytest
from image_files import save

from oodjax.presets import Options, own
from oodjax.study import StudyError


@pytest.fixture
def folders(tmp_path):
    """Training images of three classes; test images of the last two alone."""
    for place, classes in (("train", "abc"), ("test", "bc"), ("foxes", "xy")):
        for seed, name in enumerate(classes):
            save(tmp_path / place / name / "0.png", seed)
    return tmp_path


def from_options(folders):
    base = Options(folder=folders / "out", model="package:network", id_test=str(folders / "test"))
    return replace(base, id_train=str(folders / "train"), ood=(f"foxes={folders / 'foxes'}:near",))


def from_file(folders):
    text = (
        '[id]\ntrain = "train"\ntest = "test"\n[ood.near]\nfoxes = "foxes"\n[models.m]\nnetwork = "package:network"\n'
    )
    (folders / "study.toml").write_text(text, encoding="utf-8")
    return Options(folder=folders / "out", file=folders / "study.toml")


@pytest.mark.parametrize("options", [from_options, from_file])
def test_the_training_folders_number_the_classes_of_the_test_set(folders, options):
    train, test, foxes = own.study(options(folders)).sets
    assert (train.labels.tolist(), test.labels.tolist(), foxes.labels.tolist()) == ([0, 1, 2], [1, 2], [-1, -1])
    save(folders / "test" / "d" / "0.png", 0)
    with pytest.raises(StudyError, match="test holds a class that is not known: d; known are a, b, c"):
        own.study(options(folders))
