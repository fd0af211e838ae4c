"""The study's detectors by name, and the other names that the field has for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

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

ALIASES = {
    "msp": ("softmax", "max softmax", "maximum softmax probability", "baseline"),
    "mls": ("maxlogit", "maxlogits", "maximum logit score", "max logit score"),
    "ebo": ("energy", "energy score", "energy based", "ebm"),
    "tempscale": ("temperature scaling", "temp scaling", "temperature", "ts"),
    "klm": ("kl matching", "kl", "kl divergence"),
    "gen": ("generalized entropy", "generalised entropy"),
    "mds": ("mahalanobis", "maha", "mahalanobis distance", "md"),
    "rmds": ("relative mahalanobis", "relative mahalanobis distance", "rmd", "rel maha"),
    "knn": ("nearest neighbors", "nearest neighbours", "deep nearest neighbors", "nn"),
    "she": ("simplified hopfield energy", "hopfield"),
    "vim": ("virtual logit matching", "virtual logit"),
    "ash": ("activation shaping", "ash b", "ash s", "ash p"),
    "dice": ("directed sparsification",),
    "nnguide": ("nearest neighbor guidance", "nearest neighbour guidance"),
    "fdbd": ("fast decision boundary", "decision boundary distance"),
    "gram": ("gram matrices", "gram matrix"),
    "ats": ("adaptive temperature scaling",),
    "gradnorm": ("gradient norm",),
    "entropy": ("shannon entropy", "softmax entropy", "predictive entropy"),
    "openmax": ("open max",),
    "residual": ("null space", "principal space residual"),
    "gmm": ("gaussian mixture", "gaussian mixture model", "ddu", "gda"),
    "mdspp": ("mahalanobis++", "mds++", "normalized mahalanobis", "normalised mahalanobis"),
    "neco": ("neural collapse",),
    "nci": ("neural collapse inspired", "nc ood"),
    "vra": ("variational rectified activation",),
    "lts": ("logit scaling",),
    "cadref": ("caref", "class aware relative feature"),
    "relation": ("neural relation graph", "relation graph"),
}


def closest(name: str, names: Iterable[str] = NAMES) -> str | None:
    """The detector that `name` most likely means: in another case or spelling, by another name, or misspelt."""
    known = {_plain(n): n for n in names}
    known |= {_plain(alias): n for n, aliases in ALIASES.items() for alias in aliases if n in known.values()}
    found = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.7)
    return known[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower().replace("+", "plus"))
