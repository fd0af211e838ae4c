"""A study from what is missing to what is kept: plan it, train it, pass over it, score it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from oodjax import detectors, memory
from oodjax.data.sets import ImageSet
from oodjax.detectors import Detector
from oodjax.detectors.labels import parse
from oodjax.devices import Devices
from oodjax.fold import Fold
from oodjax.forward import forward, odin_axes, pixels_of
from oodjax.outputs import Head, Outputs
from oodjax.passes import Counts, Keep, KeepMore, Member, Points, Task, batches_of, run_pass, shared_writer
from oodjax.scoring import Chosen, array_of, candidates, fit, in_pass, score_detector
from oodjax.shelf import Shelf
from oodjax.statistics import TrainStatistics
from oodjax.store import Room, Store
from oodjax.study import Model, Study, StudyError

NOTHING: Points = ((), ())
ALWAYS = ("valid", "logits", "features")


class Progress(Protocol):
    """What shows how far a run is."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Opens a stage; the function that it gives is told of each finished part."""


@dataclass
class Todo:
    """What is missing of one model, as JSON values.

    Attributes:
      train: whether it is still to be trained or converted.
      statistics: whether the training pass is missing.
      arrays: set -> arrays missing of it; of test sets, ODIN's as well while its point is not chosen.
      scores: detectors without current scores.
    """

    train: bool
    statistics: bool
    arrays: dict[str, list[str]]
    scores: list[str]

    @property
    def passes(self) -> bool:
        return self.statistics or any(self.arrays.values())


