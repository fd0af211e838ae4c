"""The running sums: what is asked for and no more, over one device or many, resumed anywhere, merged to the union."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import oodjax
from oodjax import accumulate, detectors
from oodjax.accumulate import STATISTICS, Accumulator, from_arrays, merge, merge_accumulators, to_arrays
from oodjax.outputs import canonical

N, D, K = 96, 6, 4
ROWS = 16


def outputs(seed: int = 0, n: int = N) -> oodjax.Outputs:
    """Every number a small multiple of 1/16, so that all float32 sums are exact and equalities need no tolerance."""
    rng = np.random.default_rng(seed)
    logits = rng.permuted(np.tile(np.arange(K), (n, 1)), axis=1).astype(np.float32) / 16
    features = rng.integers(-32, 32, (n, D)).astype(np.float32) / 16
    gram = rng.normal(size=(n, 3, 5)).astype(np.float32)
    return canonical(oodjax.Outputs(logits, features, rng.integers(0, K, n), gram))


def batches(out: oodjax.Outputs, rows: int = ROWS) -> list[tuple[oodjax.Outputs, np.ndarray]]:
    return [(out[i : i + rows], np.arange(rows) < rows) for i in range(0, len(out), rows)]


def swept(parts, needs=None, origin=None) -> Accumulator:
    state = accumulate.start(*parts[0], needs)
    if origin is not None:
        state = dataclasses.replace(state, origin=jnp.asarray(origin, jnp.float32))
    for part, mask in parts:
        state = accumulate.step(state, part, mask)
    return state


def assert_same(got: Accumulator, want: Accumulator, rtol: float = 0.0):
    """Equal fields; sums up to `rtol` of their largest entry."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for field in dataclasses.fields(want):
        for a, b in zip(
            jax.tree.leaves(getattr(got, field.name)), jax.tree.leaves(getattr(want, field.name)), strict=True
        ):
            atol = rtol * np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0)
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=field.name)


def plain(out: oodjax.Outputs, origin: np.ndarray) -> dict[str, np.ndarray]:
    """The sums by their definition, in float64."""
    h, z, y = (np.asarray(x, np.float64) for x in (out.features, out.logits, out.labels))
    h, guess, p = h - origin, z.argmax(axis=1), np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return {
        "label_sums": np.stack([h[y == c].sum(axis=0) for c in range(K)]),
        "correct_sums": np.stack([h[(y == c) & (guess == c)].sum(axis=0) for c in range(K)]),
        "second": h.T @ h,
        "softmax_sums": np.stack([p[guess == c].sum(axis=0) for c in range(K)]),
        "max_logit_sum": z.max(axis=1).sum(),
        "label_counts": np.bincount(y.astype(int), minlength=K),
        "predicted_counts": np.bincount(guess, minlength=K),
        "correct_counts": np.bincount(guess[guess == y], minlength=K),
    }


def test_sums_by_their_definition():
    out = outputs()
    state = merge(swept(batches(out)))
    for name, want in plain(out, state.origin).items():
        # float32's exponential enters the softmax sums; the others are exact
        np.testing.assert_allclose(getattr(state, name), want, rtol=1e-6 if name == "softmax_sums" else 0, err_msg=name)
    gram, y = np.asarray(out.gram), np.asarray(out.labels)
    np.testing.assert_array_equal(state.gram_labelled[0], [gram[y == c].min(axis=0) for c in range(K)])
    np.testing.assert_array_equal(state.gram_labelled[1], [gram[y == c].max(axis=0) for c in range(K)])


# ---------------------------------------------------------------------------------------------------------------------
# What is kept


FIELDS = {name: {name} for name in accumulate.SUMS} | {
    "second": {"second", "label_sums"},
    "gram": {"gram_predicted", "gram_labelled"},
    "features": set(),
    "layer_means": set(),
}
ALWAYS = {"origin", "label_counts", "predicted_counts", "correct_counts", "max_logit_sum"}


