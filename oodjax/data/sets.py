"""One named set of images in its role in a study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oodjax.data.arrays import Arrays
from oodjax.data.contract import DataError, Source

ID_ROLES = ("train", "id_val", "id_test")
OOD_ROLES = ("ood_val", "ood_test")
ROLES = (*ID_ROLES, *OOD_ROLES)
CATEGORIES = ("near", "far", "extreme", "synthetic")  # of the study's OOD test sets; a user's own may be named freely


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one source in one role.

    Attributes:
      name: unique within a study, used in result tables.
      role: one of `ROLES`.
      category: "id" in an ID role; in an OOD role any other name, the study's own are `CATEGORIES`.
      source: the images and their labels, classes from 0 in an ID role, -1 everywhere in an OOD role
        (`sources.unlabelled`).
    """

    name: str
    role: str
    category: str
    source: Source

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role of {self.name!r}: got {self.role!r}, expected one of {ROLES}")
        is_id = self.role in ID_ROLES
        if not self.category or is_id != (self.category == "id"):
            expected = "'id'" if is_id else f"one of {CATEGORIES} or a name of your own, not 'id'"
            raise ValueError(f"category of {self.name!r} ({self.role}): got {self.category!r}, expected {expected}")
        labels = self.labels
        if is_id and np.any(labels < 0):
            raise DataError(
                f"labels of {self.name!r}: got {labels.min()}, expected classes >= 0 in an ID set: "
                "a folder of class folders, or a list with labels"
            )
        if not is_id and np.any(labels != -1):
            raise DataError(f"labels of {self.name!r}: got {labels.max()}, expected -1 everywhere in an OOD set")

    @property
    def count(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> np.ndarray:
        """int32 (n,), read-only."""
        return self.source.labels

    @property
    def sha256(self) -> str:
        """The fingerprint of the source: neither name, role nor category enters."""
        return self.source.fingerprint

    @property
    def images(self) -> np.ndarray:
        """uint8 (n, h, w, 3), of a set whose images are in memory."""
        if not isinstance(self.source, Arrays):
            raise TypeError(f"the images of {self.name!r} are not in memory: read them with data.loader.load")
        return self.source.images
