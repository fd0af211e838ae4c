"""Recipes trained once or with several seeds, each a model of its own on the same data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from oodjax.presets import Options
from oodjax.presets.models import Trained
from oodjax.training.recipes import STUDY, Recipe


def trained(recipes: Iterable[Recipe], options: Options, seeds: int, **shared: Any) -> dict[str, Any]:
    """The fields of a `Study` of recipes.

    Its models; which recipe and seed each of them is where there are several seeds; and those that are part of it where
    they are asked for, of recipes that a user has registered.

    Args:
      recipes: by which names their models go.
      options: the first seed, and the folder of the checkpoints. The first seed's lie where a study of that seed alone
        has them, and are found by it.
      seeds: how many; a preset's default gives way to `options.seeds`.
      shared: the other arguments of `Trained`.
    """
    several = range(options.seed, options.seed + (options.seeds or seeds))
    models, replicates = [], {}
    for recipe in recipes:
        describe = cache(recipe.describe)
        for seed in several:
            name = f"{recipe.name}.seed{seed}" if len(several) > 1 else recipe.name
            place = recipe.name if seed == options.seed else f"{recipe.name}.seed{seed}"
            folder = options.folder / "checkpoints" / place
            models.append(Trained(name, recipe, folder, seed=seed, describe=describe, **shared))
            if len(several) > 1:
                replicates[name] = recipe.name, seed
    optional = frozenset(model.name for model in models if model.recipe.name not in STUDY)
    return {"models": tuple(models), "replicates": replicates, "optional": optional}
