"""A plan says what a run then does: images, passes, bytes, what is finished; and writes nothing."""

from __future__ import annotations

import dataclasses

import jax
import pytest
from flax import nnx
from studies import Ran, Untrained, small

from oodjax import detectors, memory
from oodjax.console import _missing
from oodjax.data import imagenet
from oodjax.models import ResNetConfig
from oodjax.models.resnet import abstract
from oodjax.plan import plan, smaller
from oodjax.run import main
from oodjax.store import Store

DETECTORS = ("msp", "knn", "odin", "ats")


def without_validation(study):
    return dataclasses.replace(study, sets=tuple(s for s in study.sets if s.role != "ood_val"))


STUDIES = {
    "searched": lambda: small(2, detectors=DETECTORS),
    "one after the other": lambda: small(2, detectors=("msp", "odin"), fleet=1),
    "without validation": lambda: without_validation(small(1, detectors=("msp", "odin", "tempscale"))),
    "half the bank": lambda: small(1, detectors=("knn",), bank_fraction=0.5),
}


@pytest.fixture(scope="module", params=STUDIES.values(), ids=STUDIES)
def kept_word(request, tmp_path_factory):
    """A plan, the run after it and the plan after that."""
    made = Ran(request.param(), tmp_path_factory.mktemp("plan"))
    before = plan(made.engine())
    return made, before, made.run(), plan(made.engine())


def test_a_run_does_what_the_plan_says(kept_word):
    made, before, engine, _ = kept_word
    counts = engine.counts
    assert (before.decoded, before.forwards, before.odin_passes) == (
        counts.decoded,
        counts.forwards,
        counts.odin_passes,
    )
    assert before.finished == []


def test_when_all_is_done_nothing_is_planned(kept_word):
    made, _, _, after = kept_word
    assert (after.decoded, after.forwards, after.odin_passes) == (0, 0, 0)
    assert after.finished == [m.name for m in made.study.models]


def test_the_disk_takes_what_the_plan_says(kept_word):
    """To a tenth, and a few hundred bytes a file for headers and records."""
    made, before, _, after = kept_word
    files = [path for path in (made.folder / "store").rglob("*") if path.is_file()]
    arrays = sum(path.stat().st_size for path in files if path.suffix == ".npy")
    assert before.disk_bytes == pytest.approx(arrays, rel=0.1, abs=300 * len(files))
    assert before.disk_bytes == after.disk_bytes


def test_a_rest_is_planned_after_a_narrower_run(tmp_path):
    study = small(2, detectors=("msp", "knn"))
    Ran(study.only(models=["model1"], detectors=["msp"]), tmp_path).run()
    made = Ran(study, tmp_path)
    found, engine = plan(made.engine()), made.run()
    assert (found.decoded, found.forwards) == (engine.counts.decoded, engine.counts.forwards)
    words = [_missing(study, found.todo[name]) for name in ("model0", "model1")]
    assert words == ["statistics; outputs on all 5 sets; scores of all 2 detectors", "statistics; scores of knn"]
    images, train = sum(s.count for s in study.sets), study.train.count
    assert (found.decoded, found.forwards) == (images, images + train)  # of the second model the training set is left


def test_a_plan_of_networks_that_are_not_trained_yet_counts_what_the_detectors_need(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["digits", "--seeds", "1", "--plan", "--models", "mixup", "--detectors", "msp", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "forward passes: 2,542, and 0 of ODIN's" in printed
    assert "its training; outputs on all 11 sets; scores of all 1 detectors" in " ".join(printed.split())
    assert not out.exists()
    assert (
        main(["digits", "--seeds", "1", "--plan", "--models", "mixup", "--detectors", "odin,knn", "--out", str(out)])
        == 0
    )
    assert "forward passes: 2,757, and 9,164 of ODIN's" in capsys.readouterr().out  # 408 x 12 + 2,134 x 2


class Wide(Untrained):
    def head_shape(self):
        return 50_000, 8


def test_what_makes_a_study_smaller_makes_the_plan_smaller(tmp_path):
    study = small(4, detectors=("msp", "knn", "odin"))
    assert "--bank-fraction" not in "\n".join(smaller(study, plan(Ran(study, tmp_path).engine())))  # as small as can be
    study = dataclasses.replace(study, models=tuple(Wide(m.name, m.seed, m.mean, m.std) for m in study.models))

    def planned(**settings):
        return plan(Ran(dataclasses.replace(study, **settings), tmp_path).engine())

    found = planned()
    lines = "\n".join(smaller(study, found))
    assert "--bank-fraction 0.1" in lines and "without odin" in lines
    assert "--fleet 2 holds 2 models on the device instead of 4, and decodes each set 2 times instead of 1" in lines
    assert planned(bank_fraction=0.1).disk_bytes < found.disk_bytes
    halved = planned(fleet=2)
    assert (halved.device_bytes, halved.decoded) == (found.device_bytes / 2, 2 * found.decoded)
    assert planned(detectors=("msp", "knn")).odin_passes == 0
    assert not list(Store(tmp_path).folder.iterdir())


def test_the_documented_costs_of_imagenet_are_the_plans_arithmetic():
    """README and docs/imagenet.md: gigabytes of one ResNet-50, and images of the whole protocol."""
    shape, reads = (2048, 1000), detectors.reads(detectors.NAMES)
    counts = {entry.role: 0 for entry in imagenet.ENTRIES}
    for entry in imagenet.ENTRIES:
        counts[entry.role] += entry.expected
    train, others = counts.pop("train"), sum(counts.values())
    assert (train, others) == (1_281_167, 164_471)
    weights = sum(4 * leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(ResNetConfig.resnet50()))))
    assert weights + memory.sums_bytes(shape, reads) == pytest.approx(0.83e9, rel=0.01)
    assert memory.bank_bytes(shape, train, 1.0, reads) == pytest.approx(10.5e9, rel=0.01)
    assert memory.bank_bytes(shape, train, 0.1, reads) == pytest.approx(1.06e9, rel=0.01)
    assert memory.outputs_bytes(shape, others) == pytest.approx(2.0e9, rel=0.01)
