"""python -m oodjax.score: verdicts of a monitor on images, a line each."""

from __future__ import annotations

from oodjax.signals import ending, handle

if __name__ == "__main__":
    handle(ending("oodjax.score"))  # before the other imports, which take their time

import argparse
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodjax.command_line import Parser, UsageError, add_plugins, check_devices, execute, one_line
from oodjax.command_line import folder as folder_type

if TYPE_CHECKING:
    from oodjax.data.files import Files
    from oodjax.data.loader import Batch, Loader
    from oodjax.monitor import Monitor, Verdict

IN, OUT, UNREADABLE = "in", "out", "unreadable"


@dataclass(frozen=True)
class Line:
    """What is said of one image.

    Attributes:
      path: as it was given, or below the folder that was given.
      label: the predicted class; None where the image cannot be read, as all but path, verdict and error.
      name: of the class where the monitor knows it, else its number.
      score: the detector's; higher = more in-distribution.
      p_value: see `Detector.p_value`.
      verdict: in, out or unreadable.
      error: why it cannot be read.
    """

    path: str
    label: int | None = None
    name: str | None = None
    score: float | None = None
    p_value: float | None = None
    verdict: str = UNREADABLE
    error: str | None = None


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.score",
        description="Judges images by a monitor that oodjax.fit or oodjax.save wrote. A line an image, in order, as "
        "soon as its batch is done: path, class, score (higher is more in-distribution), p-value, and in, out or "
        "unreadable, separated by tabs. Exit code 0: all in; 1: some out or unreadable; 2: wrong use.",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE_OR_FOLDER", help="- reads paths from the input, a line each"
    )
    parser.add_argument("--monitor", type=folder_type, required=True, help="the folder of the monitor")
    parser.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        metavar="MODULE:FUNCTION",
        help="the model, where the monitor is of a function of your own",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line")
    form.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    add_plugins(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> tuple[Monitor, list[str], Callable[[Line], None]]:
        options = command.parse_args(arguments)
        try:
            check_devices()
            return _monitor(options), list(_paths(options.images)), _writer(options)
        except ValueError as error:
            command.error(str(error))

    def work(prepared: tuple[Monitor, list[str], Callable[[Line], None]]) -> int:
        monitor, paths, write = prepared
        try:
            counts = _write_all(monitor, paths, write)
        except BrokenPipeError:
            raise
        except ValueError as error:
            command.error(str(error))
        said = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in (IN, OUT, UNREADABLE) if counts[verdict])
        print(f"{command.name}: {said}", file=sys.stderr)
        return 0 if counts[IN] == len(paths) else 1

    return execute(command, prepare, work)


def _monitor(options: argparse.Namespace) -> Monitor:
    from oodjax import plugins
    from oodjax.models.checkpoint import CheckpointError
    from oodjax.monitor import Monitor
    from oodjax.opening import open_network
    from oodjax.saving import NetworkNeeded, load

    asked = vars(options)
    plugins.load(asked.get("plugin", ()))
    network = open_network(asked["model"]) if "model" in asked else None
    try:
        found = load(options.monitor, network)
    except NetworkNeeded as error:
        raise UsageError(
            f"--monitor: the network of {options.monitor} is a function of your own: give it by --model MODULE:FUNCTION"
        ) from error
    except CheckpointError as error:
        raise UsageError(f"--monitor: {error}") from error
    if not isinstance(found, Monitor):
        raise UsageError(f"--monitor: {options.monitor} holds a detector without a network, which judges no images")
    return found


def _paths(given: Sequence[str]) -> Iterator[str]:
    """Every image: those below a folder in order, and a path that is no folder as it is."""
    from oodjax.data.files import image_files

    count = 0
    for text in given:
        if text == "-":
            found = (line.rstrip("\r\n") for line in sys.stdin)
            below = [path for path in found if path]
        elif os.path.isdir(text):
            below = [os.path.join(text, path) for path in sorted(image_files(Path(text)))]
            if not below:
                raise UsageError(f"{text} holds no images")
        else:
            below = [text]
        count += len(below)
        yield from below
    if not count:
        raise UsageError("the input names no images: expected a path a line")


