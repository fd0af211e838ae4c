"""Detectors and monitors on disk: Orbax arrays and a JSON manifest, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from oodjax import __version__, detectors
from oodjax.arrays import describe
from oodjax.detectors import Detector
from oodjax.detectors.calibration import Reference
from oodjax.files import fingerprint
from oodjax.models import checkpoint
from oodjax.models.apply import NnxApply
from oodjax.models.checkpoint import MANIFEST, CheckpointError
from oodjax.models.network import Network
from oodjax.models.resnet import ResNet, ResNetConfig
from oodjax.models.vit import ViT, ViTConfig
from oodjax.monitor import Monitor
from oodjax.neighbors import ShardedBank, StreamedBank, normalize
from oodjax.outputs import Head

SCHEMA = 1
ARCHITECTURES: dict[str, tuple[type, type]] = {"resnet": (ResNetConfig, ResNet), "vit": (ViTConfig, ViT)}
CALIBRATION = "calibration"
OWN = "function"  # in an architecture's place: a network that is not kept, but given again where it is loaded
HEAD_TOLERANCE = 1e-4  # of the largest weight: what another device's rounding makes of a head that is computed


class NetworkNeeded(CheckpointError):
    """A monitor's network is a function of the user's own, which was not kept and must be given again."""


def save(folder: str | Path, thing: Detector | Monitor) -> None:
    """Keeps a fitted detector, or a monitor with its network's weights, for `load` in any process.

    Of a network that is no ResNet or ViT of `oodjax.models` the head alone is kept, to know it again by.

    Nothing in the folder is code: arrays as Orbax writes them, and a manifest with the detector's name, options and
    threshold, the images' preparation, the versions, and sha256 of all of it. A bank that is shared out over devices or
    stays in a file is kept as one array.

    Args:
      folder: a new or empty one, or one that `save` wrote, which is replaced once the new one is complete.
      thing: a fitted `Detector`, calibrated or not, or a `Monitor`.

    Raises:
      TypeError: something else; arrays in a pytree other than dict, list, tuple and `Head`.
      ValueError: not fitted; a folder with anything else in it, of which nothing is touched.
      OSError: the folder cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    if isinstance(thing, Monitor):
        facts = {"network": _network_facts(thing.network, arrays), "batch_size": thing.batch_size}
        facts["detector"] = _detector_facts(thing.detector, arrays)
    elif isinstance(thing, Detector):
        facts = {"detector": _detector_facts(thing, arrays)}
    else:
        raise TypeError(f"save takes a fitted detector or an oodjax.Monitor, got {describe(thing)}")
    facts["arrays"] = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", "orbax-checkpoint")}
    facts["versions"] = {"oodjax": __version__, "python": platform.python_version(), **packages}
    first = {"saved": {"schema": SCHEMA, "kind": "monitor" if isinstance(thing, Monitor) else "detector"}}
    try:
        facts = json.loads(json.dumps(facts))
    except (TypeError, ValueError) as error:
        raise TypeError(f"save: options and a network's manifest must be JSON values: {error}") from error
    facts["sha256"] = _seal(first, facts)
    filled = {name: array for name, array in arrays.items() if array.size}  # Orbax takes no empty arrays
    checkpoint.save_arrays(Path(folder), filled, first, facts)


