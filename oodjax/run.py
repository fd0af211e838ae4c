"""python -m oodjax.run: a study from images to tables, on one command line."""

from __future__ import annotations

from oodjax.signals import ending, handle

if __name__ == "__main__":
    handle(ending("oodjax.run"))  # before the other imports, which take their time

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodjax.command_line import (
    Parser,
    UsageError,
    add_plugins,
    check_devices,
    check_folder,
    execute,
    keep_finished,
    names,
    split_names,
)
from oodjax.command_line import folder as folder_type

if TYPE_CHECKING:
    from rich.console import Console

    from oodjax.detectors import Note
    from oodjax.execute import Engine
    from oodjax.study import Study

LISTING, MAKER = "run.json", "oodjax.run"
TABLES = ("results.csv", "models.csv")
SHOWN = 10  # unreadable images of a set


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.run",
        description="Runs a study: models, scores of every detector on every set, tables, report. Finished work is "
        "kept and found again, so the same command goes on where it was.",
    )
    several: dict[str, Any] = {"type": names, "nargs": "+", "default": argparse.SUPPRESS, "metavar": "NAME"}
    add, suppressed = parser.add_argument, argparse.SUPPRESS
    add(
        "preset",
        nargs="?",
        default="digits",
        help="digits, cifar10, imagenet, own, a plugin's, or a study file (.toml)",
    )
    add("--models", **several, help="models, separated by spaces or commas (default: all)")
    add("--detectors", **several, help="detectors, or with options, vim:dim=512; all: the study's (default: all)")
    add("--datasets", **several, help="OOD test sets, separated by spaces or commas (default: all)")
    add("--seed", type=int, default=0, help="seed of data, training and pseudo-random choices")
    add(
        "--seeds",
        type=int,
        default=suppressed,
        help="train each recipe so often, on the same data (default: digits 5, cifar10 1)",
    )
    add("--precision", default="float32", help="of the network's forward pass: float32 or bfloat16")
    add("--batch-size", type=int, default=suppressed, help="images a step (default: the preset's)")
    add("--out", type=folder_type, default=suppressed, help="folder (default: ./oodjax-results/STUDY)")
    add("--plan", action="store_true", help="print what would be done and what it takes, and stop")
    add("--fleet", default="auto", help="models that share a pass: auto, by the device's memory, or a number")
    add("--bank-fraction", type=float, default=1.0, help="share of the training features that KNN and NNGuide search")
    add("--fast-pixels", action="store_true", help="one boxed resize an image: some pixels one level off")
    add("--on-bad-image", default="stop", help="stop, or skip: leave unreadable images out, counted and listed")
    add("--hash-content", action="store_true", help="let file contents decide what is current, not names and sizes")
    add_plugins(parser)
    imagenet = parser.add_argument_group("imagenet")
    where: dict[str, Any] = {"type": folder_type, "default": suppressed}
    imagenet.add_argument("--data", **where, help="images and lists in OpenOOD's layout")
    imagenet.add_argument("--checkpoints", **where, help="folder of checkpoints that the converters wrote")
    own = parser.add_argument_group("own", "a set is a folder of class folders, a list file, or tfds:NAME:SPLIT")
    own.add_argument("--model", default=suppressed, help="a converted checkpoint, or module:function")
    for role in ("train", "val", "test"):
        own.add_argument(f"--id-{role}", default=suppressed, metavar="SET", help=f"the ID {role} set")
    own.add_argument("--ood-val", default=suppressed, metavar="SET", help="the OOD validation set")
    own.add_argument("--ood", action="append", default=suppressed, metavar="NAME=SET:CATEGORY", help="an OOD test set")
    own.add_argument("--root", **where, help="the folder above the paths of list files (default: the list's)")
    hosts = parser.add_argument_group("several hosts", "found by JAX under Slurm, GKE, Open MPI and on Cloud TPU")
    hosts.add_argument("--coordinator", default=suppressed, metavar="HOST:PORT", help="of the first process")
    hosts.add_argument("--processes", type=int, default=suppressed, help="how many there are")
    hosts.add_argument("--process", type=int, default=suppressed, help="which this is, from 0")
    return parser


