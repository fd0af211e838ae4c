"""What a report takes from the store of a results folder."""

import json

import numpy as np
import pytest
import report_folders

from oodjax.report.data import load
from oodjax.report.reading import CannotSay
from oodjax.store import Store, key_of

MODELS, DETECTORS, SETS = {"baseline": "baseline", "mixup": "augmentation"}, ("msp", "knn"), {"letters": "near"}


@pytest.fixture
def folder(tmp_path):
    """A study whose arrays lie in the store; the second image of `letters` could not be read."""
    report_folders.make(tmp_path, MODELS, DETECTORS, SETS)
    store, kept, rng = Store(tmp_path), {}, np.random.default_rng(0)
    for model in MODELS:
        for image_set in ("id_test", *SETS):
            columns = [[name, f"key of {name}"] for name in reversed(DETECTORS)]
            arrays = {"logits": rng.normal(size=(6, 3)), "features": rng.normal(size=(6, 4))}
            arrays |= {"valid": np.arange(6) != (1 if image_set == "letters" else 9)}
            group = f"{model}/{image_set}"
            store.put(
                f"outputs/{group}",
                {n: ("o", a.astype(np.float32 if n != "valid" else bool)) for n, a in arrays.items()},
            )
            rows = int(arrays["valid"].sum())
            scores = np.stack([np.arange(rows), -np.arange(rows)], axis=1).astype(np.float32)
            store.put(
                f"scores/{group}", {"scores": (key_of(columns=columns), scores)}, {"columns": ("columns", columns)}
            )
            kept.setdefault(model, {})[image_set] = {"outputs": "o", "scores": key_of(columns=columns)}
    manifest = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**manifest, "kept": kept}))
    return tmp_path


def test_outputs_are_the_rows_that_could_be_read(folder):
    study, store = load(folder), Store(folder)
    for name in ("logits", "features"):
        whole = store.read("outputs/mixup/letters", name, "o")
        np.testing.assert_array_equal(study.unit("mixup", "letters", name), np.delete(whole, 1, axis=0))
        assert study.unit("mixup", "id_test", name).shape[0] == 6


def test_scores_are_those_of_the_detector(folder):
    study = load(folder)
    np.testing.assert_array_equal(study.scores("mixup", "letters", "knn"), np.arange(5))
    np.testing.assert_array_equal(study.scores("mixup", "letters", "msp"), -np.arange(5))
    with pytest.raises(CannotSay, match="no scores of vim for mixup on letters"):
        study.scores("mixup", "letters", "vim")


@pytest.mark.parametrize("harm", ["delete", "damage", "other key", "no key"])
def test_what_is_lost_or_damaged_is_said(folder, harm, capsys):
    if harm in ("delete", "damage"):
        for path in (folder / "store/outputs/mixup/letters").glob("*features*"):
            path.unlink() if harm == "delete" else path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    else:
        manifest = json.loads((folder / "run.json").read_text())
        manifest["kept"]["mixup"]["letters"] = {"outputs": "another"} if harm == "other key" else {"outputs": None}
        (folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(CannotSay, match="features of mixup on letters are not in the store, or are damaged"):
        load(folder).unit("mixup", "letters", "features")
    assert load(folder).unit("mixup", "id_test", "features").shape == (6, 4)
    assert capsys.readouterr().out == ""


def test_a_model_that_is_not_kept_is_said(folder):
    with pytest.raises(CannotSay, match="logits of simclr on letters are not in the store"):
        load(folder).unit("simclr", "letters", "logits")
