"""Ready-made studies: each module only turns options into a `Study`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from oodjax.study import Study, StudyError, check_seed

NAMES = ("digits", "cifar10", "imagenet", "own")
ONE_MODEL = ("model", "id_train", "id_val", "id_test", "ood_val", "ood")
TAKES = {
    "digits": ("seeds",),
    "cifar10": ("seeds", "data"),
    "imagenet": ("data", "checkpoints"),
    "own": ("data", "root", *ONE_MODEL),
}
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


def make(name: str, options: Options) -> Study:
    """The study of a preset.

    Raises:
      StudyError: no such preset, or options that it cannot be made of.
    """
    if name not in NAMES:
        raise StudyError(f"unknown preset {name!r}; there are: {', '.join(NAMES)}, or the path of a study file (.toml)")
    _check_taken(name, options)
    check_seed(options.seed)  # before it makes data
    if options.seeds is not None:
        if not 1 <= options.seeds <= SEEDS:
            raise StudyError(f"--seeds must lie in 1..{SEEDS}, how often each recipe is trained, got {options.seeds}")
        check_seed(options.seed + options.seeds - 1)
    return import_module(f"oodjax.presets.{name}").study(options)


def _check_taken(name: str, options: Options) -> None:
    """Raises a StudyError that names the options that say nothing to this preset."""
    is_file = options.file is not None
    takes = [field for field in TAKES[name] if not (is_file and field in ONE_MODEL)]
    given = [f for f in ("seeds", "data", "checkpoints", "root", *ONE_MODEL) if getattr(options, f) not in (None, ())]
    stray = [_flag(field) for field in given if field not in takes]
    if stray:
        what = f"the study file {options.file}" if is_file else name
        known = ", ".join(map(_flag, takes)) or "none of that kind"
        raise StudyError(f"{what} takes no {', '.join(stray)}; it takes {known}")


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"