@dataclass
class Job:
    """A study ready to run.

    Attributes:
      whole: all that the preset or file holds; the tables are of it.
      asked: the part that this run is to finish.
      folder: of the results.
      plan_only: print the plan and stop.
      warnings: what may be a mistake in its data.
      command: the command line, as it can be given again.
      started: when, in UTC.
    """

    whole: Study
    asked: Study
    folder: Path
    plan_only: bool
    warnings: list[str]
    command: str
    started: datetime


def main(arguments: Sequence[str] | None = None) -> int:
    command, started = parser(), datetime.now(UTC)
    line = shlex.join([*command.prog.split(), *(sys.argv[1:] if arguments is None else arguments)])

    def prepare() -> Job:
        options = command.parse_args(arguments)
        try:
            _join_hosts(options)
            check_devices()
            return _prepare(options, line, started)
        except (UsageError, ValueError) as error:
            command.error(str(error))

    def work(job: Job) -> int:
        return keep_finished(command, job.folder, lambda: _run_or_say_how(job))

    return execute(command, prepare, work, "the same command goes on from here")


def _run_or_say_how(job: Job) -> None:
    from oodjax.data.contract import BadImage

    try:
        _run(job)
    except BadImage as error:
        raise UsageError(f"{error}; --on-bad-image skip leaves such images out") from error


def _join_hosts(options: argparse.Namespace) -> None:
    """Joins the processes of a run on several hosts, given by hand or found by JAX."""
    from oodjax.hosts import join

    asked = vars(options)
    join(asked.get("coordinator"), asked.get("processes"), asked.get("process"))


def _prepare(options: argparse.Namespace, line: str, started: datetime) -> Job:
    """The study that the options ask for; nothing is written."""
    from oodjax import plugins, presets
    from oodjax.execute import check_detectors
    from oodjax.listing import read_listing
    from oodjax.presets.doubts import check_labels, doubts, replaced
    from oodjax.store import Store
    from oodjax.study import StudyError

    asked = vars(options)  # holds only what is given, where there is no default
    plugins.load(asked.get("plugin", ()))
    is_file = options.preset.endswith(".toml")
    name = Path(options.preset).stem if is_file else options.preset
    chosen = {k: tuple(split_names(asked[k])) if k in asked else None for k in ("models", "detectors", "datasets")}
    folder = asked.get("out", Path("oodjax-results") / name)
    if options.fleet != "auto" and not (options.fleet.isdecimal() and int(options.fleet)):
        raise StudyError(f"--fleet must be auto or a whole number of at least 1, got {options.fleet!r}")
    given = {
        k: asked[k]
        for k in (
            "data",
            "checkpoints",
            "model",
            "id_train",
            "id_val",
            "id_test",
            "ood_val",
            "root",
            "batch_size",
            "seeds",
        )
        if k in asked
    }
    wanted = presets.Options(
        folder=folder,
        seed=options.seed,
        precision=options.precision,
        bank_fraction=options.bank_fraction,
        fast_pixels=options.fast_pixels,
        on_bad_image=options.on_bad_image,
        hash_content=options.hash_content,
        fleet=0 if options.fleet == "auto" else int(options.fleet),
        datasets=chosen["datasets"],
        file=Path(options.preset) if is_file else None,
        ood=tuple(asked.get("ood", ())),
        **given,
    )
    whole = presets.make("own" if is_file else name, wanted).including(chosen["detectors"] or ())
    part = whole.only(**chosen)
    if "batch_size" in given and given["batch_size"] > (largest := max(part.sets, key=lambda s: s.count)).count:
        raise StudyError(
            f"--batch-size must be at most {largest.count}, the images of the largest set, {largest.name}; "
            f"got {given['batch_size']}"
        )
    _check_outputs(folder, whole)
    check_labels(part)
    check_detectors(part, Store(folder))
    former = read_listing(folder, LISTING, MAKER).facts.get("configuration")
    warnings = doubts(part, options.hash_content) + replaced(str(folder), former, whole.settings)
    return Job(whole, part, folder, options.plan, warnings, line, started)


def _check_outputs(folder: Path, study: Study) -> None:
    """Refuses a folder that cannot be written, or in which a file that is not ours is in the way."""
    from oodjax import thumbnails
    from oodjax.listing import read_listing

    for part in (folder, folder / "checkpoints", folder / "store"):
        check_folder(part, checkpoints=True)
    read_listing(folder, LISTING, MAKER).check([*TABLES, *thumbnails.paths(study.sets)])
    read_listing(folder / "report", "report.json", "oodjax.report").check(["index.html", "tables/results.csv"])


