"""The embedded study: scikit-learn's handwritten digits, seventeen recipes trained in the run, nothing to fetch."""

from __future__ import annotations

from oodjax.data import digits
from oodjax.models import ResNetConfig
from oodjax.presets import Options
from oodjax.presets.models import Trained
from oodjax.study import Study
from oodjax.training.recipes import RECIPES

CONFIG = ResNetConfig.study(len(digits.CLASS_NAMES))


def study(options: Options) -> Study:
    data = digits.load(options.seed)
    models = tuple(
        Trained(name, options.folder / "checkpoints" / name, CONFIG, data.train, data.mean, data.std, options.seed)
        for name in RECIPES
    )
    sets = (data.train, data.id_val, data.ood_val, data.id_test, *data.ood_tests)
    return Study("digits", sets, models, **options.settings(batch_size=256))
