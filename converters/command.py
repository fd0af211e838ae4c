"""What the command line does: files of the zoo or others -> checkpoints that `oodjax.zoo.load` reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from converters import config, fetch, files, reference, shards
from converters.convert import convert, head_outputs
from converters.envelopes import Envelope, is_plain, merge, parse_second
from converters.errors import ConversionError, problem, shown
from converters.facts import Facts, Taken, settle
from converters.rules import VERSION, Layout, find_layout
from converters.verify import drifts, reread
from oodjax import zoo
from oodjax.models import checkpoint
from oodjax.zoo.reader import Triple

ANY_FILE = Envelope.parse("state_dict?|model_state_dict?|model?", "strip-if-present:module.")
HUB_PAGE = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/(?:resolve|blob)/main/([^?#]+)")
Say = Callable[[str], None]
ReadFile = Callable[[Path], tuple[Any, str]]


def read_zoo(
    entry: zoo.Checkpoint, paths: Sequence[Path], say: Say, read_file: ReadFile = files.read_file
) -> tuple[dict[str, Any], list[Taken]]:
    """The tensors of a checkpoint of the zoo under its layout's names, and where they were.

    Raises:
      ConversionError: another number of files than the checkpoint has; what `files.read_file` and the envelope raise.
    """
    envelopes = [Envelope.parse(entry.state_dict_path, entry.key_rewrites)]
    if entry.second_file:
        url, second = parse_second(entry.second_file)
        envelopes.append(second)
        if len(paths) != 2:
            raise problem(entry.id, f"is published in two files; name both with --from, second the head from {url}")
    if len(paths) != len(envelopes):
        raise problem(entry.id, f"needs {len(envelopes)} file, got {len(paths)}")
    tensors: dict[str, Any] = {}
    taken = []
    for path, envelope in zip(paths, envelopes, strict=True):
        found, where = read(path, envelope, say, read_file)
        tensors = merge(tensors, found)
        taken.append(where)
    return tensors, taken


def read(
    path: Path, envelope: Envelope, say: Say, read_file: ReadFile = files.read_file
) -> tuple[dict[str, Any], Taken]:
    """The wanted tensors of one file, and where they were."""
    content, note = read_file(path)
    if note:
        say(note)
    tensors = envelope.open(content, str(path))
    key = next((choice for choice in envelope.paths if choice in content), "")
    left = [shown(name) for name, value in content.items() if name != key and _holds_tensors(value)]
    return tensors, Taken(path.name, key, tuple(left))


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(is_plain(inner) for inner in value.values())


def envelope(path: str | None, rewrites: str | None) -> Envelope:
    """What is asked for where it is asked for, and that of any file where it is not."""
    parsed = Envelope.parse(path or "", rewrites or "")
    return Envelope(
        ANY_FILE.paths if path is None else parsed.paths,
        ANY_FILE.required if path is None else parsed.required,
        ANY_FILE.rewrites if rewrites is None else parsed.rewrites,
    )


def convert_zoo(entry: zoo.Checkpoint, paths: Sequence[Path], to: Path, verify: bool, say: Say) -> None:
    """Files of a checkpoint of the zoo -> the folder `to`."""
    origins = dict.fromkeys(("architecture", "mean", "std"), "the zoo's table") | {"size": "the study's"}
    about = {"id": entry.id, "published": entry.url, "licence": entry.licence}
    facts = Facts(entry.mean, entry.std, origins=origins, about=about)
    _write(
        lambda read_file: read_zoo(entry, paths, say, read_file),
        find_layout(entry.layout),
        paths,
        to,
        facts,
        verify,
        say,
    )


def convert_file(
    path: Path,
    layout: str,
    to: Path,
    verify: bool,
    say: Say,
    *,
    envelope: Envelope = ANY_FILE,
    num_classes: int = 1000,
    mean: Triple | None = None,
    std: Triple | None = None,
    settings: Path | None = None,
) -> None:
    """Any other file in one of the layouts -> the folder `to`.

    Args:
      path: the file.
      layout: a name in `converters.rules.LAYOUTS`.
      to: a new folder, or that of a checkpoint to replace.
      verify: whether to say how far the logits are from torch's.
      say: takes each line.
      envelope: where the file keeps its tensors.
      num_classes: outputs of the head.
      mean, std: of pixels in 0..1; None for what `settings` says, else ImageNet's.
      settings: timm's config.json; by default the one beside the file, where there is one.

    Raises:
      ValueError: no such layout; mean or std out of range.
      ConversionError: the file does not fit, or its config.json says that it is of another network.
      CheckpointError: `to` holds anything but a checkpoint of ours.
    """
    found = find_layout(layout)
    settings = path.parent / config.NAME if settings is None else settings
    stated = config.read(settings) if settings.is_file() else None
    if stated is not None:
        config.check(stated, found)
    facts = settle(stated, mean, std)
    _write(
        lambda read_file: _single(read(path, envelope, say, read_file)),
        found,
        [path],
        to,
        facts,
        verify,
        say,
        num_classes,
    )


def _single(found: tuple[dict[str, Any], Taken]) -> tuple[dict[str, Any], list[Taken]]:
    return found[0], [found[1]]


def _write(
    read_all: Callable[[ReadFile], tuple[dict[str, Any], list[Taken]]],
    layout: Layout,
    paths: Sequence[Path],
    to: Path,
    facts: Facts,
    verify: bool,
    say: Say,
    num_classes: int = 1000,
) -> None:
    """Reads, converts and writes; raises before anything is written, and before anything is read for a bad `to`."""
    checkpoint.refuse_foreign(to)
    tensors, taken = read_all(files.read_file)
    classes = head_outputs(tensors, layout)
    if classes not in (None, num_classes):
        hint = "" if "id" in facts.about else f": say --classes {classes}"
        raise problem(str(paths[0]), f"has a head of {classes} classes, not {num_classes}{hint}")
    try:
        model = cast(Any, convert(tensors, layout.name, num_classes=num_classes))
    except ConversionError as error:
        raise ConversionError(f"{paths[0]} {error.what}", error.problems) from error
    compared = reread(tensors, lambda: read_all(reference.read_file)[0], str(paths[0])) if verify else ""
    manifest = _manifest(model, layout, facts, paths, taken)
    checkpoint.save(to, model, **manifest)
    numbers = sum(int(np.prod(shape)) for shape in manifest["shapes"].values())
    say(f"{to}: {layout.architecture} of {num_classes} classes from the layout {layout.name}, {numbers:,} numbers")
    for line in [*facts.lines(model.config.epsilon), *map(str, taken)]:
        say(line)
    if verify:
        for line in [compared, *drifts(to, layout.name, tensors)]:
            say(line)


def _manifest(
    model: Any, layout: Layout, facts: Facts, paths: Sequence[Path], taken: Sequence[Taken]
) -> dict[str, Any]:
    return {
        "architecture": layout.architecture,
        "layout": layout.name,
        "rules": VERSION,
        "source": _sources(paths),
        "tensors": [dataclasses.asdict(where) for where in taken],
        "mean": facts.mean,
        "std": facts.std,
        "resize": facts.resize,
        "crop": facts.crop,
        "interpolation": facts.interpolation,
        "epsilon": model.config.epsilon,
        "origins": dict(facts.origins),
        "shapes": {name: list(array.shape) for name, array in checkpoint.flat_arrays(model).items()},
        **facts.about,
    }


def is_current(entry: zoo.Checkpoint, paths: Sequence[Path], to: Path) -> bool:
    """Whether `to` was made from these files by these rules and what the zoo's table says now."""
    manifest = checkpoint.read_manifest(to) or {}
    stated = [manifest.get(name) for name in ("rules", "layout", "mean", "std")]
    wanted = [VERSION, entry.layout, list(entry.mean), list(entry.std)]
    if stated != wanted or manifest.get("source") != _sources(paths):
        return False
    try:
        checkpoint.check_files(to, manifest)
    except checkpoint.CheckpointError:
        return False
    return True


