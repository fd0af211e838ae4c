"""Where the things of one model lie in the store, under which keys, and which of them are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from oodjax import detectors, keys
from oodjax.accumulate import SUMS
from oodjax.data.sets import ImageSet
from oodjax.detectors import Note
from oodjax.detectors.classification import ODIN_NOISES, ODIN_TEMPERATURES
from oodjax.detectors.labels import parse
from oodjax.outputs import Head, Outputs
from oodjax.scoring import Chosen, Kept, array_of, in_pass, read_statistics, searched
from oodjax.statistics import TrainStatistics
from oodjax.store import Store, key_of
from oodjax.study import Study

Points = tuple[tuple[float, ...], tuple[float, ...]]
Axes = Mapping[str, Points]  # array of ODIN's scores -> its temperatures and noises
ODIN_GRID: Points = ODIN_TEMPERATURES, ODIN_NOISES
VALIDATION_ROLES = ("id_val", "ood_val")
GRAM_SUMS = tuple(f"sums.gram_{by}.{end}" for by in ("predicted", "labelled") for end in (0, 1))


@dataclass(frozen=True)
class Shelf:
    """One model's part of the store.

    Attributes:
      study: what is asked.
      store: of its folder.
      model: the model's name.
      facts: what decides its outputs; see `Model.facts`.

    Detectors are named by their labels: names, or names with options.
    """

    study: Study
    store: Store
    model: str
    facts: Mapping[str, Any]

    # What this model and study can be asked for.

    @cached_property
    def detectors(self) -> tuple[str, ...]:
        """The detectors that can run here."""
        return tuple(name for name in self.study.detectors if self.objection(name) is None)

    def objection(self, name: str) -> str | None:
        """Why a detector cannot run, or None."""
        method = parse(name).method
        if not self.facts.get("has_maps", True) and {"gram", "layer_means"} & set(method.needs):
            return "it reads maps of intermediate layers, which this network does not return"
        if "odin" in method.needs and method.name != "odin":
            return "it reads Outputs.odin, which a study makes for the detector odin alone"
        if self.study.train is None and method.reads:
            return "it reads training statistics, and there is no ID training set"
        if self.study.id_val is None and method.reads_validation:
            return "it is fitted to the ID validation set, and there is none"
        return None

    @cached_property
    def needs(self) -> frozenset[str]:
        """The fields of `Outputs` that the detectors read."""
        return frozenset(field for name in self.detectors for field in parse(name).method.needs)

    # Keys.

    def outputs_key(self, image_set: ImageSet) -> str:
        found = self._outputs_keys.get(image_set.name)
        if found is None:
            found = self._outputs_keys[image_set.name] = keys.outputs_key(self.study, self.facts, image_set)
        return found

    @cached_property
    def _outputs_keys(self) -> dict[str, str]:
        return {}

    @cached_property
    def statistics_key(self) -> str:
        assert self.study.train is not None
        return keys.statistics_key(self.study, self.outputs_key(self.study.train))

    def _statistics_or_none(self, name: str) -> str:
        return self.statistics_key if parse(name).method.reads else ""

    def array_keys(self, image_set: ImageSet) -> dict[str, str]:
        """Array -> key of everything that is to be kept of the model on a set, as far as ODIN's points are chosen."""
        axes = self.axes(image_set)
        known = image_set.name, tuple(axes.items())
        if known not in self._array_keys:
            self._array_keys[known] = self._keys_of_arrays(image_set, axes)
        return self._array_keys[known]

    @cached_property
    def _array_keys(self) -> dict[tuple[str, tuple[tuple[str, Points], ...]], dict[str, str]]:
        return {}

    def _keys_of_arrays(self, image_set: ImageSet, axes: Axes) -> dict[str, str]:
        base = self.outputs_key(image_set)
        found = dict.fromkeys(("valid", "logits", "features"), base)
        if "layer_means" in self.needs:
            found["layer_means"] = keys.layer_means_key(base)
        found |= {array: keys.odin_key(base, points) for array, points in axes.items()}
        for name in filter(in_pass, self.detectors):
            label = parse(name)
            points = label.points if self.study.validations else [label.options]
            found[array_of(name)] = keys.in_pass_key(name, points, base, self._statistics_or_none(name))
        return found

    # ODIN's scores: the whole grid of the validation sets in one array, one point of the test sets in an array a label.

    @cached_property
    def odin(self) -> tuple[str, ...]:
        """The labels that read ODIN's scores."""
        return tuple(name for name in self.detectors if parse(name).name == "odin")

    def axes(self, image_set: ImageSet) -> dict[str, Points]:
        """Array of ODIN's scores on a set -> its axes; of test sets those alone whose point is chosen."""
        if image_set.role in VALIDATION_ROLES:
            return {"odin": ODIN_GRID} if self.study.validations and any(map(searched, self.odin)) else {}
        if image_set.role == "train":
            return {}
        chosen = {array_of(name): self.choice(name) for name in self.odin}
        return {a: ((c.options["temperature"],), (c.options["noise"],)) for a, c in chosen.items() if c is not None}

    def waiting(self) -> list[str]:
        """The arrays of ODIN's scores on the test sets whose point is not chosen yet."""
        return [array_of(name) for name in self.odin if self.choice(name) is None]

    # Outputs.

    def outputs_group(self, image_set: ImageSet) -> str:
        return f"outputs/{self.model}/{image_set.name}"

    def missing_arrays(self, image_set: ImageSet) -> list[str]:
        group = self.outputs_group(image_set)
        return [n for n, key in self.array_keys(image_set).items() if not self.store.has(group, {n: key})]

    def kept(self, image_set: ImageSet) -> Kept:
        group = self.outputs_group(image_set)
        found = {n: self.store.read(group, n, key) for n, key in self.array_keys(image_set).items()}
        arrays = {name: array for name, array in found.items() if array is not None}
        return Kept(image_set, arrays, np.asarray(arrays["valid"]))

    # Training statistics.

    @property
    def statistics_group(self) -> str:
        return f"statistics/{self.model}"

    @cached_property
    def reads(self) -> frozenset[str]:
        """The statistics that the detectors' fits read."""
        return detectors.reads(self.detectors) if self.study.train is not None else frozenset()

    def _statistics_arrays(self, held: Sequence[str]) -> list[str]:
        rows = [
            n
            for n, f in (("features", "features"), ("energies", "features"), ("layer_means", "layer_means"))
            if f in self.reads
        ]
        return [*held, *rows]

    def missing_statistics(self) -> bool:
        if not any(parse(name).method.reads for name in self.detectors):
            return False
        held = self.store.value(self.statistics_group, "sums", self.statistics_key)
        if held is None:
            return True
        wanted = {f"sums.{name}" for name in SUMS if name in self.reads}
        wanted |= set(GRAM_SUMS) if "gram" in self.reads else set()
        if not wanted <= set(held):
            return True
        return not self.store.has(
            self.statistics_group, dict.fromkeys(self._statistics_arrays(held), self.statistics_key)
        )

    def held_statistics(self) -> frozenset[str]:
        """The statistics that an earlier pass kept under this key."""
        held = set(self.store.value(self.statistics_group, "sums", self.statistics_key) or ())
        rows = {
            n for n in ("features", "layer_means") if self.store.has(self.statistics_group, {n: self.statistics_key})
        }
        sums = {name for name in SUMS if f"sums.{name}" in held}
        return frozenset(rows | sums | ({"gram"} if GRAM_SUMS[0] in held else set()))

    def statistics(self, head: Head) -> TrainStatistics:
        """Of the training set, the bank as memory maps; of the head alone where no detector reads any."""
        if not any(parse(name).method.reads for name in self.detectors):
            return TrainStatistics.of_head(head)
        held = self.store.value(self.statistics_group, "sums", self.statistics_key)
        arrays = {}
        for name in self._statistics_arrays(held):
            array = self.store.read(self.statistics_group, name, self.statistics_key)
            assert array is not None, name
            arrays[name] = array
        seen = self.store.read(self.statistics_group, "seen", self.statistics_key)
        assert self.study.train is not None
        labels = self.study.train.labels
        return read_statistics(arrays, head, labels, self.study.bank_fraction, self.study.seed, seen)

    # Choice and scores.

    @property
    def choice_group(self) -> str:
        return f"choice/{self.model}"

    def _reads(self, name: str, image_set: ImageSet | None, have: dict[str, str] | None = None) -> list[str]:
        """Keys of what a detector's scores on a set come from; None stands for what it is fitted to alone.

        `have` is `array_keys(image_set)`, for who asks of many detectors.
        """
        method = parse(name).method
        found = [self._statistics_or_none(name)]
        if method.reads_validation and self.study.id_val is not None:
            found.append(self.outputs_key(self.study.id_val))
        if image_set is not None:
            have = self.array_keys(image_set) if have is None else have
            fields = [array_of(name)] if in_pass(name) else [self._field(name, f, image_set) for f in method.needs]
            found += [have[field] for field in fields if field in have]
        return found

    def _field(self, name: str, field: str, image_set: ImageSet) -> str | None:
        """The array of a set that holds a field of `Outputs` for a detector."""
        if field != "odin":
            return field
        if image_set.role in VALIDATION_ROLES:
            return "odin" if searched(name) else None
        return array_of(name)

    def choice_key(self, name: str) -> str:
        if name not in self._choice_keys:
            found = self._reads(name, None)
            for image_set in self.study.validations:
                found += self._reads(name, image_set)
            self._choice_keys[name] = keys.selection_key(name, found)
        return self._choice_keys[name]

    @cached_property
    def _choice_keys(self) -> dict[str, str]:
        return {}

    def choice(self, name: str) -> Chosen | None:
        """The kept choice of a detector's point, where it is current."""
        return self.choices((name,)).get(name)

    def choices(self, names: Sequence[str] | None = None) -> dict[str, Chosen]:
        """The kept choices that are current, of these detectors or of all."""
        wanted = {name: self.choice_key(name) for name in (self.detectors if names is None else names)}
        return {
            name: Chosen(value["options"], value["auroc"], tuple(Note(*note) for note in value["notes"]))
            for name, value in self.store.values(self.choice_group, wanted).items()
        }

    def scores_key(
        self, name: str, options: Mapping[str, Any], image_set: ImageSet, have: dict[str, str] | None = None
    ) -> str:
        return keys.scores_key(name, options, self._reads(name, image_set, have))

    def scores_group(self, image_set: ImageSet) -> str:
        return f"scores/{self.model}/{image_set.name}"

    def columns(self, image_set: ImageSet) -> dict[str, np.ndarray]:
        """Detector -> (n,) kept scores of its chosen point, of those that are current."""
        held, have = self._held_columns(image_set), self.array_keys(image_set)
        current = {n: self.scores_key(n, chosen.options, image_set, have) for n, chosen in self.choices().items()}
        return {name: held[name][1] for name, key in current.items() if held.get(name, (None,))[0] == key}

    def held_labels(self, image_set: ImageSet) -> list[str]:
        """The detectors of which scores are kept, current or not, of this study or not."""
        return [name for name, _ in self.store.value(self.scores_group(image_set), "columns", "columns") or ()]

    def columns_key(self, image_set: ImageSet) -> str | None:
        """Of the table of scores of a set, whatever detectors it has."""
        columns = self.store.value(self.scores_group(image_set), "columns", "columns")
        return key_of(columns=columns) if columns else None

    def _held_columns(self, image_set: ImageSet) -> dict[str, tuple[str, np.ndarray]]:
        group = self.scores_group(image_set)
        columns = self.store.value(group, "columns", "columns")
        if not columns:
            return {}
        scores = self.store.read(group, "scores", key_of(columns=columns))
        if scores is None:
            return {}
        return {name: (key, scores[:, i]) for i, (name, key) in enumerate(columns)}

    def keep_scores(self, image_set: ImageSet, found: Mapping[str, np.ndarray]) -> None:
        """Keeps columns, beside those that other runs left there and that have as many rows."""
        rows = len(next(iter(found.values())))
        held = {n: c for n, c in self._held_columns(image_set).items() if len(c[1]) == rows}
        for name, scores in found.items():
            chosen = self.choice(name)
            assert chosen is not None, name
            held[name] = self.scores_key(name, chosen.options, image_set), scores
        columns = [[name, key] for name, (key, _) in held.items()]
        table = np.stack([np.asarray(scores, np.float32) for _, scores in held.values()], axis=1)
        key = key_of(columns=columns)
        self.store.put(self.scores_group(image_set), {"scores": (key, table)}, {"columns": ("columns", columns)})

    def missing_scores(self) -> list[str]:
        """Detectors without a current choice, or without current scores on some test set."""
        held, chosen = [self.columns(s) for s in self.study.tests], self.choices()
        return [n for n in self.detectors if n not in chosen or any(n not in columns for columns in held)]

    def keep_choices(self, found: Mapping[str, Chosen]) -> None:
        values = {
            name: (self.choice_key(name), {"options": c.options, "auroc": c.auroc, "notes": list(c.notes)})
            for name, c in found.items()
        }
        self.store.put(self.choice_group, {}, values)

    def unreadable(self) -> dict[str, list[str]]:
        """Set -> its images that could not be read when they were skipped, of all that is kept."""
        study, found = self.study, {}
        for image_set in study.sets:
            if image_set is study.train:
                kept = self.store.read(self.statistics_group, "seen", self.statistics_key)
            else:
                kept = self.store.read(self.outputs_group(image_set), "valid", self.outputs_key(image_set))
            if kept is not None and not kept.all():
                found[image_set.name] = [image_set.source.name(int(i)) for i in np.flatnonzero(~kept)]
        return found

    @property
    def id_validation_is_read(self) -> bool:
        return any(parse(name).method.reads_validation for name in self.detectors)

    def id_validation(self) -> Outputs | None:
        """Outputs and labels of the ID validation set, for detectors fitted to it."""
        if self.study.id_val is None or not self.id_validation_is_read:
            return None
        kept = self.kept(self.study.id_val)
        return Outputs(kept.take("logits"), kept.take("features"), kept.labels)


def kept_keys(shelf: Shelf) -> dict[str, dict[str, Any]]:
    """Set -> keys of the outputs and the scores that are kept of it, by which a report finds them."""
    return {s.name: {"outputs": shelf.outputs_key(s), "scores": shelf.columns_key(s)} for s in shelf.study.tests}


def unreadable(shelves: Iterable[Shelf]) -> dict[str, list[str]]:
    """Set -> images that could not be read when they were skipped, of all models; the same for each of them."""
    found: dict[str, list[str]] = {}
    for shelf in shelves:
        found |= shelf.unreadable()
    return found
