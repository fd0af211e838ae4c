"""Image files of many kinds and sizes, made for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): smooth colours with noise, another for each seed."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width] / max(height, width)
    phases = rng.uniform(0, 6, (2, 3))
    waves = np.sin(9 * down[..., None] + phases[0]) + np.cos(7 * across[..., None] + phases[1])
    return np.clip(127 + 50 * waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)


def save(path: Path, seed: int, height: int = 40, width: int = 60, mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, height, width)).convert(mode).save(path, **options)  # type: ignore[arg-type]
    return path


def class_folders(folder: Path, classes: int = 3, each: int = 5) -> Path:
    """`classes` folders of `each` JPEG and PNG files in varied sizes and modes."""
    for label in range(classes):
        for i in range(each):
            seed = label * each + i
            mode, suffix = (("RGB", "jpg"), ("RGB", "png"), ("L", "jpg"), ("RGBA", "png"), ("CMYK", "jpg"))[seed % 5]
            save(folder / f"class_{label}" / f"image {i}.{suffix}", seed, 30 + 7 * i, 90 - 8 * i, mode)
    return folder


def truncate(path: Path, share: float = 0.5) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def torchvision_crop(image: Image.Image, resize: int | None, crop: int) -> np.ndarray:
    """What torchvision's Resize(resize) and CenterCrop(crop) make of a PIL image, by its own rules and PIL's calls."""
    image = image.convert("RGB")
    if resize is not None:
        short, long = sorted(image.size)
        new = resize, int(resize * long / short)
        image = image.resize(new if image.width <= image.height else new[::-1], Image.Resampling.BILINEAR)
    left, top = (int(round((side - crop) / 2.0)) for side in image.size)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))
