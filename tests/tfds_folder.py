"""Data sets of tensorflow-datasets on disk, a few images each, under their own names and with their own features."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from image_files import picture
from PIL import Image


class OodjaxStandIn(tfds.core.GeneratorBasedBuilder):
    """Writes images as files, which takes no TensorFlow, with the features of the data set that it stands for."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def __init__(self, original: Any, splits: Mapping[str, int], first_seed: int, **settings: Any) -> None:
        self.original, self.splits, self.first_seed = original, splits, first_seed
        super().__init__(**settings)

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(builder=self, features=self.original.info.features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        starts = {name: self.first_seed + 1000 * i for i, name in enumerate(self.splits)}
        return {name: self._generate_examples(starts[name], count) for name, count in self.splits.items()}

    def _generate_examples(self, start: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        features = self.original.info.features
        height, width, channels = (side or 40 + 8 * i for i, side in enumerate(features["image"].shape))
        for seed in range(start, start + count):
            pixels = picture(seed, height, width)
            content = io.BytesIO()
            kind = (features["image"].encoding_format or "png").upper()
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(content, kind)
            content.seek(0)
            yield seed, {name: content if name == "image" else _value(features[name], seed) for name in features}


def _value(feature: Any, seed: int) -> int | str:
    return seed % feature.num_classes if isinstance(feature, tfds.features.ClassLabel) else str(seed)


def make(data_dir: Path, dataset: str, splits: Mapping[str, int], first_seed: int = 0) -> None:
    """Writes `dataset` into `data_dir`, where tensorflow-datasets takes it for prepared."""
    original = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
    stand_in = OodjaxStandIn(original, splits, first_seed, data_dir=data_dir / "made", file_format="array_record")
    stand_in.download_and_prepare()
    made, place = Path(stand_in.data_dir), Path(original.data_dir)
    place.parent.mkdir(parents=True, exist_ok=True)
    made.rename(place)
    for path in place.glob(f"{stand_in.name}-*"):
        path.rename(place / path.name.replace(stand_in.name, dataset, 1))
    record = json.loads((place / "dataset_info.json").read_text(encoding="utf-8"))
    record |= {"name": dataset, "version": str(original.version)}
    (place / "dataset_info.json").write_text(json.dumps(record), encoding="utf-8")
