"""CIFAR-10 and OOD sets for it from tensorflow-datasets; the study's recipes trained in the run on 32 x 32 pixels."""

from __future__ import annotations

from oodjax.data import cifar10
from oodjax.models import ResNetConfig
from oodjax.presets import Options
from oodjax.presets.replicates import trained
from oodjax.study import Study
from oodjax.training.recipes import RECIPES

# Mean and standard deviation of all pixels of the 50,000 training images, a channel each.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
CONFIG = ResNetConfig(
    depths=(1, 1, 1, 1),
    widths=(16, 32, 64, 128),
    strides=(1, 2, 2, 1),
    stem_width=16,
    stem="small",
    convolution="patches",
    num_classes=10,
    image_size=cifar10.SIZE,
)
BATCH_SIZE = 256
SEEDS = 1  # a seed of all recipes takes hours on a CPU


def study(options: Options) -> Study:
    sets = cifar10.load(options.data, _datasets(options), seed=options.seed)
    train = next(s for s in sets if s.role == "train")
    shared = {"config": CONFIG, "train": train, "mean": MEAN, "std": STD, "size": cifar10.SIZE}
    recipes = trained(RECIPES.values(), options, SEEDS, **shared)
    return Study("cifar10", sets, **recipes, **options.settings(BATCH_SIZE))


def _datasets(options: Options) -> tuple[str, ...] | None:
    """What is asked for, and what is there without a download: its results stay in the tables."""
    if options.datasets is None or set(options.datasets) == {"all"}:
        return None
    there = [name for name in cifar10.DATASETS if name not in options.datasets and cifar10.is_there(name, options.data)]
    return (*options.datasets, *there)
