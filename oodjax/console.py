"""What a run shows on the terminal: its sets, its plan, how far it is, its tables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from oodjax.detectors import Note
    from oodjax.execute import Todo
    from oodjax.plan import Plan
    from oodjax.results import Tables
    from oodjax.study import Study


ENDS = ("", "_low", "_high")  # of a mean, and of its interval
LINE_SECONDS = 60.0  # between two lines about one stage, where there is no terminal


class Stages:
    """How far a run is, with images a second and the time left; remembers what each stage took.

    A terminal shows bars, and so does a notebook with ipywidgets. Elsewhere, as in the log of a batch job, each stage
    says a line a minute and one at its end.
    """

    def __init__(self, console: Console, shown: bool = True):
        self._console, self._lines = console, shown and not (console.is_terminal or _has_widgets(console))
        self._progress = Progress(
            TextColumn("{task.description:<40}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown or self._lines,
        )
        self.record: list[dict[str, Any]] = []

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        start = said = time.perf_counter()
        done = 0
        task = self._progress.add_task(name, total=total, rate="")

        def advance(count: int) -> None:
            nonlocal done, said
            done, now = done + count, time.perf_counter()
            rate = done / max(now - start, 1e-9)
            self._progress.update(task, advance=count, rate=f"{rate:,.0f} {unit}/s" if unit == "images" else "")
            if self._lines and now - said >= LINE_SECONDS:
                said, left = now, max(total - done, 0) / max(rate, 1e-9)
                say(self._console, f"{name}: {done:,} of {total:,} {unit}, {rate:,.1f} a second, {left:,.0f} s left")

        try:
            yield advance
        finally:
            seconds = time.perf_counter() - start
            self.record.append({"stage": name, unit: done, "seconds": round(seconds, 3)})
            if self._lines:
                say(self._console, f"{name}: {done:,} of {total:,} {unit} in {seconds:,.1f} s")


def _has_widgets(console: Console) -> bool:
    """Whether this is a notebook in which Rich can draw bars."""
    if not console.is_jupyter:
        return False
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return False
    return True


def waiting(console: Console, text: str) -> AbstractContextManager[Any]:
    """Shows that something takes its time, where there is something to draw it with."""
    return console.status(text) if not console.is_jupyter or _has_widgets(console) else nullcontext()


def say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def print_sets(console: Console, study: Study) -> None:
    table = _table(f"data of {study.name}, seed {study.seed}")
    for name in ("set", "role", "category", "images", "sha256"):
        table.add_column(name, justify="right" if name == "images" else "left", no_wrap=True)
    for s in study.sets:
        table.add_row(s.name, s.role, s.category, str(s.count), s.sha256[:16])
    console.print(table)


def print_plan(console: Console, study: Study, found: Plan, lines: list[str]) -> None:
    table = _table("models")
    for name in ("model", "category", "missing"):
        table.add_column(name, no_wrap=name != "missing")
    for model in study.models:
        table.add_row(model.name, model.category, _missing(study, found.todo[model.name]))
    console.print(table)
    say(console, f"finished: {len(found.finished)} of {len(study.models)} models")
    say(console, f"to decode: {found.decoded:,} images, for {found.fleet} model{'s' * (found.fleet > 1)} at a time")
    say(console, f"forward passes: {found.forwards:,}, and {found.odin_passes:,} of ODIN's")
    say(console, f"device memory: {_size(found.device_bytes)} for weights and sums, and a batch of {study.batch_size}")
    say(console, f"host memory: {_size(found.host_bytes)} beside the program and a batch")
    say(console, f"disk: {_size(found.disk_bytes)} when all is kept")
    for line in lines:
        say(console, f"smaller: {line}")


def _missing(study: Study, todo: Todo) -> str:
    """What is missing of a model, in words."""
    sets, all_sets = [name for name, arrays in todo.arrays.items() if arrays], (*study.validations, *study.tests)
    outputs = f"all {len(all_sets)} sets" if len(sets) == len(all_sets) else ", ".join(sets)
    scores = f"all {len(todo.scores)} detectors" if len(todo.scores) == len(study.detectors) else ", ".join(todo.scores)
    parts = [
        *(["its training"] if todo.train else []),
        *(["statistics"] if todo.statistics else []),
        *([f"outputs on {outputs}"] if sets else []),
        *([f"scores of {scores}"] if todo.scores else []),
    ]
    return "; ".join(parts) or "nothing"


def print_tables(console: Console, tables: Tables) -> None:
    from oodjax.results import per_detector, per_model

    if "recipe" in tables.models:
        _print_recipes(console, tables)
        return
    table = _table("mean +- std over detectors and sets, in percent")
    for name in ("model", "category", "acc.", "ECE", "AUROC", "FPR95"):
        table.add_column(name, justify="left" if name in ("model", "category") else "right", no_wrap=True)
    for row in per_model(tables).to_dict("records"):
        figures = [f"{row[name]:.1f}+-{row[f'{name}_std']:.1f}" for name in ("auroc", "fpr95")]
        table.add_row(row["model"], row["category"], f"{row['accuracy']:.2f}", f"{row['ece']:.2f}", *figures)
    console.print(table)
    best = per_detector(tables).head(5).to_dict("records")
    leaders = ", ".join(f"{row['detector']} {row['auroc']:.1f}" for row in best)
    say(console, f"best detectors by mean AUROC: {leaders}")


def _print_recipes(console: Console, tables: Tables) -> None:
    """The tables of a study with several seeds: means, each with its 95 % interval."""
    from oodjax.analysis import mean_interval
    from oodjax.results import per_recipe

    found = per_recipe(tables)
    seeds = sorted(set(found["seeds"]))
    many = f"{seeds[0]}{'' if len(seeds) == 1 else f' to {seeds[-1]}'} seeds"
    table = _table(f"mean over {many} [95 % interval], of all detectors and sets, in percent")
    table.show_edge = False  # 80 columns hold the longest name and three intervals
    for name in ("recipe", "accuracy", "AUROC", "FPR95"):
        table.add_column(name, justify="left" if name == "recipe" else "right", no_wrap=True)
    for row in found.to_dict("records"):
        figures = [with_interval(*(row[f"{name}{end}"] for end in ENDS)) for name in ("accuracy", "auroc", "fpr95")]
        table.add_row(row["recipe"], *figures)
    console.print(table)
    detectors = mean_interval(tables.results).sort_values("mean", ascending=False, kind="stable")
    best = detectors.head(5).to_dict("records")
    leaders = ", ".join(
        f"{row['detector']} {with_interval(*(100 * row[end] for end in ('mean', 'low', 'high')))}" for row in best
    )
    say(console, f"best detectors by mean AUROC [95 % interval over {best[0]['unit']}]: {leaders}")


def with_interval(mean: float, low: float, high: float) -> str:
    """A mean with the ends of its interval, which is not there for a single seed."""
    return f"{mean:.1f}" if math.isnan(low) else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def print_notes(console: Console, study: Study, objections: Mapping[str, list[str]], notes: Iterable[Note]) -> None:
    """Why nothing was searched, why detectors did not run, and which grid points the search left out."""
    if not study.validations:
        lacking = " and no ".join(n for n, there in (("ID", study.id_val), ("OOD", study.ood_vals)) if not there)
        what = "every detector has its default hyper-parameters"
        say(console, f"note: no search: {what}, as there is no {lacking} validation set")
    for reason, names in objections.items():
        say(console, f"note: left out: {', '.join(names)}: {reason}")
    known = list(dict.fromkeys(notes))
    for name in dict.fromkeys(note.detector for note in known):
        about = [note for note in known if note.detector == name]
        left_out = "; ".join(note.text for note in about if note.left_out)
        said = [f"grid points left out: {left_out}"] if left_out else []
        said += [note.text for note in about if not note.left_out]
        say(console, f"note: {name}: {'; '.join(said)}")


def _table(title: str) -> Table:
    return Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")


def _size(count: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
