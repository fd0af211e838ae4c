"""python -m oodjax.fit: a detector for your model and images, with a threshold, kept as a monitor."""

from __future__ import annotations

from oodjax.signals import ending, handle

if __name__ == "__main__":
    handle(ending("oodjax.fit"))  # before the other imports, which take their time

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oodjax.command_line import Parser, UsageError, add_model_options, add_plugins, check_devices, execute
from oodjax.command_line import folder as folder_type

if TYPE_CHECKING:
    from rich.console import Console

    from oodjax.data.contract import BadImage, Source
    from oodjax.detectors import Detector
    from oodjax.models.network import Network
    from oodjax.monitor import Monitor

HELD_OUT = 0.2  # of --id, where no --calibrate is given
FOR_FIT = 0.5  # of the calibration images, for a detector that is fitted to validation images
SHOWN = 10  # unreadable images
LOW_ACCURACY = 0.5


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.fit",
        description="Fits a detector to a model's outputs on your images, chooses the threshold that accepts a share "
        "of in-distribution images, and keeps model, detector and threshold in a folder that oodjax.score reads. "
        "Images are a folder of class folders, a list file (`path label` a line) or tfds:NAME:SPLIT. "
        "Exit code 0: done; 2: wrong use.",
    )
    add, suppressed = parser.add_argument, argparse.SUPPRESS
    add_model_options(parser)
    add("--id", default=suppressed, metavar="SET", help="in-distribution images, best those the model was trained on")
    add(
        "--calibrate",
        default=suppressed,
        metavar="SET",
        help="in-distribution images that the model was not trained on, with or without classes, for the threshold "
        f"(default: {HELD_OUT:.0%} of --id are held out)".replace("%", "%%"),
    )
    add("--detector", default="vim", metavar="NAME[:OPTION=VALUE]", help="such as knn:k=10; `oodjax list detectors`")
    add("--tpr", type=float, default=0.95, help="share of in-distribution images to accept")
    add("--to", type=folder_type, required=True, metavar="MONITOR", help="folder: a new one, or a monitor to replace")
    add("--bank-fraction", type=float, default=1.0, help="share of the training features that KNN and NNGuide search")
    add_plugins(parser)
    return parser


@dataclass
class Job:
    """What is to be fitted and kept, checked.

    Attributes:
      options: of the command line.
      network: the model.
      detector: not fitted.
      train: the images it is fitted to; None where it reads none.
      validation: labelled images that its fit reads beside them; None where it reads none.
      calibration: the images that the threshold is chosen on.
      lines: what to say of them first.
      unreadable: images that were left out so far.
    """

    options: argparse.Namespace
    network: Network
    detector: Detector
    train: Source | None
    validation: Source | None
    calibration: Source
    lines: list[str]
    unreadable: list[BadImage] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> Job:
        options = command.parse_args(arguments)
        try:
            check_devices()
            return _prepare(options)
        except ValueError as error:
            command.error(str(error))

    def work(job: Job) -> int:
        try:
            _run(job)
        except BrokenPipeError:
            raise
        except ValueError as error:
            command.error(str(error))
        except OSError as error:
            command.error(f"cannot write {job.options.to}: {error.strerror or error}")
        return 0

    return execute(command, prepare, work, "nothing was written")


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def _prepare(options: argparse.Namespace) -> Job:
    from oodjax import detectors, plugins
    from oodjax.models.checkpoint import refuse_foreign
    from oodjax.monitor import check_maps
    from oodjax.opening import class_names, open_images, open_network

    asked = vars(options)
    plugins.load(asked.get("plugin", ()))
    detector = detectors.create(options.detector)
    _check_numbers(options)
    refuse_foreign(options.to, "saved")
    network = open_network(options.model, options.precision)
    check_maps(network, detector)
    whole = open_images(options.id, "--id") if "id" in asked else None
    names = class_names(whole) if whole is not None else ()
    apart = open_images(options.calibrate, "--calibrate", names) if "calibrate" in asked else None
    train, validation, calibration, lines = _shares(detector, network, whole, apart, options)
    lines += _doubts(names, network)
    network = _named(network, names or class_names(calibration))
    return Job(options, network, detector, train, validation, calibration, lines)


