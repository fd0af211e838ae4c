"""Images -> Outputs: one compiled program for every checkpoint of an architecture, over all devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from oodjax.data.loader import batches
from oodjax.detectors.classification import ODIN_NOISES, ODIN_TEMPERATURES
from oodjax.models.normalize import normalize_images
from oodjax.odin import odin_scores
from oodjax.outputs import Outputs
from oodjax.taps import summarize


@partial(jax.jit, static_argnames="graphdef")
def forward(graphdef: Any, state: Any, images: jax.Array, mean: jax.Array, std: jax.Array) -> Outputs:
    """(n, H, W, 3) uint8 images -> Outputs with GRAM rows and layer means; weights are arguments."""
    out = nnx.merge(graphdef, state)(normalize_images(images, mean, std))
    gram, layer_means = summarize(out.maps)
    return Outputs(out.logits, out.features, gram=gram, layer_means=layer_means)


@partial(jax.jit, static_argnames=("graphdef", "temperatures", "noises"))
def odin(
    graphdef: Any, state: Any, images: jax.Array, mean: jax.Array, std: jax.Array,
    temperatures: tuple[float, ...] = ODIN_TEMPERATURES, noises: tuple[float, ...] = ODIN_NOISES,
) -> jax.Array:  # fmt: skip
    """(n, H, W, 3) uint8 images -> (n, T, E) ODIN scores."""

    def logits(x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(x).logits

    return odin_scores(logits, normalize_images(images, mean, std), temperatures, noises, std)


@dataclass
class Counts:
    """What a run did: images decoded, forward passes of single images, and ODIN's own passes."""

    decoded: int = 0
    forwards: int = 0
    odin_passes: int = 0


@dataclass(frozen=True)
class Extractor:
    """Feeds images through the network in fixed batches, sharded over a mesh.

    Attributes:
      mean, std: (3,) normalisation of pixels scaled to 0..1, applied on the device.
      batch_size: images a step over all devices; rounded up to a multiple of their number.
      mesh: the devices; all of them by default.
      counts: what has been done so far.
    """

    mean: np.ndarray
    std: np.ndarray
    batch_size: int = 256
    mesh: Mesh = field(default_factory=lambda: Mesh(np.array(jax.devices()), ("batch",)))
    counts: Counts = field(default_factory=Counts)

    @property
    def rows(self) -> int:
        return -(-self.batch_size // self.mesh.size) * self.mesh.size

    @property
    def split(self) -> NamedSharding:
        """Samples shared out over the devices."""
        return NamedSharding(self.mesh, PartitionSpec("batch"))

    def replicate(self, tree: Any) -> Any:
        """The tree on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def passes(
        self, graphdef: Any, state: Any, images: np.ndarray, labels: np.ndarray, *, with_odin: bool
    ) -> Iterator[tuple[Outputs, jax.Array, int]]:
        """Yields (outputs, mask, real rows) for each batch, on the device; the last batch is padded and masked.

        The next batch is sent while the caller works on this one: nothing here waits for the device.
        """
        mean, std = self.replicate((np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)))
        for batch in batches(images, labels, self.rows):
            x, y, mask = jax.device_put((batch.images, batch.labels, batch.mask), self.split)
            outputs = forward(graphdef, state, x, mean, std).replace(labels=y)
            count = int(batch.mask.sum())
            self.counts.forwards += count
            if with_odin:
                outputs = outputs.replace(odin=odin(graphdef, state, x, mean, std))
                points = len(ODIN_TEMPERATURES) * len(ODIN_NOISES)
                self.counts.odin_passes += count * (1 + len(ODIN_TEMPERATURES) + points)
            yield outputs, mask, count


def to_host(parts: Sequence[tuple[jax.Array, int]]) -> np.ndarray:
    """Batches of rows with their real counts -> one array on the host, padding dropped."""
    return np.concatenate([np.asarray(rows)[:count] for rows, count in parts])
