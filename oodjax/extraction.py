"""Outputs of any model on any images: `oodjax.extract`, or `stream` for more of them than memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from oodjax.checks import check_logits
from oodjax.data.contract import BadImage, Source
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


class _Part(NamedTuple):
    pixels: Pixels  # (rows, H, W, C)
    mask: np.ndarray  # (rows,) which rows are images
    labels: np.ndarray | None  # (rows,) of a labelled source
    images: int  # how many it stands for, those that cannot be read among them


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
    found = list(
        stream(
            network,
            images,
            batch_size=batch_size,
            needs=needs,
            temperatures=temperatures,
            noises=noises,
            check_head=check_head,
        )
    )
    if not found:
        raise ValueError("extract got no images; it needs at least one")
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    return joined if labels is None else Outputs(**{**vars(joined), "labels": labels})


def stream(
    network: Network | Callable[..., Any],
    images: Any,
    *,
    batch_size: int = BATCH_SIZE,
    needs: Iterable[str] = (),
    temperatures: Sequence[float] = ODIN_TEMPERATURES,
    noises: Sequence[float] = ODIN_NOISES,
    check_head: bool = True,
    unreadable: list[BadImage] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Outputs]:
    """What `extract` returns, a batch at a time: as `TrainStatistics.collect` takes it, of any number of images.

    Args:
      network, images, batch_size, needs, temperatures, noises, check_head: as for `extract`.
      unreadable: takes the images of a source that cannot be read, which are left out; None stops at the first.
      advance: told how many images each batch held.

    Raises:
      ValueError: as `extract`, but for no images, of which nothing comes.
      BadImage: an image cannot be read, and `unreadable` is None.
    """
    unknown = sorted(set(needs) - set(FIELDS))
    if unknown:
        raise ValueError(f"extract: unknown needs {', '.join(unknown)}; possible: {', '.join(FIELDS)}")
    fields = frozenset(needs) - {"logits", "features"}
    own = isinstance(network, Network)
    apply = network.apply if isinstance(network, Network) else FunctionApply(network, False)
    head = network.head if isinstance(network, Network) and check_head else None
    devices = Devices.all()
    geometry = Geometry(network.resize, network.crop) if isinstance(network, Network) else AS_IT_IS
    axes = odin_axes((tuple(temperatures), tuple(noises)))
    state, axes = devices.replicate((network.state if isinstance(network, Network) else (), axes))
    waiting: tuple[Outputs, _Part] | None = None
    for part in _parts(images, geometry, devices.rows(batch_size), own, unreadable):
        pixels = pixels_of(network) if isinstance(network, Network) else (None, None, _unit(part.pixels))
        outputs = forward(apply, fields, devices.mesh, state, devices.share(part.pixels), pixels, axes)
        if waiting is not None:
            yield _on_host(*waiting)
        elif head is not None:
            logits, features = (np.asarray(x)[part.mask] for x in (outputs.logits, outputs.features))
            check_logits(Outputs(logits, features), head, "extract")
        waiting = outputs, part
        advance(part.images)
    if waiting is not None:
        yield _on_host(*waiting)


def _unit(batch: Pixels) -> np.ndarray:
    """What one unit of a function's images is, in pixels of 0..1: those of floating-point images are taken to be."""
    return np.full(batch.shape[-1], 1 / 255 if batch.dtype == np.uint8 else 1.0, np.float32)


def _on_host(outputs: Outputs, part: _Part) -> Outputs:
    found = jax.tree.map(lambda x: np.asarray(x)[part.mask], outputs)
    return found if part.labels is None else Outputs(**{**vars(found), "labels": part.labels[part.mask]})


def _parts(
    images: Any, geometry: Geometry, rows: int, uint8: bool, unreadable: list[BadImage] | None
) -> Iterator[_Part]:
    """Batches of `rows` rows, each with at least one image; those of a labelled source with labels."""
    if hasattr(images, "fingerprint") and hasattr(images, "labels"):  # a source
        return _from_source(images, geometry, rows, unreadable)
    arrays = [images] if hasattr(images, "shape") else images
    if not isinstance(arrays, Iterable) or isinstance(arrays, (str, bytes, dict)):
        raise ValueError(
            f"extract: images must be an array, a source or an iterable of arrays, got {type(images).__name__}"
        )
    return _from_arrays(arrays, rows, uint8)


def _from_source(source: Source, geometry: Geometry, rows: int, unreadable: list[BadImage] | None) -> Iterator[_Part]:
    labelled, known = bool((source.labels >= 0).any()), 0
    loader = load(source, rows, geometries=(geometry,), on_bad="stop" if unreadable is None else "skip")
    for batch in loader:
        if unreadable is not None:
            unreadable += loader.bad[known:]
            known = len(loader.bad)
        if batch.mask.any():
            yield _Part(batch.images, batch.mask, batch.labels if labelled else None, int((batch.index >= 0).sum()))


def _from_arrays(arrays: Iterable[Any], rows: int, uint8: bool) -> Iterator[_Part]:
    """Arrays of any lengths as batches of one, each as soon as it is full."""
    held: list[Pixels] = []
    count, whole = 0, np.ones(rows, bool)
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
                joined = np.concatenate(held)
                yield _Part(joined[:rows], whole, None, rows)
                held, count = [joined[rows:]], count - rows
    if count:
        joined = np.pad(np.concatenate(held), [(0, rows - count), (0, 0), (0, 0), (0, 0)])
        yield _Part(joined, np.arange(rows) < count, None, count)
