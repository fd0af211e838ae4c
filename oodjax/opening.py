"""What the command lines open for a user: a model, its images, and a share of them held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from oodjax.command_line import UsageError
from oodjax.command_line import add_model_options as add_model_options
from oodjax.data.arrays import Subset
from oodjax.data.contract import Source
from oodjax.data.sources import source_of
from oodjax.models.network import Network
from oodjax.presets.models import Imported
from oodjax.presets.own import model_of

SETS = "a folder of class folders, a list file (`path label` a line), or tfds:NAME:SPLIT"


def open_network(text: str, precision: str = "float32", where: str = "--model") -> Network:
    """The network that `--model` names.

    Args:
      text: the folder of a checkpoint that `python -m converters` wrote, or `module:function`, whose function returns
        an `oodjax.Network`; the module is looked for in the current folder too.
      precision: "float32" or "bfloat16", of a checkpoint's forward pass.
      where: begins the message of what is wrong.

    Raises:
      ValueError: there is no such model, or it computes in its own precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise UsageError(f"--precision must be float32 or bfloat16, got {precision!r}")
    model = model_of("model", "own", text, Path("."), where)
    if isinstance(model, Imported) and precision != "float32":
        raise UsageError(f"{where} {text}: a function of your own computes in its own precision, not --precision's")
    return model.load(precision)


def open_images(text: str, where: str, class_names: Sequence[str] = ()) -> Source:
    """The images that an option names.

    Args:
      text: a folder of class folders, a folder of images (labels -1), a list file, or tfds:NAME:SPLIT.
      where: the option, which begins the message of what is wrong.
      class_names: the folder behind each label, as of the training images.

    Raises:
      ValueError: there are none.
    """
    try:
        source = source_of(text, class_names=class_names)
    except (ValueError, RuntimeError) as error:  # RuntimeError: ~ of a user that is not there
        raise UsageError(f"{where}: {error}") from error
    if not len(source):
        raise UsageError(f"{where}: {text} holds no image")
    return source


def class_names(source: Source) -> tuple[str, ...]:
    """What each label of a source stands for; empty where nothing says it."""
    return tuple(getattr(source, "class_names", ()))


def check_labels(source: Source, network: Network, where: str) -> None:
    """Raises a UsageError unless every image has a class that the network has an output for."""
    labels, classes = source.labels, int(network.head.kernel.shape[1])
    if labels.min() < 0:
        raise UsageError(f"{where}: {source.description} has images without a class; expected {SETS}")
    if labels.max() >= classes:
        raise UsageError(
            f"{where}: {source.description} has images of class {labels.max()}, but the model has {classes} classes, "
            f"0 to {classes - 1}"
        )


def hold_out(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """(the rest, the held-out): a seeded share of every class, and of the whole to within one image.

    A class of one image stays with the rest. Images without a class count as one class. Both keep the source's order.

    Args:
      source: the images.
      share: in (0, 1).
      seed: which ones.
    """
    _, class_of, counts = np.unique(source.labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[class_of] > 1)
    rng = np.random.default_rng(seed)
    # A systematic sample along the classes takes from each its share, rounded up or down.
    order = several[np.lexsort((rng.random(len(several)), class_of[several]))]
    steps = np.floor(np.arange(len(order) + 1) * share + rng.random())
    held = np.zeros(len(source), bool)
    held[order[np.diff(steps) > 0]] = True
    return Subset(source, np.flatnonzero(~held)), Subset(source, np.flatnonzero(held))
