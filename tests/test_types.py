"""Users' type checkers see no fault in the README's lines, nor in other right ones; they do see wrong ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

BROUGHT = """
import numpy as np
images = np.zeros((2, 224, 224, 3), np.uint8)
labels = np.zeros(2, int)
held_out = new = images
paths = ["a.jpg"]
network = __import__("oodjax").Network.from_function(lambda x: (x, x), (images, images))
"""
RIGHT = """
import jax
import jax.numpy as jnp
import numpy as np

import oodjax
from oodjax import Head, Outputs, TrainStatistics, detectors, metrics, odin_scores, summarize

x, y = jnp.ones((4, 3)), np.zeros(4, int)
out = Outputs(logits=x, features=np.ones((4, 8)), labels=y)
oodjax.Outputs([[1.0, 2.0]], [[1.0]], [0])
head = Head(kernel=jnp.ones((8, 3)), bias=[0.0, 0.0, 0.0])
z: jax.Array = head(np.ones((4, 8)))
stats = TrainStatistics.collect([out, out], head, bank_fraction=0.5)
det = detectors.create("knn", k=np.int64(3)).fit(stats, validation=out)
s: jax.Array = det.score(out[:2])
metrics.auroc(s, np.asarray(s)), metrics.fpr95([1.0], s), metrics.ece(logits=x, labels=y), metrics.accuracy(x, y)
gram, means = summarize((x[:, None], np.ones((4, 2, 2, 5))))
odin = odin_scores(lambda v: v[:, 0, 0], np.ones((2, 4, 4, 3)), np.array([1.0]), jnp.array([0.1]), [1.0, 1.0, 1.0])
odin = odin_scores(lambda v: v[:, 0, 0], jnp.ones((2, 4, 4, 3)), (1, 10), [0.1], np.ones(3))
out = out.replace(gram=gram, layer_means=means, odin=odin)
n: int = len(out)
k: int = out.logits.shape[1]
"""
WRONG = """
import numpy as np
from oodjax import Head, Outputs, TrainStatistics, detectors
x = np.ones((4, 3))
Head(x, None)
detectors.create("mds").fit(x, x)
detectors.create("mds").score(x)
TrainStatistics.collect(Outputs(x, x), (x, x))
"""


def readme_lines() -> str:
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(blocks) >= 2
    return BROUGHT + "".join(block.split("```")[0] for block in blocks)


def checked(command: list[str], folder: Path, text: str) -> subprocess.CompletedProcess:
    (folder / "user.py").write_text(text, encoding="utf-8")
    paths = {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *command, "user.py"],
        cwd=folder,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
    )


MYPY = ["mypy", "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir", str(ROOT / ".mypy_cache")]


def test_mypy_sees_no_fault_in_right_lines_and_each_wrong_one(tmp_path):
    right = checked(MYPY, tmp_path, readme_lines() + RIGHT)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = checked(MYPY, tmp_path, WRONG)
    found = [int(line.split(":")[1]) for line in wrong.stdout.splitlines() if ": error:" in line]
    assert sorted(set(found)) == [5, 6, 7, 8], wrong.stdout


@pytest.mark.slow
def test_pyright_sees_no_fault_in_right_lines_and_each_wrong_one(tmp_path):
    pytest.importorskip("pyright")
    right = checked(["pyright"], tmp_path, readme_lines() + RIGHT)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = checked(["pyright"], tmp_path, WRONG)
    found = [int(line.split(":")[1]) for line in wrong.stdout.splitlines() if " - error: " in line]
    assert sorted(set(found)) == [5, 6, 7, 8], wrong.stdout


def test_an_editable_install_is_a_plain_path(tmp_path):
    """A finder in its place would hide the package from type checkers and editors."""
    pytest.importorskip("setuptools", minversion="77")
    project = tmp_path / "project"
    shutil.copytree(ROOT / "oodjax", project / "oodjax", ignore=shutil.ignore_patterns("*.npz", "__pycache__"))
    shutil.copytree(ROOT / "converters", project / "converters", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project / name)
    build = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=project, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(path).decode().strip() == str(project)