def load(folder: str | Path, network: Network | None = None) -> Any:
    """The `Detector` or `Monitor` that `save` kept.

    On the same kind of device, with the same versions, it scores bit for bit as before.

    Args:
      folder: what `save` wrote.
      network: of a monitor whose network is a function of your own, that network.

    Raises:
      CheckpointError: a ValueError that says what does not fit: nothing of `save` is there, the schema is of a later
        version, the manifest was changed, an array is damaged, missing, left over or of another shape, the detector
        is none that is registered, or `network` is missing, of no use or another than the monitor's.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    arrays = checkpoint.read_arrays(folder, manifest)
    _check_arrays(folder, manifest["arrays"], arrays)
    detector = _detector(folder, manifest["detector"], arrays)
    facts = manifest.get("network", {})
    if network is not None and facts.get("architecture") != OWN:
        held = "a detector alone" if manifest["saved"]["kind"] == "detector" else "its network"
        raise CheckpointError(f"{folder} holds {held}: load it without a network")
    if manifest["saved"]["kind"] == "detector":
        return detector
    if facts["architecture"] == OWN:
        found = _own_network(folder, facts, arrays, network)
    else:
        found = _network(folder, facts, arrays)
    return Monitor(found, detector, manifest["batch_size"])


# ---------------------------------------------------------------------------------------------------------------------
# The manifest


def _seal(first: dict[str, Any], facts: dict[str, Any]) -> str:
    """sha256 of a manifest without the parts that carry one themselves."""
    return fingerprint({**first, **{k: v for k, v in facts.items() if k not in ("weights", "files", "sha256")}})


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = checkpoint.read_manifest(folder)
    if manifest is None:
        raise CheckpointError(f"{folder} holds nothing that oodjax.save wrote: {MANIFEST} is missing")
    saved = manifest.get("saved")
    if not isinstance(saved, dict) or "schema" not in saved:
        hint = ", but a network's checkpoint, which oodjax.zoo.load reads" if "config" in manifest else ""
        raise CheckpointError(f"{folder} holds nothing that oodjax.save wrote{hint}")
    if saved["schema"] != SCHEMA:
        raise CheckpointError(
            f"{folder} is of schema {saved['schema']!r}, this version of oodjax ({__version__}) reads {SCHEMA}: "
            f"read it with {manifest.get('versions', {}).get('oodjax', 'the version that wrote it')}"
        )
    if _seal({"saved": saved}, {k: v for k, v in manifest.items() if k != "saved"}) != manifest.get("sha256"):
        raise CheckpointError(f"{folder / MANIFEST} was changed after it was written: save anew")
    return manifest


def _check_arrays(folder: Path, listed: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raises unless `arrays` are those listed; the empty ones, which are listed alone, are put in."""
    for name, (dtype, shape) in listed.items():
        if 0 in shape:
            arrays.setdefault(name, np.zeros(shape, dtype))
    problems = [f"missing {name}" for name in sorted(listed.keys() - arrays.keys())]
    problems += [f"left over {name}" for name in sorted(arrays.keys() - listed.keys())]
    problems += [
        f"{name} is {array.dtype.name} {array.shape}, not {listed[name][0]} {tuple(listed[name][1])}"
        for name, array in arrays.items()
        if name in listed and [array.dtype.name, list(array.shape)] != listed[name]
    ]
    if problems:
        raise CheckpointError(f"{folder} does not fit its manifest: {'; '.join(problems)}")


# ---------------------------------------------------------------------------------------------------------------------
# Detectors


