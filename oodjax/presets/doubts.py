"""What is wrong with a study before it runs: labels that no model has, images in two sets, tables that it replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oodjax.data.files import Files
from oodjax.data.sets import ID_ROLES
from oodjax.data.verify import check_overlap
from oodjax.study import Study, StudyError

DECIDE = ("preset", "seed", "seeds", "precision", "bank_fraction", "fast_pixels")  # of a study's settings


def check_labels(study: Study) -> None:
    """Raises a StudyError where an ID set has a label that a model's head has no output for."""
    for image_set in (s for s in study.sets if s.role in ID_ROLES):
        largest = int(image_set.labels.max())
        for model in study.models:
            classes = model.head_shape()[1]
            if largest >= classes:
                raise StudyError(
                    f"{image_set.name} has images of class {largest}, but the model {model.name} has {classes} "
                    f"classes, 0 to {classes - 1}"
                )


def doubts(study: Study, hash_content: bool = False) -> list[str]:
    """What may be a mistake, a line each.

    Args:
      study: what is asked.
      hash_content: look for images in two sets by content; else so in small sets only, in others by place.

    Raises:
      DataError: a whole set stands in another of another role, one of them OOD.
    """
    lines = check_overlap(study.sets, True if hash_content else None)
    for image_set in (s for s in study.sets if s.role in ID_ROLES):
        folders = image_set.source.class_names if isinstance(image_set.source, Files) else ()
        fewer = [m.name for m in study.models if folders and len(folders) < m.head_shape()[1]]
        if fewer:
            lines.append(
                f"{image_set.name} has {len(folders)} class folders, fewer than the classes of {', '.join(fewer)}: "
                f"they are taken for classes 0 to {len(folders) - 1} in order; a list file gives labels as they are"
            )
    return lines


def replaced(folder: str, former: Any, now: Mapping[str, Any]) -> list[str]:
    """A line where a folder holds tables of other settings than `now`, as far as they decide numbers."""
    if not isinstance(former, dict) or not former:
        return []
    gone = "one alone"  # of seeds, which a study of one does not list
    other = [name for name in DECIDE if former.get(name, gone) != now.get(name, gone)]
    if not other:
        return []
    what = [f"of {n.replace('_', ' ')} {former.get(n, gone)}, not {now.get(n, gone)}" for n in other]
    return [f"{folder} holds tables {', and '.join(what)}: they are replaced; --out keeps them"]
