"""The study on a miniature of ImageNet: published files of weights, OpenOOD's layout, tables and report."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import imagenet_folder
import models_golden as golden
import numpy as np
import pandas as pd
import pytest
import zoo_layouts
from image_files import save, torchvision_crop
from PIL import Image

from converters.__main__ import main as convert
from converters.reference import import_torchvision
from oodjax import metrics
from oodjax.data import imagenet

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")

CLASSES, EACH, TRAIN = imagenet_folder.CLASSES, 10, 20
ALL_IMAGES = TRAIN + EACH * (len(imagenet.ENTRIES) - 1)
RESIZE = {"baseline": 256, "at-l2-eps3": 235, "vit-mae": 248}
# Of every kind: in the pass, by statistics, by the bank, by validation. What takes long at this size is left to small
# networks: ODIN, whose grid is twelve more passes an image; vim, mds and rmds, which solve for 2,048 features.
DETECTORS = ["msp", "mls", "ebo", "tempscale", "klm", "gen", "knn", "she", "react", "gram", "ats"]
COMPARED = ("textures", "inaturalist", "mnist")


def weights(arch: str, seed: int) -> dict:
    """Made-up weights of a network of few classes, as torch tensors."""
    state = golden.state_dict(arch, seed)
    for name in ("fc", "head"):
        for part in ("weight", "bias"):
            if f"{name}.{part}" in state:
                state[f"{name}.{part}"] = state[f"{name}.{part}"][:CLASSES]
    return {key: torch.as_tensor(value) for key, value in state.items()}


def write(folder: Path, content, crop_share: float | None = None) -> str:
    """A file of weights, with timm's config.json beside it where its images are cropped in another way."""
    folder.mkdir(parents=True)
    torch.save(content, folder / "weights.pth")
    if crop_share is not None:
        settings = {"input_size": [3, 224, 224], "crop_pct": crop_share}
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(folder / "weights.pth")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oodjax.run", "imagenet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@dataclass
class Study:
    folder: Path
    weights: dict[str, dict]
    output: str

    def listing(self) -> dict:
        return json.loads((self.folder / "out" / "run.json").read_text(encoding="utf-8"))

    def results(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "out" / "results.csv")

    def arguments(self) -> list[object]:
        places = {"--data": "data", "--checkpoints": "checkpoints", "--out": "out"}
        return [word for flag, name in places.items() for word in (flag, self.folder / name)] + ["--batch-size", EACH]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Converted and run once: three checkpoints, twelve sets, eleven detectors."""
    folder = tmp_path_factory.mktemp("imagenet")
    data = imagenet_folder.make(folder / "data", each=EACH)
    for i in range(EACH):
        save(data / "NINCO_OOD_unit_tests" / f"family_{i % 3}" / f"{i}.png", 5000 + i, 64, 64)
    made = {"baseline": weights("torchvision-resnet50", 3), "at-l2-eps3": weights("torchvision-resnet50", 4)}
    vit = weights("timm-vit_base_patch16_224", 5)
    files = {
        "baseline": write(folder / "a", zoo_layouts.training(made["baseline"])[0]),
        "at-l2-eps3": write(folder / "b", zoo_layouts.diffusion(made["at-l2-eps3"])[0], 0.95),
        "vit-mae": write(folder / "c", zoo_layouts.mae(vit)[0], 0.9),
    }
    for name, file in files.items():
        layout = "timm-vit_base_patch16_224" if name == "vit-mae" else "torchvision-resnet50"
        to = str(folder / "checkpoints" / name)
        assert convert([file, "--layout", layout, "--classes", str(CLASSES), "--to", to]) == 0
    ready = Study(folder, made, "")
    done = run(*ready.arguments(), "--detectors", *DETECTORS)
    assert (done.returncode, done.stderr) == (0, "")
    ready.output = done.stdout
    return ready


def test_every_checkpoint_detector_and_set_is_in_the_tables(study):
    results = study.results()
    assert list(results.model.unique()) == list(RESIZE)  # the zoo's order
    assert dict(zip(results.model, results.model_category, strict=True)) == {
        "baseline": "baseline",
        "at-l2-eps3": "adversarial",
        "vit-mae": "vit",
    }
    assert len(results) == len(RESIZE) * len(DETECTORS) * len(imagenet.DATASETS)
    assert set(results.dataset) == set(imagenet.DATASETS) and set(results.detector) == set(DETECTORS)
    assert (results.n_id == EACH).all() and (results.n_ood == EACH).all()
    models = pd.read_csv(study.folder / "out" / "models.csv")
    assert list(models.model) == list(RESIZE) and list(models.architecture) == ["resnet50", "resnet50", "vit_b16"]
    page = (study.folder / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert all(name in page for name in (*RESIZE, "ssb_hard", "unit_tests"))


def test_each_image_is_decoded_once_for_all_checkpoints(study):
    listing = study.listing()
    assert listing["decoded_images"] == ALL_IMAGES
    assert listing["forward_passes"] == len(RESIZE) * ALL_IMAGES
    assert f"decoded {ALL_IMAGES} images for 3 models" in study.output


def reference(study: Study, model: str, image_set) -> np.ndarray:
    """torchvision's own ResNet-50 on PIL's crops: (n, K) logits."""
    network = import_torchvision().models.resnet50(num_classes=CLASSES)
    network.load_state_dict(study.weights[model])
    source = image_set.source
    images = [Image.fromarray(np.asarray(source.open(i))) for i in range(len(source))]
    crops = np.stack([torchvision_crop(image, RESIZE[model], 224) for image in images])
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    pixels = (crops.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        return network.eval()(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy().astype(np.float64)


def scores(logits: np.ndarray) -> dict[str, np.ndarray]:
    exponentials = np.exp(logits)
    return {
        "msp": (exponentials / exponentials.sum(1, keepdims=True)).max(1),
        "mls": logits.max(1),
        "ebo": np.log(exponentials.sum(1)),
    }


@pytest.mark.parametrize("model", ["baseline", "at-l2-eps3"])
def test_auroc_agrees_with_torchvisions_own_network(study, model):
    """Crops differ between the two models; 1e-9 is the rounding of a fraction of 100 pairs in the table."""
    sets = {s.name: s for s in imagenet.load(study.folder / "data")}
    inside = scores(reference(study, model, sets["imagenet_test"]))
    results = study.results().set_index(["model", "detector", "dataset"])
    for name in COMPARED:
        outside = scores(reference(study, model, sets[name]))
        for detector, values in inside.items():
            expected = metrics.auroc(values, outside[detector])
            assert results.auroc[model, detector, name] == pytest.approx(expected, abs=1e-9), (detector, name)


def test_a_detector_added_later_for_one_model_runs_no_network(study):
    before = study.results()
    only = ["--models", "baseline", "--detectors", "scale", "--datasets", "mnist,unit_tests"]
    done = run(*study.arguments(), *only)
    assert (done.returncode, done.stderr) == (0, "")
    assert (study.listing()["decoded_images"], study.listing()["forward_passes"]) == (0, 0)
    after = study.results()
    added = after[after.detector == "scale"]
    assert set(added.model) == {"baseline"} and list(added.dataset) == ["mnist", "unit_tests"]
    assert after[after.detector != "scale"].reset_index(drop=True).equals(before)
