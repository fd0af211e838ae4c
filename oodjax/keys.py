"""What decides each thing a study keeps: three artefacts, three keys, each key holding that and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from oodjax import fingerprints
from oodjax.data.sets import ImageSet
from oodjax.detectors.base import METHODS, Method
from oodjax.detectors.labels import parse
from oodjax.fingerprints import package_code, source_fingerprint
from oodjax.forward import Points
from oodjax.store import key_of
from oodjax.study import Study
from oodjax.syntax import parse as parse_source

FORWARD = (
    "data/loader.py",
    "data/preprocess.py",
    "forward.py",
    "models/apply.py",
    "models/normalize.py",
    "models/resnet.py",
    "models/vit.py",
)
STATISTICS = ("accumulate.py", "bank.py", "fold.py")  # what is derived from the sums belongs to scoring
SCORING = (
    "detectors/base.py",
    "linalg.py",
    "moments.py",
    "neighbors.py",
    "outputs.py",
    "percentiles.py",
    "scoring.py",
    "softmax.py",
    "statistics.py",
)
METHOD_PARTS = ("score", "fit", "check", "resolve", "limit", "cap", "score_many")


def outputs_key(study: Study, facts: Mapping[str, Any], image_set: ImageSet) -> str:
    """Of logits and features: weights, images, preprocessing, precision, the forward pass's code."""
    return key_of(
        model=dict(facts),
        images=image_set.sha256,
        fast_pixels=study.fast_pixels,
        precision=study.precision,
        code=package_code(*FORWARD),
    )


def layer_means_key(outputs: str) -> str:
    return key_of(outputs=outputs, code=package_code("taps.py"))


def odin_key(outputs: str, points: Points) -> str:
    """Of ODIN's scores at these temperatures and noises."""
    return key_of(outputs=outputs, points=points, code=package_code("odin.py", "softmax.py"))


def statistics_key(study: Study, outputs: str) -> str:
    """Of the statistics of training outputs."""
    return key_of(
        outputs=outputs,
        bank=[study.bank_fraction, study.seed],
        code=package_code(*STATISTICS, *(["percentiles.py"] if study.bank_fraction < 1 else [])),  # its histogram
        maps=package_code("taps.py"),
    )


def method_key(name: str) -> str:
    """Of a detector's code: the version it declares, or the source of its functions."""
    method = METHODS[name]
    known = _method_keys.get(name)
    if known is None or known[0] is not method:
        known = _method_keys[name] = method, _method_key(method)
    return known[1]


_method_keys: dict[str, tuple[Method, str]] = {}


def _method_key(method: Method) -> str:
    ours = package_code(*SCORING)
    if method.version is not None:
        return key_of(version=method.version, code=ours)
    functions = {part: getattr(method, part) for part in METHOD_PARTS}
    return key_of(parts={part: _function_key(f) for part, f in functions.items() if f is not None}, code=ours)


def _function_key(function: Any) -> str:
    """Of the whole file of a function of the package, which few edits do not concern; else of its source."""
    module = getattr(function, "__module__", None) or ""
    return package_code(*_files(module)) if module.startswith("oodjax.") else source_fingerprint(function)


def _files(module: str) -> list[str]:
    """A module's file in the package, and those of other detectors that it takes something from."""
    found, unread = set(SCORING), [_file(module)]
    while unread:
        found.add(file := unread.pop())
        tree = parse_source((fingerprints.PACKAGE / file).read_text(encoding="utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        unread += {_file(name) for name in modules if name.startswith("oodjax.detectors.")} - found
    return sorted(found - set(SCORING))


def _file(module: str) -> str:
    return module.removeprefix("oodjax.").replace(".", "/") + ".py"


def scores_key(detector: str, options: Mapping[str, Any], reads: Sequence[str]) -> str:
    """Of one point of a detector on one set; `reads` are the keys of what it was fitted to and what it scores.

    `options` are all of the point's: whether they were given or searched does not change the scores.
    """
    name = parse(detector).name
    return key_of(detector=name, method=method_key(name), options=_plain(options), reads=list(reads))


def in_pass_key(detector: str, points: Sequence[Mapping[str, Any]], outputs: str, statistics: str) -> str:
    """Of the scores of all points of a detector that is scored inside the pass."""
    grid = [_plain(point) for point in points]
    return scores_key(detector, {"grid": grid}, [outputs, statistics, package_code("taps.py")])


def selection_key(detector: str, reads: Sequence[str]) -> str:
    """Of the choice among a detector's points on the validation sets."""
    grid = [_plain(point) for point in parse(detector).points]
    code = package_code("metrics.py", "selection.py")
    return scores_key(detector, {"grid": grid, "code": code}, reads)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
