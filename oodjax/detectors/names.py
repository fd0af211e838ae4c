"""The study's detectors by name, in its order."""

from __future__ import annotations

NAMES: tuple[str, ...] = (
    "msp",
    "mls",
    "ebo",
    "odin",
    "tempscale",
    "klm",
    "gen",
    "mds",
    "rmds",
    "knn",
    "she",
    "vim",
    "ash",
    "react",
    "dice",
    "scale",
    "nnguide",
    "fdbd",
    "gram",
    "ats",
    "gradnorm",
)
