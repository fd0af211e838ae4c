"""Ready-made studies: each module only turns options into a `Study`. `register` adds your own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from oodjax.arrays import describe
from oodjax.study import Study, StudyError, check_seed

ONE_MODEL = ("model", "id_train", "id_val", "id_test", "ood_val", "ood")
TAKES = {
    "digits": ("seeds",),
    "cifar10": ("seeds", "data"),
    "imagenet": ("data", "checkpoints"),
    "own": ("data", "root", *ONE_MODEL),
}
FIELDS = ("seeds", "data", "checkpoints", "root", *ONE_MODEL)
NAMES = tuple(TAKES)
SEEDS = 1000  # at most: a mistyped number is found before anything is trained


@dataclass(frozen=True)
class Options:
    """What a command line can say of a study; each preset reads its part.

    Attributes:
      folder: of the results; trained networks go there.
      seed: of data, training and pseudo-random choices.
      seeds: how often each recipe is trained on the same data, with `seed` and those after it; None takes the preset's.
      batch_size: images a step; None takes the preset's.
      precision, bank_fraction, fast_pixels, on_bad_image, fleet: as in `Study`.
      datasets: OOD test sets asked for, None for all: the others need not be there.
      data, checkpoints: folders of the imagenet preset; `data` also where tensorflow-datasets keeps its files.
      hash_content: file contents enter the keys, not names and sizes alone.
      file: a study file.
      model, id_train, id_val, id_test, ood_val, ood, root: of a study without a file, as given on the command line.
    """

    folder: Path
    seed: int = 0
    seeds: int | None = None
    batch_size: int | None = None
    precision: str = "float32"
    bank_fraction: float = 1.0
    fast_pixels: bool = False
    on_bad_image: str = "stop"
    fleet: int = 0
    datasets: tuple[str, ...] | None = None
    data: Path | None = None
    checkpoints: Path | None = None
    hash_content: bool = False
    file: Path | None = None
    model: str | None = None
    id_train: str | None = None
    id_val: str | None = None
    id_test: str | None = None
    ood_val: str | None = None
    ood: tuple[str, ...] = field(default=())
    root: Path | None = None

    def settings(self, batch_size: int) -> dict:
        """The fields of a `Study` that options decide."""
        return {
            "precision": self.precision,
            "seed": self.seed,
            "batch_size": batch_size if self.batch_size is None else self.batch_size,
            "bank_fraction": self.bank_fraction,
            "fast_pixels": self.fast_pixels,
            "on_bad_image": self.on_bad_image,
            "fleet": self.fleet,
        }


@dataclass(frozen=True)
class Preset:
    """A study by name: what makes it of the options, and which of `FIELDS` it reads."""

    make: Callable[[Options], Study]
    takes: tuple[str, ...] = ()


OWN: dict[str, Preset] = {}


def register(
    name: str, make: Callable[[Options], Study], takes: Sequence[str] = (), *, replace: bool = False
) -> Callable[[Options], Study]:
    """Makes a study known by its name: `python -m oodjax.run NAME --plugin MODULE` runs it.

    Args:
      name: a word of letters, digits, "_" and "-".
      make: what turns the options of the command line into the study; `options.settings(batch_size)` are the fields of
        a `Study` that they decide.
      takes: which of `FIELDS` it reads: "seeds", "data", "checkpoints", "root", "model", "id_train", "id_val",
        "id_test", "ood_val", "ood". Given the others, a run is refused.
      replace: whether it may take the place of one that was registered under the name before. The ready-made ones are
        never replaced.

    Returns:
      `make`, so that `functools.partial(register, "name")` decorates it.

    Raises:
      TypeError: `make` is no function.
      ValueError: a name that is taken or no word; fields that do not exist.
    """
    if not callable(make):
        raise TypeError(f"a preset is made by a function of the options, got {describe(make)}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,80}", name, re.ASCII):
        raise ValueError(f"a preset's name must be letters, digits, _ and -, got {name!r}")
    unknown = [str(taken) for taken in takes if taken not in FIELDS]
    if isinstance(takes, str) or unknown:
        raise ValueError(f"{name}: takes must be a tuple of {', '.join(FIELDS)}, got {takes!r}")
    if name in NAMES:
        raise ValueError(f"{name!r} is a ready-made study, which stays as it is: choose another name")
    if name in OWN and not replace:
        raise ValueError(f"a preset {name!r} is registered already: choose another name, or pass replace=True")
    OWN[name] = Preset(make, tuple(takes))
    return make


def names() -> tuple[str, ...]:
    """The ready-made studies, then those that were registered."""
    return (*NAMES, *OWN)


def find(name: str) -> Preset:
    """The preset of a name.

    Raises:
      StudyError: there is none.
    """
    if name in OWN:
        return OWN[name]
    if name not in NAMES:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(names())
        raise StudyError(f"unknown preset {name!r}; there are: {known}, or the path of a study file (.toml){hint}")
    return Preset(import_module(f"oodjax.presets.{name}").study, TAKES[name])


def make(name: str, options: Options) -> Study:
    """The study of a preset.

    Raises:
      StudyError: no such preset, options that it cannot be made of, or a function of your own that fails.
    """
    preset = find(name)
    _check_taken(name, preset.takes, options)
    check_seed(options.seed)  # before it makes data
    if options.seeds is not None:
        if not 1 <= options.seeds <= SEEDS:
            raise StudyError(f"--seeds must lie in 1..{SEEDS}, how often each recipe is trained, got {options.seeds}")
        check_seed(options.seed + options.seeds - 1)
    return _made_by_its_owner(name, preset, options) if name in OWN else preset.make(options)


def _made_by_its_owner(name: str, preset: Preset, options: Options) -> Study:
    try:
        found = preset.make(options)
    except (StudyError, OSError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise StudyError(f"preset {name!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Study):
        raise StudyError(f"preset {name!r} returned {describe(found)}, expected an oodjax.study.Study")
    return found


def _check_taken(name: str, possible: Sequence[str], options: Options) -> None:
    """Raises a StudyError that names the options that say nothing to this preset."""
    is_file = options.file is not None
    takes = [field for field in possible if not (is_file and field in ONE_MODEL)]
    given = [f for f in FIELDS if getattr(options, f) not in (None, ())]
    stray = [_flag(field) for field in given if field not in takes]
    if stray:
        what = f"the study file {options.file}" if is_file else name
        known = ", ".join(map(_flag, takes)) or "none of that kind"
        raise StudyError(f"{what} takes no {', '.join(stray)}; it takes {known}")


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"
