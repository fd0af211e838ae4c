"""What is known of a checkpoint beside its numbers, and who says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from converters.config import NAME, Config
from oodjax.data.preprocess import CROP, RESIZE
from oodjax.zoo.reader import Triple, misfit

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
AVERAGES = ("state_dict_ema", "model_ema")  # what timm takes, where they are, before "state_dict" and "model"


@dataclasses.dataclass(frozen=True)
class Facts:
    """How a checkpoint's images are prepared, and where that and the architecture are stated.

    Attributes:
      mean, std: of pixels in 0..1.
      resize, crop: pixels of the shorter side before cropping, and of the square that is kept.
      origins: architecture, mean, std, and size (of resize and crop) -> who says so.
      interpolation: the publisher's, where it is stated.
      about: what else the manifest keeps.
    """

    mean: Triple
    std: Triple
    resize: int = RESIZE
    crop: int = CROP
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    interpolation: str | None = None
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def lines(self, epsilon: float) -> list[str]:
        """What is kept and where it comes from, for a terminal."""
        origins = self.origins
        size = f"resize {self.resize}, crop {self.crop} ({origins['size']})"
        if self.interpolation not in (None, "bilinear"):
            size += f"; published with {self.interpolation} resizing, which is bilinear here"
        return [
            f"architecture: {origins['architecture']}",
            f"epsilon {epsilon:g} of the normalisation layers, the architecture's",
            f"mean {' '.join(f'{x:g}' for x in self.mean)} ({origins['mean']})",
            f"std {' '.join(f'{x:g}' for x in self.std)} ({origins['std']})",
            size,
        ]


@dataclasses.dataclass(frozen=True)
class Taken:
    """Which table of tensors of a file was read: its `key` ("" for the top), and those that were `left`."""

    file: str
    key: str
    left: tuple[str, ...]

    def __str__(self) -> str:
        line = f"tensors of {self.file}: " + (repr(self.key) if self.key else "at the top")
        if self.left:
            line += f"; left there: {', '.join(map(repr, self.left))}"
        averages = [name for name in self.left if name in AVERAGES]
        return line + (f" (timm takes the average: --path {averages[0]})" if averages else "")


def settle(stated: Config | None, mean: Triple | None = None, std: Triple | None = None) -> Facts:
    """What is asked for goes before what is stated, and that before the defaults."""
    asked = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    for name, value in asked.items():
        if wrong := misfit(name, list(value)):
            raise ValueError(f"--{wrong}")
    values: dict[str, Any] = dict(zip(("mean", "std"), IMAGENET, strict=True)) | {"resize": RESIZE, "crop": CROP}
    origins = dict.fromkeys(("mean", "std"), "ImageNet's, by default") | {"size": "the study's, by default"}
    origins["architecture"] = "--layout; " + (f"no {NAME} with the file" if stated is None else "not stated")
    if stated is not None:
        said = {name: getattr(stated, name) for name in values if getattr(stated, name) is not None}
        values |= said
        origins |= {"size" if name in ("resize", "crop") else name: NAME for name in said}
        if stated.network is not None:
            origins["architecture"] = f"{NAME}, which says {stated.network}"
    for name, value in asked.items():
        other = f"; {NAME} says {values[name]}" if origins[name] == NAME != value else ""
        values[name], origins[name] = tuple(value), f"--{name}{other}"
    return Facts(**values, origins=origins, interpolation=None if stated is None else stated.interpolation)
