"""A monitor as one StableHLO artefact that JAX alone can run: `oodjax.export`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from oodjax.arrays import describe
from oodjax.files import write_whole
from oodjax.monitor import Monitor
from oodjax.neighbors import StreamedBank

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST = 2**31  # bytes of the constants: what the format's offsets reach


def export(monitor: Monitor, path: str | Path, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> None:
    """Writes a monitor as one file, for an environment that has JAX and not this library.

    There `jax.export.deserialize(bytearray(path.read_bytes())).call(images)` takes uint8 images (n, H, W, 3), any n,
    and returns (label, score, p_value, in_distribution), each (n,), as `Verdict` describes them. Weights, threshold and
    calibration scores are inside. Writing and reading it needs flatbuffers: `pip install 'oodjax[export]'`.

    Args:
      monitor: its network takes square images of its `crop`, or of the `image_size` of its architecture.
      path: the file; written whole or not at all, and an earlier file of the name is replaced.
      platforms: those that it is to run on, of cpu, cuda, rocm and tpu.

    Raises:
      TypeError: no monitor.
      ValueError: unknown platforms; a network that says no size of images; a bank that stays in its file, or arrays of
        more than 2 GiB.
      ImportError: flatbuffers is missing.
      OSError: the file cannot be written.
    """
    from jax import export as jax_export

    if not isinstance(monitor, Monitor):
        raise TypeError(f"export takes an oodjax.Monitor, got {describe(monitor)}")
    platforms = [platforms] if isinstance(platforms, str) else list(platforms)
    if not platforms or (unknown := [str(p) for p in platforms if p not in PLATFORMS]):
        given = ", ".join(unknown) if platforms else "none"
        raise ValueError(f"export: platforms must be some of {', '.join(PLATFORMS)}, got {given}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError("export needs flatbuffers to write its file: pip install 'oodjax[export]'")
    side = monitor.network.side
    if side is None:
        raise ValueError("export: the network says no size of images: make it with crop=..., the pixels of a side")
    arrays = _constants(monitor)
    (n,) = jax_export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, side, side, 3), jnp.uint8)

    def judge(images: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(monitor.program(arrays, images))

    exported = jax_export.export(jax.jit(judge), platforms=tuple(platforms))(images)
    content = exported.serialize()
    write_whole(Path(path), lambda file: file.write(content))


def _constants(monitor: Monitor) -> Any:
    streamed = [isinstance(x, StreamedBank) for x in _banks(monitor.detector.params)]
    if any(streamed):
        raise ValueError(
            f"export: the bank of {monitor.detector.name} stays in a file, which an artefact cannot hold: fit it to "
            "fewer rows with TrainStatistics.collect(..., bank_fraction=...)"
        )
    arrays = jax.tree.map(jnp.asarray, monitor.arrays)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    if size >= LARGEST:
        raise ValueError(
            f"export: weights and {monitor.detector.name} take {size / 2**30:.1f} GiB, an artefact holds less than 2: "
            "take a smaller bank_fraction or another detector"
        )
    return arrays


def _banks(params: Any) -> list[Any]:
    return jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, StreamedBank))
