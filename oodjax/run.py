"""python -m oodjax.run: a study from images to tables, on one command line."""

from __future__ import annotations

from oodjax.signals import ending, handle

if __name__ == "__main__":
    handle(ending("oodjax.run"))  # before the other imports, which take their time

import argparse
import os
import platform
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodjax._version import __version__
from oodjax.command_line import Parser, UsageError, check_devices, check_folder, execute, names, split_names
from oodjax.command_line import folder as folder_type

if TYPE_CHECKING:
    from rich.console import Console

    from oodjax.results import Tables
    from oodjax.study import Preset, Study

PRESETS = ("digits",)
PRECISIONS = ("float32", "bfloat16")
LISTING, MAKER = "run.json", "oodjax.run"
TABLES = ("results.csv", "models.csv")


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.run",
        description="Runs a study: checkpoints, scores of every detector on every set, tables. Finished work is kept "
        "and found again, so the same command goes on where it was.",
    )
    several: dict[str, Any] = {"type": names, "nargs": "+", "default": argparse.SUPPRESS, "metavar": "NAME"}
    parser.add_argument("preset", nargs="?", default="digits", help=f"the study to run: {', '.join(PRESETS)}")
    parser.add_argument("--models", **several, help="checkpoints, separated by spaces or commas (default: all)")
    parser.add_argument("--detectors", **several, help="detectors, separated by spaces or commas (default: all)")
    parser.add_argument("--datasets", **several, help="OOD test sets, separated by spaces or commas (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, training and pseudo-random choices")
    parser.add_argument(
        "--precision", default="float32", help=f"of the network's forward pass: {', '.join(PRECISIONS)}"
    )
    parser.add_argument(
        "--batch-size", type=int, default=argparse.SUPPRESS, help="images a step (default: the preset's)"
    )
    parser.add_argument(
        "--out", type=folder_type, default=argparse.SUPPRESS, help="folder (default: ./oodjax-results/PRESET)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> Study:
        options = command.parse_args(arguments)
        try:
            check_devices()
            return _prepare(options)
        except UsageError as error:
            command.error(str(error))

    def work(study: Study) -> int:
        try:
            _run(study, study.folder)
        except UsageError as error:
            command.error(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            command.error(f"cannot write under {study.folder}: {error.strerror or error}; what is finished is kept")
        return 0

    return execute(command, prepare, work, "the same command goes on from here")


def _prepare(options: argparse.Namespace) -> Study:
    """The study that the options ask for; nothing is written."""
    from oodjax.detectors import NAMES
    from oodjax.study import Study, StudyError

    if options.preset not in PRESETS:
        raise StudyError(f"unknown preset {options.preset!r}; there are: {', '.join(PRESETS)}")
    if options.precision not in PRECISIONS:
        raise StudyError(f"--precision must be one of {', '.join(PRECISIONS)}, got {options.precision!r}")
    asked = vars(options)  # holds only what is given, where there is no default
    if asked.get("batch_size", 1) < 1:
        raise StudyError(f"--batch-size must be at least 1, got {options.batch_size}")
    if not 0 <= options.seed < 2**32:
        raise StudyError(f"--seed must lie in 0..{2**32 - 1}, got {options.seed}")
    preset = _preset(options.preset)
    models = _chosen("model", asked.get("models"), tuple(preset.models))
    detectors = _chosen("detector", asked.get("detectors"), NAMES)
    folder = asked.get("out", Path("oodjax-results") / preset.name)
    data = preset.load_data(options.seed)
    datasets = _chosen("dataset", asked.get("datasets"), tuple(s.name for s in data.ood_tests))
    _check_outputs(folder)
    batch_size = asked.get("batch_size", preset.batch_size)
    study = Study(preset, data, folder, models, detectors, datasets, options.seed, options.precision, batch_size)
    largest = max((*study.shared_sets, *study.test_sets), key=lambda s: s.count)
    if "batch_size" in asked and batch_size > largest.count:
        raise StudyError(
            f"--batch-size must be at most {largest.count}, the images of the largest set, {largest.name}; "
            f"got {batch_size}"
        )
    return study


def _preset(name: str) -> Preset:
    from importlib import import_module

    return import_module(f"oodjax.presets.{name}").PRESET


def _chosen(kind: str, given: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The names given, in the study's order; all where none are."""
    from oodjax.study import StudyError

    names = split_names(["all"] if given is None else given)
    if names == ["all"]:
        return tuple(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise StudyError(f"unknown {kind} {', '.join(unknown) or 'list (empty)'}; there are: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _check_outputs(folder: Path) -> None:
    """Refuses a folder that cannot be written, or in which a file that is not ours is in the way."""
    from oodjax.listing import read_listing

    for part in (folder, folder / "checkpoints", folder / "units"):
        check_folder(part, checkpoints=True)
    read_listing(folder, LISTING, MAKER).check(TABLES)
    read_listing(folder / "report", "report.json", "oodjax.report").check(["index.html", "tables/results.csv"])


def _run(study: Study, folder: Path) -> None:
    from rich.console import Console

    from oodjax.files import remove_partial
    from oodjax.listing import read_listing, staging
    from oodjax.results import tabulate

    console, start = Console(), time.perf_counter()
    remove_partial(folder, folder / "checkpoints", *(folder / "units" / model for model in study.models))
    _print_sets(console, study)
    with _progress(console) as progress:
        _make_checkpoints(study, progress)
        _evaluate(study, progress)
    tables = tabulate(study)
    with staging(folder) as staged:
        tables.write(staged)
        read_listing(folder, LISTING, MAKER).publish(staged, _manifest(study))
    report = _report(console, folder)
    _print_tables(console, tables)
    _print_notes(console, study)
    counts = study.counts
    console.print(
        f"decoded {counts.decoded} images once for {len(study.models)} models; {counts.forwards} forward passes "
        f"and {counts.odin_passes} passes of ODIN's on {study.extractor.mesh.size} "
        f"device{'s' * (study.extractor.mesh.size > 1)} in {time.perf_counter() - start:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"  {report}: the report, opens in a browser", highlight=False, soft_wrap=True)
    for name, what in (
        ("results.csv", "one row per model, detector and set"), ("models.csv", "accuracy and ECE"),
        ("run.json", "configuration, versions, data hashes"), ("checkpoints", "trained networks"),
        ("units", "scores, logits and features"),
    ):  # fmt: skip
        console.print(f"  {folder / name}: {what}", highlight=False, soft_wrap=True)


def _report(console: Console, folder: Path) -> Path:
    """The report's page, made anew only when it is not whole or its tables, manifest or code have changed."""
    from oodjax.report.page import up_to_date, write

    if not up_to_date(folder):
        with console.status("drawing the report"):
            return write(folder)
    return folder / "report" / "index.html"


@contextmanager
def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        yield progress


def _make_checkpoints(study: Study, progress: Any) -> None:
    missing = study.missing_checkpoints()
    task = progress.add_task("checkpoints", total=len(study.models), completed=len(study.models) - len(missing))
    for model in missing:
        progress.update(task, description=f"checkpoint {model}")
        study.make_checkpoint(model)
        progress.advance(task)
    progress.update(task, description="checkpoints")


def _evaluate(study: Study, progress: Any) -> None:
    missing = {model: study.missing_units(model) for model in study.models}
    units = len(study.models) * len(study.test_sets)
    task = progress.add_task("units", total=units, completed=units - sum(len(sets) for sets in missing.values()))
    for model, sets in missing.items():
        names = {s.name for s in sets}
        for done in study.evaluate(model):
            progress.update(task, description=f"{model} on {done}", advance=1 if done in names else 0)
    progress.update(task, description="units")


def _print_sets(console: Console, study: Study) -> None:
    table = _table(f"data of {study.preset.name}, seed {study.seed}")
    for name in ("set", "category", "images", "sha256"):
        table.add_column(name, justify="right" if name == "images" else "left", no_wrap=True)
    for s in (*study.shared_sets, *study.test_sets):
        table.add_row(s.name, s.category, str(s.count), s.sha256[:16])
    console.print(table)


def _print_tables(console: Console, tables: Tables) -> None:
    from oodjax.results import per_detector, per_model

    table = _table("mean +- std over detectors and sets, in percent")
    for name in ("model", "category", "acc.", "ECE", "AUROC", "FPR95"):
        table.add_column(name, justify="left" if name in ("model", "category") else "right", no_wrap=True)
    for row in per_model(tables).to_dict("records"):
        figures = [f"{row[name]:.1f}+-{row[f'{name}_std']:.1f}" for name in ("auroc", "fpr95")]
        table.add_row(row["model"], row["category"], f"{row['accuracy']:.2f}", f"{row['ece']:.2f}", *figures)
    console.print(table)
    best = per_detector(tables).head(5).to_dict("records")
    leaders = ", ".join(f"{row['detector']} {row['auroc']:.1f}" for row in best)
    console.print(f"best detectors by mean AUROC: {leaders}", highlight=False, soft_wrap=True)


def _table(title: str) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")


def _print_notes(console: Console, study: Study) -> None:
    """What the search left out, a line a detector."""
    notes = dict.fromkeys(n for m in study.models for n in study.choice(m).notes if n.detector in study.detectors)
    for name in dict.fromkeys(note.detector for note in notes):
        about = [note for note in notes if note.detector == name]
        left_out = "; ".join(note.text for note in about if note.left_out)
        said = [f"grid points left out: {left_out}"] if left_out else []
        said += [note.text for note in about if not note.left_out]
        console.print(f"note: {name}: {'; '.join(said)}", highlight=False, soft_wrap=True)


def _manifest(study: Study) -> dict[str, Any]:
    from importlib.metadata import version

    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn", "pillow")
    return {
        "configuration": {
            "preset": study.preset.name,
            "models": list(study.models),
            "detectors": list(study.detectors),
            "datasets": [s.name for s in study.test_sets[1:]],
            "seed": study.seed,
            "precision": study.precision,
            "batch_size": study.extractor.rows,
        },
        "versions": {"oodjax": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "cpus": os.cpu_count()},
        "data": [
            {"name": s.name, "role": s.role, "category": s.category, "count": s.count, "sha256": s.sha256,
             "source": s.source.description}
            for s in (*study.shared_sets, *study.test_sets)
        ],
        "checkpoints": {model: study.weights_hash(model) for model in study.models},
        "hyperparameters": {
            model: {n: choice.points[i][1] for n, i in choice.selected.items()}
            for model in study.models
            for choice in [study.choice(model)]
        },
        "selected_columns": {
            model: {n: i for n, i in study.choice(model).selected.items() if n in study.detectors}
            for model in study.models
        },
        "units": {
            model: {s.name: str(path.relative_to(study.folder)) for s in study.test_sets
                    if (path := study.find(model, s)) is not None}
            for model in study.models
        },
        "decoded_images": study.counts.decoded,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
