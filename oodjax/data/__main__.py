"""python -m oodjax.data: is a data folder what the study needs?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oodjax.command_line import Parser, UsageError, execute, folder, names, one_line, split_names

if TYPE_CHECKING:
    from rich.progress import Progress

    from oodjax.data.sets import ImageSet
    from oodjax.data.verify import SetCheck

_SAMPLE = 200
_NAMED_FILES = 10
_TRAIN = "imagenet_train"


@dataclass(frozen=True)
class Request:
    """What to look at: the sets found, why others were not, how many images of each to decode, and by which seed."""

    sets: tuple[ImageSet, ...]
    absent: dict[str, str]
    expected: dict[str, int]
    sample: int | None
    seed: int


def parser() -> Parser:
    parser = Parser(
        prog="python -m oodjax.data",
        description="Verifies a data folder in OpenOOD's layout: for each set found and expected count, list hash, "
        "missing and unreadable files, and images that stand in two sets (by content). "
        "Exit code 0: all right; 1: problems found; 2: wrong use.",
    )
    parser.add_argument("data", metavar="DATA", type=folder, help="the data folder")
    parser.add_argument(
        "--datasets",
        type=names,
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="OOD test sets to look at (default: all)",
    )
    parser.add_argument(
        "--all", action="store_true", help="decode every image, and compare the training images with the other sets"
    )
    parser.add_argument("--sample", type=int, default=_SAMPLE, metavar="N", help="images of each set to decode")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()

    def prepare() -> Request:
        options = vars(command.parse_args(arguments))
        try:
            return request(**options)
        except UsageError as error:
            command.error(str(error))

    return execute(command, prepare, report)


def request(data: Path, sample: int, seed: int, datasets: Sequence[str] = (), **options: bool) -> Request:
    from oodjax.data import imagenet
    from oodjax.data.sources import DataError

    if sample < 1 or seed < 0:
        raise UsageError(f"--sample and --seed: got {sample} and {seed}, expected at least 1 and at least 0")
    entries = imagenet.chosen(split_names(datasets))
    if not data.is_dir():
        raise UsageError(f"no such folder: {data}")
    found = {entry.name: imagenet.look(entry, data) for entry in entries}
    absent = {name: str(error) for name, error in found.items() if isinstance(error, DataError)}
    sets = tuple(image_set for image_set in found.values() if not isinstance(image_set, DataError))
    if not sets:
        raise UsageError(f"{data} holds no set of the study: expected {imagenet.LISTS}/imagenet/*.txt and the images")
    expected = {entry.name: entry.expected for entry in entries}
    return Request(sets, absent, expected, None if options["all"] else sample, seed)


def report(request: Request) -> int:
    """Prints what is found, set by set; the exit code."""
    from oodjax.data.verify import check_set, overlap

    right = not request.absent
    for image_set in request.sets:
        count = image_set.count if request.sample is None else min(request.sample, image_set.count)
        with _progress(image_set.name, count) as bar:
            check = check_set(
                image_set,
                request.expected[image_set.name],
                request.sample,
                request.seed,
                lambda count, bar=bar: bar.advance(bar.task_ids[0], count),  # type: ignore[misc]
            )
        right &= check.is_right
        print("\n".join(_lines(check, request)), flush=True)
    for name, reason in request.absent.items():
        print(f"{name}: not found: {one_line(reason)}")
    compared = [s for s in request.sets if request.sample is None or s.name != _TRAIN]
    if len(compared) < len(request.sets):
        print(f"{_TRAIN} is compared with the other sets with --all only")
    with _progress("images in two sets", None):
        shared = overlap(compared, content=True)
    for pair in shared:
        print(f"{pair.first.name} and {pair.second.name} share {pair.count:,} images")
    print("all right" if right and not shared else "problems found")
    return 0 if right and not shared else 1


def _lines(check: SetCheck, request: Request) -> Iterator[str]:
    how = "all" if check.opened == check.found - len(check.missing) else f"a sample by seed {request.seed}"
    yield (
        f"{check.name}: {check.found:,} images, expected {check.expected:,}; list {check.sha256[:16]}; "
        f"{len(check.missing):,} missing; {len(check.unreadable):,} unreadable of {check.opened:,} decoded ({how}); "
        f"{one_line(check.description)}"
    )
    bad = [f"missing {path}" for path in check.missing] + [f"unreadable {error}" for error in check.unreadable]
    for line in bad[:_NAMED_FILES]:
        yield f"  {one_line(line)}"
    if len(bad) > _NAMED_FILES:
        yield f"  and {len(bad) - _NAMED_FILES:,} more"


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(what, total=total)
        yield bar


if __name__ == "__main__":
    raise SystemExit(main())
