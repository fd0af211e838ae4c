"""Damaged weights by the thousand: exact tensors or one line, nothing run, memory and temporary files bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("torch")

TESTS = Path(__file__).parent
FAMILIES = ("zip", "legacy", "safetensors", "sharded")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_damaged_weights_give_exact_tensors_or_one_line(seed: int) -> None:
    """2,000 files of each seed: some still read, some refused, in every family."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    found = subprocess.run(
        [sys.executable, TESTS / "fuzz_weights.py", str(seed), "2000"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    result = json.loads(found.stdout.splitlines()[-1])
    assert result["broken"] == []
    assert sum(result["counts"].values()) == 2000
    for family in FAMILIES:
        assert result["counts"][f"{family} refused"] > 100 and result["counts"][f"{family} read"] > 20
