"""A miniature of OpenOOD's ImageNet layout: a dozen images a set, in varied sizes and modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from image_files import picture, save

CLASSES = 4
KINDS = (("RGB", "JPEG"), ("RGB", "png"), ("L", "jpg"), ("RGBA", "png"), ("CMYK", "jpg"), ("P", "png"))
LISTED = {
    "train_imagenet": ("images_largescale", "imagenet_1k/train/n{label:02d}/{i}", 24),
    "val_imagenet": ("images_largescale", "imagenet_1k/val/v{i}", 12),
    "test_imagenet": ("images_largescale", "imagenet_1k/val/t{i}", 12),
    "val_openimage_o": ("images_largescale", "openimage_o/val {i}", 12),
    "test_ssb_hard": ("images_largescale", "ssb_hard/n{label:02d}/{i}", 12),
    "test_ninco": ("images_largescale", "ninco/{i}", 12),
    "test_inaturalist": ("images_largescale", "inaturalist/images/{i}", 12),
    "test_textures": ("images_classic", "texture/banded/{i}", 12),
    "test_openimage_o": ("images_largescale", "openimage_o/test {i}", 12),
}


def make(data: Path, side: int = 60, each: int = 12) -> Path:
    """Writes the folder, `each` images a set and twice as many to train on.

    ID images get labels 0 to 3, OOD images -1, sides are `side` to twice that.
    """
    lists = data / "benchmark_imglist" / "imagenet"
    lists.mkdir(parents=True)
    seed = 0
    for name, (folder, pattern, count) in LISTED.items():
        lines = []
        for i in range(count * each // 12):
            seed += 1
            mode, suffix = KINDS[seed % len(KINDS)]
            label = i % CLASSES if name.endswith("imagenet") else -1
            path = f"{pattern.format(i=i, label=i % CLASSES)}.{suffix}"
            height, width = side + seed * 7 % side, side + seed * 11 % side
            save(data / folder / path, seed, height, width, mode)
            lines.append(f"{path} {label}")
        (lists / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for place, name in enumerate(("mnist", "fashion_mnist")):
        (data / name).mkdir()
        grey = np.stack([picture(1000 * (place + 1) + i, 28, 28)[..., 0] for i in range(each)])
        header = bytes((0, 0, 8, 3)) + np.array(grey.shape, ">i4").tobytes()
        (data / name / "t10k-images-idx3-ubyte").write_bytes(header + grey.tobytes())
    return data
