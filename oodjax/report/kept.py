"""Outputs and scores from the store of a results folder, found by the keys that run.json names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodjax.report.reading import CannotSay, checked
from oodjax.store import Store


def read_kept(folder: Path, model: str, image_set: str, keys: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Logits, features or scores of a model on a set: the rows of the images that could be read.

    Args:
      folder: of the results.
      keys: of the set's `outputs` and `scores`.
      name: logits, features or scores.

    Raises:
      CannotSay: it is not kept, or damaged.
    """
    group = "scores" if name == "scores" else "outputs"
    what = f"{name} of {model} on {image_set}"
    array = _read(folder, f"{group}/{model}/{image_set}", name, keys.get(group))
    if array is None:
        raise CannotSay(f"{what} are not in the store, or are damaged: run the study again")
    if group == "outputs":
        valid = _read(folder, f"{group}/{model}/{image_set}", "valid", keys.get(group))
        array = array if valid is None else array[np.asarray(valid, bool)]
    return checked(what, name, np.asarray(array))


def kept_column(folder: Path, model: str, image_set: str, detector: str) -> int:
    """Which column of the scores is a detector's."""
    columns = _store(folder).value(f"scores/{model}/{image_set}", "columns", "columns")
    names = [name for name, _ in columns or ()]
    if detector not in names:
        raise CannotSay(f"the store holds no scores of {detector} for {model} on {image_set}")
    return names.index(detector)


def _read(folder: Path, group: str, name: str, key: Any) -> np.ndarray | None:
    return _store(folder).read(group, name, key) if isinstance(key, str) else None


def _store(folder: Path) -> Store:
    return Store(folder, warn=lambda line: None)  # a report says itself what is missing
