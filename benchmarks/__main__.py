"""python -m benchmarks [--parts PART ...] [--out FILE]: ratios measured in one run, as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from benchmarks import extraction, fitting, reading, scoring, verdict
from oodjax import detectors, plugins
from oodjax.command_line import Parser, UsageError, add_plugins, names, split_names
from oodjax.study import canonical

PARTS = ("extraction", "odin", "scoring", "reading", "fitting", "verdict")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--batch", type=int, default=None, help="images a step (32 on a CPU, 512 elsewhere)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=10_000, help="cached outputs that scoring sees")
    parser.add_argument(
        "--detectors",
        type=names,
        nargs="+",
        default=None,
        metavar="NAME",
        help="whose scoring and verdict are measured",
    )
    add_plugins(parser)
    parser.add_argument("--out", type=Path, default=None, help="JSON file (printed as well)")
    options = parser.parse_args(arguments)
    try:
        plugins.load(vars(options).get("plugin", ()))
        chosen = canonical(split_names(options.detectors)) if options.detectors else detectors.NAMES
    except (UsageError, ValueError) as error:
        parser.error(str(error))
    on_cpu = jax.default_backend() == "cpu"
    batch = options.batch or (32 if on_cpu else 512)
    precisions = ("float32",) if on_cpu else ("float32", "bfloat16")
    report: dict[str, Any] = {
        "device": {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "cpus": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **_versions("jax", "jaxlib", "flax", "torch", "torchvision", "pillow", "grain"),
        },
    }
    if "extraction" in options.parts:
        report["extraction"] = [extraction.run(batch, options.repeats, p) for p in precisions]
    if "odin" in options.parts:
        report["odin"] = [extraction.run_odin(batch, options.repeats, p) for p in precisions]
    if "scoring" in options.parts:
        report["scoring"] = scoring.run(options.samples, chosen)
    if "reading" in options.parts:
        report["reading"] = reading.run(options.repeats)
    if "fitting" in options.parts:
        report["fitting"] = fitting.run(options.repeats)
    if "verdict" in options.parts:
        report["verdict"] = verdict.run(4 * options.repeats, chosen)
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


def _versions(*packages: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


if __name__ == "__main__":
    main()
