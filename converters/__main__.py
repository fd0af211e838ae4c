"""python -m converters: list | all | the id of a checkpoint of the zoo | a file, URL or hub repository with --arch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from converters import command, fetch, files
from converters.envelopes import Envelope
from converters.errors import ConversionError, problem
from oodjax import zoo
from oodjax.models.checkpoint import CheckpointError

Triple = tuple[float, float, float]


def run(
    what: tyro.conf.Positional[str],
    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = (),
    to: Path | None = None,
    arch: str | None = None,
    verify: bool = False,
    downloads: Path = Path("downloads"),
    classes: int = 1000,
    mean: Triple = command.IMAGENET[0],
    std: Triple = command.IMAGENET[1],
    path: str | None = None,
    rewrites: str | None = None,
) -> None:
    """Turns published ResNet-50 and ViT-B/16 weights into checkpoints that `oodjax.zoo.load` reads.

    Args:
      what: "list" shows the zoo; "all" converts what the folder --from holds of it; the id of one of its checkpoints;
        or any other file, URL or hub repository ("owner/name"), with --arch.
      source: the downloaded file (two where the head is published apart), or the folder it is in. Without it the
        checkpoint is downloaded.
      to: folder to write; for "all" the folder of the folders.
      arch: names of the file's tensors, such as torchvision-resnet50.
      verify: forward a fixed input and print the drift of logits and features, against torch where it is installed.
      downloads: folder for what is downloaded.
      classes: outputs of the head of a file that is not of the zoo.
      mean: normalisation of a file that is not of the zoo.
      std: normalisation of a file that is not of the zoo.
      path: where the file keeps its tensors, as in the zoo's table; by default the usual places are tried.
      rewrites: how the file's names become the architecture's, as in the zoo's table.
    """
    if what == "list":
        print(command.table())
        return
    if to is None:
        raise problem(what, "--to is missing: the folder to write")
    if what == "all":
        if len(source) != 1:
            raise problem("all", "--from is missing: the folder of the downloaded files")
        failed = command.convert_all(source[0], to, verify, print)
        if failed:
            raise problem("all", f"could not convert {', '.join(failed)}")
    elif what in {entry.id for entry in zoo.checkpoints()} and arch is None:
        _one(zoo.get(what), source, to, verify, downloads)
    elif arch is None:
        ids = ", ".join(entry.id for entry in zoo.checkpoints())
        raise problem(what, f"is no checkpoint of the zoo ({ids}); for another file say --arch")
    else:
        envelope = command.ANY_FILE
        if path is not None or rewrites is not None:
            envelope = Envelope.parse(path or "", rewrites or "")
        command.convert_file(
            command.resolve(what, downloads), arch, to, verify, print,
            envelope=envelope, num_classes=classes, mean=mean, std=std,
        )  # fmt: skip


def _one(entry: zoo.Checkpoint, source: Sequence[Path], to: Path, verify: bool, downloads: Path) -> None:
    if not source:
        command.convert_zoo(entry, fetch.fetch_checkpoint(entry, downloads), to, verify, print)
    elif len(source) == 1 and source[0].is_dir():
        with files.find(entry, source[0]) as paths:
            if not paths:
                names = f"{entry.id}.{entry.file_format}" + (f" and {entry.id}-head.pth" if entry.second_file else "")
                raise problem(entry.id, f"{source[0]} holds no {names}; published at {entry.url}")
            command.convert_zoo(entry, paths, to, verify, print)
    else:
        command.convert_zoo(entry, source, to, verify, print)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line on what is wrong."""
    try:
        tyro.cli(run, prog="python -m converters", args=arguments)
    except ConversionError as error:
        print(f"error: {error.summary()}", file=sys.stderr)
        return 2
    except (CheckpointError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
