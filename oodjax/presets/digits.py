"""The embedded study: scikit-learn's handwritten digits, seventeen recipes trained in the run, nothing to fetch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from flax import nnx

from oodjax.data import digits
from oodjax.files import code_fingerprint, fingerprint
from oodjax.models import ResNetConfig, fold_batch_norm, initialize
from oodjax.models.checkpoint import flat_arrays, read_manifest, save
from oodjax.models.checkpoint import load as load_checkpoint
from oodjax.outputs import Head
from oodjax.study import Network, Preset
from oodjax.training.recipes import RECIPES

CONFIG = ResNetConfig.study(len(digits.CLASS_NAMES))
TRAINING_CODE = ("data/loader.py", "models/normalize.py", "models/resnet.py", "training")


@cache
def _key(model: str, train_hash: str, seed: int) -> str:
    """Of everything that decides a checkpoint's weights."""
    return fingerprint(
        {
            "recipe": RECIPES[model].describe(),
            "config": repr(CONFIG),
            "data": train_hash,
            "seed": seed,
            "code": code_fingerprint(*TRAINING_CODE),
        }
    )


def ready(model: str, data: Any, seed: int, folder: Path) -> str | None:
    """The hash of the weights when the folder holds this recipe's checkpoint of this data, seed and code."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("key") != _key(model, data.train.sha256, seed):
        return None
    return manifest["weights"]


def make(model: str, data: Any, seed: int, folder: Path) -> None:
    """Trains a recipe and writes its checkpoint whole."""
    from oodjax.training.train import train

    recipe, split = RECIPES[model], data.train
    state = train(recipe, CONFIG, split.images, split.labels, data.mean, data.std, seed)
    trained = initialize(CONFIG, seed)
    nnx.update(trained, state)
    save(folder, trained, key=_key(model, split.sha256, seed), recipe=recipe.describe(), seed=seed)


def load(folder: Path, precision: str) -> Network:
    """The checkpoint as it runs: batch norm folded, computing in `precision`."""
    model = load_checkpoint(folder, precision)
    manifest = read_manifest(folder)
    assert manifest is not None
    arrays = flat_arrays(model)
    graphdef, state = nnx.split(fold_batch_norm(model))
    return Network(graphdef, state, Head(arrays["head/kernel"], arrays["head/bias"]), manifest["weights"])


PRESET = Preset(
    name="digits",
    models={name: recipe.category for name, recipe in RECIPES.items()},
    load_data=digits.load,
    ready=ready,
    make=make,
    load=load,
    batch_size=256,
)
