"""What host memory a model's statistics and scores take, held to it by the operating system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Everything behind the imports runs under a limit on memory that is not a file's: the training pass into a bank on
# disk, the fit of every grid point and the scores of a test set. GRAM is left out, which is scored where its rows are.
PROGRAM = """
import json, resource, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np, scipy.linalg
from oodjax import Head, Outputs, detectors, TrainStatistics, accumulate
from oodjax.bank import Bank, energies_of, index_keys
from oodjax.store import Store
from oodjax.detectors import score_all, search_space
from oodjax.linalg import whitening

N, D, K, L, BATCH, GIB = 100_000, 2048, 1000, 5, 1000, 2**30
rng = np.random.default_rng(0)
jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(3)))
whitening(np.eye(3))

def private():
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))

limit = private() + 2 * GIB
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(9 * GIB // 32)  # 2.25 GiB: the limit does hold
except MemoryError:
    print("limited")

kernel = rng.standard_normal((D, K), np.float32) * 0.03
head = Head(kernel, np.zeros(K, np.float32))

def batch(rows):
    labels = rng.integers(0, K, rows)
    features = np.maximum(0.4 + 4 * kernel.T[labels] + 0.4 * rng.standard_normal((rows, D), np.float32), 0)
    odin = rng.uniform(0, 1, (rows, 4, 2)).astype(np.float32)
    means = rng.gamma(4, 0.1, (rows, L)).astype(np.float32)
    return Outputs(features @ kernel, features, labels.astype(np.int32), layer_means=means, odin=odin)

names = [name for name in detectors.NAMES if name != "gram"]
needs, mask, state = detectors.reads(names), np.ones(BATCH, bool), None
store, shapes = Store(Path(sys.argv[1])), {"features": (N, D), "energies": (N,), "labels": (N,), "layer_means": (N, L)}
types = {"labels": np.int32}
writer = store.writer("bank", {n: ("key", shape, types.get(n, np.float32)) for n, shape in shapes.items()})
for i in range(N // BATCH):
    part = batch(BATCH).replace(odin=None)
    state = accumulate.start(part, mask, needs) if state is None else state
    state = accumulate.step(state, part, mask)
    rows = {"features": part.features, "energies": energies_of(np.float64(part.logits)), "labels": part.labels,
            "layer_means": part.layer_means}
    for name, values in rows.items():
        writer.write(name, i * BATCH, values)
writer.commit()
bank = Bank(**{n: store.read("bank", n, "key") for n in shapes}, keys=index_keys(np.arange(N), 0), histogram=None)
stats = TrainStatistics.finalize(state, bank, head)
del state, part

test = [batch(500).replace(labels=None) for _ in range(2)]
validation, columns = batch(1000), {}
score = jax.jit(score_all)
for name in names:
    points = [point.fit(stats, validation) for point in search_space(name, stats)[0]]
    columns[name] = np.concatenate([np.asarray(score(points, out)) for out in test])
assert all(np.isfinite(c).all() for c in columns.values())

# A few scores of the bank's own detectors, by their definition, block by block in float64
unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
few = unit(np.float64(test[0].features[:3]))
squares = np.concatenate([
    2 - 2 * few @ unit(np.float64(stats.features[i : i + 2000])).T for i in range(0, N, 2000)
], axis=1)
squares.sort(axis=1)
ks = [options["k"] for options in detectors.grid("knn")]
print(json.dumps({
    "points": sum(c.shape[1] for c in columns.values()), "rows": len(stats.features),
    "knn": columns["knn"][:3].tolist(), "knn_by_definition": (-squares[:, [k - 1 for k in ks]]).tolist(),
    "private": private() - limit + 2 * GIB,
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on private memory is Linux's")
def test_a_hundred_thousand_rows_fit_in_two_gibibytes(tmp_path):
    """Of 2,048 features and 1,000 classes, their bank (0.8 GB) on disk: pass, all points of 20 detectors, scores."""
    here = Path(__file__).parent
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(here.parent)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    limited, said = done.stdout.splitlines()
    found = json.loads(said)
    assert limited == "limited" and found["rows"] == 100_000 and found["points"] == 94
    for got, want in zip(found["knn"], found["knn_by_definition"], strict=True):
        # the order of neighbours whose products differ by float32's rounding of 1 may be either
        assert got == pytest.approx(want, abs=1e-6)
