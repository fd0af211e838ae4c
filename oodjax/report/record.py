"""What the page says of the run: its sets as small images, its command and time, and with what it was made."""

from __future__ import annotations

import base64
import io
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from oodjax.files import sha256
from oodjax.report.reading import image_sets

# What run.json calls some of its facts, where the name alone would not be understood.
_FACTS = {
    ("device", "kind"): "devices",
    ("device", "count"): "number of devices",
    ("device", "cpus"): "processors of the host",
    ("configuration", "searched"): "hyper-parameters searched",
}
_ROLES = {
    "train": "ID, trained on",
    "id_val": "ID, for choosing options",
    "id_test": "ID, tested on",
    "ood_val": "OOD, for choosing options",
    "ood_test": "OOD, tested on",
}


class Thumbnails(NamedTuple):
    """A set's row of small images: an address of a page, how many it shows, its size in pixels."""

    name: str
    about: str
    source: str
    images: int
    width: int
    height: int


def thumbnails(folder: Path, manifest: dict[str, Any]) -> list[Thumbnails]:
    """Those that the run left, where its listing still vouches for them."""
    about = {e["name"]: _about(e) for e in image_sets(manifest)}
    found, listed = [], manifest.get("files", {})
    for entry in manifest.get("thumbnails", []):
        path = folder / entry["file"]
        if entry["file"] not in listed or sha256(path) != listed[entry["file"]]:
            continue
        content = path.read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        found.append(Thumbnails(entry["name"], about.get(entry["name"], ""), source, entry["count"], width, height))
    return found


def no_thumbnails(manifest: dict[str, Any]) -> str:
    """Why there are none, and how to have them."""
    if manifest.get("thumbnails"):
        return "The thumbnails that run.json lists are gone or altered; running the study again makes them anew."
    return "These tables came without thumbnails of their sets; a run of the study leaves them beside its tables."


def runs(manifest: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """Command, date and duration of each run that made a part."""
    return [
        [("command", run["command"]), ("started", _date(run["started"])), ("took", duration(run["seconds"]))]
        for run in manifest.get("runs", [])
    ]


def duration(seconds: float) -> str:
    """Seconds in the units that one speaks of."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def provenance(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The manifest's short facts as name and value."""
    facts = []
    for part in ("configuration", "device", "versions"):
        for name, value in manifest.get(part, {}).items():
            text = f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else str(value)
            shown = {"True": "yes", "False": "no"}.get(text, text)
            facts.append((_FACTS.get((part, name), name.replace("_", " ")), shown))
    return facts


def _about(entry: dict[str, Any]) -> str:
    role = _ROLES.get(entry["role"], entry["role"])
    kind = f", {entry['category']}" if entry["role"] == "ood_test" else ""
    return f"{role}{kind}: {entry['count']:,} images"


def _date(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC"
    except ValueError:
        return text