def _check_numbers(options: argparse.Namespace) -> None:
    from oodjax.detectors.calibration import check_promise
    from oodjax.study import check_seed

    check_promise(10**9, options.tpr, "--tpr")
    check_seed(options.seed)
    if options.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {options.batch_size}")
    if not 0 < options.bank_fraction <= 1:
        raise UsageError(f"--bank-fraction must lie in (0, 1], got {options.bank_fraction:g}")


def _shares(
    detector: Detector, network: Network, whole: Source | None, apart: Source | None, options: argparse.Namespace
) -> tuple[Source | None, Source | None, Source, list[str]]:
    """(training, validation, calibration) images, and how they were chosen."""
    from oodjax.detectors.calibration import check_promise
    from oodjax.opening import check_labels, hold_out

    who, method = options.detector, detector.method
    if whole is None and (method.reads or apart is None):
        why = f"{who} is fitted to training images" if method.reads else "the threshold needs images"
        raise UsageError(f"--id is missing: {why}; give a folder of class folders, a list file or tfds:NAME:SPLIT")
    if whole is not None and method.reads:
        check_labels(whole, network, "--id")
    train, lines = whole if method.reads else None, []
    if apart is not None:
        _check_apart(whole, apart)
        calibration = apart
    elif not method.reads:
        assert whole is not None
        calibration = whole
        lines.append(f"{who} reads no training images: all {len(whole):,} of --id choose the threshold")
    else:
        assert whole is not None
        train, calibration = hold_out(whole, HELD_OUT, options.seed)
        lines.append(
            f"no --calibrate: {len(calibration):,} of the {len(whole):,} images of --id are held out for the "
            f"threshold, {HELD_OUT:.0%} of every class by seed {options.seed}; where the model was trained on them, "
            "new images raise more false alarms than is said below"
        )
    validation = None
    if method.reads_validation:
        check_labels(calibration, network, "--id" if apart is None else "--calibrate")
        calibration, validation = hold_out(calibration, FOR_FIT, options.seed)
        lines.append(f"{who} is fitted to {len(validation):,} of them, {len(calibration):,} choose the threshold")
    check_promise(len(calibration), options.tpr, who)
    return train, validation, calibration, lines


def _check_apart(whole: Source | None, apart: Source) -> None:
    shared = len(set(whole.identities()) & set(apart.identities())) if whole is not None else 0
    if shared:
        raise UsageError(
            f"--calibrate: {shared:,} of its images stand in --id too, and would hide how new images score: give "
            f"others, or leave --calibrate out, which holds out {HELD_OUT:.0%} of --id"
        )


def _doubts(names: Sequence[str], network: Network) -> list[str]:
    classes = int(network.head.kernel.shape[1])
    if not names or len(names) == classes:
        return []
    return [
        f"warning: --id has {len(names)} classes, the model {classes}: they are taken for its classes 0 to "
        f"{len(names) - 1} in order; a list file gives labels as they are"
    ]


def _named(network: Network, names: Sequence[str]) -> Network:
    """The network with the names of its classes, where the images name all of them."""
    if len(names) != int(network.head.kernel.shape[1]):
        return network
    return dataclasses.replace(network, manifest={**network.manifest, "class_names": list(names)})


# ---------------------------------------------------------------------------------------------------------------------
# What is done


def _run(job: Job) -> None:
    from rich.console import Console

    from oodjax.console import Stages, say
    from oodjax.saving import save

    console = Console()
    for line in job.lines:
        say(console, line)
    with Stages(console) as stages:
        monitor, right = _fit(job, stages)
    save(job.options.to, monitor)
    _say_what_was_done(job, monitor, right, console)


def _fit(job: Job, stages: Any) -> tuple[Monitor, float | None]:
    """The monitor, and the share of the images with a class that the network puts in it."""
    import numpy as np

    from oodjax.monitor import Monitor

    stats = _statistics(job, stages)
    right = [np.arange(stats.count) < stats.correct_counts.sum()]
    detector = _calibrated(job, job.detector.fit(stats, _validation(job, stages)), stages, right)
    known = np.concatenate(right)
    return Monitor(job.network, detector), float(known.mean()) if len(known) else None