def _detector_facts(det: Detector, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if det.params is None:
        raise ValueError(f"{det.name} is not fitted: call det = det.fit(stats) first")
    params = _taken_apart(det.params, "detector", arrays, det.name)
    if det.reference is not None:
        arrays[CALIBRATION] = np.asarray(det.reference.scores)
    return {
        "name": det.name,
        "options": det.options,
        "widths": dict(det.widths),
        "params": params,
        "tpr": None if det.reference is None else det.reference.tpr,
    }


def _detector(folder: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Detector:
    try:
        bare = detectors.create(facts["name"], **facts["options"])
    except ValueError as error:
        mend = "; import what registers it first" if facts["name"] not in detectors.names() else ""
        raise CheckpointError(f"{folder}: {error}{mend}") from error
    reference = None
    if facts["tpr"] is not None:
        reference = Reference(jnp.asarray(arrays[CALIBRATION]), facts["tpr"])
    widths = tuple((name, tuple(shape)) for name, shape in facts["widths"].items())
    return dataclasses.replace(bare, params=_put_together(facts["params"], arrays), widths=widths, reference=reference)


def _taken_apart(node: Any, name: str, arrays: dict[str, np.ndarray], who: str) -> Any:
    """The structure of a pytree as JSON; its arrays go into `arrays` under the names that stand there."""
    if node is None:
        return None
    if isinstance(node, Head):
        parts = {"kernel": node.kernel, "bias": node.bias}
        return {"head": {key: _taken_apart(value, f"{name}/{key}", arrays, who) for key, value in parts.items()}}
    if type(node) is dict and all(isinstance(key, str) for key in node):
        return {"dict": {key: _taken_apart(value, f"{name}/{key}", arrays, who) for key, value in node.items()}}
    if type(node) in (list, tuple):
        items = [_taken_apart(value, f"{name}/{i}", arrays, who) for i, value in enumerate(node)]
        return {type(node).__name__: items}
    if isinstance(node, ShardedBank | StreamedBank):
        node = _rows(node)
    if not hasattr(node, "__array__"):
        raise TypeError(f"{who}: save takes arrays in dicts, lists, tuples and Head from its fit, got {describe(node)}")
    if name in arrays:
        raise TypeError(f"{who}: two of the arrays of its fit would both be called {name!r}; name them without '/'")
    arrays[name] = np.asarray(node)
    return {"array": name}


def _put_together(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if node is None:
        return None
    ((kind, value),) = node.items()
    if kind == "array":
        return jnp.asarray(arrays[value])
    if kind in ("list", "tuple"):
        items = [_put_together(item, arrays) for item in value]
        return items if kind == "list" else tuple(items)
    parts = {key: _put_together(item, arrays) for key, item in value.items()}
    return parts if kind == "dict" else Head(**parts)


def _rows(bank: ShardedBank | StreamedBank) -> np.ndarray:
    """A bank's rows at unit length on the host."""
    if isinstance(bank, ShardedBank):
        return np.asarray(bank.rows)[: bank.size]
    rows, block = np.empty(bank.shape, np.float32), 16_384
    for start in range(0, len(rows), block):
        rows[start : start + block] = normalize(jnp.asarray(bank.read(slice(start, start + block))))
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Networks


def _network_facts(network: Network, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    model = network.module
    found = [name for name, (_, kind) in ARCHITECTURES.items() if type(model) is kind]
    given = {name: getattr(network, name) for name in ("resize", "crop", "fingerprint", "has_maps")}
    given["manifest"] = dict(network.manifest)
    if not found:
        parts = {"kernel": network.head.kernel, "bias": network.head.bias}
        arrays.update({f"network/head/{name}": np.asarray(part) for name, part in parts.items()})
        return {"architecture": OWN, **given}
    arrays.update({f"network/{name}": array for name, array in checkpoint.flat_arrays(network.state).items()})
    pixels = {
        name: None if v is None else [float(x) for x in v]
        for name, v in vars(network).items()
        if name in ("mean", "std")
    }
    return {
        "architecture": found[0],
        "config": dataclasses.asdict(model.config),
        "dtype": model.dtype,
        **pixels,
        **given,
    }


def _own_network(
    folder: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray], network: Network | None
) -> Network:
    """The user's network with what was known of it when it was saved, if its head and images are those of then."""
    if network is None:
        raise NetworkNeeded(
            f"{folder}: its network is a function of your own, which is not kept: give it again, "
            "oodjax.load(folder, network)"
        )
    if not isinstance(network, Network):
        raise TypeError(f"load takes an oodjax.Network beside the folder, got {describe(network)}")
    for name in ("resize", "crop"):
        if getattr(network, name) != facts[name]:
            raise CheckpointError(
                f"{folder} was made for a network of {name} {facts[name]}, this one has {getattr(network, name)}"
            )
    for name in ("kernel", "bias"):
        was, now = arrays[f"network/head/{name}"], np.asarray(getattr(network.head, name))
        if was.shape != now.shape or np.abs(was - now).max() > HEAD_TOLERANCE * np.abs(was).max():
            raise CheckpointError(f"{folder} was made for a network with another head: its {name} differs")
    return dataclasses.replace(network, manifest={**network.manifest, **facts["manifest"]})


def _network(folder: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Network:
    if facts["architecture"] not in ARCHITECTURES:
        raise CheckpointError(f"{folder}: unknown architecture {facts['architecture']!r}")
    kind, model = ARCHITECTURES[facts["architecture"]]
    config: Any = checkpoint.configuration(folder, facts, kind)
    graphdef, target = nnx.split(nnx.eval_shape(lambda: model(config, dtype=facts["dtype"], rngs=nnx.Rngs(0))))
    own = {name.removeprefix("network/"): a for name, a in arrays.items() if name.startswith("network/")}
    state: Any = checkpoint.fill(target, own, str(folder))
    mean, std = (None if facts[name] is None else np.asarray(facts[name], np.float32) for name in ("mean", "std"))
    head = Head(jnp.asarray(own["head/kernel"]), jnp.asarray(own["head/bias"]))
    return Network(
        NnxApply(graphdef),
        state,
        head,
        mean,
        std,
        facts["resize"],
        facts["crop"],
        facts["fingerprint"],
        facts["has_maps"],
        facts["manifest"],
    )
