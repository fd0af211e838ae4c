"""What the `config.json` that is published with weights says: which network they are of, how its images are prepared.

timm's keys: `architecture`, `global_pool`, `model_args`, and under `pretrained_cfg` (or at the top) `mean`, `std`,
`input_size`, `crop_pct` and `interpolation`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.errors import problem
from converters.rules import Layout
from oodjax.zoo.reader import Triple, misfit

NAME = "config.json"
CROP_PCT = 0.875  # timm's where it is not stated
LARGEST = 4096  # pixels
HARMLESS = {"img_size": (224, [224, 224]), "in_chans": (3,), "drop_rate": (0, 0.0), "drop_path_rate": (0, 0.0)}


@dataclass(frozen=True)
class Config:
    """A `config.json`; None where it says nothing.

    Attributes:
      path: the file.
      network: the publisher's name of the network, such as "resnet50".
      pool: its pooling before the head.
      options: what the network was built with beside its name.
      mean, std: of pixels in 0..1.
      resize: pixels of the shorter side before cropping.
      crop: side of the square input.
      interpolation: of the resizing; ours is bilinear.
    """

    path: Path
    network: str | None = None
    pool: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    mean: Triple | None = None
    std: Triple | None = None
    resize: int | None = None
    crop: int | None = None
    interpolation: str | None = None


def read(path: Path) -> Config:
    """Reads a `config.json`.

    Raises:
      ConversionError: it is not JSON, or a value in it is not what timm writes there.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise problem(str(path), "is no JSON; mend it or move it away from the weights") from error
    if not isinstance(content, dict):
        raise problem(str(path), "is no table of settings; mend it or move it away from the weights")
    stated = content | _table(path, content, "pretrained_cfg")
    architecture = _text(path, stated, "architecture") or _text(path, stated, "model_type")
    crop, resize = _size(path, stated)
    return Config(
        path,
        network=architecture and architecture.partition(".")[0],
        pool=_text(path, content, "global_pool"),
        options=_table(path, content, "model_args"),
        mean=_triple(path, stated, "mean"),
        std=_triple(path, stated, "std"),
        resize=resize,
        crop=crop,
        interpolation=_text(path, stated, "interpolation"),
    )


def check(config: Config, layout: Layout) -> None:
    """Compares the network that is stated with the one that is built.

    Raises:
      ConversionError: it is another one, even if all its tensors have the names and shapes of ours.
    """
    what = str(config.path)
    if config.network is not None and config.network not in layout.networks:
        known = ", ".join(layout.networks)
        raise problem(what, f"says {config.network!r}, which is not what {layout.name} computes ({known})")
    options = dict(config.options)
    pool = options.pop("global_pool", config.pool)
    if pool is not None and pool != layout.pool:
        raise problem(what, f"says global_pool {pool!r}, but {layout.name} computes {layout.pool!r}")
    options.pop("num_classes", None)  # the tensors tell
    for name, value in options.items():
        if value not in HARMLESS.get(name, ()):
            raise problem(what, f"says the network was built with {name}={value!r}, which {layout.name} is not")
    side = getattr(layout.config(1), "image_size", config.crop)
    if config.crop not in (None, side):
        raise problem(what, f"says images of {config.crop} pixels, but {layout.name} takes {side}")


def _table(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict | None):
        raise problem(str(path), f"{name} is {value!r}, expected a table")
    return value or {}


def _text(path: Path, content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if not isinstance(value, str | None):
        raise problem(str(path), f"{name} is {value!r}, expected a text")
    return value


def _triple(path: Path, content: dict[str, Any], name: str) -> Triple | None:
    value = content.get(name)
    if value is None:
        return None
    if wrong := misfit(name, value):
        raise problem(str(path), wrong)
    return tuple(map(float, value))  # type: ignore[return-value]


def _size(path: Path, content: dict[str, Any]) -> tuple[int | None, int | None]:
    """Crop and resize, as timm derives them."""
    size, share = content.get("input_size"), content.get("crop_pct")
    if size is None and share is None:
        return None, None
    size, share = size or [3, 224, 224], CROP_PCT if share is None else share
    if not (isinstance(size, list) and len(size) == 3 and all(type(side) is int for side in size)):
        raise problem(str(path), f"input_size is {size!r}, expected [3, height, width]")
    if size[0] != 3 or size[1] != size[2] or not 1 <= size[1] <= LARGEST:
        raise problem(str(path), f"input_size is {size!r}, expected a square of 1 to {LARGEST} pixels in 3 colours")
    if type(share) not in (int, float) or not 0.1 <= share <= 1:
        raise problem(str(path), f"crop_pct is {share!r}, expected a share from 0.1 to 1")
    return size[1], math.floor(size[1] / share)
