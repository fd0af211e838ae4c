"""Tables whose truth is known: models drawn from a population, detectors and sets with levels of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd

SETS = (("a", "near"), ("b", "near"), ("c", "far"), ("d", "far"))


def table(
    models: int = 17,
    slope: float = 0.0,
    seeds: int = 1,
    detectors: int = 3,
    seed: int = 0,
    between: float = 1.0,
    within: float = 0.5,
    effects: tuple[float, ...] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and models: the response is `slope` * standardised accuracy + recipe + seed + detector + noise.

    Args:
      models: the number of recipes; the first is called baseline.
      slope: of the response in accuracy; 0 is no relation.
      seeds: networks per recipe; with one there are no columns `recipe` and `seed`.
      detectors: their number.
      seed: of the draws.
      between: standard deviation of the recipes' own level.
      within: that of a seed's.
      effects: added to the detectors, the first first.
    """
    rng = np.random.default_rng(seed)
    names = ["baseline", *(f"m{i}" for i in range(1, models))]
    standing = rng.normal(size=models)
    level = slope * standing + rng.normal(0, between, models)
    of_network = level[:, None] + rng.normal(0, within, (models, seeds))
    of_detector = np.pad(np.array(effects, float), (0, detectors - len(effects)))
    pair = rng.normal(0, 0.5, (models, detectors))
    shape = models, seeds, detectors, len(SETS)
    value = of_network[:, :, None, None] + (of_detector + pair)[:, None, :, None] + np.arange(len(SETS)) / 2
    value = value + rng.normal(0, 0.3, shape)
    i, s, d, c = (axis.ravel() for axis in np.indices(shape))
    recipe = np.array(names)[i]
    model = recipe if seeds == 1 else np.char.add(np.char.add(recipe, ".seed"), s.astype(str))
    results = pd.DataFrame(
        {
            "model": model,
            "detector": np.array([f"d{k}" for k in range(detectors)])[d],
            "dataset": np.array([name for name, _ in SETS])[c],
            "ood_category": np.array([category for _, category in SETS])[c],
            "auroc": value.ravel(),
        }
    )
    facts = pd.DataFrame({"model": model, "recipe": recipe, "seed": s}).drop_duplicates(ignore_index=True)
    facts["category"] = np.where(facts["recipe"] == "baseline", "baseline", "other")
    facts["accuracy"] = 0.8 + 0.05 * standing[[names.index(r) for r in facts["recipe"]]]
    facts["ece"] = 0.05 + 0.01 * rng.random(len(facts))
    return results, facts if seeds > 1 else facts.drop(columns=["recipe", "seed"])