@dataclass
class Engine:
    """Makes what is missing of a study in a store.

    Attributes:
      study: what is asked.
      store: of the results folder, held by this process.
      devices: all of them.
      progress: shows how far it is.
      counts: what has been done.
    """

    study: Study
    store: Store
    devices: Devices
    progress: Progress
    counts: Counts = field(default_factory=Counts)

    def shelf(self, model: Model) -> Shelf | None:
        """Where the model's things are; None until it is made."""
        facts = model.facts()
        return None if facts is None else Shelf(self.study, self.store, model.name, facts)

    def todo(self, model: Model) -> Todo:
        """What is missing of a model, as every process agrees."""
        found = dataclasses.asdict(self._todo(model)) if self.devices.leads else None
        return Todo(**self.devices.agree(found))

    def _todo(self, model: Model) -> Todo:
        shelf = self.shelf(model)
        if shelf is None:
            bare = Shelf(self.study, self.store, model.name, {})
            every = {s.name: [*ALWAYS, *bare.axes(s)] for s in self.study.validations}
            every |= {s.name: [*ALWAYS, *map(array_of, bare.odin)] for s in self.study.tests}
            return Todo(True, bool(bare.reads), every, list(bare.detectors))
        scores = shelf.missing_scores()
        if not scores:
            return Todo(False, False, {}, [])
        arrays = {s.name: shelf.missing_arrays(s) for s in self.study.validations}
        if self.study.id_val is not None and not self.study.validations and shelf.id_validation_is_read:
            arrays[self.study.id_val.name] = shelf.missing_arrays(self.study.id_val)
        arrays |= {s.name: [*shelf.missing_arrays(s), *shelf.waiting()] for s in self.study.tests}
        return Todo(False, shelf.missing_statistics(), arrays, scores)

    def run(self) -> None:
        """Makes everything that is missing."""
        self._make_models()
        todo = {model.name: self.todo(model) for model in self.study.models}
        with_passes = [model for model in self.study.models if todo[model.name].passes]
        reads = detectors.reads(self.study.detectors) if self.study.train is not None else frozenset()
        for fleet in memory.fleets(self.study, self.devices, with_passes, reads):
            self._passes(fleet, todo)
        self._score([model for model in self.study.models if todo[model.name].scores], todo)
        self.counts = Counts.total(Counts(**counts) for counts in self.devices.gather(dataclasses.asdict(self.counts)))

    def _make_models(self) -> None:
        missing = [model for model in self.study.models if model.facts() is None]
        if not missing:
            return
        with self.progress.stage("training", len(missing), "models") as advance:
            for model in missing:
                if self.devices.leads:
                    model.make()
                self.devices.wait(f"made {model.name}")
                advance(1)

    # Passes.

    def _passes(self, fleet: Sequence[Model], todo: dict[str, Todo]) -> None:
        members = {}
        for model in fleet:
            members[model.name] = Member.of(
                model.name, model.load(self.study.precision), self.devices, self.study.fast_pixels
            )
        shelves = {model.name: self._shelf_of(model) for model in fleet}
        train = [name for name in members if todo[name].statistics]
        if train:
            self._train_pass([members[name] for name in train], shelves)
        for name, shelf in shelves.items():
            check_given(shelf, members[name].network.head)
        fitted = {name: self._in_pass_detectors(shelves[name], members[name]) for name in members}
        choosing = self.study.validations
        only_fitted = (self.study.id_val,) if self.study.id_val is not None and not choosing else ()
        for image_set in (*choosing, *only_fitted):
            self._keep_pass(image_set, members, shelves, fitted, todo)
        for name, shelf in shelves.items():
            self._choose_odin(shelf, members[name].network.head)
        for image_set in self.study.tests:
            self._keep_pass(image_set, members, shelves, fitted, todo)

    def _shelf_of(self, model: Model) -> Shelf:
        shelf = self.shelf(model)
        assert shelf is not None
        return shelf

    def _train_pass(self, members: Sequence[Member], shelves: dict[str, Shelf]) -> None:
        train = self.study.train
        assert train is not None
        tasks = []
        for member in members:
            shelf = shelves[member.name]
            needs = shelf.reads | shelf.held_statistics()  # a wider pass takes a narrower one's place: nothing is lost
            fields = frozenset({"gram", "layer_means"} & needs)
            shapes = self._shapes(member, train, fields, NOTHING)
            layers = shapes.layer_means.shape[1] if shapes.layer_means is not None else 0
            fold = Fold(
                self.study,
                self.devices,
                self.store,
                shelf.statistics_group,
                shelf.statistics_key,
                needs,
                (shapes.features.shape[1], shapes.logits.shape[1]),
                layers,
                f"{member.name} on {train.name}",
            )
            tasks.append(Task(member, fields, NOTHING, fold, fold.resumed))
        with self._stage(train, len(tasks)) as advance:
            run_pass(self.study, self.devices, train, tasks, self.counts, advance)

    def _in_pass_detectors(self, shelf: Shelf, member: Member) -> dict[str, tuple[Detector, ...]]:
        names = [name for name in shelf.detectors if in_pass(name)]
        if not names:
            return {}
        stats = shelf.statistics(member.network.head)
        choosing = bool(self.study.validations)
        found = {array_of(name): fit(candidates(name, stats, choosing)[0], stats, None) for name in names}
        return {name: self.devices.replicate(points) for name, points in found.items()}

    def _keep_pass(
        self,
        image_set: ImageSet,
        members: dict[str, Member],
        shelves: dict[str, Shelf],
        fitted: dict[str, dict[str, tuple[Detector, ...]]],
        todo: dict[str, Todo],
    ) -> None:
        tasks = []
        for name, member in members.items():
            if image_set.name not in todo[name].arrays:
                continue
            missing = self.devices.agree(shelves[name].missing_arrays(image_set) if self.devices.leads else None)
            if missing:
                tasks += self._keep_tasks(image_set, member, shelves[name], fitted[name], missing)
        if tasks:
            with self._stage(image_set, len({task.member.name for task in tasks})) as advance:
                run_pass(self.study, self.devices, image_set, tasks, self.counts, advance)

    def _keep_tasks(
        self,
        image_set: ImageSet,
        member: Member,
        shelf: Shelf,
        fitted: dict[str, tuple[Detector, ...]],
        missing: list[str],
    ) -> list[Task]:
        """What keeps the missing arrays of a set: a task for all, and one more for every further point of ODIN's."""
        scored = {array: points for array, points in fitted.items() if array in missing}
        axes = {array: points for array, points in shelf.axes(image_set).items() if array in missing}
        fields = {"layer_means"} & set(missing) | ({"odin"} if axes else set())
        fields |= {f for points in scored.values() for f in points[0].needs if f in ("gram", "layer_means")}
        needs, (first, *others) = frozenset(fields), list(axes.items()) or [("odin", NOTHING)]
        shapes = self._shapes(member, image_set, needs, first[1])
        widths: dict[str, tuple[int, ...]] = {"valid": ()}
        widths |= {array: (len(points),) for array, points in scored.items()}
        widths |= {array: tuple(map(len, points)) for array, points in axes.items()}
        specification: dict[str, Room] = {}
        for array in missing:
            key, dtype = shelf.array_keys(image_set)[array], bool if array == "valid" else np.float32
            width = widths[array] if array in widths else getattr(shapes, array).shape[1:]
            specification[array] = (key, (image_set.count, *width), dtype)
        writer = shared_writer(self.devices, self.store, shelf.outputs_group(image_set), specification)
        alone = {*scored, *(array for array, _ in others)}
        fields_of = {array: "odin" if array in axes else array for array in missing if array not in alone}
        sink = Keep(self.devices, writer, fields_of, scored, f"{member.name} on {image_set.name}")
        more = [Task(member, frozenset({"odin"}), points, KeepMore(sink, array)) for array, points in others]
        return [Task(member, needs, first[1], sink), *more]

    def _stage(self, image_set: ImageSet, models: int) -> AbstractContextManager[Callable[[int], None]]:
        what = f"{image_set.name}, {models} model{'s' * (models > 1)}"
        rows = batches_of(self.study, self.devices, image_set) * self.devices.rows(self.study.batch_size)
        return self.progress.stage(what, min(image_set.count, rows), "images")

    def _choose_odin(self, shelf: Shelf, head: Head) -> None:
        """ODIN's points by its validation scores, which need no statistics; the default where nothing is searched."""
        if not shelf.odin:
            return
        if self.devices.leads:
            validation, stats = [shelf.kept(s) for s in self.study.validations], TrainStatistics.of_head(head)
            names = [name for name in shelf.odin if shelf.choice(name) is None]
            shelf.keep_choices({name: score_detector(name, stats, validation, (), None)[0] for name in names})
        self.devices.wait(f"odin of {shelf.model}")

    def _shapes(self, member: Member, image_set: ImageSet, needs: frozenset[str], points: Points) -> Outputs:
        """The shapes of what a pass leaves, without running it."""
        network, rows = member.network, self.devices.rows(self.study.batch_size) * self.devices.host[1]
        size = (network.crop, network.crop, 3) if network.crop else np.asarray(image_set.source.open(0)).shape
        images = jax.ShapeDtypeStruct((rows, *size), jnp.uint8)
        arguments = (network.state, images, pixels_of(network), odin_axes(points))
        return jax.eval_shape(partial(forward, network.apply, needs, self.devices.mesh), *arguments)

    # Scores.

    def _score(self, models: Sequence[Model], todo: dict[str, Todo]) -> None:
        """Scores what was kept: models are shared out over the hosts, and no network runs."""
        if not models:
            return
        index, hosts = self.devices.host
        total = sum(len(todo[model.name].scores) for model in models)
        with self.progress.stage("scores", total, "detectors") as advance:
            failed = [line for model in models[index::hosts] for line in self._score_model(model, advance)]
        everywhere = [line for lines in self.devices.gather(failed) for line in lines]
        if everywhere:
            raise StudyError("; ".join(everywhere))

    def _score_model(self, model: Model, advance: Callable[[int], None]) -> list[str]:
        """Scores a model; returns why detectors could not be fitted, a line each."""
        shelf = self._shelf_of(model)
        names = shelf.missing_scores()
        head = model.load(self.study.precision).head
        stats, id_val = shelf.statistics(head), shelf.id_validation()
        validation = [shelf.kept(s) for s in self.study.validations]
        tests = [shelf.kept(s) for s in self.study.tests]
        chosen: dict[str, Chosen] = {}
        columns: dict[str, dict[str, np.ndarray]] = {s.name: {} for s in self.study.tests}
        failed = []
        for name in names:
            try:
                chosen[name], found = score_detector(name, stats, validation, tests, id_val)
            except ValueError as error:
                failed.append(f"{name} of {model.name}: {error}")
                continue
            for image_set, scores in zip(self.study.tests, found, strict=True):
                columns[image_set.name][name] = scores
            advance(1)
        shelf.keep_choices(chosen)
        for image_set in self.study.tests:
            if columns[image_set.name]:
                shelf.keep_scores(image_set, columns[image_set.name])
        return failed


