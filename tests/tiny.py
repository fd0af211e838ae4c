"""A study that runs in a second: images of 16 x 16 pixels, networks of two layers with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from oodjax.data.arrays import Arrays
from oodjax.data.sets import ImageSet
from oodjax.models.network import Network
from oodjax.study import Study

SIZE, CLASSES, CHANNELS, FEATURES = 16, 4, 12, 16
MEAN = STD = (0.5, 0.5, 0.5)
DETECTORS = ("msp", "odin", "knn", "gram", "ats", "mds")
# name -> (role, category, images, seed); OOD images have other patterns
SETS = {
    "train": ("train", "id", 200, 1),
    "val": ("id_val", "id", 60, 2),
    "test": ("id_test", "id", 60, 3),
    "ood_val": ("ood_val", "validation", 40, 4),
    "near": ("ood_test", "near", 50, 5),
    "far": ("ood_test", "far", 30, 6),
}


def network(state: dict[str, jax.Array], images: jax.Array):
    """(n, 16, 16, 3) normalised images -> logits, features, maps."""
    n, side = len(images), SIZE // 4
    patches = images.reshape(n, side, 4, side, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, side, side, 48)
    hidden = jax.nn.relu(jnp.matmul(patches, state["patches"], precision="highest"))
    features = jax.nn.relu(jnp.matmul(hidden.mean(axis=(1, 2)), state["mix"], precision="highest"))
    logits = jnp.matmul(features, state["kernel"], precision="highest") + state["bias"][None]
    return logits, features, (hidden, features[:, None, None, :])


def build(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    shapes = {"patches": (48, CHANNELS), "mix": (CHANNELS, FEATURES), "kernel": (FEATURES, CLASSES), "bias": (CLASSES,)}
    state = {
        name: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32) for name, shape in shapes.items()
    }
    head = state["kernel"], state["bias"]
    return Network.from_function(network, head, state=state, mean=MEAN, std=STD, resize=None, crop=SIZE)


def build_second() -> Network:
    return build(1)


def pixels(count: int, seed: int, ood: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images of a pattern per class under noise, and the class of each."""
    patterns = np.random.default_rng(100 + ood).integers(0, 256, (CLASSES, SIZE, SIZE, 3))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = patterns[labels] + rng.normal(0, 60, (count, SIZE, SIZE, 3))
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int32)


def image_set(name: str) -> ImageSet:
    role, category, count, seed = SETS[name]
    ood = role.startswith("ood")
    images, labels = pixels(count, seed, ood)
    return ImageSet(name, role, category, Arrays(images, None if ood else labels, name))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tiny:
    """A model of the study."""

    name: str
    seed: int
    category: str = "baseline"

    def facts(self):
        return {"weights": self.seed}

    def head_shape(self):
        return FEATURES, CLASSES

    def weight_bytes(self):
        return 4000

    def make(self):
        raise AssertionError("it is there")

    def load(self, precision: str) -> Network:
        return build(self.seed)


def study(models: int = 2, **settings) -> Study:
    members = tuple(Tiny(f"model{i}", i) for i in range(models))
    sets = tuple(map(image_set, SETS))
    return Study("tiny", sets, members, **{"detectors": DETECTORS, "batch_size": 32, **settings})


def write_study(folder: Path) -> Path:
    """The same as files: class folders of PNG images, and a study file that names two networks of this module."""
    for name, (role, _, count, seed) in SETS.items():
        images, labels = pixels(count, seed, role.startswith("ood"))
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / name / f"class_{label}" / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    text = """
        [id]
        train = "train"
        validation = "val"
        test = "test"
        [ood.validation]
        ood_val = "ood_val"
        [ood.near]
        near = "near"
        [ood.far]
        far = "far"
        [models.first]
        network = "tiny:build"
        [models.second]
        network = "tiny:build_second"
    """
    path = folder / "tiny.toml"
    path.write_text("\n".join(line.strip() for line in text.splitlines()), encoding="utf-8")
    return path
