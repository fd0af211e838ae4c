"""Training statistics: any split and order gives the same, a merge is the union, percentiles keep their bound."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import oodjax
from oodjax import statistics
from oodjax.bank import BankBuilder
from oodjax.outputs import canonical
from oodjax.statistics import TrainStatistics

N, D, K = 500, 12, 5
BLOCK = 64

# Counts, the bank, its keys and the bounds do not depend on rounding; sums carry float32's within a block of rows.
EXACT = ("label_counts", "predicted_counts", "correct_counts", "gram_predicted", "gram_labelled", "histogram")
SUMS = ("mean", "class_means", "correct_means", "total_covariance", "within_covariance", "softmax_sums")


def outputs(seed: int = 0, n: int = N, mean: float = 0.0, std: float = 1.0) -> oodjax.Outputs:
    """Signed features; labels and predictions that agree now and then; class 4 never predicted, class 3 no label."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, K))
    logits[:, 4] -= 100
    labels = rng.choice([0, 1, 2, 4], n)
    features = mean + std * (rng.normal(size=(n, D)) + labels[:, None])
    gram, means = rng.normal(size=(n, 3, 4)), rng.uniform(size=(n, 2))
    logits, features, gram, means = (x.astype(np.float32) for x in (logits, features, gram, means))
    return oodjax.Outputs(logits, features, labels.astype(np.int32), gram, means)


def head() -> oodjax.Head:
    return oodjax.Head(np.ones((D, K), np.float32), np.zeros(K, np.float32))


def collect(batches, block: int = BLOCK, **options) -> TrainStatistics:
    return TrainStatistics.collect(batches, head(), block=block, check_head=False, **options)


def cut(out: oodjax.Outputs, sizes: tuple[int, ...], seed: int | None = None) -> list[oodjax.Outputs]:
    """Consecutive batches of these sizes (the last takes the rest), after a shuffle when a seed is given."""
    order = np.arange(len(out)) if seed is None else np.random.default_rng(seed).permutation(len(out))
    return [out[rows] for rows in np.split(order, np.cumsum(sizes)) if len(rows)]


def oracle(out: oodjax.Outputs) -> dict[str, np.ndarray]:
    """Every quantity in float64, by its definition."""
    h, z = np.asarray(out.features, np.float64), np.asarray(out.logits, np.float64)
    y, predicted = np.asarray(out.labels), z.argmax(axis=1)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    every = np.ones(len(h), bool)

    def over(choices, value):
        """Row c: `value` of the first of the choices that class c has rows in."""
        return np.stack([value(next(m for m in (f(c) for f in choices) if m.any())) for c in range(K)])

    means = over([lambda c: y == c, lambda c: every], lambda m: h[m].mean(axis=0))
    gram = np.asarray(out.gram)

    def bounds(owner):
        empty = np.full(gram.shape[1:], np.inf)
        rows = [gram[owner == c] for c in range(K)]
        return tuple(
            np.stack([f(r) if len(r) else e for r in rows])
            for f, e in ((lambda r: r.min(axis=0), empty), (lambda r: r.max(axis=0), -empty))
        )

    return {
        "label_counts": np.bincount(y, minlength=K),
        "predicted_counts": np.bincount(predicted, minlength=K),
        "correct_counts": np.bincount(y[y == predicted], minlength=K),
        "gram_predicted": bounds(predicted),
        "gram_labelled": bounds(y),
        "histogram": None,
        "mean": h.mean(axis=0),
        "class_means": means,
        "correct_means": over(
            [lambda c: (y == c) & (predicted == c), lambda c: y == c, lambda c: every], lambda m: h[m].mean(axis=0)
        ),
        "total_covariance": np.cov(h.T, bias=True),
        "within_covariance": np.cov((h - means[y]).T, bias=True),
        "softmax_sums": np.stack([p[predicted == c].sum(axis=0) for c in range(K)]),
        "max_logit_sum": z.max(axis=1).sum(),
        "features": h,
        "energies": np.log(np.exp(z).sum(axis=1)),
        "layer_means": np.asarray(out.layer_means, np.float64),
    }


