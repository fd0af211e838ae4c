"""python -m oodjax.recommend: which detector suits a model."""

from __future__ import annotations

from oodjax.signals import ending, handle

if __name__ == "__main__":
    handle(ending("oodjax.recommend"))  # before the other imports, which take their time

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

    from oodjax.data.contract import Source
    from oodjax.models.network import Network
    from oodjax.recommendation import Recommendation
    from oodjax.study import Model, Study

HELD_OUT_SHARE = 0.2


def parser() -> Parser:
    from oodjax.opening import SETS, add_model_options

    command = Parser(
        prog="python -m oodjax.recommend",
        description="Ranks detectors for a model by how they tell held-out ID images from OOD images: yours, or "
        "stand-ins that are generated and made of ID images.",
    )
    add_model_options(command)
    add, suppressed = command.add_argument, argparse.SUPPRESS
    add("--id", required=True, metavar="SET", help=f"training images: {SETS}")
    add("--held-out", default=suppressed, metavar="SET", help="ID images not trained on (default: a fifth of --id)")
    add("--ood", nargs="+", default=suppressed, metavar="SET", help="OOD images (default: stand-ins)")
    add("--detectors", type=names, nargs="+", default=suppressed, metavar="NAME", help="default: the study's 21")
    add("--out", type=folder_type, default=Path("oodjax-results/recommend"), help="where finished work is kept")
    add("--json", action="store_true", help="print the ranking as JSON")
    add_plugins(command)
    return command


@dataclass
class Job:
    """A model and what its detectors are told apart on.

    Attributes:
      study: see `oodjax.recommendation.study_of`.
      folder: of the store.
      as_json: how to print.
      flattered: whether the held-out images are a share of those that the model may have been trained on.
      fit: the command line that fits a detector, but for its name.
    """

    study: Study
    folder: Path
    as_json: bool
    flattered: bool
    fit: str


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> Job:
        options = command.parse_args(arguments)
        try:
            check_devices()
            return _prepare(options)
        except (UsageError, ValueError) as error:
            command.error(str(error))

    def work(job: Job) -> int:
        return keep_finished(command, job.folder, lambda: _work(job))

    return execute(command, prepare, work, "the same command goes on from here")


