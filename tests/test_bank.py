"""The feature bank: a folder holds what memory would, wherever it was interrupted and however it was shared out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import oracles
import pytest

import oodjax
from oodjax import accumulate, detectors
from oodjax.bank import Bank, BankBuilder, BankWriter, content_keys, index_keys, join_banks
from oodjax.statistics import TrainStatistics

D, K, L = 7, 3, 2
SIZES = (20, 20, 20, 13)
FIELDS = ("features", "energies", "keys", "layer_means", "histogram")


def outputs(seed: int = 0, n: int = sum(SIZES)) -> oodjax.Outputs:
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(n, K)), rng.normal(size=(n, D)), rng.uniform(size=(n, L))
    logits, features, means = (x.astype(np.float32) for x in arrays)
    return oodjax.Outputs(logits, features, rng.integers(0, K, n).astype(np.int32), layer_means=means)


def batches(out: oodjax.Outputs, sizes=SIZES) -> list[tuple[oodjax.Outputs, np.ndarray]]:
    return [(out[rows], rows) for rows in np.split(np.arange(len(out)), np.cumsum(sizes)[:-1])]


def in_memory(parts, fraction=1.0, seed=0, indexed=True, needs=None) -> Bank:
    builder = BankBuilder(fraction, seed, needs)
    for part, rows in parts:
        builder.add(part, index=rows if indexed else None)
    return builder.build()


def writer(folder: Path, fraction=1.0, seed=0, **options) -> BankWriter:
    return BankWriter(folder, D, fraction, seed, **{"layers": L, **options})


def assert_same(got: Bank, want: Bank):
    assert (got.bank_fraction, got.seed) == (want.bank_fraction, want.seed)
    for name in FIELDS:
        a, b = getattr(got, name), getattr(want, name)
        assert (a is None) == (b is None), name
        if b is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)
            assert a.dtype == b.dtype, name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("fraction", [1.0, 0.3, 1e-9])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_folder_holds_what_memory_would(tmp_path, fraction, indexed):
    parts = batches(outputs())
    bank = writer(tmp_path, fraction, seed=3)
    for part, rows in parts:
        bank.append(part, index=rows if indexed else None)
    want = in_memory(parts, fraction, 3, indexed)
    assert_same(bank.finish(), want)
    assert_same(Bank.open(tmp_path), want)
    if fraction == 1.0:
        out = outputs()
        np.testing.assert_array_equal(want.features, out.features)
        np.testing.assert_allclose(want.energies, np.log(np.exp(np.float64(out.logits)).sum(axis=1)), rtol=2e-7)
    assert len(want.layer_means) == sum(SIZES)
    assert isinstance(Bank.open(tmp_path).layer_means, np.memmap)


def test_padded_rows_stay_out(tmp_path):
    bank = writer(tmp_path)
    bank.append(outputs(), 50, np.arange(sum(SIZES)))
    assert_same(bank.finish(), in_memory([(outputs()[:50], np.arange(50))]))


@pytest.mark.parametrize("needs", [(), ("features",), ("layer_means",), ("second", "gram")])
def test_what_no_detector_reads_is_not_kept(tmp_path, needs):
    parts, needs = batches(outputs()), frozenset(needs)
    bank = writer(tmp_path, needs=needs)
    for part, rows in parts:
        bank.append(part, index=rows)
    got = bank.finish()
    assert_same(got, in_memory(parts, needs=needs))
    held = {name for name in ("features", "layer_means") if getattr(got, name) is not None}
    assert held == needs & {"features", "layer_means"}
    assert (tmp_path / "features.f32").exists() == ("features" in needs)


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted


@pytest.mark.parametrize("fraction", [1.0, 0.3])
@pytest.mark.parametrize("stop", range(len(SIZES)))
def test_carried_on_from_any_batch_it_is_the_whole_bank(tmp_path, fraction, stop):
    """What came after the snapshot, half a row of it too, is cut off, and comes again."""
    parts = batches(outputs())
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    bank = writer(whole, fraction)
    for part, rows in parts:
        bank.append(part, index=rows)
    bank.finish()
    bank, snapshot = writer(cut, fraction), 0
    for i, (part, rows) in enumerate(parts):
        snapshot = bank.commit() if i == stop else snapshot
        bank.append(part, index=rows)
    assert snapshot == sum(SIZES[:stop])
    bank.commit()
    for name in ("features.f32", "keys.u64"):
        with open(cut / name, "ab") as file:
            file.write(b"torn")
    bank = writer(cut, fraction, rows=snapshot)
    assert bank.rows == snapshot
    for part, rows in parts[stop:]:
        bank.append(part, index=rows)
    bank.finish()
    assert contents(cut) == contents(whole)


def test_truncate_goes_back_within_a_run(tmp_path):
    parts = batches(outputs())
    bank = writer(tmp_path, 0.5)
    bank.append(*parts[0][:1], index=parts[0][1])
    rows = bank.commit()
    bank.append(parts[1][0], index=parts[1][1])
    bank.commit()
    bank.truncate(rows)
    bank.append(parts[2][0], index=parts[2][1])
    assert_same(bank.finish(), in_memory([parts[0], parts[2]], 0.5))


def test_started_anew_nothing_of_the_old_remains(tmp_path):
    old = writer(tmp_path, 0.5)
    for part, rows in batches(outputs()):
        old.append(part, index=rows)
    old.finish()
    new = writer(tmp_path, seed=9)
    with pytest.raises(ValueError, match="holds no whole feature bank"):
        Bank.open(tmp_path)
    part = (outputs(seed=5, n=4), np.arange(4))
    new.append(part[0], index=part[1])
    assert_same(new.finish(), in_memory([part], seed=9))


@pytest.mark.parametrize("change", [{"fraction": 0.4}, {"seed": 1}, {"layers": 0}, {"needs": frozenset()}])
def test_another_layout_is_not_carried_on(tmp_path, change):
    bank = writer(tmp_path, 0.5)
    bank.append(outputs())
    rows = bank.commit()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="cannot be carried on: it holds"):
        writer(tmp_path, **{"fraction": 0.5, **change}, rows=rows)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["features.f32", "energies.f32", "layer_means.f32", "kept.u8", "histogram-73.npy"])
def test_fewer_rows_than_the_snapshot_are_refused(tmp_path, name):
    bank = writer(tmp_path, 0.5)
    bank.append(outputs())
    rows = bank.commit()
    path = tmp_path / name
    path.unlink() if name.startswith("histogram") else path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"holds less than 73 rows in .*{name}.*: start the pass anew"):
        writer(tmp_path, 0.5, rows=rows)


def test_a_batch_of_another_width_is_named_and_leaves_the_files_alone(tmp_path):
    bank = writer(tmp_path, layers=3)
    bank.append(outputs())
    with pytest.raises(ValueError, match=r"layer_means.f32 takes 3 numbers a row, the batch has 2"):
        bank.commit()
    bank.append(outputs().replace(layer_means=None))
    with pytest.raises(ValueError, match=r"layer_means.f32 takes 3 numbers a row, the batch has none"):
        bank.commit()
    assert bank.rows == 0 and not (tmp_path / "features.f32").read_bytes()


@pytest.mark.parametrize("damage", ["short", "gone", "record", "empty record", "list"])
def test_a_damaged_bank_is_not_opened(tmp_path, damage):
    bank = writer(tmp_path)
    bank.append(outputs())
    bank.finish()
    path, record = tmp_path / "features.f32", tmp_path / "bank.json"
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "gone":
        path.unlink()
    elif damage == "record":
        record.unlink()
    else:
        record.write_text("" if damage == "empty record" else json.dumps([1]), encoding="utf-8")
    with pytest.raises(ValueError, match="holds no whole feature bank"):
        Bank.open(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Shares and unions


def test_a_share_by_place_is_the_same_images_for_every_model_and_split():
    out, other = outputs(n=2000), outputs(seed=1, n=2000)
    whole = in_memory([(out, np.arange(2000))], 0.25)
    kept = np.flatnonzero(index_keys(np.arange(2000), 0) < np.uint64(2**62))
    np.testing.assert_array_equal(whole.features, out.features[kept])
    np.testing.assert_array_equal(in_memory([(other, np.arange(2000))], 0.25).features, other.features[kept])
    turned = in_memory([(out[::-1][:700], np.arange(2000)[::-1][:700]), (out[:1300], np.arange(1300))], 0.25)
    np.testing.assert_array_equal(np.sort(turned.keys), np.sort(whole.keys))
    # a binomial draw: 2000 * 0.25 = 500, its standard deviation 19
    assert abs(len(kept) - 500) < 4 * 19


def test_keys_by_place_are_distinct_and_those_of_another_seed_independent():
    a, b = index_keys(np.arange(100_000), 0), index_keys(np.arange(100_000), 1)
    assert len(np.unique(a)) == 100_000
    # of independent keys a sixteenth lies in the lowest quarter of both: 6250, its standard deviation 77
    assert abs(((a < 2**62) & (b < 2**62)).sum() - 6250) < 4 * 77
    assert not np.array_equal(a, content_keys(outputs(n=100_000).features, 0))


@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_banks_of_several_hosts_join_to_the_bank_of_all(tmp_path, fraction):
    out = outputs()
    for host in range(3):
        rows = np.arange(host, len(out), 3)
        bank = writer(tmp_path / str(host), fraction)
        bank.append(out[rows], index=rows)
        bank.finish()
    joined = join_banks([tmp_path / str(host) for host in range(3)], tmp_path / "all")
    order = np.concatenate([np.arange(host, len(out), 3) for host in range(3)])
    assert_same(joined, in_memory([(out[order], order)], fraction))
    whole = in_memory([(out, np.arange(len(out)))], fraction)
    np.testing.assert_array_equal(np.sort(joined.keys), np.sort(whole.keys))
    assert_same(Bank.open(tmp_path / "all"), joined)


def test_banks_of_different_shares_are_not_joined(tmp_path):
    for name, fraction in (("a", 1.0), ("b", 0.5)):
        bank = writer(tmp_path / name, fraction)
        bank.append(outputs())
        bank.finish()
    with pytest.raises(ValueError, match="banks of different layouts cannot be joined"):
        join_banks([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


# ---------------------------------------------------------------------------------------------------------------------
# What detectors make of it


@pytest.mark.parametrize(
    "name", [n for n in detectors.NAMES if set(detectors.reads([n])) & {"features", "layer_means"}]
)
def test_detectors_learn_the_same_from_a_folder(tmp_path, name):
    problem = oracles.problem()
    train = problem.train
    bank = BankWriter(tmp_path, train.features.shape[1], layers=train.layer_means.shape[1])
    for rows in np.split(np.arange(len(train)), [100, 130]):
        bank.append(train[rows])
    mask = np.ones(len(train), bool)
    state = accumulate.step(accumulate.start(train, mask), train, mask)
    stats = TrainStatistics.finalize(state, bank.finish(), problem.head)
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
    [("react", detectors.grid("react"), 2), ("vim", [{"dim": d} for d in (3, 7, 12)], 1), ("mds", [{}], 0),
     ("rmds", [{}], 0)],
)  # fmt: skip
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
        residual = np.float64(problem.train.features) - np.float64(params["origin"])
        lengths = np.linalg.norm(residual @ np.float64(params["basis"]), axis=1)
        want = np.float64(problem.train.logits).max(axis=1).mean() / lengths.mean()
        assert float(params["alpha"]) == pytest.approx(want, rel=2e-6)  # lengths and their sum in float32
