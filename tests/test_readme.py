"""The README's lines for the engineer, run as they stand there."""

from __future__ import annotations

from pathlib import Path

import monitors
import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_the_way_from_a_network_to_verdicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = README.read_text(encoding="utf-8").split("```python\n")[1:]
    (lines,) = (block.split("```")[0] for block in blocks if "oodjax.save(" in block)
    names = {
        "network": monitors.network(),
        "images": monitors.TRAIN,
        "labels": monitors.LABELS,
        "held_out": monitors.KNOWN,
        "new": monitors.NEW,
    }
    exec(compile(lines, str(README), "exec"), names)
    statements = [line for line in lines.splitlines() if line and "import" not in line]
    assert len(statements) == 6
    outputs, det = monitors.outputs("new"), names["detector"]
    np.testing.assert_allclose(names["score"], det.score(outputs), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(names["label"], outputs.logits.argmax(axis=1))
    np.testing.assert_array_equal(names["in_distribution"], names["p_value"] > 1 - 0.95)
