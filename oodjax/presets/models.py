"""The models of a study: recipes trained in the run, converted checkpoints, the user's own functions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from oodjax import zoo
from oodjax.arrays import describe
from oodjax.data.loader import AS_IT_IS, Geometry
from oodjax.data.loader import load as read
from oodjax.data.sets import ImageSet
from oodjax.data.sources import Arrays
from oodjax.fingerprints import package_code
from oodjax.models import ResNetConfig, fold_batch_norm, initialize
from oodjax.models.checkpoint import CheckpointError, check_files, flat_arrays, read_manifest, refuse_foreign, save
from oodjax.models.checkpoint import load as load_checkpoint
from oodjax.models.network import Network
from oodjax.models.resnet import EXPANSION, abstract
from oodjax.outputs import Head
from oodjax.store import key_of
from oodjax.study import StudyError
from oodjax.training.recipes import Recipe
from oodjax.zoo.loading import read_manifest as read_converted

TRAINING_CODE = ("data/loader.py", "models/resnet.py", "models/normalize.py", "training")


@dataclass(frozen=True, eq=False)
class Trained:
    """A recipe's network, trained in the run on the study's training set.

    Attributes:
      name: of the tables' rows.
      recipe: how it is trained.
      folder: of the checkpoint.
      config: the architecture.
      train: the training set; its images are held in memory while it trains.
      mean, std: of the training pixels in 0..1.
      seed: of weights, order and augmentation.
      size: resize and crop in pixels, None where the images are used as they are.
      describe: `recipe.describe`, found once for all seeds of a recipe: it reads much source.
      warn: called with a line where a kept checkpoint is damaged.
    """

    name: str
    recipe: Recipe
    folder: Path
    config: ResNetConfig
    train: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    size: int | None = None
    describe: Callable[[], Mapping[str, Any]] | None = None
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr)

    @property
    def category(self) -> str:
        return self.recipe.category

    @cached_property
    def _key(self) -> str:
        """Of everything that decides the weights."""
        return key_of(
            recipe=(self.describe or self.recipe.describe)(),
            config=repr(self.config),
            data=self.train.sha256,
            seed=self.seed,
            pixels=[list(self.mean), list(self.std)],
            code=package_code(*TRAINING_CODE),
        )

    def facts(self) -> Mapping[str, Any] | None:
        try:
            manifest = read_manifest(self.folder)
            if manifest is None:
                return None
            if not isinstance(manifest, dict) or "recipe" not in manifest:
                raise StudyError(
                    f"{self.folder} holds a checkpoint that no study trained: name another folder with --out"
                )
            if manifest.get("key") != self._key:
                return None
            check_files(self.folder, manifest)
        except CheckpointError as error:
            self.warn(f"{error}; it is trained anew")
            return None
        return {
            "weights": manifest["weights"],
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.size,
            "crop": self.size,
        }

    def head_shape(self) -> tuple[int, int]:
        return EXPANSION * self.config.widths[-1], self.config.num_classes

    def weight_bytes(self) -> int:
        return _bytes_of(self.config)

    def make(self) -> None:
        from oodjax.training.train import train

        try:
            refuse_foreign(self.folder)
        except CheckpointError as error:
            raise StudyError(str(error)) from error
        images = in_memory(self.train, Geometry(self.size, self.size))
        try:
            state = train(self.recipe, self.config, images, self.train.labels, self.mean, self.std, self.seed)
        except ValueError as error:
            raise StudyError(f"model {self.name}: {error}; --models with the others' names leaves it out") from error
        trained = initialize(self.config, self.seed)
        nnx.update(trained, state)
        save(self.folder, trained, key=self._key, recipe=self.recipe.describe(), seed=self.seed)

    def load(self, precision: str) -> Network:
        model = load_checkpoint(self.folder, precision)
        manifest = read_manifest(self.folder)
        assert manifest is not None
        arrays = flat_arrays(model)
        return Network.of(
            fold_batch_norm(model),
            head=Head(arrays["head/kernel"], arrays["head/bias"]),
            mean=self.mean,
            std=self.std,
            fingerprint=manifest["weights"],
            resize=self.size,
            crop=self.size,
            manifest=manifest,
        )


@cache
def _bytes_of(config: ResNetConfig) -> int:
    return sum(4 * leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(config))))


@dataclass(frozen=True, eq=False)
class Converted:
    """A checkpoint that `python -m converters` wrote."""

    name: str
    category: str
    folder: Path

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        try:
            return read_converted(self.folder)
        except CheckpointError as error:
            raise StudyError(str(error)) from error

    def facts(self) -> Mapping[str, Any]:
        fields = ("weights", "architecture", "config", "mean", "std", "resize", "crop")
        return {name: self._manifest[name] for name in fields}

    def head_shape(self) -> tuple[int, int]:
        d, k = self._manifest["shapes"]["head/kernel"]
        return d, k

    def weight_bytes(self) -> int:
        return sum(4 * math.prod(shape) for shape in self._manifest["shapes"].values())

    def make(self) -> None:
        raise AssertionError("a converted checkpoint is there, or the study is refused")

    def load(self, precision: str) -> Network:
        try:
            return zoo.load(self.folder, fold=True, dtype=precision)
        except CheckpointError as error:
            raise StudyError(str(error)) from error


@dataclass(frozen=True, eq=False)
class Imported:
    """The user's own model: `module:function`, where the function returns an `oodjax.Network`.

    Attributes:
      name, category: of the tables' rows.
      target: `module:function`; the module is looked for in `base`, in the current folder and where Python does.
      base: the study file's folder.
    """

    name: str
    category: str
    target: str
    base: Path = Path(".")

    @cached_property
    def network(self) -> Network:
        who, added = f"network {self.target!r}", [str(self.base.resolve()), str(Path.cwd())]
        sys.path[:0] = added
        try:
            found = _imported(self.target, who)()
        except StudyError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise StudyError(f"{who} raised {type(error).__name__}: {error}") from error
        finally:
            for folder in added:
                sys.path.remove(folder)
        if not isinstance(found, Network):
            raise StudyError(f"{who} returned {describe(found)}, expected an oodjax.Network")
        return found

    def facts(self) -> Mapping[str, Any]:
        network = self.network
        pixels = [None if v is None else np.asarray(v).tolist() for v in (network.mean, network.std)]
        return {
            "weights": network.fingerprint,
            "pixels": pixels,
            "resize": network.resize,
            "crop": network.crop,
            "has_maps": network.has_maps,
        }

    def head_shape(self) -> tuple[int, int]:
        d, k = self.network.head.kernel.shape
        return d, k

    def weight_bytes(self) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.network.state))

    def make(self) -> None:
        raise AssertionError("the function has made it")

    def load(self, precision: str) -> Network:
        return self.network


def _imported(target: str, who: str) -> Callable[[], Any]:
    """What `module:function` names."""
    module, _, function = target.partition(":")
    if not (module and function):
        raise StudyError(f"{who}: expected module:function, for example my_package.networks:build")
    try:
        found = getattr(import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise StudyError(f"{who}: there is no module {error.name}") from error
    if not callable(found):
        raise StudyError(f"{who}: the module {module} has no function {function}")
    return found


def in_memory(image_set: ImageSet, geometry: Geometry = AS_IT_IS, batch_size: int = 256) -> np.ndarray:
    """All images of a set at one size, uint8 (n, h, w, 3), in its order."""
    if geometry == AS_IT_IS and isinstance(image_set.source, Arrays):
        return image_set.images
    batches = read(image_set.source, batch_size, geometries=[geometry])
    return np.concatenate([batch.images[batch.mask] for batch in batches])
