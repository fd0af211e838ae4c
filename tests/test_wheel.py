"""The wheel, installed by itself and used from another folder, as a stranger does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import tiny

import oodjax
from oodjax import detectors

ROOT = Path(oodjax.__file__).parents[1]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "oodjax", "converters")
MODEL = """
import jax.numpy as jnp
import numpy as np
from oodjax import Network

rng = np.random.default_rng(0)
mix, kernel = rng.normal(size=(768, 12)).astype(np.float32) / 3e3, rng.normal(size=(12, 4)).astype(np.float32)

def run(images):
    features = jnp.maximum(jnp.matmul(images.reshape(-1, 768).astype(jnp.float32), mix, precision="highest"), 0)
    return jnp.matmul(features, kernel, precision="highest"), features

def build():
    return Network.from_function(run, (kernel, np.zeros(4)), resize=None, crop=16)
"""

pytestmark = pytest.mark.slow


def call(*words: object, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, cwd=cwd, env=environment, **more)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        at = ROOT / name
        shutil.copytree(at, folder / name, ignore=ignored) if at.is_dir() else shutil.copy(at, folder / name)
    done = call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder / "dist", folder)
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "dist").iterdir()
    return found


@pytest.fixture(scope="module")
def commands(wheel, tmp_path_factory):
    """The scripts of an environment that holds the wheel, and sees what is installed here."""
    folder = tmp_path_factory.mktemp("environment")
    assert call(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    done = call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    (own,) = folder.glob("lib/python*/site-packages")
    shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    return folder / "bin"


def test_it_holds_every_file_of_the_package(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [p for name in ("oodjax", "converters") for p in (ROOT / name).rglob("*") if p.is_file()]
    wanted = {p.relative_to(ROOT).as_posix() for p in files if "__pycache__" not in p.parts}
    assert {"oodjax/py.typed", "oodjax/zoo/checkpoints.csv", "oodjax/data/photographs.npz"} <= wanted
    assert wanted - held == set()
    assert {name.split("/")[0] for name in held - wanted} == {f"oodjax-{oodjax.__version__}.dist-info"}


def test_it_works_from_another_folder(commands, tmp_path):
    where = call(commands / "python", "-c", "import oodjax; print(oodjax.__file__)", cwd=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(commands.parent)
    assert call(commands / "oodjax", "--version", cwd=tmp_path).stdout == f"oodjax {oodjax.__version__}\n"
    listed = json.loads(call(commands / "oodjax", "list", "detectors", "--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in listed] == list(detectors.names())
    done = call(commands / "oodjax", "benchmarks", cwd=tmp_path)
    assert done.returncode == 2 and "in the repository" in done.stderr
    tiny.write_study(tmp_path)
    (tmp_path / "small.py").write_text(MODEL, encoding="utf-8")
    fit = ("fit", "--model", "small:build", "--id", "train", "--detector", "mds", "--to", "kept")
    done = call(commands / "oodjax", *fit, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "next: " in done.stdout
    score = ("score", "--monitor", "kept", "--model", "small:build", "--json")
    codes = {}
    for name in ("test", "far"):
        done = call(commands / "oodjax", *score, name, cwd=tmp_path)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        inside = [line["verdict"] == "in" for line in lines]
        codes[name] = done.returncode, len(lines), sum(inside) / len(inside)
    assert codes["test"][:2] == (1, 60) and codes["far"][:2] == (1, 30)
    assert codes["far"][2] < 0.8 < codes["test"][2]  # images of other patterns