def assert_equal_statistics(got: TrainStatistics, want, std: float = 1.0, in_order: bool = True):
    """`want` is other statistics or an oracle's dict.

    The sums are of values of the size of `std`, taken about an origin among them: a block of 64 float32 rows rounds
    each sum at some 6e-8 of its terms, and between blocks nothing is lost. 1e-6 of std, of its square for a covariance.
    """

    def of(name):
        return want[name] if isinstance(want, dict) else getattr(want, name)

    for name in EXACT:
        for a, b in zip(jax.tree.leaves(getattr(got, name)), jax.tree.leaves(of(name)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    for name in SUMS:
        unit = {"softmax_sums": N}.get(name, std**2 if "covariance" in name else std)
        magnitude = 4 if "covariance" in name else 2  # of the features: classes lie up to 4 std apart
        np.testing.assert_allclose(getattr(got, name), of(name), rtol=1e-7, atol=1e-6 * magnitude * unit, err_msg=name)
    np.testing.assert_allclose(got.max_logit_sum, of("max_logit_sum"), rtol=1e-6)

    def rows(name, source):
        value = np.asarray(source(name))
        return value if in_order else value[np.lexsort(value.T if value.ndim == 2 else (value,))]

    for name, rtol in (("features", 0), ("energies", 2e-7), ("layer_means", 0)):
        here, there = rows(name, lambda n: getattr(got, n)), rows(name, of)
        np.testing.assert_allclose(here, there, rtol=rtol, err_msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# Collecting


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1e3, 1.0), (-1e3, 1.0), (1e4, 1e3), (0.0, 1e-3)])
def test_every_field_against_float64(mean, std):
    """Also far from zero: plain float32 sums of squares of 1e3 would lose a variance of 1 (see the next test)."""
    out = outputs(mean=mean, std=std)
    assert_equal_statistics(collect(out), oracle(out), std)


def test_plain_float32_sums_would_fail_far_from_zero():
    h = outputs(mean=1e3).features
    plain = (h.T @ h) / np.float32(N) - np.outer(h.mean(axis=0), h.mean(axis=0))
    assert np.abs(plain - np.cov(h.T.astype(np.float64), bias=True)).max() > 0.01


