"""run.json: what the tables of a run were made with, and by which runs."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jax

from oodjax._version import __version__
from oodjax.detectors import METHODS, labels
from oodjax.report.glossary import explain
from oodjax.shelf import Shelf, kept_keys, unreadable

if TYPE_CHECKING:
    from oodjax.execute import Engine
    from oodjax.results import Tables
    from oodjax.run import Job

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "scikit-learn", "pillow")


def manifest_of(job: Job, engine: Engine, tables: Tables, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """What the tables were made with: what run.json holds beside its listing."""
    study, done = job.whole, set(tables.models["model"])
    facts = {m.name: found for m in study.models if m.name in done and (found := m.facts()) is not None}
    shelves = {name: Shelf(study, engine.store, name, found) for name, found in facts.items()}
    return {
        "configuration": {
            **study.settings,
            "models": [m.name for m in study.models if m.name in done],
            "detectors": [d for d in study.detectors if d in set(tables.results["detector"])],
            "datasets": [s.name for s in study.ood_tests if s.name in set(tables.results["dataset"])],
            "searched": bool(study.validations),
        },
        "asked": {
            "models": [m.name for m in job.asked.models],
            "detectors": list(job.asked.detectors),
            "datasets": [s.name for s in job.asked.ood_tests],
        },
        "versions": {"oodjax": __version__, "python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "cpus": os.cpu_count(),
            "hosts": jax.process_count(),
        },
        "data": [
            {
                "name": s.name,
                "role": s.role,
                "category": s.category,
                "count": s.count,
                "sha256": s.sha256,
                "source": s.source.description,
            }
            for s in study.sets
        ],
        "checkpoints": {name: found.get("weights") for name, found in facts.items()},
        "hyperparameters": {
            name: {detector: chosen.options for detector, chosen in shelf.choices().items()}
            for name, shelf in shelves.items()
        },
        "explained": _explained(tables),
        "kept": {name: kept_keys(shelf) for name, shelf in shelves.items()},
        "decoded_images": engine.counts.decoded,
        "forward_passes": engine.counts.forwards,
        "odin_passes": engine.counts.odin_passes,
        "images_left_out": unreadable(shelves.values()),
        "warnings": job.warnings,
        "stages": stages,
    }


def runs_of(job: Job, before: dict[str, Any], stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that made what is here: command, start and seconds of each; one that found all finished made nothing."""
    runs = before.get("runs", [])
    runs = runs if isinstance(runs, list) else []
    if not stages and runs:
        return runs
    seconds = round((datetime.now(UTC) - job.started).total_seconds(), 1)
    started = job.started.isoformat(timespec="seconds")
    return [*runs, {"command": job.command, "started": started, "seconds": seconds}]


def _explained(tables: Tables) -> dict[str, str]:
    """What each method of the tables does, in a line: a report may be drawn where a plugin's is not registered."""
    names = dict.fromkeys(labels.parse(label).name for label in tables.results["detector"].unique())
    return {name: explain(name, METHODS[name].score.__doc__) for name in names}
