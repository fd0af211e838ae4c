"""Reads and checks checkpoints.csv: where the study's checkpoints are published and what the paper reports for them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CSV = Path(__file__).with_name("checkpoints.csv")
CATEGORIES = ("baseline", "adversarial", "augmentation", "ssl", "improved", "freezing", "vit")
ARCHITECTURES = ("resnet50", "vit_b16")
SOURCES = ("hf-hub", "http", "google-drive")
FORMATS = ("safetensors", "pth", "pth.tar", "ckpt")
FILLED = ("id", "paper_name", "locator", "layout", "licence", "citation")
LOWEST = {"mean": 0.0, "std": 1e-3}
FIGURES = ("accuracy", "ece", "auroc", "auroc_std", "fpr95", "fpr95_std")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of the study.

    Attributes:
      id, paper_name, category: the id is ours, the name is the one in the paper's Table 2.
      arch: "resnet50" or "vit_b16".
      accuracy, ece, auroc, auroc_std, fpr95, fpr95_std: the paper's Table 2 in percent; None for the ViTs, of which
        the paper shows plots only.
      source, locator: "hf-hub" with "repo:file", "http" with a URL, or "google-drive" with a file id; "id!path" is a
        member of a zip file.
      file_format: "safetensors", or a pickle: "pth", "pth.tar", "ckpt".
      layout: the tensors' names and shapes once the rewrites are applied, one of `converters.rules.LAYOUTS`.
      state_dict_path, key_rewrites, second_file: where the tensors sit in the file and how their names are rewritten;
        `converters.envelopes` reads them.
      mean, std: of the input in 0..1 that the weights were trained with.
      licence: of the repository that publishes the weights, "unknown" where none is stated.
      extra, confidence, citation: what is known of the file's origin, and how well.
    """

    id: str
    arch: str
    paper_name: str
    category: str
    accuracy: float | None
    ece: float | None
    auroc: float | None
    auroc_std: float | None
    fpr95: float | None
    fpr95_std: float | None
    source: str
    locator: str
    file_format: str
    layout: str
    state_dict_path: str
    key_rewrites: str
    second_file: str
    mean: Triple
    std: Triple
    licence: str
    extra: str
    confidence: str
    citation: str

    @property
    def url(self) -> str:
        """Address of the file, or of the archive or page that holds it."""
        place = self.locator.partition("!")[0]
        if self.source == "hf-hub":
            repo, _, file = place.partition(":")
            return f"https://huggingface.co/{repo}/resolve/main/{file}"
        return f"https://drive.google.com/uc?id={place}" if self.source == "google-drive" else place

    @property
    def member(self) -> str:
        """Path inside the published zip file; empty where the file itself is published."""
        return self.locator.partition("!")[2]


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """The study's 56 ResNet-50 and 4 ViT-B/16 checkpoints, in the paper's order."""
    with CSV.open(newline="", encoding="utf-8") as file:
        return read(csv.DictReader(file))


def get(name: str) -> Checkpoint:
    """The checkpoint with this id.

    Raises:
      ValueError: there is none; lists the ids.
    """
    for checkpoint in checkpoints():
        if checkpoint.id == name:
            return checkpoint
    raise ValueError(f"no checkpoint {name!r} in the zoo; it has: {', '.join(c.id for c in checkpoints())}")


def read(rows: Iterable[dict[str, str]]) -> tuple[Checkpoint, ...]:
    """Rows of text -> checkpoints.

    Raises:
      ValueError: lists everything that is wrong, in all rows.
    """
    found: list[Checkpoint] = []
    problems: list[str] = []
    for line, row in enumerate(rows, 2):
        wrong = _problems(row)
        if row.get("id") in {c.id for c in found}:
            wrong.append("id appears twice")
        problems += [f"line {line} ({row.get('id')}): {text}" for text in wrong]
        if not wrong:
            values: dict = dict(row)
            values |= {name: float(row[name]) if row[name] else None for name in FIGURES}
            values |= {name: _triple(row[name]) for name in ("mean", "std")}
            found.append(Checkpoint(**values))
    if problems:
        raise ValueError("checkpoints.csv: " + "; ".join(problems))
    return tuple(found)


def _problems(row: dict[str, str]) -> list[str]:
    fields = set(Checkpoint.__dataclass_fields__)
    if set(row) != fields:
        return [f"columns differ: missing {sorted(fields - set(row))}, unknown {sorted(map(str, set(row) - fields))}"]
    problems = [f"{name} is empty" for name in FILLED if not row[name]]
    choices = {"arch": ARCHITECTURES, "category": CATEGORIES, "source": SOURCES, "file_format": FORMATS}
    for name, allowed in choices.items():
        if row[name] not in allowed:
            problems.append(f"{name} is {row[name]!r}, expected one of {', '.join(allowed)}")
    for name in FIGURES:
        if row["arch"] == "vit_b16" and not row[name]:
            continue
        if not _is_percent(row[name]):
            problems.append(f"{name} is {row[name]!r}, expected a percentage")
    for name in LOWEST:
        try:
            wrong = misfit(name, _triple(row[name]), shown=row[name])
        except ValueError:
            wrong = misfit(name, None, shown=row[name])
        problems += [wrong] if wrong else []
    return problems


def misfit(name: str, value: Any, shown: Any = None) -> str:
    """What is wrong with a mean or a std of pixels in 0..1; "" for nothing.

    Args:
      name: "mean" or "std".
      value: three numbers, or anything else.
      shown: how the message shows it.
    """
    triple = isinstance(value, list | tuple) and len(value) == 3
    numbers = triple and all(type(part) in (int, float) for part in value)
    if numbers and all(LOWEST[name] <= part <= 1 for part in value):
        return ""
    shown = value if shown is None else shown
    return f"{name} is {shown!r}, expected three numbers from {LOWEST[name]} to 1, of pixels scaled to 0..1"


def _is_percent(text: str) -> bool:
    try:
        return 0 <= float(text) <= 100
    except ValueError:
        return False


def _triple(text: str) -> Triple:
    return tuple(float(part) for part in text.split(","))  # type: ignore[return-value]