def check_given(shelf: Shelf, head: Head) -> None:
    """Raises a StudyError where a model cannot carry what a label gives."""
    given = [name for name in shelf.detectors if (label := parse(name)).options and label.method.limit is not None]
    stats = shelf.statistics(head) if given else None
    for name in given:
        try:
            candidates(name, stats, True)
        except StudyError as error:
            raise StudyError(f"{shelf.model}: {error}") from error


def objections(study: Study, store: Store) -> dict[str, list[str]]:
    """Why detectors are left out: reason -> "detector", or "detector of model" where other models have it."""
    found: dict[str, dict[str, list[str]]] = {}
    made = [(model.name, facts) for model in study.models if (facts := model.facts()) is not None]
    for model, facts in made:
        shelf = Shelf(study, store, model, facts)
        for name in study.detectors:
            reason = shelf.objection(name)
            if reason is not None:
                found.setdefault(reason, {}).setdefault(name, []).append(model)
    return {
        reason: [n if len(models) == len(made) else f"{n} of {', '.join(models)}" for n, models in names.items()]
        for reason, names in found.items()
    }


def check_detectors(study: Study, store: Store) -> None:
    """Raises a StudyError where no detector that is asked for can run on any model."""
    for model in study.models:
        able = [name for name in study.detectors if Shelf(study, store, model.name, {}).objection(name) is None]
        if any(not {"gram", "layer_means"} & set(parse(name).method.needs) for name in able):
            return
        shelf = Shelf(study, store, model.name, model.facts() or {})
        if any(shelf.objection(name) is None for name in able):
            return
    reasons = (f"{', '.join(names)}: {reason}" for reason, names in objections(study, store).items())
    raise StudyError(f"no detector can run: {'; '.join(reasons)}")
