"""What every detector promises, whatever its method: shapes, purity, invariances, degenerate and bad input."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import orbax.checkpoint as ocp
import pytest

import oodjax
from oodjax import detectors, metrics
from oodjax.detectors import NAMES, base, names

ALL = names()  # the study's and the later ones
every_detector = pytest.mark.parametrize("name", ALL)

FAMILIES = {
    "classification": ("msp", "mls", "ebo", "odin", "tempscale", "klm", "gen"),
    "feature": ("mds", "rmds", "knn", "she"),
    "hybrid": ("vim", "ash", "react", "dice", "scale", "nnguide", "fdbd"),
    "intermediate": ("gram", "ats"),
    "gradient": ("gradnorm",),
}


def fit_all(stats, validation) -> tuple[detectors.Detector, ...]:
    return tuple(detectors.create(name).fit(stats, validation=validation) for name in ALL)


def by_name(columns) -> dict[str, np.ndarray]:
    return dict(zip(ALL, np.asarray(columns).T, strict=True))


@cache
def fitted() -> tuple[detectors.Detector, ...]:
    return fit_all(oracles.stats(), oracles.problem().val)


def fitted_one(name: str) -> detectors.Detector:
    return fitted()[ALL.index(name)]


@cache
def expected() -> dict[str, np.ndarray]:
    return by_name(oracles.score_together(fitted(), oracles.problem().test))


def assert_same(got, name: str, want=None, rtol: float = 2e-5):
    """Equal but for the order of float32 sums, which a program of another shape may choose anew."""
    want = expected()[name] if want is None else want
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max(), err_msg=name)


def test_names_and_families():
    assert len(NAMES) == len(set(NAMES)) == 21
    assert [name for names in FAMILIES.values() for name in names] == list(NAMES)
    found = detectors.families()
    assert {name: found[name] for name in NAMES} == {n: family for family in FAMILIES for n in FAMILIES[family]}
    assert {d.family for d in fitted()} == set(FAMILIES)


# ---------------------------------------------------------------------------------------------------------------------
# Invariances


@every_detector
def test_score_is_one_finite_float32_a_sample(name):
    scores = fitted_one(name).score(oracles.problem().test)
    assert scores.shape == (oracles.TEST,) and scores.dtype == jnp.float32
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    assert_same(scores, name)


def test_jit_changes_nothing():
    with jax.disable_jit():
        for name in ("rmds", "vim", "fdbd"):  # uncompiled arithmetic is slow: three kinds of it
            assert_same(fitted_one(name).score(oracles.problem().test), name)


def test_a_second_score_compiles_nothing():
    det, test = fitted_one("ash"), oracles.problem().test
    det.score(test)
    programs = base._score_one._cache_size()
    other = detectors.create("ash").fit(oracles.stats("signed"))
    other.score(test)
    assert base._score_one._cache_size() == programs > 0


@cache
def split_scores() -> dict[str, np.ndarray]:
    test = oracles.problem().test
    halves = test[: oracles.TEST // 2], test[oracles.TEST // 2 :]
    return by_name(np.concatenate([oracles.score_together(fitted(), half) for half in halves]))


@every_detector
def test_a_batch_may_be_split(name):
    assert_same(split_scores()[name], name)


@cache
def padded_scores() -> dict[str, np.ndarray]:
    """Scores of the last twelve samples, with eight rows of other values behind them."""
    last = oracles.problem().test[-12:]
    padded = jax.tree.map(lambda x: np.concatenate([x, 7 * np.ones((8, *x.shape[1:]), x.dtype)]), last)
    return by_name(oracles.score_together(fitted(), padded)[:12])


@every_detector
def test_appended_rows_change_no_other(name):
    assert_same(padded_scores()[name], name, expected()[name][-12:])


@cache
def permuted_scores() -> dict[str, np.ndarray]:
    p, rng = oracles.problem(), np.random.default_rng(0)
    stats = oodjax.TrainStatistics.collect(p.train[rng.permutation(oracles.TRAIN)], p.head)
    val = p.val[rng.permutation(oracles.VAL)]
    return by_name(oracles.score_together(fit_all(stats, val), p.test))


@every_detector
def test_the_order_of_the_training_rows_does_not_matter(name):
    assert_same(permuted_scores()[name], name, rtol=5e-5)  # sums in another order, then an inverse


def test_inputs_stay_as_they_are():
    p = oracles.make(seed=9)
    before = jax.tree.map(np.copy, (p.train, p.val, p.test, p.head))
    stats = oodjax.TrainStatistics.collect(p.train, p.head)
    kept = {name: np.copy(value) for name, value in vars(stats).items() if isinstance(value, np.ndarray)}
    oracles.score_together(fit_all(stats, p.val), p.test)
    jax.tree.map(np.testing.assert_array_equal, before, (p.train, p.val, p.test, p.head))
    for name, value in kept.items():
        np.testing.assert_array_equal(getattr(stats, name), value, err_msg=name)


def test_weights_are_arguments_so_that_one_program_serves_all_models():
    expected()
    programs = oracles.score_together._cache_size()
    found = {}
    for variant in ("rectified", "signed", "sharp"):
        p = oracles.problem(variant)
        found[variant] = by_name(oracles.score_together(fit_all(oracles.stats(variant), p.val), p.test))
    assert oracles.score_together._cache_size() == programs
    for name in set(ALL) - {"odin"}:
        assert np.abs(found["rectified"][name] - found["signed"][name]).max() > 1e-3, name


def all_scores(dets, outputs) -> jax.Array:
    return jnp.stack([det.score(outputs) for det in dets], axis=1)


def test_score_can_be_jitted_by_the_user():
    """Detectors and outputs are arguments, so that one program serves every fit of the same shapes."""
    score = jax.jit(all_scores, compiler_options={"xla_backend_optimization_level": 0})
    for variant in ("rectified", "signed"):
        p = oracles.problem(variant)
        dets = fit_all(oracles.stats(variant), p.val)
        got, want = by_name(score(dets, p.test)), by_name(oracles.score_together(dets, p.test))
        for name in ALL:
            assert_same(got[name], name, want[name])
    assert score._cache_size() == 1


def test_score_can_be_mapped_by_the_user():
    """`vmap` over a leading axis of batches, and over single samples."""
    test = oracles.problem().test

    def score(fields):
        return all_scores(fitted(), oodjax.Outputs(**fields))

    run = jax.jit(jax.vmap(score), compiler_options={"xla_backend_optimization_level": 0})
    fields = {name: value for name, value in vars(test).items() if value is not None}
    for rows in (oracles.TEST // 2, 1):
        stacked = {name: np.reshape(value, (-1, rows, *value.shape[1:])) for name, value in fields.items()}
        got = by_name(np.asarray(run(stacked)).reshape(oracles.TEST, len(ALL)))
        for name in ALL:
            assert_same(got[name], name)


def test_fit_returns_a_copy():
    fresh = detectors.create("mds")
    done = fresh.fit(oracles.stats())
    assert fresh.params is None and set(done.params) == {"center", "within", "class_means"}
    for leaf in jax.tree.leaves(fitted()):
        assert isinstance(leaf, jax.Array) and leaf.dtype in (jnp.float32, jnp.int32)


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of input


@cache
def scores_from(kind: str) -> dict[str, np.ndarray]:
    p = oracles.problem()
    convert = {
        "jax": jnp.asarray,
        "float64": lambda x: x.astype(np.int64 if x.dtype == np.int32 else np.float64),
        "float16": lambda x: x if x.dtype == np.int32 else x.astype(np.float16),
        "rounded": lambda x: x if x.dtype == np.int32 else x.astype(np.float16).astype(np.float32),
    }[kind]
    train, val, test = (jax.tree.map(convert, x) for x in (p.train, p.val, p.test))
    stats = oodjax.TrainStatistics.collect(train, p.head)
    return by_name(oracles.score_together(fit_all(stats, val), test))


@every_detector
@pytest.mark.parametrize(("kind", "same_as"), [("jax", None), ("float64", None), ("float16", "rounded")])
def test_any_kind_of_array_is_accepted(name, kind, same_as):
    assert_same(scores_from(kind)[name], name, None if same_as is None else scores_from(same_as)[name])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16])
def test_a_single_score_takes_other_dtypes(dtype):
    test = jax.tree.map(lambda x: x if x.dtype == np.int32 else x.astype(dtype), oracles.problem().test)
    rounded = jax.tree.map(lambda x: x if x.dtype == np.int32 else x.astype(np.float32), test)
    for name in ("msp", "fdbd", "ats"):
        scores = fitted_one(name).score(test)
        assert scores.dtype == jnp.float32
        assert_same(scores, name, np.asarray(fitted_one(name).score(rounded)))


# ---------------------------------------------------------------------------------------------------------------------
# Keeping a fitted detector


def test_params_survive_orbax_without_pickle(tmp_path):
    params = {d.name: d.params for d in fitted() if jax.tree.leaves(d.params)}
    assert len(params) == len(ALL) - 8  # msp, mls, ebo, odin, gen, gradnorm, entropy and lts learn nothing
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", params)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "params", jax.eval_shape(lambda: params))
    assert not list(tmp_path.rglob("*.pkl"))
    restored = jax.tree.map(jnp.asarray, jax.device_get(restored))  # not bound to a device, so compiled already
    again = tuple(dataclasses.replace(d, params=restored.get(d.name, ())) for d in fitted())
    knn = dataclasses.replace(detectors.create("knn", **fitted_one("knn").options), params=restored["knn"])
    assert_same(knn.score(oracles.problem().test), "knn")  # as another process would: options and arrays
    for name, scores in by_name(oracles.score_together(again, oracles.problem().test)).items():
        np.testing.assert_array_equal(scores, expected()[name], err_msg=name)


@every_detector
def test_pytree_round_trip(name):
    det = fitted_one(name)
    leaves, structure = jax.tree.flatten(det)
    again = jax.tree.unflatten(structure, leaves)
    assert (again.name, again.options, again.family) == (name, det.options, det.family)
    assert jax.tree.structure(again) == structure and hash(structure) == hash(jax.tree.structure(again))
    moved = jax.tree.map(lambda x: x + 0, det)
    np.testing.assert_array_equal(moved.score(oracles.problem().test), det.score(oracles.problem().test))


# ---------------------------------------------------------------------------------------------------------------------
# Orientation


@cache
def separated() -> dict[str, float]:
    """AUROC of tight classes on axes of their own against features that no class uses, with flat logits."""
    rng, d, k = np.random.default_rng(0), oracles.FEATURES, oracles.CLASSES
    kernel, bias = np.eye(d, k, dtype=np.float32), np.zeros(k, np.float32)
    splits = []
    for size, ood in ((oracles.TRAIN, 0), (oracles.VAL, 0), (oracles.TEST, oracles.TEST // 2)):
        labels = np.arange(size) % k
        h = np.abs(0.3 * rng.normal(size=(size, d)))
        h[np.arange(size), labels] += 8
        h[:, k:] *= 0.3
        h[size - ood :] = np.abs(0.3 * rng.normal(size=(ood, d)))
        h[size - ood :, 12:18] += 2
        out = oracles.outputs_of(h, labels, kernel, bias, rng)
        maps = [rng.uniform(0.5, 1, (size, 3, 3, c)).astype(np.float32) for c in (5, 6)]
        for m in maps:
            m[size - ood :] *= 5
        gram, means = oracles.summarize(maps)
        odin = np.tile(np.asarray(jax.nn.softmax(out.logits)).max(axis=1)[:, None, None], (1, 4, 2))
        splits.append(out.replace(gram=np.asarray(gram), layer_means=np.asarray(means), odin=odin))
    train, val, test = splits
    stats = oodjax.TrainStatistics.collect(train, oodjax.Head(kernel, bias))
    # The defaults, but for a k and a tail below the samples of a class, a clipping point above the units that no class
    # uses, as many units as a class has, and the logits, since standardised units all vary alike.
    options = {
        "knn": {"k": 10},
        "react": {"percentile": 99},
        "vra": {"low": 0, "high": 99},
        "lts": {"percentile": 65},
        "neco": {"max_logit": True},
        "openmax": {"tail": 5},
    }
    dets = tuple(detectors.create(name, **options.get(name, {})).fit(stats, val) for name in ALL)
    scores = np.stack([d.score(test) for d in dets], axis=1)
    half = oracles.TEST // 2
    return {name: metrics.auroc(scores[:half, i], scores[half:, i]) for i, name in enumerate(ALL)}


@every_detector
def test_far_samples_score_lower(name):
    # ATS's statistic is two-sided, so that an ID sample at the edge of training may look as strange as a far one;
    # OpenMax gives the logit of an ID sample in its class's tail to the unknown class.
    assert separated()[name] >= {"ats": 0.95, "openmax": 0.9}.get(name, 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Degenerate problems: all finite, no warning


def rebuilt(p, train=None, val=None, test=None, kernel=None, bias=None) -> oracles.Problem:
    """The problem with other features, and the logits of its (other) head."""
    kernel = np.asarray(p.head.kernel if kernel is None else kernel, np.float32)
    bias = np.asarray(p.head.bias if bias is None else bias, np.float32)
    splits = []
    for old, h in ((p.train, train), (p.val, val), (p.test, test)):
        h = np.asarray(old.features if h is None else h, np.float32)
        splits.append(old.replace(features=h, logits=h @ kernel + bias))
    return oracles.Problem(*splits, oodjax.Head(kernel, bias))


def on_features(change):
    return lambda p: rebuilt(p, *(change(np.copy(x.features)) for x in (p.train, p.val, p.test)))


def dead_units(h):
    h[:, ::2] = 0
    return h


def constant_units(h):
    h[:, :5] = 0.7
    return h


def zero_rows(h):
    h[::4] = 0
    return h


def missing_class(p):
    return dataclasses.replace(p, train=p.train.replace(labels=np.where(p.train.labels == 3, 2, p.train.labels)))


def never_predicted(p):
    """Class 3 is never predicted in training, so none of its samples is correct, but it is in the tests."""
    low = np.where(np.arange(oracles.CLASSES) == 3, -1e4, 0).astype(np.float32)[None]
    return dataclasses.replace(p, train=p.train.replace(logits=p.train.logits + low))


def neither_labelled_nor_predicted(p):
    return missing_class(never_predicted(p))


def equal_logits(p):
    return rebuilt(p, kernel=np.zeros_like(p.head.kernel), bias=np.full_like(p.head.bias, 2.5))


def validation_without_a_class(p):
    return dataclasses.replace(p, val=p.val[np.flatnonzero(np.asarray(p.val.labels) != 0)])


def identical_rows(p):
    same = jax.tree.map(lambda x: np.repeat(x[:1], oracles.TRAIN, axis=0), p.train)
    return dataclasses.replace(p, train=same)


def one_row_a_class(p):
    """Each class is one row many times: no variance within the classes."""
    first = np.array([np.flatnonzero(np.asarray(p.train.labels) == c)[0] for c in range(oracles.CLASSES)])
    return dataclasses.replace(p, train=p.train[first[np.arange(oracles.TRAIN) % oracles.CLASSES]])


def float16(p):
    return oracles.Problem(
        *(
            jax.tree.map(lambda a: a.astype(np.float16) if a.dtype == np.float32 else a, split)
            for split in (p.train, p.val, p.test)
        ),
        p.head,
    )


def equal_weight_columns(p):
    kernel, bias = np.copy(p.head.kernel), np.copy(p.head.bias)
    kernel[:, 1], bias[1] = kernel[:, 0], bias[0]
    return rebuilt(p, kernel=kernel, bias=bias)


DEGENERATE = {
    "dead units": on_features(dead_units),
    "all units dead": on_features(lambda h: 0 * h),
    "constant units": on_features(constant_units),
    "all-zero rows": on_features(zero_rows),
    "huge features": on_features(lambda h: 1e4 * h),
    "tiny features": on_features(lambda h: 1e-6 * h),
    "test features far off": lambda p: rebuilt(p, test=1e4 * p.test.features),
    "a class without samples": missing_class,
    "a class never predicted": never_predicted,
    "a class neither labelled nor predicted": neither_labelled_nor_predicted,
    "equal logits everywhere, zero head": equal_logits,
    "zero head and bias": lambda p: rebuilt(p, kernel=0 * p.head.kernel, bias=0 * p.head.bias),
    "two equal weight columns": equal_weight_columns,
    "identical training rows": identical_rows,
    "one row a class": one_row_a_class,
    "float16": float16,
    "validation without a class": validation_without_a_class,
    "one validation sample": lambda p: dataclasses.replace(p, val=p.val[:1]),
    "one test sample": lambda p: dataclasses.replace(p, test=p.test[:1]),
    "one training sample": lambda p: dataclasses.replace(p, train=p.train[:1]),
    "two classes": lambda p: oracles.make(k=2, seed=4),
    "one feature": lambda p: oracles.make(d=1, k=2, seed=4),
    "logits of a million": lambda p: rebuilt(p, kernel=1e5 * p.head.kernel),
}


# Problems of a shape of their own are compiled anew: once is enough, and the study's detectors are.
OWN_SHAPE = ("one training sample", "two classes", "one feature", "one test sample")
CASES = [("rectified", case, NAMES if case in OWN_SHAPE else ALL) for case in DEGENERATE]
CASES += [("signed", case, ALL) for case in DEGENERATE if case not in OWN_SHAPE]
CASES += [pytest.param("rectified", case, ALL[21:], marks=pytest.mark.slow) for case in OWN_SHAPE]


@pytest.mark.parametrize(("variant", "case", "which"), CASES)
def test_degenerate_problems_give_finite_scores(case, variant, which):
    p = DEGENERATE[case](oracles.problem(variant))
    stats = oodjax.TrainStatistics.collect(p.train, p.head, check_head=False)  # some logits are moved by hand
    options = {name: {"percentile": 0} for name in ("ash", "scale", "lts")} if stats.dim == 1 else {}
    dets = tuple(detectors.create(name, **options.get(name, {})).fit(stats, p.val) for name in which)
    scores = np.asarray(oracles.score_together(dets, p.test))
    assert scores.shape == (len(p.test), len(which))
    assert [name for name, ok in zip(which, np.isfinite(scores).all(axis=0), strict=True) if not ok] == []


def test_classes_of_one_repeated_row_have_no_within_class_distance():
    """Rounding noise must not pass for variance: the within-class covariance of such a problem is zero."""
    p = one_row_a_class(oracles.problem())
    stats = oodjax.TrainStatistics.collect(p.train, p.head)
    np.testing.assert_array_equal(detectors.create("mds").fit(stats).score(p.test), np.zeros(oracles.TEST))


def test_vim_without_a_residual_is_the_energy():
    """All of training is one direction, or `dim` is all of them."""
    p = oracles.problem()
    along = np.abs(np.random.default_rng(0).normal(size=oracles.FEATURES)).astype(np.float32)
    line = rebuilt(
        p, train=p.train.features[:, :1] * along, kernel=along[:, None] * p.head.kernel, bias=0 * p.head.bias
    )
    for problem, options in ((line, {}), (p, {"dim": oracles.FEATURES})):
        stats = oodjax.TrainStatistics.collect(problem.train, problem.head)
        got = detectors.create("vim", **options).fit(stats).score(p.test)
        np.testing.assert_array_equal(got, detectors.create("ebo").score(p.test))
    assert detectors.search_space("vim", stats)[1] == []
    notes = detectors.search_space("vim", oodjax.TrainStatistics.collect(line.train, line.head))[1]
    assert notes == [("vim", "the energy alone, since training has rank 1 and no residual", False)]


# ---------------------------------------------------------------------------------------------------------------------
# Bad input: one ValueError that names what is wrong


def refuses(match):
    return pytest.raises(ValueError, match=match)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"logits": (3,)}, r"Outputs.logits must have shape \(n, classes\), got shape \(3,\)"),
        ({"features": (3, 2, 1)}, r"Outputs.features must have shape \(n, features\), got shape \(3, 2, 1\)"),
        ({"features": (4, 2)}, r"number of samples: .*'logits': 3, 'features': 4"),
        ({"labels": (3, 1)}, r"Outputs.labels must have shape \(n,\)"),
        ({"labels": (2,)}, r"number of samples: .*'labels': 2"),
        ({"gram": (3, 4)}, r"Outputs.gram must have shape \(n, powers, channels\)"),
        ({"layer_means": (3,)}, r"Outputs.layer_means must have shape \(n, layers\)"),
        ({"odin": (3, 2)}, r"Outputs.odin must have shape \(n, temperatures, noises\)"),
    ],
)
def test_outputs_check_their_shapes(fields, match):
    shapes = {"logits": (3, 2), "features": (3, 2), **fields}
    with refuses(match):
        oodjax.Outputs(**{name: np.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize(("kernel", "bias"), [((4, 3), (4,)), ((4,), (4,)), ((4, 3), (3, 1))])
def test_head_checks_its_shapes(kernel, bias):
    with refuses(r"Head needs kernel \(features, classes\) and bias \(classes,\)"):
        oodjax.Head(np.zeros(kernel), np.zeros(bias))


@every_detector
def test_score_names_the_field_that_is_not_finite(name):
    for field in fitted_one(name).needs:
        for bad in (np.nan, np.inf, -np.inf):
            broken = np.array(getattr(oracles.problem().test, field))
            broken.flat[5] = bad
            with refuses(rf"{name}: Outputs.{field} holds 1 values that are NaN or infinite"):
                fitted_one(name).score(oracles.problem().test.replace(**{field: broken}))


def test_score_refuses_numbers_beyond_float32():
    logits = oracles.problem().test.logits.astype(np.float64)
    logits[0, 0] = 1e39
    with refuses("msp: Outputs.logits holds 1 values"):
        fitted_one("msp").score(oracles.problem().test.replace(logits=logits))


@every_detector
def test_score_names_the_field_of_another_width(name):
    for field in set(fitted_one(name).needs) - {"odin"}:
        wide = np.array(getattr(oracles.problem().test, field))
        wide = np.concatenate([wide, wide[..., :1]], axis=-1)
        with refuses(rf"{name}: Outputs.{field} .*{wide.shape[-1]}"):
            fitted_one(name).score(oracles.problem().test.replace(**{field: wide}))


def test_odin_names_the_axes_it_expects():
    test = oracles.problem().test
    with refuses(r"odin: Outputs.odin must have shape \(n, 4, 2\) .* got \(n, 4, 1\)"):
        fitted_one("odin").score(test.replace(odin=test.odin[:, :, :1]))
    det = detectors.create("odin", temperature=10, noise=0.1, temperatures=[5, 10], noises=[0.1])
    np.testing.assert_array_equal(det.score(test.replace(odin=test.odin[:, :2, :1])), test.odin[:, 1, 0])


@every_detector
def test_score_before_fit(name):
    det = detectors.create(name)
    if det.method.fit is None:
        assert det.score(oracles.problem().test).shape == (oracles.TEST,)
    else:
        with refuses(rf"{name} is not fitted: call"):
            det.score(oracles.problem().test)


@pytest.mark.parametrize(("name", "field"), [("odin", "odin"), ("gram", "gram"), ("ats", "layer_means")])
def test_missing_fields_are_named_with_the_way_to_get_them(name, field):
    hint = "oodjax.odin_scores" if name == "odin" else "oodjax.summarize"
    with refuses(rf"{name} needs Outputs.{field}, which is None: {hint}"):
        fitted_one(name).score(oracles.problem().test.replace(**{field: None}))
    if name != "odin":
        p = oracles.problem()
        stats = oodjax.TrainStatistics.collect(p.train.replace(**{field: None}), p.head)
        with refuses(rf"{name}: the training statistics lack `{field}`.*{hint}"):
            detectors.create(name).fit(stats)


def test_training_outputs_are_checked():
    p = oracles.problem()
    collect = oodjax.TrainStatistics.collect
    bad = np.array(p.train.features)
    bad[3, 3] = np.nan
    shifted = np.asarray(p.train.labels) + 1
    for change, match in (
        ({"labels": None}, r"TrainStatistics.collect needs Outputs.labels"),
        ({"labels": shifted}, r"labels must lie in 0..6, got 1..7"),
        ({"labels": shifted - 2}, r"labels must lie in 0..6, got -1..5"),
        ({"labels": shifted.astype(np.float32) - 0.5}, r"labels must be whole numbers, got \d\.5 among them"),
        ({"features": bad}, r"Outputs.features holds 1 values"),
        ({"logits": p.train.logits[:, :6]}, r"24 features and 6 classes, the head's kernel has shape \(24, 7\)"),
    ):
        with refuses(match):
            collect(p.train.replace(**change), p.head)
    for fraction in (0, -0.1, 1.5, float("nan")):
        with refuses(r"bank_fraction must lie in \(0, 1\]"):
            collect(p.train, p.head, bank_fraction=fraction)
    for block in (0, -1):
        with refuses(r"block must be at least 1"):
            collect(p.train, p.head, block=block)
    with refuses("no samples"):
        collect([], p.head)
    with refuses("without samples"):
        collect(p.train[:0], p.head)


def test_tempscale_needs_labelled_validation_outputs_of_its_own_classes():
    p, det = oracles.problem(), detectors.create("tempscale")
    for validation in (None, p.val.replace(labels=None)):
        with refuses(r"tempscale needs the labelled ID validation outputs: det.fit\(stats, validation=outputs\)"):
            det.fit(oracles.stats(), validation=validation)
    with refuses("tempscale needs at least one ID validation sample"):
        det.fit(oracles.stats(), validation=p.val.replace(labels=np.full(oracles.VAL, -1)))
    with refuses(r"tempscale: validation: labels must lie in -1..6, got 7..7"):
        det.fit(oracles.stats(), validation=p.val.replace(labels=np.full(oracles.VAL, 7)))
    with refuses("tempscale: Outputs.logits holds"):
        det.fit(oracles.stats(), validation=p.val.replace(logits=p.val.logits * np.nan))
    with_ood = jax.tree.map(lambda a, b: np.concatenate([a, b[-10:]]), p.val, p.test)
    again = det.fit(oracles.stats(), validation=with_ood)  # rows of label -1 are left out
    assert float(again.params["temperature"]) == float(fitted_one("tempscale").params["temperature"])


def test_names_and_keywords_are_checked():
    for call in (detectors.create, detectors.grid):
        with refuses(r"unknown detector 'vimm'; there are: msp, mls, .*gradnorm"):
            call("vimm")
    with refuses("unknown detector 'vimm'"):
        detectors.search_space("vimm", oracles.stats())
    with refuses(r"vim has no hyper-parameter dims; it takes: dim"):
        detectors.create("vim", dims=3)
    with refuses(r"msp has no hyper-parameter k; it takes: none"):
        detectors.create("msp", k=3)


@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("odin", "temperature", (7, "1", None, True)),
        ("odin", "noise", (0.5, "x", None)),
        ("odin", "temperatures", (1, (), "x", (None,))),
        ("odin", "noises", (0.1, (), "x", (None,))),
        ("gen", "gamma", (0, -1, "x", None, True, float("nan"), float("inf"))),
        ("gen", "top_m", (0, -1, 2.5, "x", None, True)),
        ("knn", "k", (0, -1, 2.5, "x", True)),
        ("vim", "dim", (0, -1, 2.5, "x", True)),
        ("ash", "percentile", (-1, 100.5, "x", None, True, float("nan"))),
        ("scale", "percentile", (-1, 100.5, "x", None)),
        ("react", "percentile", (-1, 100.5, "x", None)),
        ("dice", "percentile", (-1, 100.5, "x", None)),
        ("nnguide", "k", (0, 2.5, "x")),
        ("nnguide", "fraction", (0, -0.1, 1.5, "x")),
        ("fdbd", "distance_as_normalizer", (None, 1, "yes")),
        ("gram", "divide_by_confidence", (None, 1, "yes")),
        ("gram", "powers", (None, 3, (), (0,), (1.5,), ("x",))),
        ("ats", "tail", ("both", None, 1, ["left"])),
        ("openmax", "alpha", (0, -1, 2.5, "x", None, True)),
        ("openmax", "tail", (0, 2.5, "x", None, True)),
        ("residual", "dim", (-1, 2.5, "x", True)),
        ("mdspp", "relative", (None, 1, "yes")),
        ("neco", "dim", (0, -1, 2.5, "x", True)),
        ("neco", "max_logit", (None, 1, "yes")),
        ("nci", "alpha", (-1, "x", None, True, float("nan"), float("inf"))),
        ("vra", "low", (-1, 100.5, "x", None)),
        ("vra", "high", (-1, 100.5, "x", None)),
        ("lts", "percentile", (-1, 100.5, "x", None)),
        ("cadref", "decoupled", (None, 1, "yes")),
        ("relation", "power", (0, -1, "x", None, float("nan"))),
        ("relation", "fraction", (0, -0.1, 1.5, "x")),
    ],
)
def test_values_out_of_range_are_refused(name, option, values):
    for value in values:
        with refuses(rf"{name}: .*{option}"):
            detectors.create(name, **{option: value})
