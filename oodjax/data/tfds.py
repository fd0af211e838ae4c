"""Data sets of tensorflow-datasets, read without TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oodjax.data.contract import BadImage, DataError, Opens, checked_labels, digest_of_pixels, reason_of

if TYPE_CHECKING:
    from oodjax.data.contract import Opened


@dataclass(frozen=True, eq=False, repr=False)
class Tfds(Opens):
    """A split of a data set that tensorflow-datasets knows, read without TensorFlow.

    Attributes:
      dataset: its name, for example `mnist` or `mnist:3.0.1`.
      split: for example `test` or `train[:10%]`.
      data_dir: where prepared data sets are kept; None is tensorflow-datasets' own choice. What is not there is
        downloaded and prepared, for which most data sets need TensorFlow (tensorflow/datasets#11058).
      labelled: False gives every image the label -1, and reads none for it.
    """

    dataset: str
    split: str
    data_dir: str | Path | None = None
    labelled: bool = True
    _builder: Any = field(init=False)
    _source: Any = field(init=False)

    def __post_init__(self) -> None:
        try:
            import tensorflow_datasets
        except ImportError:
            raise DataError(
                f"tfds:{self.dataset}:{self.split} needs tensorflow-datasets: pip install 'oodjax[tfds]'"
            ) from None
        try:
            builder = _prepared(self.dataset, self.data_dir)
            source = builder.as_data_source(split=self.split)
        except tensorflow_datasets.core.DatasetNotFoundError:
            raise DataError(f"tensorflow-datasets knows no data set {self.dataset!r}") from None
        except Exception as error:  # tensorflow-datasets raises its own kinds, and what its downloads raise
            raise DataError(f"tfds:{self.dataset}:{self.split} cannot be opened: {reason_of(error)}") from None
        if "image" not in source.dataset_info.features:
            names = ", ".join(source.dataset_info.features)
            raise DataError(f"tfds:{self.dataset}:{self.split} has no feature `image`, only {names}")
        object.__setattr__(self, "_builder", builder)
        object.__setattr__(self, "_source", source)

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return f"Tfds({self.dataset!r}, {self.split!r}, {len(self)} images)"

    @property
    def description(self) -> str:
        return f"tensorflow-datasets {self._source.dataset_info.full_name}, split {self.split}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each label stands for; empty where there are no labels."""
        import tensorflow_datasets as tfds

        features = self._source.dataset_info.features
        label = features["label"] if self.labelled and "label" in features else None
        return tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()

    @cached_property
    def labels(self) -> np.ndarray:
        if not self.class_names:
            return checked_labels(None, len(self))
        import tensorflow_datasets as tfds

        no_images = {"image": tfds.decode.SkipDecoding()}
        labels = self._builder.as_data_source(split=self.split, decoders=no_images)
        return checked_labels([int(labels[index]["label"]) for index in range(len(labels))], len(self))

    @cached_property
    def fingerprint(self) -> str:
        """Of name, version, split, count and size as tensorflow-datasets records them, and of the labels."""
        info = self._source.dataset_info
        record = [info.full_name, self.split, len(self), *(f"{n}:{s.num_bytes}" for n, s in info.splits.items())]
        return hashlib.sha256(f"{record}".encode() + self.labels.tobytes()).hexdigest()

    def open(self, index: int) -> Opened:
        try:
            image = np.asarray(self._source[index]["image"])
        except Exception as error:  # whatever a damaged record makes a decoder raise
            raise BadImage(self.name(index), reason_of(error)) from None
        if image.dtype != np.uint8:
            raise BadImage(self.name(index), f"{image.dtype} pixels, expected uint8")
        return np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[-1] == 1 else image[..., :3]

    def name(self, index: int) -> str:
        return f"tfds:{self.dataset}:{self.split}[{index}]"

    def identities(self, content: bool = False) -> Sequence[str]:
        if content:
            return [digest_of_pixels(np.asarray(self.open(index))) for index in range(len(self))]
        return [f"{self.fingerprint}:{index}" for index in range(len(self))]


def is_prepared(dataset: str, data_dir: str | Path | None = None) -> bool:
    """Whether a data set is on disk, to be opened without a download.

    Raises:
      DataError: tensorflow-datasets is missing.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise DataError(f"tfds:{dataset} needs tensorflow-datasets: pip install 'oodjax[tfds]'") from None
    return bool(tfds.builder(dataset, data_dir=data_dir, file_format="array_record").is_prepared())


def _prepared(dataset: str, data_dir: str | Path | None) -> Any:
    """The builder of a data set that is on disk, in the one format that has random access."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
    if builder.is_prepared():
        return builder
    try:
        if find_spec("tensorflow") is not None:
            import tensorflow

            # It would take the whole memory of a GPU.
            tensorflow.config.set_visible_devices([], "GPU")
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        if "tensorflow" not in str(error):
            raise
        raise DataError("preparing it takes TensorFlow, once: pip install tensorflow; reading it does not") from None
    return builder