def _run(job: Job) -> None:
    from rich.console import Console

    from oodjax import console as show
    from oodjax.devices import Devices
    from oodjax.execute import Engine
    from oodjax.files import remove_partial
    from oodjax.plan import plan, smaller
    from oodjax.store import Store

    devices = Devices.all()
    console, start = Console(quiet=not devices.leads), time.perf_counter()
    store = Store(job.folder, warn=lambda line: print(line, file=sys.stderr))
    with show.Stages(console, shown=devices.leads and not job.plan_only) as stages:
        engine = Engine(job.asked, store, devices, stages)
        show.print_sets(console, job.asked)
        for line in job.warnings:
            show.say(console, f"warning: {line}")
        if job.plan_only:
            found = plan(engine)
            show.print_plan(console, job.asked, found, smaller(job.asked, found))
            return
        with store.claim(devices.leads):
            if devices.leads:
                remove_partial(job.folder, job.folder / "checkpoints")
            engine.run()
            if devices.leads:
                _write(job, engine, console, stages)
    if devices.leads:
        _say_what_was_done(job, engine, console, time.perf_counter() - start)


def _write(job: Job, engine: Engine, console: Console, stages: Any) -> None:
    """Tables of everything that is finished, the manifest and the report."""
    from oodjax import thumbnails
    from oodjax.console import print_notes, print_tables, say, waiting
    from oodjax.execute import objections
    from oodjax.listing import read_listing, staging
    from oodjax.manifest import manifest_of, runs_of
    from oodjax.results import tabulate, with_kept

    whole, unknown = with_kept(job.whole, engine.store)
    job = replace(job, whole=whole)
    tables = tabulate(job.whole, engine.store)
    manifest = manifest_of(job, engine, tables, stages.record)
    listing = read_listing(job.folder, LISTING, MAKER)
    with staging(job.folder) as staged:
        tables.write(staged)
        small = thumbnails.write(job.whole.sets, staged)
        runs = runs_of(job, listing.facts, stages.record)
        listing.publish(staged, {**manifest, "thumbnails": small, "runs": runs})
    with waiting(console, "drawing the report"):
        _report(job.folder)
    print_tables(console, tables)
    if unknown:
        say(console, f"note: kept, but not in the tables: {', '.join(unknown)}: no such detector is registered here")
    print_notes(console, job.asked, objections(job.asked, engine.store), _notes(job.asked, engine))


def _report(folder: Path) -> None:
    """The report's page, made anew only when it is not whole or its tables, manifest or code have changed."""
    from oodjax.report.page import up_to_date, write

    if not up_to_date(folder):
        write(folder)


def _say_what_was_done(job: Job, engine: Engine, console: Console, seconds: float) -> None:
    from oodjax.console import say
    from oodjax.shelf import unreadable

    counts, models, devices = engine.counts, len(job.asked.models), engine.devices.mesh.size
    say(
        console,
        f"decoded {counts.decoded} images for {models} model{'s' * (models > 1)}; {counts.forwards} forward passes "
        f"and {counts.odin_passes} passes of ODIN's on {devices} device{'s' * (devices > 1)} in {seconds:.0f} s",
    )
    for name, images in unreadable(filter(None, map(engine.shelf, job.asked.models))).items():
        reasons = dict(counts.bad)  # of those that this run came across
        shown = "; ".join(f"{i}: {reasons[i]}" if i in reasons else i for i in images[:SHOWN])
        more = "" if len(images) <= SHOWN else f"; and {len(images) - SHOWN} more, listed in run.json"
        say(console, f"left out: {len(images)} images of {name} that cannot be read: {shown}{more}")
    say(console, f"  {job.folder / 'report' / 'index.html'}: the report, opens in a browser")
    for name, what in (
        ("results.csv", "one row per model, detector and set"),
        ("models.csv", "accuracy and ECE"),
        ("run.json", "configuration, versions, data hashes"),
        ("store", "outputs, statistics and scores"),
    ):
        say(console, f"  {job.folder / name}: {what}")


def _notes(study: Study, engine: Engine) -> list[Note]:
    """What the searches left out or searched in another's place."""
    shelves = [shelf for shelf in map(engine.shelf, study.models) if shelf is not None]
    return [note for shelf in shelves for chosen in shelf.choices().values() for note in chosen.notes]


if __name__ == "__main__":
    from oodjax.hosts import leave_after

    leave_after(main)
