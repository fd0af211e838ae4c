"""The blocked search against NumPy and scikit-learn."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from sklearn.neighbors import NearestNeighbors

import oodjax
from oodjax import neighbors
from oodjax.detectors import score_all
from oodjax.neighbors import StreamedBank, nearest, normalize, place_bank, replicate, take

M = 60


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(M, 8)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, M])
@pytest.mark.parametrize("block", [4, 16, 20, 59, 60, 1000])
def test_equal_to_a_full_sort(k, block):
    """Blocks that divide the bank, that do not, that are smaller than k and that hold all of it."""
    queries, bank = data()
    products, indices = nearest(queries, bank, k, block=block)
    exact = queries.astype(np.float64) @ bank.astype(np.float64).T
    want = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, want)
    assert indices.dtype == jnp.int32 and products.dtype == jnp.float32
    # eight float32 products of up to 9
    np.testing.assert_allclose(products, np.take_along_axis(exact, want, axis=1), rtol=1e-6, atol=5e-6)


def test_equal_to_sklearn_on_unit_vectors():
    queries, bank = (normalize(jnp.asarray(x)) for x in data())
    products, indices = nearest(queries, bank, 10, block=16)
    distances, want = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(bank).kneighbors(queries)
    np.testing.assert_array_equal(indices, want)
    np.testing.assert_allclose(2 - 2 * products, distances**2, atol=1e-6)


@pytest.mark.parametrize("block", [5, 16, 60])
def test_ties_go_to_the_first_row(block):
    bank = np.tile(np.eye(3, dtype=np.float32), (20, 1))  # rows 0, 3, 6, ... are equal
    products, indices = nearest(np.array([[1, 0.5, 0]], np.float32), bank, 25, block=block)
    np.testing.assert_array_equal(indices[0], [*range(0, 60, 3), *range(1, 15, 3)])
    np.testing.assert_array_equal(products[0], [1.0] * 20 + [0.5] * 5)


def test_negative_products_are_found_too():
    queries, bank = data()
    products, indices = nearest(np.abs(queries), -np.abs(bank), M, block=16)
    assert (np.asarray(products) < 0).all()
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(M), (5, 1)))


@pytest.mark.parametrize("k", [0, -1, 61])
def test_k_beyond_the_bank_is_refused(k):
    with pytest.raises(ValueError, match=rf"k must be between 1 and the bank's 60 rows, got {k}"):
        nearest(*data(), k)


def test_normalize_to_unit_length_at_any_scale():
    rows = data()[1]
    for scale in (1.0, 1e25, 1e-25):  # squares leave float32
        got = normalize(jnp.asarray(scale * rows, jnp.float32))
        want = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(normalize(jnp.zeros((2, 3))), 0)


# ---------------------------------------------------------------------------------------------------------------------
# Where the bank lies

ROUNDING = 1.2e-7  # of unit vectors, whose norm is rounded once more or less by another program


def in_file(folder: Path, bank: np.ndarray) -> np.memmap:
    bank.tofile(folder / "features.f32")
    return np.memmap(folder / "features.f32", np.float32, "r", shape=bank.shape)


@pytest.mark.parametrize("rows", [1, 7, M])
def test_a_bank_on_the_device_is_the_normalised_one(monkeypatch, rows):
    """Filled in blocks, the last of which overlaps the one before."""
    monkeypatch.setattr(neighbors, "BLOCK", 16)
    bank = data()[1][:rows]
    np.testing.assert_allclose(place_bank(bank), normalize(jnp.asarray(bank)), rtol=0, atol=ROUNDING)


def test_a_bank_stays_in_its_file_only_where_the_device_has_no_room(tmp_path, monkeypatch):
    kept = in_file(tmp_path, data()[1])
    assert isinstance(place_bank(kept, room=kept.nbytes - 1), StreamedBank)
    assert isinstance(place_bank(kept, room=kept.nbytes), jax.Array)
    assert isinstance(place_bank(data()[1], room=0), jax.Array)
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2 * kept.nbytes}  # half of the host's memory, in bytes
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert isinstance(place_bank(kept), jax.Array)
    pages["SC_PHYS_PAGES"] -= 2
    assert isinstance(place_bank(kept), StreamedBank)


@pytest.mark.parametrize("k", [1, 7, M])
@pytest.mark.parametrize("block", [7, 20, 1000])
def test_a_search_in_a_file_is_the_search_on_the_device(tmp_path, k, block):
    queries, bank = data()
    streamed, placed = place_bank(in_file(tmp_path, bank), room=0), place_bank(bank)
    got, want = (nearest(queries, where, k, block=block) for where in (streamed, placed))
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=10 * ROUNDING)  # queries have a length of up to 4
    chosen = want[1][:, -1]
    np.testing.assert_allclose(take(streamed, chosen), take(placed, chosen), rtol=0, atol=ROUNDING)


KINDS = {
    "all of an .npy file": slice(None),
    "a run of its rows": slice(3, 40),
    "every second row, which no run is": slice(None, None, 2),
    "rows by number, which are a copy": np.array([5, 2, 50]),
}


@pytest.mark.parametrize("rows", KINDS.values(), ids=KINDS)
def test_rows_begin_where_they_lie_in_the_file(tmp_path, rows):
    queries, bank = data()
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")[rows]
    placed = place_bank(mapped, room=0)
    assert isinstance(placed, StreamedBank) == (isinstance(rows, slice) and rows.step is None)
    got, want = nearest(queries, placed, 3), nearest(queries, place_bank(bank[rows]), 3)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=10 * ROUNDING)


def test_a_search_in_a_file_that_changed_reads_it_anew(tmp_path):
    queries, bank = data()
    streamed = place_bank(in_file(tmp_path, bank), room=0)
    first = nearest(queries, streamed, 3)[1]
    bank[::-1].tofile(tmp_path / "features.f32")
    np.testing.assert_array_equal(nearest(queries, streamed, 3)[1], M - 1 - np.asarray(first))


def test_knn_scores_from_a_file_are_those_from_the_device(tmp_path):
    """In one search for five k, with the whole contract of a detector: `score`, and `jit` of it."""
    problem, stats = oracles.problem(), oracles.stats()
    kept = dataclasses.replace(stats, features=in_file(tmp_path, stats.features), room=0)
    points = [[oodjax.detectors.create("knn", k=k).fit(s) for k in (1, 3, 10, 50, 200)] for s in (stats, kept)]
    assert isinstance(points[1][0].params["bank"], StreamedBank)
    want, got = (score_all(p, problem.test) for p in points)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=ROUNDING)
    alone = jax.jit(lambda det, out: det.score(out))(points[1][2], problem.test.replace(labels=None))
    np.testing.assert_allclose(alone, want[:, 2], rtol=1e-6, atol=ROUNDING)
    assert len(np.unique(np.asarray(want), axis=1).T) == 5


def test_points_share_one_buffer():
    points = [oodjax.detectors.create("knn", k=k).fit(oracles.stats()) for k in (1, 3)]
    assert points[0].params["bank"] is points[1].params["bank"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    sent = replicate(points, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    assert sent[0].params["bank"] is sent[1].params["bank"]
    np.testing.assert_array_equal(sent[0].params["bank"], points[0].params["bank"])


# Without LLVM's optimisation a compilation takes half the time.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
MESH_PROGRAM = """
import dataclasses, sys
import numpy as np, jax, jax.numpy as jnp
sys.path.insert(0, {tests!r})
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import oracles, oodjax
from oodjax.detectors import score_all
from oodjax.neighbors import ShardedBank, nearest, place_bank, replicate, take
from test_neighbors import data, in_file
from pathlib import Path

mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
found = {{}}
queries, rows = data()
for m, ks in ((5, (5,)), (56, (7,)), (59, (1, 59))):  # fewer rows than devices; rows that divide, that do not
    bank, placed = place_bank(rows[:m], mesh), place_bank(rows[:m])
    assert isinstance(bank, ShardedBank) and len(bank.rows.addressable_shards) == 8
    assert {{s.data.shape[0] for s in bank.rows.addressable_shards}} == {{-(-m // 8)}}
    for k in ks:
        for name, where in (("mesh", bank), ("one", placed)):
            products, indices = nearest(queries, where, k, block=4)
            found[f"{{m}}.{{k}}.{{name}}.products"], found[f"{{m}}.{{k}}.{{name}}.indices"] = products, indices
            found[f"{{m}}.{{k}}.{{name}}.rows"] = take(where, indices[:, -1])
ties = place_bank(np.tile(np.eye(3, dtype=np.float32), (20, 1)), mesh)
found["ties"] = nearest(np.array([[1, 0.5, 0]], np.float32), ties, 25, block=5)[1]

stats, test = oracles.stats(), oracles.problem().test
split, whole = NamedSharding(mesh, PartitionSpec(("a", "b"))), NamedSharding(mesh, PartitionSpec())
out = jax.device_put(test.replace(labels=None), split)
kept = dataclasses.replace(stats, features=in_file(Path({folder!r}), stats.features), room=0)
for name, s in (("one", stats), ("mesh", dataclasses.replace(stats, mesh=mesh)), ("file", kept)):
    points = replicate([oodjax.detectors.create("knn", k=k).fit(s) for k in (3, 50)], whole)
    found[f"{{name}}.scores"] = jax.jit(score_all)(points, out)
np.savez({out!r}, **found)
"""


@pytest.mark.slow
def test_a_search_over_eight_devices_is_that_of_one(tmp_path):
    here, out = Path(__file__).parent, tmp_path / "found.npz"
    env = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = os.pathsep.join([str(here.parent), env.get("PYTHONPATH", "")])
    program = MESH_PROGRAM.format(tests=str(here), out=str(out), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(np.load(out))
    for name in [n for n in found if ".mesh." in n]:
        one = found[name.replace(".mesh.", ".one.")]
        atol = 0 if name.endswith("indices") else 10 * ROUNDING
        np.testing.assert_allclose(found[name], one, rtol=0, atol=atol, err_msg=name)
    np.testing.assert_array_equal(found["ties"][0], [*range(0, 60, 3), *range(1, 15, 3)])
    for name in ("mesh.scores", "file.scores"):
        np.testing.assert_allclose(found[name], found["one.scores"], rtol=1e-6, atol=1e-6)


def test_one_query_is_searched_as_one_of_two_is():
    rng = np.random.default_rng(5)
    bank, queries = (normalize(jnp.asarray(rng.normal(size=(n, 300)), jnp.float32)) for n in (700, 2))
    for block in (None, 256):
        alone, pair = nearest(queries[:1], bank, 9, block), nearest(queries, bank, 9, block)
        np.testing.assert_allclose(alone[0], pair[0][:1], rtol=0, atol=2e-7)  # sums in another order
        np.testing.assert_array_equal(alone[1], pair[1][:1])


def test_one_query_does_not_turn_the_bank_around():
    bank, query = jnp.zeros((700, 300), jnp.float32), jnp.zeros((1, 300), jnp.float32)
    program = jax.jit(lambda q, b: nearest(q, b, 9)).lower(query, bank).compile()
    assert "f32[300,700]{1,0}" not in program.as_text()


def test_the_kth_neighbour_is_found_without_sorting_the_bank():
    """XLA turns a top k of which one place is read into a sort of all rows."""
    bank, queries = jnp.zeros((700, 30), jnp.float32), jnp.zeros((1, 30), jnp.float32)
    program = jax.jit(lambda q, b: [found[:, 8] for found in nearest(q, b, 9)]).lower(queries, bank).compile()
    assert [line for line in program.as_text().splitlines() if " sort(" in line] == []