def _sources(paths: Sequence[Path]) -> list[dict[str, str]]:
    return [{"file": part.name, "sha256": files.sha256(part)} for path in paths for part in files.parts(path)]


def table() -> str:
    """The zoo, one line per checkpoint."""
    rows = [("id", "arch", "category", "accuracy", "licence", "source")]
    for entry in zoo.checkpoints():
        accuracy = "" if entry.accuracy is None else f"{entry.accuracy:.2f}"
        inside = f" ({entry.member})" if entry.member else ""
        rows.append((entry.id, entry.arch, entry.category, accuracy, entry.licence, entry.url + inside))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)


def convert_all(downloads: Path, to: Path, verify: bool, say: Say) -> list[str]:
    """Converts what a downloads folder holds of the zoo; returns the checkpoints that failed."""
    if not downloads.is_dir():
        raise problem(str(downloads), "no such folder")
    failed, missing, done = [], [], 0
    for entry in zoo.checkpoints():
        try:
            with files.find(entry, downloads) as paths:
                if not paths:
                    missing.append(entry)
                    continue
                checkpoint.refuse_foreign(to / entry.id)
                if is_current(entry, paths, to / entry.id):
                    say(f"{to / entry.id}: up to date")
                else:
                    convert_zoo(entry, paths, to / entry.id, verify, say)
                done += 1
        except (ConversionError, checkpoint.CheckpointError) as error:
            failed.append(entry.id)
            say(f"{entry.id} failed: {error.summary() if isinstance(error, ConversionError) else error}")
    say(f"{done} converted, {len(failed)} failed, {len(missing)} missing")
    for entry in missing:
        head = f" and {parse_second(entry.second_file)[0]} (as {entry.id}-head.pth)" if entry.second_file else ""
        inside = f" (in it {entry.member})" if entry.member else ""
        say(f"missing {entry.id}.{entry.file_format}: {entry.url}{inside}{head}")
    return failed


def resolve(what: str, downloads: Path) -> tuple[Path, Path | None]:
    """A path, a URL, or a repository of the hub ("owner/name" or "hf://owner/name/file") -> a file on this machine.

    Returns:
      The file, and the hub's config.json where it is from there and has one.
    """
    if what.startswith("hf://"):
        owner, _, rest = what.removeprefix("hf://").partition("/")
        name, _, file = rest.partition("/")
        return _from_hub(f"{owner}/{name}", file or fetch.HUB_FILE, downloads)
    if page := HUB_PAGE.match(what):
        return _from_hub(page[1], page[2], downloads)
    if re.match(r"https?://", what):
        return fetch.fetch_url(what, downloads), None
    path = Path(what)
    if (
        not path.exists()
        and re.fullmatch(r"[\w.-]+/[\w.-]+", what)
        and not what.endswith((*files.SUFFIXES, shards.SUFFIX))
    ):
        return _from_hub(what, fetch.HUB_FILE, downloads)
    return path, None


def _from_hub(repo: str, file: str, downloads: Path) -> tuple[Path, Path | None]:
    path = fetch.fetch_hub(repo, file, downloads)
    try:
        return path, fetch.fetch_hub(repo, config.NAME, downloads)
    except ConversionError as error:
        # the hub's answer that there is none; the local error of nearly this name only says that nothing was reached
        if type(error.__cause__).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
            return path, None
        raise problem(
            str(path), f"its {config.NAME} may say another network, and {error}; or name this path"
        ) from error
