"""The study's training recipes as data: six categories, seventeen ways to train one architecture.

Your own takes a line: `register(Recipe("noisy_mixup", "augmentation", augment=("noise", "mixup")))`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from oodjax.arrays import describe
from oodjax.fingerprints import source_fingerprint
from oodjax.training.attacks import PGD
from oodjax.training.augmentations import AUGMENTATIONS, MIXES_LABELS, Augmentation
from oodjax.training.fields import set_number, set_whole

CATEGORIES = ("baseline", "adversarial", "augmentation", "ssl", "improved", "freezing")
OBJECTIVES = ("supervised", "simclr", "supcon")

# name -> (path of a parameter, its shape) -> whether it keeps its initial value
FREEZE: dict[str, Callable[[tuple, tuple[int, ...]], bool]] = {
    "none": lambda path, shape: False,
    "spatial_filters": lambda path, shape: len(shape) == 4 and shape[0] > 1,
}


@dataclass(frozen=True)
class Recipe:
    """How to train a network from nothing.

    Attributes:
      name, category: of the checkpoint; one of `CATEGORIES`.
      epochs, batch_size: an epoch leaves out the rows that fill no batch.
      learning_rate: peak of one warm-up epoch and a cosine to zero, for SGD with Nesterov momentum 0.9.
      weight_decay: L2, on every parameter that is trained.
      label_smoothing: share of the target spread over all classes.
      ema_decay: of the average over steps of weights and running statistics, which is kept; 0 keeps the last.
      augment: functions, or names in `AUGMENTATIONS`, applied in turn.
      attack: replaces each batch by adversarial examples of the network as it is.
      objective: "supervised"; "simclr" or "supcon" train the encoder on pairs of views, then a linear head on it.
      freeze: name in `FREEZE` of the parameters that keep their random start.
      temperature: of the two contrastive objectives.
    """

    name: str
    category: str
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    augment: tuple[str | Augmentation, ...] = ("shift",)
    attack: PGD | None = None
    objective: str = "supervised"
    freeze: str = "none"
    temperature: float = 0.2

    def __post_init__(self) -> None:
        _among("category", self.category, CATEGORIES)
        _among("objective", self.objective, OBJECTIVES)
        _among("freeze", self.freeze, FREEZE)
        if isinstance(self.augment, str) or not isinstance(self.augment, Sequence):
            raise TypeError(f"augment must be a tuple of functions or names, got {describe(self.augment)}")
        object.__setattr__(self, "augment", tuple(self.augment))
        for function in self.augment:
            if not callable(function):
                _among("augment", function, AUGMENTATIONS)
        if self.attack is not None and not isinstance(self.attack, PGD):
            raise TypeError(f"attack must be a PGD or None, got {describe(self.attack)}")
        for field, least in (("epochs", 1), ("batch_size", 2)):
            set_whole(self, field, least)
        for field in ("learning_rate", "temperature"):
            set_number(self, field, "positive", lambda value: 0 < value < math.inf)
        set_number(self, "weight_decay", "0 or more", lambda value: 0 <= value < math.inf)
        for field in ("label_smoothing", "ema_decay"):
            set_number(self, field, "in [0, 1)", lambda value: 0 <= value < 1)
        if self.objective != "supervised":
            mixers = [AUGMENTATIONS[name] for name in MIXES_LABELS]
            if self.attack is not None or self.label_smoothing or any(f in mixers for f in self.functions):
                raise ValueError(f"{self.objective} takes no attack, label_smoothing or mixed labels, got {self}")

    @property
    def functions(self) -> tuple[Augmentation, ...]:
        """The augmentations, names looked up."""
        return tuple(AUGMENTATIONS[f] if isinstance(f, str) else f for f in self.augment)

    def describe(self) -> dict[str, Any]:
        """What decides the weights, as JSON values: every field but `name` and `category`.

        A function stands with its name and the fingerprint of its source, see
        `oodjax.fingerprints.source_fingerprint`: an edit of its body changes the description, one of its comments
        does not.

        Raises:
          ValueError: the source of a function cannot be read and it declares no `version`.
        """
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        described = {name: value for name, value in fields.items() if name not in ("name", "category")}
        described["augment"] = [_described(function) for function in self.functions]
        described["freeze"] = {"name": self.freeze, "source": source_fingerprint(FREEZE[self.freeze])}
        if self.attack is not None:
            described["attack"] = {**asdict(self.attack), "source": source_fingerprint(type(self.attack))}
        return described


def _described(function: Any) -> dict[str, str]:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return {"name": str(name), "source": source_fingerprint(function)}


def _among(field: str, value: str, valid: Any) -> None:
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{field} must be one of {', '.join(valid)}, got {value!r}")


def _adversarial(name: str, norm: str, eps: float) -> Recipe:
    attack = PGD(norm, eps, steps=3, step_size=eps / 2)
    return Recipe(name, "adversarial", epochs=16, attack=attack)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("baseline", "baseline"),
        _adversarial("adversarial_l2_0.5", "l2", 0.5),
        _adversarial("adversarial_l2_1.5", "l2", 1.5),
        _adversarial("adversarial_l2_3", "l2", 3.0),
        _adversarial("adversarial_linf_0.03", "linf", 0.03),
        _adversarial("adversarial_linf_0.1", "linf", 0.1),
        Recipe("mixup", "augmentation", augment=("shift", "mixup")),
        Recipe("cutmix", "augmentation", augment=("shift", "cutmix")),
        Recipe("randaugment", "augmentation", augment=("shift", "randaugment")),
        Recipe("noise", "augmentation", augment=("shift", "noise")),
        Recipe("texture", "augmentation", augment=("shift", "texture")),
        Recipe("simclr", "ssl", batch_size=128, augment=("views",), objective="simclr", epochs=30),
        Recipe("supcon", "ssl", batch_size=128, augment=("views",), objective="supcon"),
        Recipe("label_smoothing", "improved", label_smoothing=0.1),
        Recipe("ema", "improved", ema_decay=0.99),
        Recipe(
            "torchvision2",
            "improved",
            epochs=40,
            label_smoothing=0.1,
            ema_decay=0.99,
            augment=("shift", "mixup_or_cutmix"),
        ),
        Recipe("random_filters", "freezing", freeze="spatial_filters"),
    )
}

STUDY = tuple(RECIPES)


def register(recipe: Recipe, *, replace: bool = False) -> Recipe:
    """Makes a recipe known by its name, so that `--models` of the studies that train their networks can name it.

    It is trained where it is asked for; the study's default stays the seventeen of `STUDY`.

    Args:
      recipe: the recipe. Its name is one word, since it becomes the name of a folder: letters, digits, "_" and "-".
      replace: whether it may take the place of one that was registered under the name before, as when a notebook's cell
        is run again. The study's own recipes are never replaced.

    Returns:
      The recipe.

    Raises:
      TypeError: no `Recipe`.
      ValueError: a name that is taken or no word.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"register takes a Recipe(name, category, ...), got {describe(recipe)}")
    if not isinstance(recipe.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,80}", recipe.name, re.ASCII):
        raise ValueError(f"a recipe's name must be letters, digits, _ and -, got {recipe.name!r}")
    if recipe.name in STUDY:
        raise ValueError(f"{recipe.name!r} is a recipe of the study, which stays as it is: choose another name")
    if recipe.name in RECIPES and not replace:
        raise ValueError(f"a recipe {recipe.name!r} is registered already: choose another name, or pass replace=True")
    RECIPES[recipe.name] = recipe
    return recipe
