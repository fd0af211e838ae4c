"""Outputs of any model on any images: `oodjax.extract`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from oodjax.checks import check_logits
from oodjax.data.loader import AS_IT_IS, Geometry, load
from oodjax.detectors.classification import ODIN_NOISES, ODIN_TEMPERATURES
from oodjax.devices import Devices
from oodjax.forward import forward, odin_axes, pixels_of
from oodjax.models.apply import FunctionApply
from oodjax.models.network import Network
from oodjax.outputs import Outputs

BATCH_SIZE = 64
FIELDS = ("logits", "features", "gram", "layer_means", "odin")
Pixels = np.ndarray


def extract(
    network: Network | Callable[..., Any],
    images: Any,
    labels: Any = None,
    *,
    batch_size: int = BATCH_SIZE,
    needs: Iterable[str] = (),
    temperatures: Sequence[float] = ODIN_TEMPERATURES,
    noises: Sequence[float] = ODIN_NOISES,
    check_head: bool = True,
) -> Outputs:
    """Runs images through a model and returns what detectors read, on the host.

    Batches have one shape, the last padded: another number of images compiles nothing. They are shared out over all
    devices; the next batch is sent while the devices work on one.

    Args:
      network: a `Network` (a loaded checkpoint, or `Network.from_function`), or a function from a batch of images to
        (logits (n, K), features (n, D)) or (logits, features, maps), which JAX can trace.
      images: (n, H, W, C) array; a source of `oodjax.data.sources`, whose images are resized and cropped as the
        network asks; or an iterable of arrays (b, H, W, C), read as it comes. A `Network` takes uint8; a function is
        given what is there.
      labels: (n,) whole numbers; a source brings its own.
      batch_size: images a step over all devices, rounded up to a multiple of their number.
      needs: what else is wanted: "gram" and "layer_means" (of models with maps), "odin"; `detector.needs` will do.
      temperatures, noises: the axes of ODIN's scores.
      check_head: whether head(features) must equal the logits of the first batch, where the network has a head.

    Returns:
      `Outputs` of NumPy arrays, float32.

    Raises:
      ValueError: no images, or of a wrong type or shape; an unknown field; fields that the model has no maps for;
        logits that are not head(features).
    """
    unknown = sorted(set(needs) - set(FIELDS))
    if unknown:
        raise ValueError(f"extract: unknown needs {', '.join(unknown)}; possible: {', '.join(FIELDS)}")
    fields = frozenset(needs) - {"logits", "features"}
    own = isinstance(network, Network)
    apply = network.apply if isinstance(network, Network) else FunctionApply(network, False)
    head = network.head if isinstance(network, Network) else None
    devices = Devices.all()
    rows = devices.rows(batch_size)
    geometry = Geometry(network.resize, network.crop) if isinstance(network, Network) else AS_IT_IS
    batches, own_labels = _batches(images, geometry, rows, own)
    axes = odin_axes((tuple(temperatures), tuple(noises)))
    state, axes = devices.replicate((network.state if isinstance(network, Network) else (), axes))
    found: list[Outputs] = []
    waiting: tuple[Outputs, int] | None = None
    for batch, count in batches:
        pixels = pixels_of(network) if isinstance(network, Network) else (None, None, _unit(batch))
        outputs = forward(apply, fields, devices.mesh, state, devices.share(batch), pixels, axes)
        if waiting is not None:
            found.append(_on_host(*waiting))
        elif check_head and head is not None:
            check_logits(Outputs(outputs.logits[:count], outputs.features[:count]), head, "extract")
        waiting = outputs, count
    if waiting is None:
        raise ValueError("extract got no images; it needs at least one")
    found.append(_on_host(*waiting))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    labels = own_labels if labels is None else labels
    return joined if labels is None else Outputs(**{**vars(joined), "labels": labels})


def _unit(batch: Pixels) -> np.ndarray:
    """What one unit of a function's images is, in pixels of 0..1: those of floating-point images are taken to be."""
    return np.full(batch.shape[-1], 1 / 255 if batch.dtype == np.uint8 else 1.0, np.float32)


def _on_host(outputs: Outputs, count: int) -> Outputs:
    return jax.tree.map(lambda x: np.asarray(x)[:count], outputs)


def _batches(
    images: Any, geometry: Geometry, rows: int, uint8: bool
) -> tuple[Iterator[tuple[Pixels, int]], np.ndarray | None]:
    """(padded batch, real rows), and the labels that the images bring."""
    if hasattr(images, "fingerprint") and hasattr(images, "labels"):  # a source
        return _from_source(images, geometry, rows), images.labels if (images.labels >= 0).any() else None
    arrays = [images] if hasattr(images, "shape") else images
    if not isinstance(arrays, Iterable) or isinstance(arrays, (str, bytes, dict)):
        raise ValueError(
            f"extract: images must be an array, a source or an iterable of arrays, got {type(images).__name__}"
        )
    return _from_arrays(arrays, rows, uint8), None


def _from_source(source: Any, geometry: Geometry, rows: int) -> Iterator[tuple[Pixels, int]]:
    for batch in load(source, rows, geometries=(geometry,)):
        yield batch.images, int(batch.mask.sum())


def _from_arrays(arrays: Iterable[Any], rows: int, uint8: bool) -> Iterator[tuple[Pixels, int]]:
    """Arrays of any lengths as batches of one, each as soon as it is full."""
    held: list[Pixels] = []
    count = 0
    for array in arrays:
        array = np.asarray(array)
        if array.ndim != 4 or (uint8 and (array.dtype != np.uint8 or array.shape[-1] != 3)):
            expected = "uint8 (n, H, W, 3)" if uint8 else "(n, H, W, C)"
            raise ValueError(f"extract: images must be {expected}, got {array.dtype} {array.shape}")
        if held and array.shape[1:] != held[0].shape[1:]:
            raise ValueError(f"extract: images must be of one size, got {array.shape[1:]} after {held[0].shape[1:]}")
        for start in range(0, len(array), rows):
            held.append(array[start : start + rows])
            count += len(held[-1])
            while count >= rows:
                whole = np.concatenate(held)
                yield whole[:rows], rows
                held, count = [whole[rows:]], count - rows
    if count:
        whole = np.concatenate(held)
        yield np.pad(whole, [(0, rows - count), (0, 0), (0, 0), (0, 0)]), count