def test_long_sums_keep_their_digits():
    """Two million rows of one value: a float32 sum stands still at 2**24 sixteenths of it."""
    n, step = 2_000_000, 1000
    features = np.tile(np.array([[0.1], [0.3]], np.float32), (step // 2, 1))
    batch = oodjax.Outputs(np.full((step, 1), 0.1, np.float32), features, np.zeros(step, np.int32))
    state, mask = None, np.ones(step, bool)
    batch = canonical(batch)
    state = statistics.start(batch, mask)
    state = dataclasses.replace(state, origin=state.origin * 0)
    for _ in range(n // step):
        state = statistics.step(state, batch, mask)
    total = np.asarray(state.label_sums, np.float64).sum()
    assert int(state.label_counts[0]) == n
    # each block's own float32 sum of 1000 rows is good to 1000 roundings of 6e-8; the 2000 additions add nothing to it
    assert total == pytest.approx(n * 0.2, rel=6e-5)
    block = np.asarray(statistics.step(statistics.start(batch, mask), batch, mask).max_logit_sum, np.float64).sum()
    assert np.asarray(state.max_logit_sum, np.float64).sum() == pytest.approx(n // step * block, rel=1e-9)


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("sizes", [(1,), (64, 64), (200, 100, 3), (70, 1, 1, 90)])
def test_any_split_and_order_is_one_shot(sizes, seed):
    out = outputs()
    assert_equal_statistics(collect(cut(out, sizes, seed)), collect(out), in_order=seed is None)


@pytest.mark.parametrize("block", [7, 100, 500, 4096])
def test_the_block_does_not_matter(block):
    assert_equal_statistics(collect(outputs(), block=block), oracle(outputs()))


def test_a_generator_and_a_single_output_are_taken():
    assert_equal_statistics(collect(b for b in cut(outputs(), (100, 37))), collect([outputs()]))


def test_fields_may_be_absent():
    stats = collect(outputs().replace(gram=None, layer_means=None))
    assert stats.gram_predicted is stats.gram_labelled is stats.layer_means is None
    np.testing.assert_allclose(stats.mean, oracle(outputs())["mean"], atol=1e-6)


def test_ragged_batches_share_one_program():
    out = outputs()
    collect(out)
    programs = statistics.step._cache_size(), statistics.start._cache_size()
    collect(cut(out, (BLOCK, 64, 63, 1, 200, 7)))
    collect(cut(out, (100, 3), seed=3))
    assert (statistics.step._cache_size(), statistics.start._cache_size()) == programs


def test_a_short_first_batch_does_not_shorten_the_steps(monkeypatch):
    steps, real = [], statistics.step

    def counted(state, part, mask):
        steps.append(len(part))
        return real(state, part, mask)

    monkeypatch.setattr(statistics, "step", counted)
    stats = collect(cut(outputs(), (1, 60, 60)))
    assert steps == [1, 60, 60, *[BLOCK] * 6]
    assert_equal_statistics(stats, oracle(outputs()))


@pytest.mark.parametrize("value", [1e6, np.inf, np.nan])
def test_masked_rows_are_ignored(value):
    out, other = canonical(outputs(n=40)), statistics.canonical(outputs(seed=8, n=24))
    mask = np.arange(64) < 40
    garbage = jax.tree.map(lambda a, b: np.concatenate([a, value * b if b.dtype == np.float32 else b]), out, other)
    bank = BankBuilder()
    bank.add(garbage[:40])
    state = statistics.step(statistics.start(garbage, mask), garbage, mask)
    np.testing.assert_allclose(state.origin, np.asarray(out.features).mean(axis=0), rtol=1e-5)
    assert_equal_statistics(TrainStatistics.finalize(state, bank, head()), oracle(out))


def test_absent_classes_fall_back():
    stats = collect(outputs())
    assert stats.label_counts[3] == 0 and stats.predicted_counts[4] == 0 and stats.correct_counts[4] == 0
    assert stats.label_counts[4] > 0
    np.testing.assert_allclose(stats.class_means[3], stats.mean)
    np.testing.assert_allclose(stats.correct_means[4], stats.class_means[4])
    np.testing.assert_allclose(stats.correct_means[3], stats.mean)


def test_gram_bounds_of_unseen_classes():
    """Class 4 is never predicted: bounds by label. Class 3, with neither, in a problem of its own: those of all."""
    out = outputs()
    fitted = oodjax.detectors.create("gram", powers=(1, 2, 3)).fit(collect(out))
    members = out.gram[np.asarray(out.labels) == 4].reshape(-1, 12)
    np.testing.assert_array_equal(fitted.params["low"][4], members.min(axis=0))
    np.testing.assert_array_equal(fitted.params["high"][4], members.max(axis=0))
    logits = np.array(out.logits)
    logits[:, 3] -= 100
    fitted = oodjax.detectors.create("gram", powers=(1, 2, 3)).fit(collect(out.replace(logits=logits)))
    np.testing.assert_array_equal(fitted.params["low"][3], out.gram.reshape(-1, 12).min(axis=0))
    np.testing.assert_array_equal(fitted.params["high"][3], out.gram.reshape(-1, 12).max(axis=0))


def test_second_moment_about_a_point():
    out, center = outputs(mean=10), np.arange(D, dtype=np.float64)
    h = np.asarray(out.features, np.float64) - center
    np.testing.assert_allclose(collect(out).second_moment(center), h.T @ h / N, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Merging


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1e3, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_merge_is_the_union(seed, mean, std):
    """Random parts, whose origins differ, merged in sequence and as a tree."""
    out = outputs(mean=mean, std=std)
    rng = np.random.default_rng(seed)
    sizes = tuple(np.diff([0, *np.sort(rng.choice(np.arange(1, N), 4, replace=False))]))
    a, b, c, d, e = (collect(part) for part in cut(out, sizes, seed))
    assert not np.array_equal(a.origin, b.origin)
    assert_equal_statistics(a.merge(b).merge(c).merge(d).merge(e), oracle(out), std, in_order=False)
    assert_equal_statistics(e.merge(d.merge(c)).merge(b.merge(a)), oracle(out), std, in_order=False)


def test_a_merge_of_parts_that_lie_far_apart():
    near, far = outputs(seed=1), outputs(seed=2, mean=50)
    both = jax.tree.map(lambda x, y: np.concatenate([x, y]), near, far)
    want = oracle(both)
    merged = collect(near).merge(collect(far))
    np.testing.assert_allclose(merged.total_covariance, want["total_covariance"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(merged.class_means, want["class_means"], rtol=1e-6)
    assert merged.count == 2 * N


def test_a_merge_leaves_its_parts_alone_and_forgets_what_was_derived():
    a, b = collect(outputs(seed=1)), collect(outputs(seed=2))
    mean, second = a.mean.copy(), a.second.copy()
    merged = a.merge(b)
    np.testing.assert_array_equal(a.second, second)
    np.testing.assert_array_equal(a.mean, mean)
    np.testing.assert_allclose(merged.mean, (a.mean + b.mean) / 2)


def test_a_merge_of_partial_banks_is_the_partial_bank_of_the_union():
    out = outputs(n=500)
    parts = [collect(part, bank_fraction=0.3, seed=5) for part in cut(out, (120, 200), seed=0)]
    merged, whole = parts[0].merge(parts[1]).merge(parts[2]), collect(out, bank_fraction=0.3, seed=5)
    np.testing.assert_array_equal(np.sort(merged.keys), np.sort(whole.keys))
    np.testing.assert_array_equal(merged.histogram, whole.histogram)
    np.testing.assert_array_equal(merged.features[merged.bank_subset(20)], whole.features[whole.bank_subset(20)])
    assert merged.activation_percentile(90) == whole.activation_percentile(90)


def test_what_cannot_be_merged_is_refused():
    out, base = outputs(), collect(outputs())
    other = oodjax.Head(np.zeros((D, K), np.float32), np.zeros(K, np.float32))
    wide = oodjax.Head(np.ones((D + 1, K), np.float32), np.zeros(K, np.float32))
    longer = out.replace(features=np.concatenate([out.features, out.features[:, :1]], axis=1))
    for stats, match in (
        (collect(out, bank_fraction=0.5), "bank_fraction and seed differ"),
        (collect(out, seed=1), "bank_fraction and seed differ"),
        (TrainStatistics.collect(out, other, check_head=False), "different heads"),
        (TrainStatistics.collect(longer, wide, check_head=False), "different heads"),
        (collect(out.replace(gram=None)), r"gram_predicted differ: \(3, 4\) and None"),
        (collect(out.replace(gram=out.gram[:, :2])), r"gram_predicted differ: \(3, 4\) and \(2, 4\)"),
        (collect(out.replace(layer_means=out.layer_means[:, :1])), r"layer_means differ: \(2,\) and \(1,\)"),
        (collect(out.replace(layer_means=None)), r"layer_means differ: \(2,\) and None"),
    ):
        with pytest.raises(ValueError, match=match):
            base.merge(stats)


# ---------------------------------------------------------------------------------------------------------------------
# The bank


def bank(out, sizes=(), shuffle=None, **options):
    stats = collect(cut(out, sizes, shuffle) if sizes else out, **options)
    return stats, {row.tobytes() for row in stats.features}


def test_a_share_of_the_bank_is_the_same_whatever_the_split_and_order():
    out = outputs(n=2000)
    stats, rows = bank(out, bank_fraction=0.25, seed=3)
    for sizes, shuffle in (((1, 500), None), ((700, 13), 1), ((64,) * 20, 2)):
        assert bank(out, sizes, shuffle, bank_fraction=0.25, seed=3)[1] == rows
    # a binomial draw: 2000 * 0.25 = 500, its standard deviation 19
    assert abs(len(stats.features) - 500) < 4 * 19
    assert len(stats.features) == len(stats.energies) == len(stats.keys)
    energies = dict(zip((h.tobytes() for h in out.features), oracle(out)["energies"], strict=True))
    np.testing.assert_allclose(stats.energies, [energies[h.tobytes()] for h in stats.features], rtol=2e-7)
    assert stats.layer_means.shape == (2000, 2) and stats.count == 2000


def test_the_seed_chooses_another_share_and_a_larger_share_contains_a_smaller():
    out = outputs(n=2000)
    a, b = bank(out, bank_fraction=0.25, seed=3)[1], bank(out, bank_fraction=0.25, seed=4)[1]
    # independent draws share a quarter of the 500 each: 125, its standard deviation 10
    assert abs(len(a & b) - 125) < 50
    assert a < bank(out, bank_fraction=0.5, seed=3)[1]


def test_bank_subset_is_the_same_whatever_the_order():
    out = outputs()
    a, b = collect(out), collect(cut(out, (100, 100), seed=7))
    for size in (1, 50, N):
        np.testing.assert_array_equal(a.features[a.bank_subset(size)], b.features[b.bank_subset(size)])
    other = collect(out, seed=1)
    assert not np.array_equal(a.features[a.bank_subset(50)], other.features[other.bank_subset(50)])


def test_an_empty_share_is_named_by_the_detectors_that_need_the_bank():
    stats = collect(outputs(n=5), bank_fraction=1e-9)
    assert len(stats.features) == 0
    for name in ("knn", "nnguide", "vim"):
        with pytest.raises(ValueError, match=rf"{name}: .*bank's 0 features"):
            oodjax.detectors.create(name).fit(stats)


# ---------------------------------------------------------------------------------------------------------------------
# Percentiles of all activations


PERCENTILES = (0, 0.1, 10, 33.3, 50, 70, 85, 90, 95, 99, 99.9, 100)


def activations(kind: str) -> np.ndarray:
    rng = np.random.default_rng(4)
    normal = rng.normal(size=(N, D))
    found = {
        "positive": np.exp(3 * normal),
        "mostly zero": np.where(rng.uniform(size=normal.shape) < 0.8, 0, np.abs(normal)),
        "signed": normal,
        "negative": -np.exp(normal),
        "integers": np.round(3 * normal),
        "two values": np.where(normal > 0, 100.0, 1.0),
        "huge": 1e30 * np.abs(normal),
    }[kind]
    return found.astype(np.float32)


KINDS = ("positive", "mostly zero", "signed", "negative", "integers", "two values")


@pytest.mark.parametrize("kind", KINDS)
def test_percentiles_of_a_whole_bank_are_numpys(kind):
    stats = collect(outputs().replace(features=activations(kind)))
    values = stats.features.astype(np.float64)  # of float32 values numpy rounds q, and with it the rank, to float32
    assert stats.activation_percentiles(PERCENTILES) == list(np.percentile(values, PERCENTILES))
    for q in PERCENTILES:
        assert stats.activation_percentile(q) == float(np.percentile(values, q)), q


@pytest.mark.parametrize("kind", [*KINDS, "huge"])
def test_percentiles_of_a_partial_bank_keep_their_bound(kind):
    values = activations(kind)
    builder = BankBuilder(fraction=0.1)
    builder.add(outputs()[:200].replace(features=values[:200]))
    builder.add(outputs()[200:].replace(features=values[200:]))
    built = builder.build()
    stats = dataclasses.replace(collect(outputs(), bank_fraction=0.1), histogram=built.histogram)
    assert stats.histogram.sum() == N * D
    for q in PERCENTILES:
        got, want = stats.activation_percentile(q), np.percentile(values.astype(np.float64), q)
        assert abs(got - want) <= 2**-11 * abs(want), (q, got, want)
