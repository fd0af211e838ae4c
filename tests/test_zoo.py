"""The table of checkpoints: complete, sound, and the paper's."""

import csv
from collections import Counter

import pytest

from converters.envelopes import Envelope, parse_second
from oodjax import zoo
from oodjax.zoo import reader


def test_the_table_is_complete() -> None:
    found = zoo.checkpoints()
    assert Counter(entry.arch for entry in found) == {"resnet50": 56, "vit_b16": 4}
    assert Counter(entry.category for entry in found) == {
        "baseline": 1,
        "adversarial": 15,
        "augmentation": 22,
        "ssl": 7,
        "improved": 10,
        "freezing": 1,
        "vit": 4,
    }
    assert all(entry.accuracy is not None for entry in found if entry.arch == "resnet50")


def test_figures_and_normalisation_are_read() -> None:
    baseline = zoo.get("baseline")
    assert (baseline.accuracy, baseline.ece, baseline.auroc, baseline.fpr95) == (76.19, 3.62, 89.07, 42.05)
    assert baseline.mean == (0.485, 0.456, 0.406) and baseline.std == (0.229, 0.224, 0.225)
    assert zoo.get("simclrv2").mean == (0, 0, 0) and zoo.get("simclrv2").std == (1, 1, 1)
    assert zoo.get("vit-sam").std == (0.5, 0.5, 0.5) and zoo.get("vit-sam").accuracy is None
    assert zoo.get("swav").licence == "CC-BY-NC-4.0" and zoo.get("sin").licence == "unknown"


def test_addresses() -> None:
    assert zoo.get("timm-a1").url == "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"
    style = zoo.get("styleaugment")
    assert style.url == "https://drive.google.com/uc?id=15PdDMNRfnJ7f2oxW6lI-Ge4QJJH3Z0Fy"
    assert style.member == "imagenet_resnet50_tvsv1_base_stylized/ckpt.pth"
    assert zoo.get("sin").url.startswith("https://bitbucket.org/") and zoo.get("sin").member == ""


@pytest.mark.parametrize("entry", zoo.checkpoints(), ids=lambda entry: entry.id)
def test_the_layout_can_be_read(entry: zoo.Checkpoint) -> None:
    envelope = Envelope.parse(entry.state_dict_path, entry.key_rewrites)
    assert bool(envelope.rewrites) == bool(entry.key_rewrites) and bool(envelope.paths) == bool(entry.state_dict_path)
    if entry.second_file:
        assert parse_second(entry.second_file)[0].startswith("https://")


def test_an_unknown_id_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no checkpoint 'basline' in the zoo; it has: baseline, at-l2-eps0"):
        zoo.get("basline")


def test_every_wrong_cell_is_named() -> None:
    with reader.CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))[:3]
    rows[0] |= {"accuracy": "762", "mean": "0.4,0.4", "category": "basic"}
    rows[1] |= {"fpr95": "", "std": "0,1,1"}
    rows.append(rows[2])
    with pytest.raises(ValueError) as error:
        reader.read(rows)
    for text in (
        "line 2 (baseline): category is 'basic'",
        "accuracy is '762'",
        "mean is '0.4,0.4'",
        "line 3 (at-l2-eps0): fpr95 is ''",
        "std is '0,1,1'",
        "line 5 (at-l2-eps0.01): id appears twice",
    ):
        assert text in str(error.value)
    with pytest.raises(ValueError, match=r"missing \['auroc'\]"):
        reader.read([{key: value for key, value in rows[2].items() if key != "auroc"}])
