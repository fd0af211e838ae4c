"""The user's own study: a TOML file, or one model and its image sets from the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oodjax import plugins
from oodjax.data.sets import ImageSet
from oodjax.data.sources import DataError, Files, Source, source_of, unlabelled
from oodjax.presets import Options
from oodjax.presets.models import Converted, Imported
from oodjax.study import Model, Study, StudyError, canonical

BATCH_SIZE = 64
ID_ROLES = {"train": "train", "validation": "id_val", "test": "id_test"}
ROLES_OF = {"id_train": "train", "id_val": "id_val", "id_test": "id_test"}
MODEL_KEYS = ("checkpoint", "network", "category")


def study(options: Options) -> Study:
    """The study of `options.file`, or of the options that name one model and its sets."""
    return _from_file(options) if options.file is not None else _from_options(options)


def _from_options(options: Options) -> Study:
    missing = [flag for flag, value in (("--model", options.model), ("--id-test", options.id_test)) if not value]
    missing += [] if options.ood else ["--ood NAME=SET:CATEGORY"]
    if missing:
        raise StudyError(f"own needs {', '.join(missing)}; or name a study file: python -m oodjax.run STUDY.toml")
    assert options.model is not None
    sets: list[ImageSet] = []
    given = {"id_train": options.id_train, "id_val": options.id_val, "id_test": options.id_test}
    for name, text in given.items():
        if text is not None:
            role = ROLES_OF[name]
            sets.append(_set(name, role, "id", text, options, Path("."), f"--{name.replace('_', '-')}", None, sets))
    if options.ood_val is not None:
        sets.append(_set("ood_val", "ood_val", "validation", options.ood_val, options, Path("."), "--ood-val"))
    for text in options.ood:
        name, equals, rest = text.partition("=")
        place, colon, category = rest.rpartition(":")
        if not (name and equals and place and colon and category) or "/" in category:
            raise StudyError(f"--ood: got {text!r}, expected NAME=SET:CATEGORY, for example foxes=photos/foxes:near")
        sets.append(_set(name, "ood_test", category, place, options, Path("."), f"--ood {name}"))
    return Study(
        "own",
        tuple(sets),
        (model_of("model", "own", options.model, Path("."), "--model"),),
        **options.settings(BATCH_SIZE),
    )


def _from_file(options: Options) -> Study:
    path = options.file
    assert path is not None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"there is no study file {path}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read as a study file: {error}") from error
    _only(content, ("id", "ood", "models", "detectors", "plugins"), str(path))
    base = path.parent
    plugins.load(_texts(content, "plugins", str(path)), base)
    sets: list[ImageSet] = []
    tables = {name: _table(content, name, str(path)) for name in ("id", "ood", "models")}
    _only(tables["id"], (*ID_ROLES, "root"), f"{path}: [id]")
    root = _text(tables["id"], "root", f"{path}: [id]") if "root" in tables["id"] else None
    for key, role in ID_ROLES.items():
        if key in tables["id"]:
            text = _text(tables["id"], key, f"{path}: [id]")
            sets.append(_set(f"id_{key}", role, "id", text, options, base, f"{path}: [id] {key}", root, sets))
    for category, members in tables["ood"].items():
        for name in _table(tables["ood"], category, f"{path}: [ood]"):
            role, label = ("ood_val", "validation") if category == "validation" else ("ood_test", category)
            where = f"{path}: [ood.{category}]"
            sets.append(_set(name, role, label, _text(members, name, where), options, base, f"{where} {name}"))
    models = []
    for name, entry in tables["models"].items():
        where = f"{path}: [models.{name}]"
        if not isinstance(entry, Mapping):
            raise StudyError(f"{where}: expected a table with `checkpoint` or `network`, got {entry!r}")
        _only(entry, MODEL_KEYS, where)
        given = [key for key in ("checkpoint", "network") if key in entry]
        if len(given) != 1:
            raise StudyError(f"{where}: expected either `checkpoint` or `network`, got {', '.join(given) or 'neither'}")
        category = _text(entry, "category", where) if "category" in entry else "own"
        models.append(model_of(name, category, _text(entry, given[0], where), base, f"{where} {given[0]}", given[0]))
    if not models:
        raise StudyError(f"{path} names no model: add [models.NAME] with `checkpoint` or `network`")
    settings = options.settings(BATCH_SIZE)
    if "detectors" in content:
        try:
            settings["detectors"] = canonical(_texts(content, "detectors", str(path)))
        except StudyError as error:
            raise StudyError(f"{path}: detectors: {error}") from error
    return Study(path.stem, tuple(sets), tuple(models), **settings)


def model_of(name: str, category: str, text: str, base: Path, where: str, kind: str | None = None) -> Model:
    """The model that a word of the user's names: a converted checkpoint's folder, or module:function.

    Args:
      name, category: of the tables' rows.
      text: the word.
      base: the folder that paths and modules in it start from.
      where: begins the message of what is wrong.
      kind: "checkpoint" or "network" where only that is meant.

    Raises:
      StudyError: there is neither.
    """
    try:
        folder = base / Path(text).expanduser()
    except RuntimeError as error:
        raise StudyError(f"{where}: {error}") from error
    if kind == "network" or (kind is None and ":" in text and not os.path.exists(folder)):
        return Imported(name, category, text, base)
    if not os.path.isfile(folder / "manifest.json"):  # False, where the name is too long to be one
        other = "" if kind else ", and not module:function"
        raise StudyError(f"{where}: {folder} is no checkpoint that `python -m converters` wrote{other}")
    return Converted(name, category, folder)


def _set(
    name: str,
    role: str,
    category: str,
    text: str,
    options: Options,
    base: Path,
    where: str,
    root: str | None = None,
    former: Sequence[ImageSet] = (),
) -> ImageSet:
    """One set; the class folders of the `former` ID sets number its own."""
    source: Source
    classes = next((s.source.class_names for s in former if isinstance(s.source, Files) and s.source.class_names), ())
    try:
        listed = base / Path(text).expanduser()
        above = (root or options.root) if not text.startswith("tfds:") and os.path.isfile(listed) else None
        content = options.hash_content
        source = source_of(text, above, base, class_names=classes, hash_content=content, data_dir=options.data)
        if role.startswith("ood"):
            source = unlabelled(source)
        elif len(source) and source.labels.min() < 0:
            raise DataError(f"{text} has no classes: an ID set is a folder of class folders, or a list with labels")
        if not len(source):
            raise DataError(f"{text} holds no image")
        return ImageSet(name, role, category, source)
    except (ValueError, RuntimeError) as error:  # RuntimeError: ~ of a user that is not there
        raise StudyError(f"{where}: {error}") from error


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise StudyError(f"{where}: unknown {', '.join(unknown)}; possible: {', '.join(known)}")


def _table(content: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = content.get(name, {})
    if not isinstance(found, Mapping):
        raise StudyError(f"{where}: {name} must be a table, got {found!r}")
    return found


def _texts(content: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = content.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise StudyError(f"{where}: {name} must be a list of texts in quotes, got {found!r}")
    if name in content and not found:
        raise StudyError(f"{where}: {name} must name one or more")
    return tuple(found)


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value:
        raise StudyError(f"{where}: {key} must be a text in quotes, got {value!r}")
    return value
