"""What users import, what importing costs, and which module may import which."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import oodjax

PACKAGE = Path(oodjax.__file__).parent

HEAVY = ("torch", "tensorflow", "tensorflow_datasets", "matplotlib", "pandas", "sklearn", "jax", "flax", "numpy")
NEVER = ("torch", "torchvision", "timm", "tensorflow", "tensorflow_datasets", "matplotlib", "converters")


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_is_light():
    assert loaded_after("import oodjax") & set(HEAVY) == set()


def test_detectors_bring_scipy_only_to_fit_a_temperature():
    assert "scipy" not in loaded_after("import oodjax.detectors")
    fit = "classification._best_temperature(numpy.eye(2), numpy.array([0, 1]))"
    assert "scipy" in loaded_after(f"import numpy; from oodjax.detectors import classification; {fit}")


def test_importing_every_public_name_needs_no_heavy_framework():
    names = "Outputs, Head, TrainStatistics, detectors, metrics, analysis, summarize, odin_scores"
    loaded = loaded_after(f"from oodjax import {names}")
    assert {"jax", "numpy"} <= loaded
    assert loaded & set(NEVER) == set()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("oodjax", "Outputs Head TrainStatistics summarize odin_scores detectors metrics analysis __version__"),
        ("oodjax.detectors", "NAMES create grid Detector families search_space score_all"),
        ("oodjax.metrics", "auroc fpr95 fpr95_id aupr_in aupr_out ece"),
        ("oodjax.analysis", "anova spearman friedman mean_ranks feature_space"),
        ("oodjax.outputs", "Outputs Head"),
        ("oodjax.statistics", "TrainStatistics"),
    ],
)
def test_public_names_exist(module, names):
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


def test_the_list_of_public_names_is_complete():
    assert set(dir(oodjax)) == {*oodjax.__all__, "__version__"}
    for name in oodjax.__all__:
        assert getattr(oodjax, name) is not None, name
    with pytest.raises(
        AttributeError, match=r"module 'oodjax' has no attribute 'detector'; it has: Head, Monitor, Network"
    ):
        _ = oodjax.detector


# ---------------------------------------------------------------------------------------------------------------------
# Import arrows: the way of the data, never back


def imports(path: Path) -> set[str]:
    """The dotted names that a file imports, whether at its top or inside a function."""
    parts = ("oodjax", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*package[: len(package) - node.level + 1], node.module or "")).strip(".")
            base = base if node.level else node.module or ""
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


FILES = sorted(PACKAGE.rglob("*.py"))

# Files of the library proper and the parts of the package that they must not know.
ABOVE = ("run", "study", "report", "training", "presets", "data", "zoo", "models", "forward", "selection", "analysis")
ARROWS = {
    "outputs.py": (*ABOVE, "statistics", "detectors", "metrics", "taps", "odin"),
    "taps.py": (*ABOVE, "statistics", "detectors", "metrics", "outputs", "odin"),
    "odin.py": (*ABOVE, "statistics", "detectors", "metrics", "outputs", "taps"),
    "linalg.py": (*ABOVE, "statistics", "detectors", "metrics", "outputs", "taps", "odin"),
    "neighbors.py": (*ABOVE, "statistics", "detectors", "metrics", "outputs", "taps", "odin"),
    "statistics.py": (*ABOVE, "detectors", "metrics", "taps", "odin"),
    "detectors": (*ABOVE, "metrics"),
    "metrics.py": (*ABOVE, "statistics", "detectors"),
    "analysis": ("run", "study", "report", "training", "presets", "data", "zoo", "models", "forward", "detectors"),
}


def test_files_are_found_and_their_imports_read():
    names = {str(path.relative_to(PACKAGE)) for path in FILES}
    assert names >= {"outputs.py", "statistics.py", "study.py", "run.py", "detectors/base.py", "detectors/hybrid.py"}
    assert imports(PACKAGE / "detectors" / "hybrid.py") >= {"jax", "oodjax.softmax", "oodjax.neighbors.nearest"}
    assert any(within(name, "oodjax.detectors") for name in imports(PACKAGE / "scoring.py"))


@pytest.mark.parametrize("part", ARROWS)
def test_arrows_point_one_way(part):
    files = [path for path in FILES if path.relative_to(PACKAGE).parts[0] == part]
    assert files
    for path in files:
        bad = {n for n in imports(path) for module in ARROWS[part] if within(n, f"oodjax.{module}")}
        assert bad == set(), f"{path.name} imports {bad}"


def test_the_package_never_imports_converters_or_torch():
    for path in FILES:
        bad = {n for n in imports(path) for m in ("converters", "torch", "torchvision", "timm") if within(n, m)}
        assert bad == set(), f"{path.name} imports {bad}"
