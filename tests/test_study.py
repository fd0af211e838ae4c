"""The study end to end: counts, compilations, units, killing, devices."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oodjax import extract, metrics
from oodjax.data import ImageSet, digits
from oodjax.data.sources import Arrays
from oodjax.detectors import NAMES
from oodjax.models import initialize
from oodjax.models.checkpoint import save
from oodjax.presets.digits import CONFIG, PRESET, _key
from oodjax.results import per_model, tabulate
from oodjax.study import Study
from oodjax.training.recipes import RECIPES

SETS = ("letters", "unit_tests")


def part(image_set: ImageSet, count: int) -> ImageSet:
    source = Arrays(image_set.images[:count], image_set.labels[:count])
    return dataclasses.replace(image_set, source=source)


@pytest.fixture(scope="module")
def data():
    """The digits study's data, a share of each set."""
    full = digits.load(0)
    return dataclasses.replace(
        full, train=part(full.train, 300), id_val=part(full.id_val, 100), id_test=part(full.id_test, 100),
        ood_val=part(full.ood_val, 60), ood_tests=tuple(part(s, 60) for s in full.ood_tests),
    )  # fmt: skip


def make_untrained(model, data, seed, folder):
    """A checkpoint of the real network with random weights; training has its own tests, and the killed run below."""
    place = list(RECIPES).index(model)
    save(folder, initialize(CONFIG, place), key=_key(model, data.train.sha256, seed), seed=seed)


@pytest.fixture(scope="module")
def study(tmp_path_factory, data):
    """Sixteen checkpoints scored on two sets."""
    models = tuple(n for n in RECIPES if n != "torchvision2")
    assert len(models) == 16
    preset = dataclasses.replace(PRESET, make=make_untrained)
    made = Study(preset, data, tmp_path_factory.mktemp("study"), models, NAMES, SETS, batch_size=64)
    extract.forward.clear_cache()
    extract.odin.clear_cache()
    for model in models:
        made.make_checkpoint(model)
        list(made.evaluate(model))
    return made


def test_one_program_serves_sixteen_checkpoints(study):
    assert extract.forward._cache_size() == 1
    assert extract.odin._cache_size() == 1


def test_each_image_passes_once_per_model(study):
    images = sum(s.count for s in (*study.shared_sets, *study.test_sets))
    assert study.counts.decoded == images
    assert study.counts.forwards == images * len(study.models)
    perturbed = images - study.data.train.count
    assert study.counts.odin_passes == perturbed * len(study.models) * (1 + 4 + 8)


def test_tables_hold_the_metrics_of_the_units(study, data):
    tables = tabulate(study)
    assert len(tables.results) == 16 * len(NAMES) * len(SETS)
    assert not tables.results.isna().drop(columns=["auroc_incorrect_vs_ood", "auroc_correct_vs_incorrect"]).any().any()
    row = tables.results.query("model == 'baseline' and detector == 'ebo' and dataset == 'letters'").iloc[0]
    id_unit, ood_unit = study.unit("baseline", data.id_test), study.unit("baseline", data.ood_tests[1])

    def energies(z):
        return np.log(np.exp(z.astype(np.float64)).sum(axis=1))

    assert row.auroc == pytest.approx(metrics.auroc(energies(id_unit.logits), energies(ood_unit.logits)), abs=1e-4)
    assert (row.model_category, row.detector_family, row.ood_category) == ("baseline", "classification", "near")
    accuracy = tables.models.set_index("model").loc["baseline", "accuracy"]
    assert accuracy == (id_unit.logits.argmax(axis=1) == data.id_test.labels).mean()
    summary = per_model(tables).set_index("model").loc["baseline"]
    own = tables.results[tables.results.model == "baseline"].auroc
    assert summary.auroc == pytest.approx(100 * own.mean()) and summary.auroc_std == pytest.approx(
        100 * own.std(ddof=0)
    )


def test_selection_is_the_first_best_on_validation(study):
    from oodjax.files import read_arrays

    arrays = read_arrays(study.find("mixup", None))
    values = np.array([metrics.auroc(arrays["id_scores"][:, i], arrays["ood_scores"][:, i])
                       for i in range(arrays["id_scores"].shape[1])])  # fmt: skip
    choice = study.choice("mixup")
    for name in NAMES:
        members = [i for i, (point, _) in enumerate(choice.points) if point == name]
        assert choice.selected[name] == members[int(np.argmax(values[members]))]


