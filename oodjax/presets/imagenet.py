"""The paper's protocol on ImageNet, for every converted checkpoint of a folder."""

from __future__ import annotations

from pathlib import Path

from oodjax import zoo
from oodjax.data import imagenet
from oodjax.data.sets import ImageSet
from oodjax.presets import Options
from oodjax.presets.models import Converted
from oodjax.study import Study, StudyError

BATCH_SIZE = 256


def study(options: Options) -> Study:
    if options.data is None or options.checkpoints is None:
        raise StudyError(
            "imagenet needs --data DATA, images and lists in OpenOOD's layout, and --checkpoints FOLDER, a folder of "
            "checkpoints that `python -m converters` wrote"
        )
    models = find_checkpoints(options.checkpoints)
    reading = imagenet.Options(hash_content=options.hash_content, seed=options.seed)
    try:
        asked = {s.name: s for s in imagenet.load(options.data, options.datasets, options=reading)}
    except imagenet.DataError as error:
        raise StudyError(f"--data: {error}") from error
    # Sets that are not asked for belong to the study where they are there: their results stay in the tables.
    found = [asked.get(entry.name) or imagenet.look(entry, options.data, reading) for entry in imagenet.ENTRIES]
    sets = tuple(s for s in found if isinstance(s, ImageSet))
    return Study("imagenet", sets, models, **options.settings(BATCH_SIZE))


def find_checkpoints(folder: Path) -> tuple[Converted, ...]:
    """Every converted checkpoint of a folder: those of the zoo in the paper's order, others after them by name.

    Raises:
      StudyError: there is none.
    """
    if not folder.is_dir():
        raise StudyError(f"--checkpoints: {folder} is not a folder")
    found = {path.parent.name: path.parent for path in sorted(folder.glob("*/manifest.json"))}
    if (folder / "manifest.json").is_file():
        raise StudyError(f"--checkpoints: {folder} is a checkpoint itself; name the folder that holds it")
    if not found:
        raise StudyError(f"--checkpoints: {folder} holds no checkpoint; `python -m converters` writes them")
    categories = {c.id: c.category for c in zoo.checkpoints()}
    order = {name: i for i, name in enumerate(categories)}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return tuple(Converted(name, categories.get(name, "own"), found[name]) for name in names)
