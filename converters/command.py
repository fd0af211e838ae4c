"""What the command line does: files of the zoo or others -> checkpoints that `oodjax.zoo.load` reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from converters import fetch, files, reference
from converters.convert import convert
from converters.envelopes import Envelope, merge, parse_second
from converters.errors import ConversionError, problem
from converters.rules import VERSION, architecture
from oodjax import zoo
from oodjax.models import checkpoint

ANY_FILE = Envelope.parse("state_dict?|model_state_dict?|model?", "strip-if-present:module.")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ZOO_ARCH = {"resnet50": "torchvision-resnet50", "vit_b16": "timm-vit_base_patch16_224"}
Say = Callable[[str], None]


def arch_of(entry: zoo.Checkpoint) -> str:
    """The architecture that the tensors of a checkpoint of the zoo have once its key rewrites are applied."""
    return "timm-vit_base_patch16_224-avgpool" if entry.id == "vit-mae" else _ZOO_ARCH[entry.arch]


def read_zoo(entry: zoo.Checkpoint, paths: Sequence[Path], say: Say) -> dict[str, Any]:
    """The tensors of a checkpoint of the zoo under its architecture's names.

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
    for path, envelope in zip(paths, envelopes, strict=True):
        tensors = merge(tensors, read(path, envelope, say))
    return tensors


def read(path: Path, envelope: Envelope, say: Say) -> dict[str, Any]:
    """The wanted tensors of one file."""
    content, note = files.read_file(path)
    if note:
        say(note)
    return envelope.open(content, str(path))


def convert_zoo(entry: zoo.Checkpoint, paths: Sequence[Path], to: Path, verify: bool, say: Say) -> None:
    """Files of a checkpoint of the zoo -> the folder `to`."""
    facts = {
        "id": entry.id, "published": entry.url, "licence": entry.licence, "mean": entry.mean, "std": entry.std,
    }  # fmt: skip
    _write(lambda: read_zoo(entry, paths, say), arch_of(entry), paths, to, facts, verify, say)


def convert_file(
    path: Path, arch: str, to: Path, verify: bool, say: Say, *, envelope: Envelope = ANY_FILE, num_classes: int = 1000,
    mean: Sequence[float] = IMAGENET[0], std: Sequence[float] = IMAGENET[1],
) -> None:  # fmt: skip
    """Any other file of one of the architectures -> the folder `to`."""
    if not all(value > 0 for value in std):
        raise ValueError(f"std must be positive, got {tuple(std)}")
    facts = {"mean": tuple(mean), "std": tuple(std)}
    _write(lambda: read(path, envelope, say), architecture(arch).name, [path], to, facts, verify, say, num_classes)


def _write(
    tensors_of: Callable[[], dict[str, Any]], arch: str, paths: Sequence[Path], to: Path, facts: dict[str, Any],
    verify: bool, say: Say, num_classes: int = 1000,
) -> None:  # fmt: skip
    """Reads, converts and writes; raises before anything is written."""
    tensors = tensors_of()
    try:
        model = convert(tensors, arch, num_classes=num_classes)
    except ConversionError as error:
        raise ConversionError(f"{paths[0]} {error.what}", error.problems) from error
    shapes = {name: list(array.shape) for name, array in checkpoint.flat_arrays(model).items()}
    source = [{"file": path.name, "sha256": files.sha256(path)} for path in paths]
    entry = architecture(arch)
    checkpoint.save(
        to, cast(Any, model), architecture=entry.model, arch=arch, rules=VERSION, source=source, shapes=shapes, **facts
    )
    say(f"{to}: {arch}, {sum(int(np.prod(shape)) for shape in shapes.values()):,} numbers")
    if verify:
        for line in drifts(to, arch, tensors):
            say(line)


def is_current(to: Path, paths: Sequence[Path]) -> bool:
    """Whether `to` was made from these files by these rules."""
    manifest = checkpoint.read_manifest(to) or {}
    hashes = [entry["sha256"] for entry in manifest.get("source", [])]
    return manifest.get("rules") == VERSION and hashes == [files.sha256(path) for path in paths]


def drifts(folder: Path, arch: str, tensors: dict[str, Any]) -> list[str]:
    """How far the written checkpoint's logits and features are from torch's on a fixed input, and the folded network's
    and bfloat16's from the plain one; each as the largest difference in units of the reference's standard deviation."""
    size = 224
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    loaded = zoo.load(folder)
    plain = _forward(loaded, pixels)
    lines = []
    try:
        images = ((pixels / 255.0 - loaded.mean) / loaded.std).astype(np.float32)
        lines.append(_drift_line("from torch", plain, reference.outputs(arch, tensors, images)))
    except ConversionError as error:
        lines.append(f"not compared with torch: {error.summary()}")
    if loaded.manifest["architecture"] == "resnet50":
        lines.append(_drift_line("of folded batch norm", _forward(zoo.load(folder, fold=True), pixels), plain))
    lines.append(_drift_line("of bfloat16", _forward(zoo.load(folder, dtype="bfloat16"), pixels), plain))
    return lines


def _forward(loaded: zoo.Loaded, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with jax.default_matmul_precision("highest"):
        out = jax.jit(loaded.__call__)(pixels)
    return np.asarray(out.logits), np.asarray(out.features)


def _drift_line(what: str, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
    drift = [float(np.abs(a - b).max() / b.std()) for a, b in zip(found, expected, strict=True)]
    return f"drift {what}: logits {drift[0]:.1e}, features {drift[1]:.1e} standard deviations"


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
                elif is_current(to / entry.id, paths):
                    done += 1
                    say(f"{to / entry.id}: up to date")
                else:
                    convert_zoo(entry, paths, to / entry.id, verify, say)
                    done += 1
        except ConversionError as error:
            failed.append(entry.id)
            say(f"{entry.id} failed: {error.summary()}")
    say(f"{done} converted, {len(failed)} failed, {len(missing)} missing")
    for entry in missing:
        head = f" and {parse_second(entry.second_file)[0]} (as {entry.id}-head.pth)" if entry.second_file else ""
        inside = f" (in it {entry.member})" if entry.member else ""
        say(f"missing {entry.id}.{entry.file_format}: {entry.url}{inside}{head}")
    return failed


def resolve(what: str, downloads: Path) -> Path:
    """A path, a URL, or a repository of the hub ("owner/name" or "hf://owner/name/file") -> a file on this machine."""
    if what.startswith("hf://"):
        owner, _, rest = what.removeprefix("hf://").partition("/")
        name, _, file = rest.partition("/")
        return fetch.fetch_hub(f"{owner}/{name}", file or fetch.HUB_FILE, downloads)
    if re.match(r"https?://", what):
        return fetch.fetch_url(what, downloads)
    path = Path(what)
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", what) and not what.endswith(files.SUFFIXES):
        return fetch.fetch_hub(what, fetch.HUB_FILE, downloads)
    return path
