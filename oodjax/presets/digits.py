"""The embedded study: scikit-learn's handwritten digits, seventeen recipes trained in the run, nothing to fetch.

Each recipe is trained with five seeds on the same 215 images (`oodjax.data.digits` says why so few): as many as some
four minutes on two CPU cores hold, and the interval of a mean is half as wide as with three. So few images fill few
batches, so that these are half as large as on larger sets, and what averages weights does so over twenty steps: over a
hundred of the 120 that there are, most of the average would be of networks that know nothing yet.
"""

from __future__ import annotations

import dataclasses

from oodjax.data import digits
from oodjax.models import ResNetConfig
from oodjax.presets import Options
from oodjax.presets.replicates import trained
from oodjax.study import Study
from oodjax.training.recipes import RECIPES, Recipe

SEEDS = 5
BATCH_SIZE, EMA_DECAY = 32, 0.95  # at most, in training
CONFIG = ResNetConfig.study(len(digits.CLASS_NAMES))


def study(options: Options) -> Study:
    data = digits.load(options.seed)
    shared = {"config": CONFIG, "train": data.train, "mean": data.mean, "std": data.std}
    recipes = trained(map(for_few_images, RECIPES.values()), options, SEEDS, **shared)
    sets = (data.train, data.id_val, data.ood_val, data.id_test, *data.ood_tests)
    return Study("digits", sets, **recipes, **options.settings(batch_size=256))


def for_few_images(recipe: Recipe) -> Recipe:
    """The recipe with more steps an epoch, and an average that forgets the first of them."""
    batch_size, ema_decay = min(recipe.batch_size, BATCH_SIZE), min(recipe.ema_decay, EMA_DECAY)
    return dataclasses.replace(recipe, batch_size=batch_size, ema_decay=ema_decay)
