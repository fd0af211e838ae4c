"""The record every data source yields: one named set of images with its role in the study."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

ROLES = ("train", "id_val", "id_test", "ood_val", "ood_test")
CATEGORIES = ("id", "near", "far", "extreme", "synthetic", "validation")
_CATEGORIES_OF_ROLE = {
    "train": ("id",),
    "id_val": ("id",),
    "id_test": ("id",),
    "ood_val": ("validation",),
    "ood_test": ("near", "far", "extreme", "synthetic"),
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one source in one role.

    Attributes:
        name: unique within a study, used in result tables.
        role: one of `ROLES`.
        category: one of `CATEGORIES`.
        images: uint8 (n, h, w, 3), read-only.
        labels: int32 (n,), the class of an ID image, -1 for every OOD image; read-only.
        source: where the images come from and under which licence.
    """

    name: str
    role: str
    category: str
    images: np.ndarray
    labels: np.ndarray
    source: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role of {self.name!r}: got {self.role!r}, expected one of {ROLES}")
        allowed = _CATEGORIES_OF_ROLE[self.role]
        if self.category not in allowed:
            raise ValueError(f"category of {self.name!r} ({self.role}): got {self.category!r}, expected {allowed}")
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images of {self.name!r}: got {images.dtype} {images.shape}, expected uint8 (n, h, w, 3)")
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels of {self.name!r}: got {labels.dtype} {labels.shape}, expected int32 {images.shape[:1]}"
            )
        if self.category == "id" and np.any(labels < 0):
            raise ValueError(f"labels of {self.name!r}: got {labels.min()}, expected classes >= 0 in an ID set")
        if self.category != "id" and np.any(labels != -1):
            raise ValueError(f"labels of {self.name!r}: got {np.unique(labels)}, expected -1 everywhere in an OOD set")
        object.__setattr__(self, "images", _read_only(images))
        object.__setattr__(self, "labels", _read_only(labels))

    @property
    def count(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of dtype, shape and bytes of images and labels; the name and source do not enter."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
