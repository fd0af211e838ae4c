"""Small studies for the engine's tests: a share of the digits, networks with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from oodjax.data import ImageSet, digits
from oodjax.data.sources import Arrays
from oodjax.devices import Devices
from oodjax.execute import Engine
from oodjax.models import fold_batch_norm, initialize
from oodjax.models.checkpoint import weights_hash
from oodjax.models.network import Network
from oodjax.outputs import Head
from oodjax.presets.digits import CONFIG
from oodjax.store import Store
from oodjax.study import Study


@dataclass(frozen=True)
class Untrained:
    """A checkpoint of the real network with random weights: training has its own tests."""

    name: str
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    category: str = "baseline"

    def _model(self, precision: str):
        return initialize(CONFIG, self.seed, precision)

    def facts(self):
        return {"weights": weights_hash(self._model("float32")), "pixels": [self.mean, self.std]}

    def head_shape(self):
        return 128, CONFIG.num_classes

    def weight_bytes(self):
        return 400_000

    def make(self):
        raise AssertionError("it is there")

    def load(self, precision: str) -> Network:
        model = self._model(precision)
        head = Head(model.head.kernel[...], model.head.bias[...])
        return Network.of(fold_batch_norm(model), head=head, mean=self.mean, std=self.std, fingerprint=str(self.seed))


class Quiet:
    """Progress that nobody sees; counts what it is told."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        self.stages.setdefault(name, 0)

        def advance(count: int) -> None:
            self.stages[name] += count

        yield advance


def part(image_set: ImageSet, count: int) -> ImageSet:
    whole = image_set.source
    return replace(image_set, source=Arrays(whole.images[:count], whole.labels[:count], whole.description))


def small(models: int = 2, **settings) -> Study:
    """A study of `models` networks on 200 training images and 60 to 100 of each other set."""
    data = digits.load(0)
    sets = (
        part(data.train, 200),
        part(data.id_val, 100),
        part(data.ood_val, 60),
        part(data.id_test, 100),
        *(part(s, 60) for s in data.ood_tests if s.name in ("letters", "unit_tests")),
    )
    members = tuple(Untrained(f"model{i}", i, data.mean, data.std) for i in range(models))
    return Study("small", sets, members, **{"batch_size": 64, **settings})


@dataclass
class Ran:
    """A study in a folder, as far as `run` got."""

    study: Study
    folder: Path
    warnings: list[str] = field(default_factory=list)

    def engine(self) -> Engine:
        return Engine(self.study, Store(self.folder, warn=self.warnings.append), Devices.all(), Quiet())

    def run(self) -> Engine:
        engine = self.engine()
        with engine.store.claim():
            engine.run()
        return engine


def scores_of(engine: Engine) -> dict[tuple[str, str, str], np.ndarray]:
    """(model, set, detector) -> kept scores."""
    found = {}
    for model in engine.study.models:
        shelf = engine.shelf(model)
        for image_set in engine.study.tests:
            for detector, scores in shelf.columns(image_set).items():
                found[model.name, image_set.name, detector] = np.array(scores)  # not the file's pages
    return found
