"""What is asked: the image sets, models, detectors and settings of a study, as data."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from oodjax.data.sets import ImageSet
from oodjax.detectors import NAMES
from oodjax.detectors.labels import parse
from oodjax.models.network import Network

PRECISIONS = ("float32", "bfloat16")
ROLES = ("train", "id_val", "id_test", "ood_val", "ood_test")


class StudyError(ValueError):
    """A study that cannot be run as asked; the message names what was given and what is possible."""


def canonical(detectors: Collection[str]) -> tuple[str, ...]:
    """Names and labels of detectors, each as its one text.

    Raises:
      StudyError: one that says nothing, or names the axes of ODIN's scores, which the study chooses.
    """
    try:
        found = [parse(text) for text in detectors]
    except ValueError as error:
        raise StudyError(str(error)) from error
    for label in found:
        if label.name == "odin" and {"temperatures", "noises"} & set(label.options):
            raise StudyError(f"{label.label}: a study takes odin's temperature and noise, and finds their axes itself")
    return tuple(label.label for label in found)


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise StudyError(f"seed must lie in 0..{2**32 - 1}, got {seed}")


class Model(Protocol):
    """One model of a study: a checkpoint on disk, a recipe to train, or the user's own function."""

    @property
    def name(self) -> str:
        """Of the tables' rows."""

    @property
    def category(self) -> str:
        """Of its training."""

    def facts(self) -> Mapping[str, Any] | None:
        """JSON values that decide its outputs beside the precision: weights, mean, std, crop, ...; None until made."""

    def head_shape(self) -> tuple[int, int]:
        """(features, classes), known before it is made."""

    def weight_bytes(self) -> int:
        """Of the weights in float32, roughly."""

    def make(self) -> None:
        """Trains it, where `facts` is None."""

    def load(self, precision: str) -> Network:
        """The network, computing in `precision`."""


