"""The embedded study: scikit-learn's handwritten digits, seventeen recipes trained in the run, nothing to fetch."""

from __future__ import annotations

from oodjax.data import digits
from oodjax.models import ResNetConfig
from oodjax.presets import Options
from oodjax.presets.replicates import trained
from oodjax.study import Study
from oodjax.training.recipes import RECIPES

SEEDS = 5
CONFIG = ResNetConfig.study(len(digits.CLASS_NAMES))


def study(options: Options) -> Study:
    data = digits.load(options.seed)
    shared = {"config": CONFIG, "train": data.train, "mean": data.mean, "std": data.std}
    recipes = trained(RECIPES.values(), options, SEEDS, **shared)
    sets = (data.train, data.id_val, data.ood_val, data.id_test, *data.ood_tests)
    return Study("digits", sets, **recipes, **options.settings(batch_size=256))
