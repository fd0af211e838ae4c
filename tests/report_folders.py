"""Results folders with invented numbers that behave like a study's: effects of model, detector and set, and noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oodjax.detectors.names import NAMES
from oodjax.metrics import COLUMNS
from oodjax.store import Store, key_of
from oodjax.zoo import checkpoints

DETECTORS = NAMES
SETS = {
    "held_out_digits": "near",
    "letters": "near",
    "china": "far",
    "flower": "far",
    "textures": "far",
    "heat_cells": "extreme",
    "bars": "extreme",
    "unit_tests": "synthetic",
}
SMALL_STUDY = {
    "baseline": "baseline",
    **{f"adversarial_l2_{e}": "adversarial" for e in ("0.5", "1.5", "3")},
    **{f"adversarial_linf_{e}": "adversarial" for e in ("0.03", "0.1")},
    **dict.fromkeys(("cutmix", "mixup", "noise", "randaugment", "texture"), "augmentation"),
    **dict.fromkeys(("simclr", "supcon"), "ssl"),
    **dict.fromkeys(("ema", "label_smoothing", "torchvision2"), "improved"),
    "random_filters": "freezing",
}
PAPER_STUDY = {c.id: c.category for c in checkpoints() if c.arch == "resnet50"}


def make(
    folder: Path,
    models: dict[str, str] | None = None,
    detectors: tuple[str, ...] = DETECTORS,
    sets: dict[str, str] | None = None,
    units: bool = False,
    seed: int = 0,
    preset: str = "invented",
) -> Path:
    """Writes results.csv, models.csv, run.json and, if asked, units; the folder is returned."""
    models, sets = models or SMALL_STUDY, sets or SETS
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    accuracy = {m: 0.97 if m == "baseline" else float(rng.uniform(0.82, 0.995)) for m in models}
    facts = pd.DataFrame(
        [
            {"model": m, "category": c, "accuracy": accuracy[m], "ece": float(rng.uniform(0.01, 0.2))}
            for m, c in models.items()
        ]
    )
    facts.to_csv(folder / "models.csv", index=False)
    of_model = {m: rng.normal(0, 0.5) + 6 * (accuracy[m] - 0.9) for m in models}
    of_detector = {d: rng.normal(0, 0.5) for d in detectors}
    of_set = {s: {"near": 0.6, "far": 2, "extreme": 2.8, "synthetic": 2.2}.get(c, 1.5) for s, c in sets.items()}
    rows = []
    for m in models:
        for d in detectors:
            pair = rng.normal(0, 0.6)
            for s, c in sets.items():
                level = of_model[m] + of_detector[d] + of_set[s] + pair + rng.normal(0, 0.35)
                auroc, wrong = 1 / (1 + np.exp(-level)), 1 / (1 + np.exp(-level + 1.1))
                values = (auroc, auroc, auroc, 1 - auroc**3, 1 - auroc**2, auroc, wrong, 0.5 + 0.3 * rng.random())
                rows.append((m, models[m], d, "family", s, c, "{}", *values))
    names = ("model", "model_category", "detector", "detector_family", "dataset", "ood_category", "hyperparameters")
    pd.DataFrame(rows, columns=[*names, *COLUMNS]).to_csv(folder / "results.csv", index=False)
    manifest = {
        "configuration": {"preset": preset, "seed": seed},
        "data": [
            {
                "name": "id_test",
                "role": "id_test",
                "category": "id",
                "count": 360,
                "sha256": "0" * 64,
                "source": "numpy",
            }
        ],
    }
    if units:
        manifest |= _units(folder, list(models), detectors, list(sets), rng)
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def with_seeds(folder: Path, recipes: dict[str, str], seeds: int, *rest: Any) -> Path:
    """The same of recipes, each trained with several seeds."""
    make(folder, {f"{name}.seed{i}": c for name, c in recipes.items() for i in range(seeds)}, *rest)
    for name in ("results.csv", "models.csv"):
        table = pd.read_csv(folder / name)
        parts = table["model"].str.extract(r"(?P<recipe>.*)\.seed(?P<seed>\d+)")
        table.assign(recipe=parts["recipe"], seed=parts["seed"].astype(int)).to_csv(folder / name, index=False)
    return folder


def _units(folder: Path, models: list[str], detectors: tuple[str, ...], sets: list[str], rng: np.random.Generator):
    store, kept = Store(folder), {}
    for i, m in enumerate(models):
        for k, s in enumerate(["id_test", *sets]):
            n, shift = (360, 2.0) if k == 0 else (204, 0.25 * k)
            features = np.maximum(rng.normal(0.3, 1 + 0.1 * i, (n, 64)) + shift * (np.arange(64) < 20), 0)
            logits = features @ np.random.default_rng(i).normal(0, 0.3, (64, 8)) + shift
            columns = [[name, f"key of {name}"] for name in detectors]
            scores = key_of(columns=columns), rng.normal(shift, 1, (n, len(detectors))).astype(np.float32)
            arrays = {"logits": logits.astype(np.float32), "features": features.astype(np.float32)}
            store.put(f"outputs/{m}/{s}", {name: ("outputs", array) for name, array in arrays.items()})
            store.put(f"scores/{m}/{s}", {"scores": scores}, {"columns": ("columns", columns)})
            kept.setdefault(m, {})[s] = {"outputs": "outputs", "scores": scores[0]}
    return {"kept": kept}