@dataclass(frozen=True)
class Study:
    """A study: everything that decides its numbers, and how it is run.

    Attributes:
      name: of the preset or the file.
      sets: image sets, each with its role; an `id_test` and at least one `ood_test` at least.
      models: in the order of the tables.
      detectors: names, or labels such as "vim:dim=512", in the order of the tables; what a label gives is not searched.
      precision: "float32" or "bfloat16", of the networks' forward pass.
      seed: of pseudo-random choices; presets use it for data and training too.
      batch_size: images a step over all devices.
      bank_fraction: share of the training features that KNN and NNGuide keep.
      fast_pixels: one boxed resize an image; see `oodjax.data.preprocess`.
      on_bad_image: "stop" or "skip".
      fleet: models that share a pass; 0 lets the device's memory decide.
      optional: models that are part of the study where they are asked for by name, or made already.
      replicates: of a study that trains each recipe with several seeds: model -> (recipe, seed).
    """

    name: str
    sets: tuple[ImageSet, ...]
    models: tuple[Model, ...]
    detectors: tuple[str, ...] = NAMES
    precision: str = "float32"
    seed: int = 0
    batch_size: int = 256
    bank_fraction: float = 1.0
    fast_pixels: bool = False
    on_bad_image: str = "stop"
    fleet: int = 0
    replicates: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        def check(name: str, value: Any, holds: bool, possible: str) -> None:
            if not holds:
                raise StudyError(f"{name} must {possible}, got {value!r}")

        object.__setattr__(self, "detectors", canonical(self.detectors))
        check("precision", self.precision, self.precision in PRECISIONS, f"be one of {', '.join(PRECISIONS)}")
        check("batch size", self.batch_size, self.batch_size >= 1, "be at least 1")
        check_seed(self.seed)
        check("bank fraction", self.bank_fraction, 0 < self.bank_fraction <= 1, "lie in (0, 1]")
        check("fleet", self.fleet, self.fleet >= 0, "be auto or at least 1")
        check("on bad image", self.on_bad_image, self.on_bad_image in ("stop", "skip"), "be stop or skip")
        for role, most in (("train", 1), ("id_val", 1), ("id_test", 1)):
            if len(self._of(role)) > most:
                raise StudyError(f"a study has one {role} set, got {', '.join(s.name for s in self._of(role))}")
        if not self._of("id_test") or not self._of("ood_test"):
            raise StudyError("a study needs an ID test set and at least one OOD test set")
        for kind, names in (
            ("set", [s.name for s in self.sets]),
            ("model", [m.name for m in self.models]),
            ("detector", list(self.detectors)),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise StudyError(f"two {kind}s are called {', '.join(twice)}; names must differ")
            for name in names if kind != "detector" else ():
                if not name or name.startswith(".") or any(c in name for c in "/\\:\0\n") or len(name) > 100:
                    raise StudyError(f"{name[:120]!r} cannot be the name of a {kind}: it becomes a folder's name")

    def _of(self, role: str) -> tuple[ImageSet, ...]:
        return tuple(s for s in self.sets if s.role == role)

    def _one(self, role: str) -> ImageSet | None:
        return next(iter(self._of(role)), None)

    @property
    def train(self) -> ImageSet | None:
        return self._one("train")

    @property
    def id_val(self) -> ImageSet | None:
        return self._one("id_val")

    @property
    def id_test(self) -> ImageSet:
        found = self._one("id_test")
        assert found is not None
        return found

    @property
    def ood_vals(self) -> tuple[ImageSet, ...]:
        return self._of("ood_val")

    @property
    def ood_tests(self) -> tuple[ImageSet, ...]:
        return self._of("ood_test")

    @property
    def settings(self) -> dict[str, Any]:
        """What a manifest says of how the numbers came about."""
        seeds = sorted({seed for _, seed in self.replicates.values()})
        return {
            "preset": self.name,
            "seed": self.seed,
            **({"seeds": seeds} if seeds else {}),
            "precision": self.precision,
            "batch_size": self.batch_size,
            "bank_fraction": self.bank_fraction,
            "fast_pixels": self.fast_pixels,
        }

    @property
    def validations(self) -> tuple[ImageSet, ...]:
        """The sets that hyper-parameters are chosen on; empty unless both ID and OOD are there."""
        return (self.id_val, *self.ood_vals) if self.id_val is not None and self.ood_vals else ()

    @property
    def tests(self) -> tuple[ImageSet, ...]:
        return (self.id_test, *self.ood_tests)

    def including(self, detectors: Collection[str]) -> Study:
        """The study with these detectors behind its own, as far as they are not among them; "all" stands for its own.

        Raises:
          StudyError: a label that says nothing.
        """
        more = canonical([name for name in detectors if name != "all"])
        return dataclasses.replace(self, detectors=tuple(dict.fromkeys((*self.detectors, *more))))

    def only(
        self,
        models: Collection[str] | None = None,
        detectors: Collection[str] | None = None,
        datasets: Collection[str] | None = None,
    ) -> Study:
        """The part of the study that these names pick out, in the study's order; None or "all" keeps all.

        Of its `optional` models all are those that are made. A recipe's name stands for the models of all its seeds.

        Raises:
          StudyError: a name that the study does not have, or no name at all.
        """

        def chosen(
            kind: str, given: Collection[str] | None, known: Collection[str], possible: str = ""
        ) -> tuple[str, ...]:
            if given is None or set(given) == {"all"}:
                return tuple(known)
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                recipes = [recipe for recipe, _ in self.replicates.values()] if kind == "model" else []
                near = difflib.get_close_matches(unknown[0], [*recipes, *known], n=1) if unknown else []
                hint = f". Did you mean {near[0]!r}?" if near else ""
                said = ", ".join(unknown) or "(none given)"
                raise StudyError(f"unknown {kind} {said}; there are: {possible or ', '.join(known)}{hint}")
            return tuple(name for name in known if name in given)

        kept = chosen("dataset", datasets, [s.name for s in self.ood_tests])
        if models is None or set(models) == {"all"}:
            models = [m.name for m in self.models if m.name not in self.optional or m.facts() is not None]
        else:
            models = [name for given in models for name in self._of_recipe(given)]
        named = chosen("model", models, [m.name for m in self.models], self._possible())
        labels = None if detectors is None or "all" in detectors else canonical(detectors)
        return dataclasses.replace(
            self,
            sets=tuple(s for s in self.sets if s.role != "ood_test" or s.name in kept),
            models=tuple(m for m in self.models if m.name in named),
            detectors=chosen("detector", labels, self.detectors),
            replicates={name: which for name, which in self.replicates.items() if name in named},
        )

    def _of_recipe(self, name: str) -> list[str]:
        """The models of a recipe with several seeds; of any other name, that name."""
        return [model for model, (recipe, _) in self.replicates.items() if recipe == name] or [name]

    def _possible(self) -> str:
        """What names pick out models of recipes with several seeds."""
        recipes = dict.fromkeys(recipe for recipe, _ in self.replicates.values())
        return f"{', '.join(recipes)}, or a seed of one, such as {next(iter(self.replicates))}" if recipes else ""


MakeStudy = Callable[..., Study]