@pytest.mark.parametrize("needs", [*combinations(STATISTICS, 1), (), ("second", "gram"), STATISTICS])
def test_what_was_asked_for_is_kept_and_equals_the_whole(needs):
    parts = batches(outputs())
    whole, some = swept(parts), swept(parts, frozenset(needs))
    kept = {f.name for f in dataclasses.fields(some) if getattr(some, f.name) is not None}
    assert kept == ALWAYS.union(*(FIELDS[name] for name in needs))
    for name in kept:
        for a, b in zip(jax.tree.leaves(getattr(some, name)), jax.tree.leaves(getattr(whole, name)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def points(name: str):
    """Every grid point, at sizes that the oracle's problem carries."""
    small = {"knn": {"k": 5}, "vim": {"dim": 7}, "neco": {"dim": 5}}.get(name)
    return [detectors.create(name, **(small or options)) for options in ([{}] if small else detectors.grid(name))]


@pytest.mark.parametrize("name", detectors.names())
def test_what_a_method_declares_is_enough_and_none_of_it_too_much(name):
    """Fitted to what it says it reads it learns the same, and with any of it left out it is refused."""
    problem, declared = oracles.problem(), detectors.reads([name])
    whole = oracles.stats()
    some = oodjax.TrainStatistics.collect(problem.train, problem.head, needs=declared)
    assert some.kept >= declared and not some.kept - declared - {"label_sums"}
    for point in points(name):
        got, want = point.fit(some, problem.val), point.fit(whole, problem.val)
        assert got.settings == want.settings
        for a, b in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
            np.testing.assert_array_equal(a, b)
    for left_out in declared:
        rest = frozenset(STATISTICS) - {left_out, *({"second"} if left_out == "label_sums" else ())}
        with pytest.raises(ValueError, match=rf"{name}.*{left_out}"):
            points(name)[0].fit(oodjax.TrainStatistics.collect(problem.train, problem.head, needs=rest), problem.val)


def test_detectors_of_logits_alone_read_nothing():
    assert detectors.reads(["msp", "mls", "ebo", "odin", "tempscale", "gen", "ash", "scale", "gradnorm"]) == frozenset()
    assert detectors.reads(["msp", "knn", "mds"]) == {"features", "label_sums", "second"}
    assert detectors.reads(detectors.NAMES) == set(STATISTICS)


# ---------------------------------------------------------------------------------------------------------------------
# Merging


@pytest.mark.parametrize("cuts", [(16,), (32, 48), (16, 32, 80)])
def test_a_merge_is_the_union_whatever_the_origins(cuts):
    out = outputs()
    parts = [out[a:b] for a, b in zip((0, *cuts), (*cuts, N), strict=True)]
    states = [merge(swept(batches(part))) for part in parts]
    assert not np.array_equal(states[0].origin, states[-1].origin)
    got, want = merge_accumulators(states), plain(out, states[0].origin)
    for name in want:
        # origins of 1/48 and the like round each centred feature at 6e-8; float32's exponential enters the softmax
        np.testing.assert_allclose(getattr(got, name), want[name], rtol=1e-6, atol=N * 1e-6, err_msg=name)
    gram = merge(swept(batches(out)))
    np.testing.assert_array_equal(got.gram_predicted, gram.gram_predicted)
    np.testing.assert_array_equal(got.gram_labelled, gram.gram_labelled)


def test_a_merge_with_one_that_saw_nothing_changes_nothing():
    parts = batches(outputs())
    nothing = accumulate.start(parts[0][0], np.zeros(ROWS, bool))
    state = merge(swept(parts))
    assert_same(merge_accumulators([state, nothing]), state)
    turned = merge_accumulators([nothing, state])
    np.testing.assert_array_equal(turned.label_counts, state.label_counts)
    shift = state.origin * state.label_counts[:, None]
    np.testing.assert_allclose(turned.label_sums, state.label_sums + shift, rtol=1e-12)


def test_different_statistics_are_not_merged():
    parts = batches(outputs())
    with pytest.raises(ValueError, match=r"merge: gram_predicted differ: \[\(4, 3, 5\), \(4, 3, 5\)\] and None"):
        merge_accumulators(
            [swept(parts), swept(parts, frozenset({"label_sums", "correct_sums", "second"}) | {"softmax_sums"})]
        )


# ---------------------------------------------------------------------------------------------------------------------
# Snapshots


def test_a_sweep_resumed_at_any_batch_is_the_whole_sweep(tmp_path):
    parts = batches(outputs())
    want = to_arrays(swept(parts))
    for stop in range(1, len(parts)):
        np.savez(tmp_path / "snapshot.npz", **to_arrays(swept(parts[:stop])))
        state = from_arrays(dict(np.load(tmp_path / "snapshot.npz")))
        for part, mask in parts[stop:]:
            state = accumulate.step(state, part, mask)
        got = to_arrays(state)
        assert got.keys() == want.keys()
        assert all(got[name].tobytes() == want[name].tobytes() for name in want), stop


@pytest.mark.parametrize("needs", [None, frozenset(), frozenset({"gram"})])
def test_a_snapshot_comes_back_bit_for_bit(needs):
    state = swept(batches(outputs()), needs)
    for kept in (state, merge(state)):
        arrays = to_arrays(kept)
        back = from_arrays(dict(sorted(arrays.items(), reverse=True)))
        assert jax.tree.structure(back) == jax.tree.structure(kept)
        for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(kept), strict=True):
            assert np.asarray(a).dtype == np.asarray(b).dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert_same(merge(from_arrays(to_arrays(state))), merge(state))


# ---------------------------------------------------------------------------------------------------------------------
# Several devices


# Without LLVM's optimisation a compilation takes half the time.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
MESH_PROGRAM = """
import sys, json
import numpy as np, jax
sys.path.insert(0, {tests!r})
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from test_accumulate import ROWS, batches, outputs, swept
from oodjax import accumulate
from oodjax.accumulate import from_arrays, merge, to_arrays

mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
split = NamedSharding(mesh, PartitionSpec(("a", "b")))
parts = [jax.device_put(part, split) for part in batches(outputs())]
short = np.arange(ROWS) < 5  # three devices without a row
parts[-1] = parts[-1][0], jax.device_put(short, split)
state = first = accumulate.start_sharded(*parts[0], mesh)
lowered = accumulate.step_sharded.lower(state, *parts[0], mesh)
for i, (part, mask) in enumerate(parts):
    state = accumulate.step_sharded(state, part, mask, mesh)
    if i == 2:
        state = from_arrays(to_arrays(state), mesh)
try:
    from_arrays(to_arrays(swept([batches(outputs())[0]])), mesh)
except ValueError as error:
    refusal = str(error)
np.savez({out!r}, **to_arrays(merge(state)))
print(json.dumps({{
    "devices": len(state.origin.addressable_shards), "compiled": lowered.compile().as_text(),
    "start": accumulate.start_sharded.lower(*parts[0], mesh).compile().as_text(), "refusal": refusal,
    "stacked": merge(from_arrays(to_arrays(state))).second.tolist(), "merged": merge(state).second.tolist(),
}}))
"""


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The sums of eight devices, and what their process says."""
    out = tmp_path_factory.mktemp("eight") / "sums.npz"
    here = Path(__file__).parent
    program = MESH_PROGRAM.format(tests=str(here), out=str(out))
    env = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = os.pathsep.join([str(here.parent), env.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return from_arrays(dict(np.load(out))), json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_sum_what_one_does(eight):
    """Interrupted in between; the last batch leaves devices without a row."""
    parts = batches(outputs())
    parts[-1] = parts[-1][0], np.arange(ROWS) < 5
    state, said = eight
    assert said["devices"] == 8
    want = merge(swept(parts))
    # the devices' own sums of float32 exponentials round apart; all else is exact up to the float64 of the merge
    np.testing.assert_allclose(state.softmax_sums, want.softmax_sums, rtol=1e-6)
    assert_same(dataclasses.replace(state, softmax_sums=want.softmax_sums), want, rtol=1e-12)
    assert said["stacked"] == said["merged"] == state.second.tolist()


def test_a_step_moves_nothing_between_devices(eight):
    collective = re.compile(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter")
    assert collective.search(eight[1]["start"])  # the first batch's mean, once: the pattern does find it
    assert not collective.search(eight[1]["compiled"])


def test_a_snapshot_of_other_devices_is_refused(eight):
    assert "the sums of 1 devices, this process has 8" in eight[1]["refusal"]


HOST_PROGRAM = """
import sys
import numpy as np, jax
process = int(sys.argv[1])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:" + sys.argv[2], 2, process)
sys.path.insert(0, {tests!r})
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from test_accumulate import batches, outputs
from oodjax import accumulate
from oodjax.accumulate import from_arrays, merge, to_arrays

mesh = Mesh(np.array(jax.devices()), ("batch",))
assert mesh.size == 4 and len(mesh.local_devices) == 2
split = NamedSharding(mesh, PartitionSpec("batch"))
state = None
for i, (part, mask) in enumerate(batches(outputs(process))):  # each host reads images of its own
    part, mask = jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, np.asarray(x)), (part, mask))
    state = accumulate.start_sharded(part, mask, mesh) if state is None else state
    state = accumulate.step_sharded(state, part, mask, mesh)
    if i == 3:
        state = from_arrays(to_arrays(state), mesh)
np.savez({out!r} + sys.argv[1], **to_arrays(merge(state)))
"""


def test_two_hosts_sum_what_one_does(tmp_path):
    """Each its own images on two devices, interrupted in between; what they save joins to the union."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    here = Path(__file__).parent
    program = HOST_PROGRAM.format(tests=str(here), out=str(tmp_path / "host"))
    flags = FLAGS.replace("count=8", "count=2")
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = os.pathsep.join([str(here.parent), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", program]
    hosts = [
        subprocess.Popen([*command, str(i), port], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for i in range(2)
    ]
    said = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    states = [from_arrays(dict(np.load(tmp_path / f"host{i}.npz"))) for i in range(2)]
    np.testing.assert_array_equal(states[0].origin, states[1].origin)  # the first batch's mean, over both hosts
    got = merge_accumulators(states)
    want = merge(swept([*batches(outputs(0)), *batches(outputs(1))], origin=got.origin))
    np.testing.assert_allclose(got.softmax_sums, want.softmax_sums, rtol=1e-6)
    assert_same(dataclasses.replace(got, softmax_sums=want.softmax_sums), want, rtol=1e-12)