def test_batch_size_does_not_change_scores(study, tmp_path):
    other = dataclasses.replace(study, folder=study.folder, batch_size=50, models=("noise",))
    unit = study.unit("noise", study.test_sets[1])
    for model_file in (study.folder / "units" / "noise").iterdir():
        model_file.rename(tmp_path / model_file.name)
    list(other.evaluate("noise"))
    again = other.unit("noise", study.test_sets[1])
    np.testing.assert_allclose(again.logits, unit.logits, rtol=1e-4, atol=1e-4)  # sums in another order
    # A sign of ODIN's gradient may flip at zero; everything else agrees to float32's rounding.
    spread = unit.scores.std(axis=0) + 1e-6
    assert (np.abs(again.scores - unit.scores) / spread).max() < 2e-2


def test_a_unit_is_found_again_only_for_the_same_settings(study):
    letters = study.test_sets[1]
    assert study.find("baseline", letters) is not None
    for change in ({"precision": "bfloat16"}, {"seed": 1}):
        assert dataclasses.replace(study, **change).find("baseline", letters) is None
    lean = dataclasses.replace(study, detectors=("msp", "knn"))
    assert lean.find("baseline", letters) == study.find("baseline", letters)  # a unit with ODIN serves one without
    assert lean.missing_units("baseline") == []


def test_a_missing_unit_alone_is_made_again(study):
    path = study.find("cutmix", study.test_sets[2])
    before = path.read_bytes()
    path.unlink()
    assert [s.name for s in study.missing_units("cutmix")] == ["unit_tests"]
    forwards = study.counts.forwards
    list(study.evaluate("cutmix"))
    assert path.read_bytes() == before
    fitted_on = sum(s.count for s in study.shared_sets)
    assert study.counts.forwards - forwards == fitted_on + study.test_sets[2].count


COMMAND = [sys.executable, "-m", "oodjax.run", "--models", "baseline", "--detectors", "msp,odin,knn,gram", "--datasets",
           "letters", "bars", "--out"]  # fmt: skip


def tables_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("results.csv", "models.csv")]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_tables(tmp_path):
    """SIGKILL while training, after the checkpoint, and between units; what is finished is not made again."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run([*COMMAND, str(straight)], check=True, capture_output=True)
    checkpoint = killed / "checkpoints" / "baseline" / "manifest.json"

    def training(process):
        """The table of the sets is printed, its last row names this set; then the first program is compiled."""
        for line in process.stdout:
            if "bars" in line:
                time.sleep(1)
                return True

    moments = (
        training,
        lambda process: checkpoint.exists(),
        lambda process: len(list(killed.glob("units/baseline/*.npz"))) >= 2,
    )
    stamps = []
    for moment in moments:
        process = subprocess.Popen([*COMMAND, str(killed)], stdout=subprocess.PIPE, text=True)
        while not moment(process) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not (killed / "results.csv").exists()
        stamps.append(checkpoint.stat().st_mtime_ns if checkpoint.exists() else None)
    assert stamps[0] is None
    assert stamps[1] == stamps[2] is not None
    subprocess.run([*COMMAND, str(killed)], check=True, capture_output=True)
    assert checkpoint.stat().st_mtime_ns == stamps[2]
    assert tables_of(killed) == tables_of(straight)
    assert not list(killed.rglob("*.partial"))


@pytest.mark.slow
def test_eight_devices_give_the_tables_of_one(tmp_path):
    one, eight = tmp_path / "one", tmp_path / "eight"
    subprocess.run([*COMMAND, str(one)], check=True, capture_output=True)
    eight.mkdir()
    (one / "checkpoints").rename(eight / "checkpoints")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([*COMMAND, str(eight)], check=True, capture_output=True, text=True, env=environment)
    assert "8 devices" in done.stdout
    a, b = pd.read_csv(one / "results.csv"), pd.read_csv(eight / "results.csv")
    pd.testing.assert_frame_equal(a[["model", "detector", "dataset", "hyperparameters"]],
                                  b[["model", "detector", "dataset", "hyperparameters"]])  # fmt: skip
    # One pair of samples that changes places in another order of summation moves AUROC by 1 / (360 * 204).
    np.testing.assert_allclose(a.auroc, b.auroc, atol=5e-4)
