"""What users hand over: turned into the same numbers, or refused in one sentence that names it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracles
import pandas as pd
import pytest

from oodjax import Head, Outputs, TrainStatistics, detectors
from oodjax.arrays import class_indices
from oodjax.checks import LARGEST

CLASSES, FEATURES = oracles.CLASSES, oracles.FEATURES


def refuses(match, error=(ValueError, TypeError)):
    return pytest.raises(error, match=match)


def masked(hidden: bool) -> np.ma.MaskedArray:
    values = np.ma.masked_array(np.ones((3, 2)), mask=False)
    if hidden:
        values[1, 0] = np.ma.masked
    return values


# ---------------------------------------------------------------------------------------------------------------------
# Arrays

VALUES = np.array([[0.5, 2.0], [1.0, -3.0], [0.0, 0.25]])  # exact in every format below

KINDS = {
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(map(tuple, x)),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian double": lambda x: x.astype(">f8"),
    "long double": lambda x: x.astype(np.longdouble),
    "masked, nothing hidden": lambda x: np.ma.masked_array(x),
    "pandas": lambda x: pd.DataFrame(x),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_library_hold_the_same_numbers(kind):
    out = Outputs(logits=KINDS[kind](VALUES), features=KINDS[kind](VALUES), layer_means=KINDS[kind](VALUES))
    for value in (out.logits, out.features, out.layer_means):
        assert type(value) is np.ndarray and value.dtype.isnative and value.dtype.itemsize <= 8
        np.testing.assert_array_equal(value.astype(np.float64), VALUES)
    head = Head(KINDS[kind](VALUES), VALUES[0])
    np.testing.assert_array_equal(head(KINDS[kind](VALUES.T)), VALUES.T @ VALUES + VALUES[0])
    assert float(detectors.create("mls").score(out)[1]) == 1.0


def test_torch_tensors_with_a_gradient_or_in_bfloat16_hold_the_same_numbers():
    torch = pytest.importorskip("torch")
    logits = torch.tensor(VALUES, requires_grad=True)
    out = Outputs(logits=logits, features=torch.tensor(VALUES, dtype=torch.bfloat16))
    np.testing.assert_array_equal(out.logits, VALUES)
    np.testing.assert_array_equal(out.features, VALUES)


def test_booleans_are_zero_and_one():
    np.testing.assert_array_equal(Outputs(VALUES, VALUES > 0).features, (VALUES > 0).astype(np.float32))
    assert Outputs(VALUES, jnp.asarray(VALUES > 0)).features.dtype == jnp.float32


def test_arrays_on_a_device_stay_there():
    x = jnp.asarray(VALUES)
    with jax.transfer_guard("disallow"):
        out = Outputs(logits=x, features=x)
    assert out.logits is x and out.features is x


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (VALUES + 1j, r"Outputs.features must be an array of real numbers, got ndarray of complex128, shape \(3, 2\)"),
        (jnp.asarray(VALUES + 1j), r"Outputs.features must be an array of real numbers, got .* of complex64"),
        (VALUES.astype(str), "Outputs.features must be an array of real numbers, got ndarray of <U"),
        (VALUES.astype(object), "Outputs.features must be an array of real numbers, got ndarray of object"),
        (np.full((3, 2), np.datetime64("2020")), "Outputs.features must be .* got ndarray of datetime64"),
        (jax.random.split(jax.random.key(0), (3, 2)), "Outputs.features must be an array of real numbers, got .*key<"),
        ({"a": 1}, "Outputs.features must be an array of real numbers, got a dict"),
        ("features.npy", "Outputs.features must be an array of real numbers, got 'features.npy'"),
        (None, "Outputs.features must be an array of real numbers, got None"),
        ([[1.0, 2.0], [3.0], [4.0]], "Outputs.features cannot be made an array, got a list: "),
        (masked(True), "Outputs.features is a masked array with 1 masked entries: drop"),
        (3.0, r"Outputs.features must have shape \(n, features\), got shape \(\)"),
        (np.zeros((3, 0)), r"Outputs.features must have shape \(n, features\) with no empty axis, got shape \(3, 0\)"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_named(value, match):
    with refuses(match):
        Outputs(logits=VALUES, features=value)
    if "must have shape" not in match:
        with refuses(match.replace("Outputs.features", "Head.kernel")):
            Head(kernel=value, bias=np.zeros(2))


@pytest.mark.parametrize(
    ("kernel", "bias", "match"),
    [
        (VALUES, None, r"Head.bias is None: for a layer without bias pass zeros"),
        (VALUES.T, np.zeros(3), None),
        (VALUES, np.zeros(3), r"got \(3, 2\) and \(3,\): pass the kernel's transpose"),
        (VALUES * np.nan, np.zeros(2), "Head.kernel holds 6 values that are NaN or infinite"),
        (VALUES, [0.0, np.inf], "Head.bias holds 1 values that are NaN or infinite"),
        (np.zeros((0, 2)), np.zeros(2), r"Head needs kernel \(features, classes\)"),
    ],
)
def test_heads_are_checked(kernel, bias, match):
    if match is None:
        assert Head(kernel, bias).kernel.shape == (2, 3)
    else:
        with refuses(match):
            Head(kernel, bias)


def test_a_head_names_features_of_another_width():
    with refuses(r"Head takes features \(n, 3\), got \(3, 2\)"):
        Head(VALUES, np.zeros(2))(VALUES)


def test_one_sample_keeps_its_axis():
    out = Outputs(VALUES, VALUES)
    np.testing.assert_array_equal(out[1:2].logits, VALUES[1:2])
    np.testing.assert_array_equal(out[np.array([True, False, True])].logits, VALUES[::2])
    for index in (1, np.int64(1)):
        with refuses("Outputs take a slice or an index array, which keep the sample axis, got"):
            out[index]


# ---------------------------------------------------------------------------------------------------------------------
# JAX rebuilds the tree with whatever it likes


def test_outputs_and_head_are_pytrees_of_anything():
    for node in (Outputs(VALUES, VALUES, gram=np.ones((3, 2, 2))), Head(VALUES, VALUES[0])):
        leaves, structure = jax.tree.flatten(node)
        for filler in (None, object(), "x", jax.ShapeDtypeStruct((7,), np.float32), jax.sharding.PartitionSpec("b")):
            again = jax.tree.unflatten(structure, [filler] * len(leaves))
            assert type(again) is type(node) and again.__dict__.keys() == node.__dict__.keys()
            assert [v for v in again.__dict__.values() if v is not None] == [filler] * len(leaves) * (
                filler is not None
            )
        doubled = jax.eval_shape(lambda x: jax.tree.map(lambda y: jnp.concatenate([y, y]), x), node)
        assert [x.shape for x in jax.tree.leaves(doubled)] == [(2 * len(x), *x.shape[1:]) for x in leaves]
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(node)[0]]
        assert paths[0] in (".logits", ".kernel") and paths[1] in (".features", ".bias")


def test_outputs_go_through_vmap_scan_and_grad():
    x = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    batched = jax.vmap(lambda z: Outputs(z, 2 * z))(x)
    np.testing.assert_array_equal(batched.features, 2 * x)
    np.testing.assert_array_equal(jax.vmap(lambda out: out.logits.sum())(batched), x.sum(axis=(1, 2)))
    _, stacked = jax.lax.scan(lambda c, z: (c, Outputs(z, z)), 0.0, x)
    np.testing.assert_array_equal(stacked.logits, x)
    slope = jax.grad(lambda out: (out.logits * out.features).sum())(Outputs(x[0], x[1]))
    np.testing.assert_array_equal(slope.logits, x[1])


# ---------------------------------------------------------------------------------------------------------------------
# Labels

LABELS = np.array([0, 2, 1, 2])


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.tolist(),
        LABELS.astype(np.uint8),
        LABELS.astype(">i2"),
        LABELS.astype(np.uint64),
        LABELS.astype(np.float64),
        jnp.asarray(LABELS),
        pd.Series(LABELS),
        LABELS.astype(ml_dtypes.bfloat16),
    ],
)
def test_whole_numbers_of_any_type_are_labels(labels):
    got = class_indices(labels, 3, "x")
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, LABELS)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (LABELS == 1, r"x: labels must be whole numbers, .* got ndarray of bool, .*labels.astype\(int\)"),
        (LABELS.astype(str), "x: labels must be whole numbers, the class of every sample, got ndarray of <U"),
        (LABELS.astype(object), "x: labels must be whole numbers, .* got ndarray of object"),
        (LABELS + 0.5, "x: labels must be whole numbers, got 0.5 among them"),
        (np.array([0.0, np.nan]), "x: labels must be whole numbers, got nan among them"),
        (LABELS + 1, "x: labels must lie in 0..2, got 1..3; they seem to count from 1: subtract 1"),
        (LABELS - 1, "x: labels must lie in 0..2, got -1..1; -1 marks samples that are out-of-distribution"),
        (LABELS + 2**40, r"x: labels must lie in 0..2, got 1099511627776\.\.1099511627778$"),
        (np.array([2**64 - 1], np.uint64), r"x: labels must lie in 0..2, got 18446744073709551615\.\."),
        (np.eye(3), r"x: labels must have shape \(n,\), got \(3, 3\): from one-hot rows take labels.argmax\(axis=1\)"),
        (None, "x: labels must be an array of real numbers, got None"),
    ],
)
def test_what_is_no_label_is_named(labels, match):
    with refuses(match):
        class_indices(labels, 3, "x")


def test_minus_one_is_a_label_where_out_of_distribution_samples_may_be():
    np.testing.assert_array_equal(class_indices([-1, 2], 3, "x", ood=True), [-1, 2])
    with refuses("x: labels must lie in -1..2, got -2..0"):
        class_indices([-2, 0], 3, "x", ood=True)


# ---------------------------------------------------------------------------------------------------------------------
# Training statistics


def collect(change=None, **options):
    p = oracles.problem()
    return TrainStatistics.collect(p.train.replace(**(change or {})), p.head, **options)


@pytest.mark.parametrize("kind", ["list", "big-endian", "bfloat16", "pandas"])
def test_statistics_of_any_kind_of_array_are_the_same(kind):
    p = oracles.problem()
    convert = {**KINDS, "bfloat16": lambda x: np.asarray(x, np.float32)}[kind]
    train = Outputs(convert(np.asarray(p.train.logits)), convert(np.asarray(p.train.features)), p.train.labels.tolist())
    got = TrainStatistics.collect(train, Head(convert(np.asarray(p.head.kernel)), np.asarray(p.head.bias).tolist()))
    np.testing.assert_array_equal(got.second, oracles.stats().second)
    np.testing.assert_array_equal(got.label_counts, oracles.stats().label_counts)


def probabilities():
    return np.asarray(jax.nn.softmax(oracles.problem().train.logits))


@pytest.mark.parametrize(
    ("logits", "match"),
    [
        (
            probabilities,
            r"logits differ from head\(features\) by up to \d.*, where rounding explains .*before the soft",
        ),
        (lambda: np.log(probabilities()), r"logits differ .*check_head=False skips this"),
        (lambda: oracles.problem().train.logits / 2, r"logits differ from head\(features\)"),
        (lambda: oracles.problem().train.logits[::-1], r"logits differ from head\(features\)"),
    ],
)
def test_logits_that_are_not_the_heads_are_refused(logits, match):
    with refuses(f"TrainStatistics.collect: {match}"):
        collect({"logits": logits()})
    stats = collect({"logits": logits()}, check_head=False)
    assert stats.max_logit_sum == pytest.approx(logits().astype(np.float64).max(axis=1).sum(), rel=1e-6)


def test_the_difference_named_is_the_measured_one():
    p = oracles.problem()
    logits = np.array(p.train.logits)
    logits[5, 2] += 1000
    with refuses(r"by up to 1e\+03, where"):
        collect({"logits": logits})
    TrainStatistics.collect([p.train, p.train.replace(logits=logits)], p.head)  # the first batch alone is looked at


def test_a_bfloat16_network_passes():
    """Features, kernel and logits each rounded to bfloat16, at the width of a ResNet-50."""
    rng = np.random.default_rng(0)
    h = np.abs(rng.normal(size=(300, 2048))).astype(ml_dtypes.bfloat16)
    kernel = (0.05 * rng.normal(size=(2048, 10))).astype(np.float32)
    z = jnp.matmul(jnp.asarray(h), jnp.asarray(kernel, jnp.bfloat16), preferred_element_type=jnp.bfloat16)
    labels = rng.integers(0, 10, 300)
    stats = TrainStatistics.collect(Outputs(z, h, labels), Head(kernel, np.zeros(10)))
    assert stats.count == 300
    with refuses("before the softmax"):
        TrainStatistics.collect(Outputs(jax.nn.softmax(z), h, labels), Head(kernel, np.zeros(10)))


@pytest.mark.parametrize("field", ["gram", "layer_means"])
def test_fields_in_some_batches_only_are_refused(field):
    p = oracles.problem()
    without = p.train.replace(**{field: None})
    for batches, number in (([p.train, p.train, without], 2), ([without, p.train], 1)):
        with refuses(rf"TrainStatistics.collect: Outputs.{field} is .* in batch {number}, in the first it was"):
            TrainStatistics.collect(batches, p.head)
    narrow = p.train.replace(**{field: getattr(p.train, field)[..., :1]})
    with refuses(rf"Outputs.{field} is \(n, .*1\) in batch 1, in the first it was \(n, "):
        TrainStatistics.collect([p.train, narrow], p.head)


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        (
            {"logits": VALUES},
            r"takes Outputs\(logits=..., features=..., labels=...\) or an iterable of them, got a dict",
        ),
        (VALUES, r"or an iterable of them, got ndarray of float64, shape \(3, 2\)"),
        (None, "or an iterable of them, got None"),
        ([(VALUES, LABELS)], "batch 0 is a tuple; it takes Outputs"),
        ((VALUES, LABELS), "batch 0 is ndarray"),
        ([], "got no samples"),
    ],
)
def test_what_is_not_outputs_is_refused(batches, match):
    with refuses(f"TrainStatistics.collect.*{match}"):
        TrainStatistics.collect(batches, oracles.problem().head)


def test_what_is_not_a_head_is_refused():
    p = oracles.problem()
    with refuses(r"TrainStatistics.collect takes oodjax.Head\(kernel, bias\), .*got a tuple"):
        TrainStatistics.collect(p.train, (p.head.kernel, p.head.bias))
    broken = Head(jnp.asarray(p.head.kernel).at[0, 0].set(jnp.nan), p.head.bias)
    with refuses("TrainStatistics.collect: Head.kernel holds 1 values that are NaN"):
        TrainStatistics.collect(p.train, broken)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_magnitudes_that_float32_sums_do_not_carry_are_named(make):
    p, big = oracles.problem(), np.array(oracles.problem().train.features)
    big[3, 1] = -1e20
    with refuses(r"collect: Outputs.features reaches 1e\+20; float32 sums carry magnitudes up to 1e\+15"):
        collect({"features": make(big)}, check_head=False)
    with refuses(r"mds: Outputs.features reaches 1e\+20"):
        detectors.create("mds").fit(oracles.stats()).score(p.train.replace(features=make(big)))
    big[3, 1] = LARGEST
    scores = detectors.create("knn").fit(oracles.stats()).score(p.train.replace(features=make(big)))
    assert np.isfinite(scores).all()


def test_options_take_numpys_numbers_and_name_bad_ones():
    a, b = (
        collect(bank_fraction=np.float64(0.5), seed=np.int64(3), block=np.int32(64)),
        collect(bank_fraction=0.5, seed=3, block=64),
    )
    np.testing.assert_array_equal(a.features, b.features)
    for options, match in (
        ({"bank_fraction": "half"}, r"bank_fraction must lie in \(0, 1\], got 'half'"),
        ({"block": 2.5}, "block must be at least 1 and whole, got 2.5"),
        ({"seed": -1}, "seed must be at least 0 and whole, got -1"),
        ({"seed": None}, "seed must be at least 0 and whole, got None"),
    ):
        with refuses(match):
            collect(**options)