def _writer(options: argparse.Namespace) -> Callable[[Line], None]:
    """Writes a line in the form that is asked for."""
    if options.json:
        return lambda line: print(json.dumps({k: v for k, v in _columns(line).items() if v is not None}))
    if options.csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(_columns(Line("")))
        return lambda line: table.writerow(["" if v is None else v for v in _columns(line).values()])
    return _write_text


def _columns(line: Line) -> dict[str, Any]:
    return {{"name": "class"}.get(name, name): value for name, value in asdict(line).items()}


def _write_text(line: Line) -> None:
    verdict = line.verdict if line.error is None else f"{line.verdict}: {one_line(line.error)}"
    known = [one_line(line.name), f"{line.score:.6g}", f"{line.p_value:.4g}"] if line.name is not None else ["-"] * 3
    print(one_line(line.path), *known, verdict, sep="\t")


def _write_all(monitor: Monitor, paths: list[str], write: Callable[[Line], None]) -> Counter[str]:
    from rich.console import Console

    from oodjax.console import Stages

    console = Console(stderr=True)
    counts: Counter[str] = Counter()
    shown = console.is_terminal and not sys.stdout.isatty()  # bars among lines would be in the way
    with Stages(console, shown) as stages, stages.stage("images", len(paths), "images") as advance:
        for lines in judge(monitor, paths):
            for line in lines:
                write(line)
                counts[line.verdict] += 1
            sys.stdout.flush()
            advance(len(lines))
    return counts


def judge(monitor: Monitor, paths: Sequence[str]) -> Iterator[list[Line]]:
    """A monitor's verdicts on image files, a batch at a time, in order; images are read while others are judged.

    Args:
      monitor: the images are resized and cropped as its network asks.
      paths: of the files; those that cannot be read have a line that says why.
    """
    import numpy as np

    from oodjax.data.contract import BadImage
    from oodjax.data.files import Files
    from oodjax.data.loader import Geometry, load

    network = monitor.network
    source = Files(paths, np.full(len(paths), -1), ".")  # type: ignore[arg-type]
    rows = min(monitor.batch_size, 1 << (len(paths) - 1).bit_length())
    loader = load(source, rows, geometries=(Geometry(network.resize, network.crop),), on_bad="skip")
    try:
        yield from _batches(monitor, source, loader)
    except BadImage:  # of images as they are, where none says the size
        yield [Line(path, error=_reason(source, i)) for i, path in enumerate(source.paths)]


def _batches(monitor: Monitor, source: Files, loader: Loader) -> Iterator[list[Line]]:
    import numpy as np

    known, names = 0, monitor.network.class_names
    for batch in loader:
        reasons = iter(loader.bad[known:])
        known = len(loader.bad)
        verdict = _verdict(monitor, batch)
        lines = []
        for row in np.flatnonzero(batch.index >= 0):
            path = source.paths[batch.index[row]]
            if verdict is None or not batch.mask[row]:
                lines.append(Line(path, error=next(reasons).reason))
                continue
            label = int(verdict.label[row])
            score, p_value = (float(str(values[row])) for values in (verdict.score, verdict.p_value))  # at its shortest
            name = names[label] if names else str(label)
            lines.append(Line(path, label, name, score, p_value, IN if verdict.in_distribution[row] else OUT))
        yield lines


def _verdict(monitor: Monitor, batch: Batch) -> Verdict | None:
    """Of the whole batch, the rows without an image holding one of the others; None where there is none."""
    if not batch.mask.any():
        return None
    images = batch.images
    images[~batch.mask] = images[batch.mask.argmax()]
    return monitor(images)


def _reason(source: Files, index: int) -> str:
    from oodjax.data.contract import BadImage

    try:
        source.open(index)
    except BadImage as error:
        return error.reason
    return "it could not be read a moment ago"


if __name__ == "__main__":
    raise SystemExit(main())
