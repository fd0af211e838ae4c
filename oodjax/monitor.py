"""A network and a calibrated detector as one program: images in, verdicts out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oodjax.arrays import describe, is_whole
from oodjax.detectors import Detector
from oodjax.detectors.classification import ODIN_NOISES, ODIN_TEMPERATURES
from oodjax.forward import odin_axes, on_device, pixels_of
from oodjax.models.apply import Apply
from oodjax.models.network import Network
from oodjax.neighbors import ShardedBank

BATCH_SIZE = 64


class Verdict(NamedTuple):
    """What a monitor says of n images, as NumPy arrays.

    Attributes:
      label: (n,) int32, the predicted class.
      score: (n,) float32, the detector's; higher = more in-distribution.
      p_value: (n,) float32, see `Detector.p_value`.
      in_distribution: (n,) bool, whether the score is at or above the threshold.
    """

    label: Any
    score: Any
    p_value: Any
    in_distribution: Any


@dataclass(frozen=True)
class Program:
    """The part of a monitor that is compiled; equal for all monitors of one architecture and method.

    Attributes:
      apply: of the network.
      needs: of the detector, beside logits and features.
    """

    apply: Apply
    needs: frozenset[str]

    def __call__(self, arrays: Any, images: jax.Array) -> Verdict:
        state, pixels, axes, det = arrays
        outputs = on_device(self.apply, self.needs, state, images, pixels, axes)
        score = det.score(outputs)
        label = jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)
        return Verdict(label, score, det.reference.p_values(score), det.reference.accept(score))


class Monitor:
    """Decides for images whether they are in-distribution.

    Images go through in batches of 1, 2, 4, ... up to `batch_size`, the last padded to the next of these numbers: one
    program each, compiled when it is first met. Any number of images then compiles nothing. On one device.

    Args:
      network: the model.
      detector: fitted to outputs of this network, and calibrated. ODIN runs at its own temperature and noise alone.
      batch_size: the most images at once, a power of two.

    Attributes:
      network, detector, batch_size: as given.

    Raises:
      TypeError: no network, or no detector.
      ValueError: a detector that is not fitted, not calibrated or was fitted to another width, or that reads maps which
        the network has not; a batch size that is no power of two.
    """

    def __init__(self, network: Network, detector: Detector, batch_size: int = BATCH_SIZE) -> None:
        _check(network, detector)
        if not is_whole(batch_size) or batch_size < 1 or batch_size & (batch_size - 1):
            raise ValueError(f"Monitor: batch_size must be a power of two, such as 64, got {describe(batch_size)}")
        self.network, self.detector, self.batch_size = network, detector, int(batch_size)
        self._side = network.side
        self.program = Program(network.apply, frozenset(detector.needs) - {"logits", "features"})
        # Flat, since a call flattens its arguments and a network's state is a deep tree.
        leaves, self._structure = jax.tree.flatten(self.arrays)
        self._leaves = tuple(jax.device_put(leaves, jax.local_devices()[0]))

    @property
    def arrays(self) -> Any:
        """What the program takes beside images: weights, normalisation, ODIN's point, detector."""
        detector, axes = at_one_point(on_one_device(self.detector))
        return self.network.state, pixels_of(self.network), odin_axes(axes), detector

    def __call__(self, images: Any) -> Verdict:
        """Verdicts for (n, H, W, 3) uint8 images, resized and cropped as the network asks.

        Raises:
          ValueError: images of another type or shape, or none; a network whose outputs give a score of NaN.
        """
        images = self._checked(images)
        # All batches are sent before the first result is fetched.
        found = [self._run(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
        found = jax.device_get(found)
        verdict = Verdict(*(np.concatenate(parts)[: len(images)] for parts in zip(*found, strict=True)))
        if bad := int(np.isnan(verdict.score).sum()):
            raise ValueError(f"Monitor: {bad} of {len(images)} scores are NaN: the network's weights or outputs are")
        return verdict

    def __repr__(self) -> str:
        return f"Monitor({self.network!r}, {self.detector!r})"

    def _run(self, batch: np.ndarray) -> Verdict:
        rows = 1 << (len(batch) - 1).bit_length()
        if rows > len(batch):
            batch = np.concatenate([batch, np.zeros((rows - len(batch), *batch.shape[1:]), np.uint8)])
        return _judge(self.program, self._structure, self._leaves, batch)

    def _checked(self, images: Any) -> np.ndarray:
        array = np.asarray(images) if hasattr(images, "__array__") else None
        side = self._side
        if array is None or array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
            one = array is not None and array.dtype == np.uint8 and array.ndim == 3
            hint = "; for one image pass image[None]" if one else ""
            raise ValueError(f"Monitor takes uint8 images (n, H, W, 3), got {describe(images)}{hint}")
        if len(array) == 0:
            raise ValueError("Monitor got no images; it needs at least one")
        if side is not None and array.shape[1:3] != (side, side):
            raise ValueError(
                f"Monitor: the network takes images of {side} x {side} pixels, got {array.shape[1]} x "
                f"{array.shape[2]}; oodjax.data.preprocess.preprocess makes them"
            )
        return array


@partial(jax.jit, static_argnums=(0, 1))
def _judge(program: Program, structure: Any, leaves: Any, images: jax.Array) -> Verdict:
    return program(jax.tree.unflatten(structure, leaves), images)


def _check(network: Any, detector: Any) -> None:
    if not isinstance(network, Network):
        raise TypeError(f"Monitor takes an oodjax.Network, got {describe(network)}; Network.from_function makes one")
    if not isinstance(detector, Detector):
        raise TypeError(f"Monitor takes a fitted and calibrated detector, got {describe(detector)}")
    _ = detector.threshold
    own = dict(zip(("features", "logits"), network.head.kernel.shape, strict=True))
    for field, width in detector.widths:
        if field in own and width != (own[field],):
            raise ValueError(
                f"Monitor: {detector.name} was fitted to {field} of width {width[0]}, the network has {own[field]}"
            )
    check_maps(network, detector)


def check_maps(network: Network, detector: Detector) -> None:
    """Raises a ValueError where a detector reads maps that the network has not."""
    maps = [name for name in ("gram", "layer_means") if name in detector.needs]
    if maps and not network.has_maps:
        raise ValueError(
            f"{detector.name} reads {maps[0]}, which needs maps of intermediate layers: the network's "
            "function must return (logits, features, maps)"
        )


def on_one_device(detector: Detector) -> Detector:
    """With banks that are shared out over devices as plain arrays."""
    plain = jax.tree.map(
        lambda x: np.asarray(x.rows)[: x.size] if isinstance(x, ShardedBank) else x,
        detector.params,
        is_leaf=lambda x: isinstance(x, ShardedBank),
    )
    return dataclasses.replace(detector, params=plain)


def at_one_point(detector: Detector) -> tuple[Detector, Any]:
    """The detector over the one point of ODIN's axes that it reads, and those axes."""
    options = detector.options
    if detector.name != "odin":
        return detector, (ODIN_TEMPERATURES, ODIN_NOISES)
    axes = (options["temperature"],), (options["noise"],)
    narrow = {**options, "temperatures": axes[0], "noises": axes[1]}
    return dataclasses.replace(detector, settings=tuple(narrow.items()), widths=()), axes