def _prepare(options: argparse.Namespace) -> Job:
    """The study that the options ask for; nothing is written."""
    from oodjax import plugins
    from oodjax.detectors import NAMES
    from oodjax.detectors.labels import parse
    from oodjax.execute import check_detectors
    from oodjax.opening import check_labels, class_names, hold_out, open_images
    from oodjax.presets.own import model_of
    from oodjax.recommendation import study_of
    from oodjax.store import Store

    asked = vars(options)
    plugins.load(asked.get("plugin", ()))
    detectors = tuple(parse(n).label for n in split_names(asked["detectors"])) if "detectors" in asked else NAMES
    model: Model = model_of("model", "own", options.model, Path("."), "--model")
    if options.precision not in ("float32", "bfloat16"):
        raise UsageError(f"--precision must be float32 or bfloat16, got {options.precision!r}")
    check_folder(options.out)
    network: Network = model.load(options.precision)
    train = open_images(options.id, "--id")
    check_labels(train, network, "--id")
    if "held_out" in asked:
        held_out = open_images(asked["held_out"], "--held-out", class_names(train))
        check_labels(held_out, network, "--held-out")
    else:
        train, held_out = hold_out(train, HELD_OUT_SHARE, options.seed)
    study = study_of(
        model,
        train,
        held_out,
        _named(asked.get("ood", ())),
        network,
        detectors=detectors,
        precision=options.precision,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    check_detectors(study, Store(options.out))
    line = f"python -m oodjax.fit --model {shlex.quote(options.model)} --id {shlex.quote(options.id)}"
    line += f" --calibrate {shlex.quote(asked['held_out'])}" if "held_out" in asked else ""
    return Job(study, options.out, options.json, "held_out" not in asked, line)


def _named(given: Sequence[str]) -> dict[str, Source]:
    """Each OOD set under the last part of what names it."""
    from oodjax.opening import open_images

    found: dict[str, Source] = {}
    for text in given:
        name = "-".join(text.split(":")[1:]) if text.startswith("tfds:") else Path(text).resolve().name
        if name in found:
            raise UsageError(f"--ood names two sets {name}: give them different folders")
        found[name.replace("/", "-")] = open_images(text, "--ood")
    return found


def _work(job: Job) -> None:
    from rich.console import Console

    from oodjax.console import Stages
    from oodjax.devices import Devices
    from oodjax.execute import Engine, objections
    from oodjax.recommendation import recommend
    from oodjax.store import Store

    console = Console(stderr=job.as_json)
    store = Store(job.folder, warn=lambda line: print(line, file=sys.stderr))
    with Stages(console) as stages, store.claim():
        engine = Engine(job.study, store, Devices.all(), stages)
        engine.run()
    found = recommend(engine)
    left_out = objections(job.study, store)
    if job.as_json:
        print(json.dumps(_json(job, found, left_out), indent=2))
    else:
        _print(console, job, found, left_out)


def _json(job: Job, found: Recommendation, left_out: Mapping[str, list[str]]) -> dict:
    return {
        "recommended": found.best,
        "not_told_apart": found.equals,
        "ranking": found.table.to_dict("records"),
        "sets": {name: {"kind": kind, "images": count} for name, (kind, count) in found.sets.items()},
        "held_out": found.held_out,
        "covers": covers(found, job.flattered),
        "left_out": dict(left_out),
    }


def _print(console: Console, job: Job, found: Recommendation, left_out: Mapping[str, list[str]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from oodjax.console import say

    kinds = list(dict.fromkeys(kind for kind, _ in found.sets.values()))
    table = Table(title="AUROC in percent, with 95 % interval", box=SIMPLE, title_justify="left")
    for name in ("detector", "AUROC", "interval", "rank", *kinds):
        table.add_column(name, justify="left" if name == "detector" else "right", no_wrap=True)
    for row in found.table.to_dict("records"):
        low, high = f"{100 * row['low']:.1f}", f"{100 * row['high']:.1f}"
        ranks = f"{row['rank_low']} to {row['rank_high']}" if row["rank_low"] < row["rank_high"] else row["rank_low"]
        shown = [f"{100 * row['auroc']:.1f}", f"{low} to {high}", str(ranks), *(f"{100 * row[k]:.1f}" for k in kinds)]
        table.add_row(row["detector"], *shown)
    console.print(table)
    rivals = f"; not told apart from it: {', '.join(found.equals)}" if found.equals else "; no other comes up to it"
    say(console, f"recommended: {found.best}{rivals}")
    for line in covers(found, job.flattered):
        say(console, f"note: {line}")
    for reason, detectors in left_out.items():
        say(console, f"note: left out: {', '.join(detectors)}: {reason}")
    say(console, f"next: {job.fit} --detector {found.best} --to monitor")


def covers(found: Recommendation, flattered: bool) -> list[str]:
    """What the evidence is, and what it is not."""
    images = sum(count for _, count in found.sets.values())
    what = f"{found.held_out} held-out ID images against {images} images of {', '.join(found.sets)}"
    lines = [f"the evidence is {what}; the intervals are over images, not over other kinds of OOD images"]
    if found.imitated:
        lines.append(
            "nobody gave OOD images: these are generated, or made of ID images. Unknown objects among known scenery "
            "(near OOD) are not among them; with --ood the ranking is about the images that you expect"
        )
    if flattered:
        lines.append(
            "the held-out images are a fifth of --id: where the model was trained on them it is surer of them than of "
            "new ones, which flatters detectors; --held-out names images that it was not trained on"
        )
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