def _validation(job: Job, stages: Any) -> Any:
    """The labelled outputs that the detector's fit reads beside the statistics, or None."""
    import numpy as np

    from oodjax.outputs import Outputs

    if job.validation is None:
        return None
    parts = list(_stream(job, job.validation, "validation", stages, ()))
    columns = {n: [getattr(part, n) for part in parts] for n in ("logits", "features", "labels")}
    return Outputs(**{name: np.concatenate(column) for name, column in columns.items()})


def _statistics(job: Job, stages: Any) -> Any:
    from oodjax.statistics import TrainStatistics

    if job.train is None:
        return TrainStatistics.of_head(job.network.head)
    reads = frozenset(job.detector.method.reads)
    return TrainStatistics.collect(
        _stream(job, job.train, "training", stages, {"gram", "layer_means"} & reads),
        job.network.head,
        needs=reads,
        bank_fraction=job.options.bank_fraction,
        seed=job.options.seed,
    )


def _calibrated(job: Job, fitted: Detector, stages: Any, right: list[Any]) -> Detector:
    """The detector with the scores of the calibration images; whether each is classified right goes into `right`."""
    import numpy as np

    from oodjax.detectors.calibration import reference
    from oodjax.devices import Devices
    from oodjax.monitor import at_one_point
    from oodjax.outputs import pad

    narrow, (temperatures, noises) = at_one_point(fitted)
    needs = {"gram", "layer_means", "odin"} & set(fitted.needs)
    rows, scores = Devices.all().rows(job.options.batch_size), []
    parts = _stream(job, job.calibration, "calibration", stages, needs, temperatures=temperatures, noises=noises)
    for part in parts:
        scores.append(np.asarray(narrow.score(pad(part, rows)[0]))[: len(part)])
        if part.labels is not None:
            right.append(part.logits.argmax(axis=1)[part.labels >= 0] == part.labels[part.labels >= 0])
    found = np.concatenate(scores)
    return dataclasses.replace(fitted, reference=reference(found, None, job.options.tpr, job.options.detector))


def _stream(job: Job, source: Source, what: str, stages: Any, needs: Any, **axes: Any) -> Any:
    from oodjax.extraction import stream

    options, read = job.options, 0
    with stages.stage(f"{what}: {source.description}", len(source), "images") as advance:
        for part in stream(
            job.network,
            source,
            batch_size=options.batch_size,
            needs=needs,
            unreadable=job.unreadable,
            advance=advance,
            **axes,
        ):
            read += len(part)
            yield part
    if not read:
        raise UsageError(f"none of the {len(source):,} {what} images can be read: {job.unreadable[-1]}")


def _say_what_was_done(job: Job, monitor: Monitor, right: float | None, console: Console) -> None:
    from oodjax.console import say

    found, options, detector = monitor.detector.calibration, job.options, monitor.detector
    for bad in job.unreadable[:SHOWN]:
        say(console, f"left out: {bad}")
    if len(job.unreadable) > SHOWN:
        say(console, f"left out: {len(job.unreadable) - SHOWN:,} more that cannot be read")
    if right is not None:
        hint = "; where that is low, the classes of the images may be in another order than the model's"
        say(console, f"the model's class is the image's for {right:.1%}{hint if right < LOW_ACCURACY else ''}")
    say(console, f"{detector!r}")
    say(console, f"threshold {found.threshold:.6g}: an image is in-distribution where its score is that or higher")
    low, high = found.interval
    say(
        console,
        f"expected false alarms: {found.false_alarm_rate:.2%} of in-distribution images; between {low:.2%} and "
        f"{high:.2%} with 95 % confidence, from {found.n:,} images",
    )
    again = f" --model {shlex.quote(options.model)}" if monitor.network.module is None else ""
    plugins = "".join(f" --plugin {shlex.quote(name)}" for name in vars(options).get("plugin", ()))
    to = shlex.quote(str(options.to))
    say(console, f"next: python -m oodjax.score --monitor {to}{again}{plugins} IMAGE_OR_FOLDER...")


if __name__ == "__main__":
    raise SystemExit(main())
