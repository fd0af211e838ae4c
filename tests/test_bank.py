"""The feature bank: which rows it keeps, and that detectors learn the same from files as from memory."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import oracles
import pytest

import oodjax
from oodjax import accumulate, detectors
from oodjax.bank import Bank, BankBuilder, content_keys, index_keys, kept_rows, kept_share
from oodjax.statistics import TrainStatistics

D, K, L = 7, 3, 2
SIZES = (20, 20, 20, 13)


def outputs(seed: int = 0, n: int = sum(SIZES)) -> oodjax.Outputs:
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(n, K)), rng.normal(size=(n, D)), rng.uniform(size=(n, L))
    logits, features, means = (x.astype(np.float32) for x in arrays)
    return oodjax.Outputs(logits, features, rng.integers(0, K, n).astype(np.int32), layer_means=means)


def batches(out: oodjax.Outputs, sizes=SIZES) -> list[oodjax.Outputs]:
    return [out[rows] for rows in np.split(np.arange(len(out)), np.cumsum(sizes)[:-1])]


def in_memory(parts, fraction=1.0, seed=0, needs=None) -> Bank:
    builder = BankBuilder(fraction, seed, needs)
    for part in parts:
        builder.add(part)
    return builder.build()


@pytest.mark.parametrize("fraction", [1.0, 0.3, 1e-9])
def test_the_bank_holds_the_share_of_the_rows(fraction):
    """In the order they came, however they were cut; the histogram and the layer means are of all."""
    out = outputs()
    bank, whole = in_memory(batches(out), fraction, 3), in_memory([out], fraction, 3)
    for field in dataclasses.fields(Bank):
        np.testing.assert_array_equal(getattr(bank, field.name), getattr(whole, field.name), err_msg=field.name)
    keys = content_keys(out.features, 3)
    kept = np.flatnonzero(kept_share(keys, fraction))
    np.testing.assert_array_equal(bank.features, out.features[kept])
    np.testing.assert_array_equal(bank.labels, out.labels[kept])
    np.testing.assert_array_equal(bank.keys, keys[kept])
    energies = np.log(np.exp(np.float64(out.logits)).sum(axis=1))
    np.testing.assert_allclose(bank.energies, energies[kept], rtol=2e-7)
    np.testing.assert_array_equal(bank.layer_means, out.layer_means)
    assert (bank.histogram is None) if fraction == 1.0 else (bank.histogram.sum() == out.features.size)


@pytest.mark.parametrize("needs", [(), ("features",), ("layer_means",), ("second", "gram")])
def test_what_no_detector_reads_is_not_kept(needs):
    bank = in_memory(batches(outputs()), needs=frozenset(needs))
    held = {name for name in ("features", "layer_means") if getattr(bank, name) is not None}
    assert held == set(needs) & {"features", "layer_means"}


# ---------------------------------------------------------------------------------------------------------------------
# Shares and unions


def test_a_share_by_place_is_a_binomial_draw():
    kept = kept_rows(2000, 0, 0.25)
    np.testing.assert_array_equal(kept, index_keys(np.arange(2000), 0) < np.uint64(2**62))
    assert abs(kept.sum() - 500) < 4 * 19  # 2000 * 0.25, its standard deviation
    assert not np.array_equal(kept, kept_rows(2000, 1, 0.25)) and kept_rows(2000, 0, 1.0).all()


def test_keys_by_place_are_distinct_and_those_of_another_seed_independent():
    a, b = index_keys(np.arange(100_000), 0), index_keys(np.arange(100_000), 1)
    assert len(np.unique(a)) == 100_000
    # of independent keys a sixteenth lies in the lowest quarter of both: 6250, its standard deviation 77
    assert abs(((a < 2**62) & (b < 2**62)).sum() - 6250) < 4 * 77
    assert not np.array_equal(a, content_keys(outputs(n=100_000).features, 0))


# ---------------------------------------------------------------------------------------------------------------------
# What detectors make of it


@pytest.mark.parametrize(
    "name", [n for n in detectors.names() if set(detectors.reads([n])) & {"features", "layer_means"}]
)
def test_detectors_learn_the_same_from_memory_maps(tmp_path, name):
    problem = oracles.problem()
    train = problem.train
    bank, mapped = in_memory([train]), {}
    for field in ("features", "energies", "labels", "keys", "layer_means"):
        np.save(tmp_path / f"{field}.npy", getattr(bank, field))
        mapped[field] = np.load(tmp_path / f"{field}.npy", mmap_mode="r")
    mask = np.ones(len(train), bool)
    state = accumulate.step(accumulate.start(train, mask), train, mask)
    stats = TrainStatistics.finalize(state, dataclasses.replace(bank, **mapped), problem.head)
    options = {"knn": {"k": 5}, "vim": {"dim": 7}, "nnguide": {"k": 5, "fraction": 0.3}}.get(name, {})
    got, want = (detectors.create(name, **options).fit(s, problem.val) for s in (stats, oracles.stats()))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # sums of 240 rows at once and in blocks


class Counted(np.ndarray):
    """An array that counts how often its rows are read, in rows."""

    read = 0

    def __getitem__(self, index):
        found = np.asarray(self)[index]
        Counted.read += len(found)
        return found


def fits(name: str, points: list[dict], stats: TrainStatistics) -> list:
    return [detectors.create(name, **options).fit(stats).params for options in points]


@pytest.mark.parametrize(
    ("name", "points", "sweeps"),
    [
        ("react", detectors.grid("react"), 2),
        ("vim", [{"dim": d} for d in (3, 7, 12)], 1),
        ("mds", [{}], 0),
        ("rmds", [{}], 0),
    ],
)
def test_all_points_of_a_method_read_the_bank_together(monkeypatch, name, points, sweeps):
    """And each learns what it learns alone."""
    monkeypatch.setattr("oodjax.moments.PRODUCTS", 0)  # as where there are many rows
    base = oracles.stats()
    alone = [fits(name, [options], dataclasses.replace(base))[0] for options in points]
    Counted.read = 0
    together = fits(name, points, dataclasses.replace(base, features=np.asarray(base.features).view(Counted)))
    assert Counted.read == sweeps * len(base.features)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert len({np.asarray(p.get("threshold", p.get("alpha", 0))).item() for p in together}) == len(points)


@pytest.mark.parametrize("products", [0, 1e12])  # on the device, and in float64 where rows are few
@pytest.mark.parametrize("rows", [1, 50, 240, 1000])
def test_vims_alpha_does_not_depend_on_the_block(monkeypatch, rows, products):
    monkeypatch.setattr("oodjax.detectors.hybrid.RESIDUAL_BLOCK", rows)
    monkeypatch.setattr("oodjax.moments.PRODUCTS", products)
    stats, problem = dataclasses.replace(oracles.stats()), oracles.problem()
    for dim in (3, 12):
        params = detectors.create("vim", dim=dim).fit(stats).params
        kernel, bias = np.float64(problem.head.kernel), np.float64(problem.head.bias)
        residual = np.float64(problem.train.features) + np.linalg.pinv(kernel.T) @ bias
        lengths = np.linalg.norm(residual @ np.float64(params["basis"]), axis=1)
        want = np.float64(problem.train.logits).max(axis=1).mean() / lengths.mean()
        assert float(params["alpha"]) == pytest.approx(want, rel=2e-6)  # lengths and their sum in float32
