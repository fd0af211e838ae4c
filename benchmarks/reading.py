"""(d) Reading JPEG files of 500 x 375: the loader against Pillow in a plain loop, and against itself by option."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.timing import measure, ratio
from oodjax.data import Geometry, load
from oodjax.data.preprocess import preprocess
from oodjax.data.sources import Files

IMAGES, BATCH = 256, 64
SIZE = (500, 375)
EXACT, OTHER, FAST = Geometry(256, 224), Geometry(232, 224), Geometry(256, 224, fast=True)


def write_photographs(folder: Path) -> Files:
    """JPEG files of the size and, at 4 bits a pixel, the weight of ImageNet's; every third upright."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    for i in range(IMAGES):
        size = SIZE[::-1] if i % 3 == 2 else SIZE
        left, top = int(rng.integers(0, 140)), int(rng.integers(0, 50))
        part = photographs[i % 2].crop((left, top, left + 500, top + 375))
        part.resize(size, Image.Resampling.LANCZOS).save(folder / f"{i:03}.jpg", quality=90)
    return Files.from_folder(folder)


def run(repeats: int = 5) -> dict[str, Any]:
    """Images a second, and the ratios of the time an image takes."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_photographs(Path(folder))

        def reading(geometries: Sequence[Geometry], threads: int | None = None) -> Callable[[], None]:
            def read() -> None:
                for _ in load(source, BATCH, geometries=geometries, threads=threads):
                    pass

            return read

        calls = {
            "plain_loop": lambda: [preprocess(source.path(i)) for i in range(IMAGES)],
            "loader": reading([EXACT]),
            "loader_one_thread": reading([EXACT], threads=1),
            "loader_two_sizes": reading([EXACT, OTHER]),
            "loader_fast": reading([FAST]),
        }
        timings = dict(zip(calls, measure(*calls.values(), repeats=repeats), strict=True))
    loader = timings["loader"]
    return {
        "images": f"{IMAGES} JPEG files, {SIZE[0]} x {SIZE[1]}",
        "images_per_second": {name: IMAGES / timing.median for name, timing in timings.items()},
        "plain_loop_over_loader": ratio(timings["plain_loop"], loader),
        "plain_loop_over_one_thread": ratio(timings["plain_loop"], timings["loader_one_thread"]),
        "two_sizes_over_one": ratio(timings["loader_two_sizes"], loader),
        "exact_over_fast": ratio(loader, timings["loader_fast"]),
    }
