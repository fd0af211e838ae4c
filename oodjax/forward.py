"""Images -> Outputs: one compiled program for every model of an architecture, over all devices."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from oodjax.devices import AXIS
from oodjax.models.apply import Apply, prepare
from oodjax.models.network import Network
from oodjax.odin import perturbed_scores
from oodjax.outputs import Outputs
from oodjax.taps import summarize

Points = tuple[tuple[float, ...], tuple[float, ...]]


@partial(jax.jit, static_argnames=("apply", "needs", "mesh"))
def forward(
    apply: Apply,
    needs: frozenset[str],
    mesh: Mesh,
    state: Any,
    images: jax.Array,
    pixels: tuple[Any, Any, Any],
    odin_axes: tuple[jax.Array, jax.Array],
) -> Outputs:
    """One forward pass, with what `needs` names beside logits and features.

    Each device works on its own samples: nothing moves between them.

    Args:
      apply, state: of a `Network`; weights are arguments, so models of one architecture share the program.
      needs: of "gram", "layer_means" and "odin".
      mesh: of the devices.
      images: (n, H, W, 3) uint8, shared out over the mesh.
      pixels: (mean, std, pixel_std) of the network, on every device.
      odin_axes: temperatures (T,) and noises (E,), read where "odin" is needed.

    Returns:
      Outputs without labels; ODIN's scores cost T + T x E passes more.
    """

    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    program = jax.shard_map(
        partial(on_device, apply, needs),
        mesh=mesh,
        in_specs=(everywhere, split, everywhere, everywhere),
        out_specs=split,
        check_vma=False,
    )
    return program(state, images, pixels, odin_axes)


def on_device(
    apply: Apply,
    needs: frozenset[str],
    state: Any,
    images: jax.Array,
    pixels: tuple[Any, Any, Any],
    odin_axes: tuple[jax.Array, jax.Array],
) -> Outputs:
    """`forward` on one device; to be traced inside a program."""
    mean, std, pixel_std = pixels
    x = prepare(images, mean, std)
    if "odin" in needs:
        x = x.astype(jnp.float32)
        temperatures, noises = odin_axes
        scores, (_, out) = perturbed_scores(partial(_with_logits, apply, state), x, temperatures, noises, pixel_std)
    else:
        scores, out = None, apply(state, x)
    gram, layer_means = summarize(out.maps) if needs & {"gram", "layer_means"} else (None, None)
    return Outputs(
        out.logits.astype(jnp.float32),
        out.features.astype(jnp.float32),
        gram=gram if "gram" in needs else None,
        layer_means=layer_means if "layer_means" in needs else None,
        odin=scores,
    )


def _with_logits(apply: Apply, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    out = apply(state, x)
    return out.logits, out


def pixels_of(network: Network) -> tuple[Any, Any, Any]:
    """(mean, std, pixel_std) as `forward` takes them."""
    return (*network.normalisation, network.pixel_std)


def odin_axes(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """(temperatures, noises) as `forward` takes them."""
    temperatures, noises = points
    return np.asarray(temperatures, np.float32), np.asarray(noises, np.float32)
