"""Losses, augmentations and attacks by hand; the trainer by what each knob does to the weights."""

from __future__ import annotations

import importlib
import json
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from oodjax.data import digits
from oodjax.models import ResNetConfig, initialize
from oodjax.models.normalize import normalize
from oodjax.training import CATEGORIES, PGD, RECIPES, Recipe, augmentations, losses, recipes, train

T = importlib.import_module("oodjax.training.train")  # the package's attribute of this name is the function
CONFIG = ResNetConfig.study()
MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
PIXELS = T.Pixels(jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32))
BASE = Recipe("base", "baseline", epochs=1, batch_size=8, augment=())
PAIR = replace(BASE, objective="supcon", augment=("views",))


def toy_data(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares at a place that tells the class."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 80, (n, 16, 16, 3)).astype(np.uint8), np.arange(n) % 3
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 6, 4:10] += 150
    return images, labels


def pixels(n: int = 8, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).random((n, 16, 16, 3)), jnp.float32)


def one_hot(n: int = 8, classes: int = 8) -> jax.Array:
    return jnp.asarray(np.eye(classes, dtype=np.float32)[np.arange(n) % classes])


def run(recipe: Recipe, seed: int = 0, n: int = 20) -> dict[tuple, np.ndarray]:
    state = train(recipe, CONFIG, *toy_data(n), MEAN, STD, seed)
    return {path: np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """- sum t log softmax(z), its mean over the batch."""
    log_shares = logits - jax.scipy.special.logsumexp(logits, axis=1, keepdims=True)
    return -(targets * log_shares).sum(axis=1).mean()


def distance(a: dict[tuple, np.ndarray], b: dict[tuple, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[path] - b[path]).max()) for path in a)


# losses


def test_supcon_equals_its_formula() -> None:
    """Khosla et al., eq. 2, one anchor and one positive at a time in float64; the length of the rows is irrelevant."""
    rng = np.random.default_rng(1)
    z, labels, t = rng.normal(size=(10, 5)), np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 2]), 0.3
    unit, total = z / np.linalg.norm(z, axis=1, keepdims=True), 0.0
    for i in range(10):
        others = [a for a in range(10) if a != i]
        denominator = sum(np.exp(unit[i] @ unit[a] / t) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        total -= sum(np.log(np.exp(unit[i] @ unit[p] / t) / denominator) for p in positives) / len(positives)
    found = losses.contrastive(jnp.asarray(3 * z, jnp.float32), jnp.asarray(labels), t)
    np.testing.assert_allclose(found, total / 10, rtol=1e-5)
    other = losses.contrastive(jnp.asarray(z, jnp.float32), jnp.asarray(labels), 0.6)
    assert abs(float(other) - float(found)) > 0.1


def test_simclr_is_supcon_with_instances_as_labels() -> None:
    """NT-Xent (Chen et al., eq. 1): the other view is row i + n."""
    z = np.random.default_rng(2).normal(size=(8, 5))
    unit, n, t = z / np.linalg.norm(z, axis=1, keepdims=True), 4, 0.5
    similarity = np.exp(unit @ unit.T / t)
    np.fill_diagonal(similarity, 0)
    rows = np.arange(2 * n)
    expected = -np.log(similarity[rows, (rows + n) % (2 * n)] / similarity.sum(axis=1)).mean()
    labels = jnp.asarray(np.tile(np.arange(n), 2))
    np.testing.assert_allclose(losses.contrastive(jnp.asarray(z, jnp.float32), labels, t), expected, rtol=1e-5)


# augmentations


def test_mix_by_hand() -> None:
    images, targets = pixels(3), one_hot(3, 3)
    mixed, labels = augmentations.mix(images, targets, jnp.asarray([0.25, 1.0, 0.5]))
    np.testing.assert_allclose(mixed[0], 0.25 * images[0] + 0.75 * images[2], rtol=1e-5)
    np.testing.assert_array_equal(mixed[1], images[1])
    np.testing.assert_allclose(labels, [[0.25, 0, 0.75], [0, 1, 0], [0, 0.5, 0.5]])


def test_paste_by_hand() -> None:
    """A 4 x 8 box is an eighth of the image; an empty box changes nothing."""
    images, targets = pixels(3), one_hot(3, 3)
    low, high = jnp.asarray([[2, 4], [0, 0], [5, 5]]), jnp.asarray([[6, 12], [16, 16], [5, 9]])
    pasted, labels = augmentations.paste(images, targets, low, high)
    expected = np.array(images)
    expected[0, 2:6, 4:12] = images[2, 2:6, 4:12]
    expected[1] = images[0]
    np.testing.assert_array_equal(pasted, expected)
    np.testing.assert_allclose(labels, [[0.875, 0, 0.125], [1, 0, 0], [0, 0, 1]])


def test_cutmix_labels_match_its_boxes() -> None:
    """With constant images the mean pixel tells the share of each."""
    n = 16
    images = jnp.broadcast_to(jnp.arange(n, dtype=jnp.float32)[:, None, None, None] % 2, (n, 16, 16, 3))
    mixed, targets = augmentations.cutmix(jax.random.key(0), images, one_hot(n, 2))
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets[:, 1], atol=1e-6)
    assert len(np.unique(np.asarray(targets))) > n // 2


def test_warp_by_hand() -> None:
    images, one, nothing = pixels(2), jnp.ones(2), jnp.zeros(2)
    identity = augmentations.affine_matrix(nothing, nothing, nothing, one)
    np.testing.assert_allclose(augmentations.warp(images, identity, jnp.zeros((2, 2))), images, atol=1e-6)
    moved = augmentations.warp(images, identity, jnp.asarray([[3.0, 0.0], [0.0, -1.0]]))
    np.testing.assert_allclose(moved[0, :13], images[0, 3:], atol=1e-6)
    np.testing.assert_array_equal(moved[0, 13:], 0)
    np.testing.assert_allclose(moved[1, :, 1:], images[1, :, :-1], atol=1e-6)
    turned = augmentations.warp(
        images, augmentations.affine_matrix(one * np.pi / 2, nothing, nothing, one), jnp.zeros((2, 2))
    )
    np.testing.assert_allclose(turned[:, 1:-1, 1:-1], np.rot90(images, -1, axes=(1, 2))[:, 1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize("name", augmentations.AUGMENTATIONS)
def test_augmentation_contract(name: str) -> None:
    """Pixels stay in 0..1, labels probabilities; the key decides; only mixing changes labels."""
    apply = T._compiled(augmentations.AUGMENTATIONS[name])
    images, targets = pixels(), one_hot()
    first, labels = apply(jax.random.key(0), images, targets)
    again, other = apply(jax.random.key(0), images, targets), apply(jax.random.key(1), images, targets)
    assert first.shape == images.shape and first.dtype == images.dtype
    assert 0 <= float(first.min()) and float(first.max()) <= 1
    np.testing.assert_array_equal(first, again[0])
    assert float(jnp.abs(first - images).max()) > 0.05 and float(jnp.abs(first - other[0]).max()) > 0.05
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
    assert bool((labels != targets).any()) == (name in augmentations.MIXES_LABELS)


def test_shift_moves_by_up_to_two_pixels() -> None:
    images = pixels(16)
    shifted, _ = augmentations.shift(jax.random.key(0), images, one_hot(16))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = set()
    for image, source in zip(np.asarray(shifted), padded, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(image, source[i : i + 16, j : j + 16])]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 5


# attacks


@partial(jax.jit, static_argnames="graphdef")
def logits(graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array, scaling: Any = PIXELS) -> jax.Array:
    return nnx.merge(graphdef, state)(normalize(x, *scaling)).logits


@pytest.fixture(scope="module")
def network() -> tuple:
    graphdef, state = nnx.split(initialize(CONFIG, 0))
    return graphdef, nnx.merge_state(state, train(replace(BASE, epochs=4), CONFIG, *toy_data(), MEAN, STD))


@pytest.mark.slow
@pytest.mark.parametrize("attack", [PGD("l2", 0.5, 5, 0.2), PGD("linf", 0.04, 5, 0.02)], ids=lambda a: a.norm)
def test_attack_stays_in_its_ball_and_raises_the_loss(network: tuple, attack: PGD) -> None:
    graphdef, state = network
    images, targets = pixels(), one_hot()
    images = images.at[0].set(0.0).at[1].set(1.0)

    def loss(x: jax.Array) -> float:
        return float(cross_entropy(logits(graphdef, state, x), targets))

    found = attack(graphdef, state, images, targets, jax.random.key(0), *PIXELS)
    assert 0 <= float(found.min()) and float(found.max()) <= 1
    delta = np.asarray(found, np.float64) - np.asarray(images, np.float64)
    sizes = np.abs(delta).max(axis=(1, 2, 3)) if attack.norm == "linf" else np.sqrt((delta**2).sum(axis=(1, 2, 3)))
    assert (sizes <= attack.eps).all() and (sizes > 0.5 * attack.eps).any()
    assert loss(found) > loss(images) + 0.05
    weaker = replace(attack, eps=attack.eps / 4, step_size=attack.step_size / 4)
    assert loss(images) < loss(weaker(graphdef, state, images, targets, jax.random.key(0), *PIXELS)) < loss(found)


def test_attack_by_hand(network: tuple) -> None:
    """One long step from anywhere ends, with linf, at the sign of the gradient there."""
    graphdef, state = network
    images, targets = 0.4 + 0.2 * pixels(), one_hot()
    found = PGD("linf", 1e-3, 1, 1.0)(graphdef, state, images, targets, jax.random.key(0), *PIXELS)

    def loss(x: jax.Array) -> jax.Array:
        return cross_entropy(logits(graphdef, state, x), targets)

    expected = 1e-3 * jnp.sign(jax.jit(jax.grad(loss))(images))
    agree = np.isclose(found - images, expected, rtol=1e-3, atol=0)
    assert agree.mean() > 0.9  # the random start lies elsewhere in the ball


# the trainer


def test_learning_rates_by_hand() -> None:
    recipe = replace(BASE, epochs=5, learning_rate=0.2)
    rates = T.learning_rates(recipe, 2)
    cosine = [0.1 * (1 + np.cos(np.pi * i / 8)) for i in range(8)]
    np.testing.assert_allclose(rates, [0.1, 0.2, *cosine], rtol=1e-14)
    for epochs, per_epoch, expected in ((1, 1, [0.2]), (1, 2, [0.2, 0.2]), (2, 1, [0.2, 0.2]), (1, 3, [0.2, 0.2, 0.1])):
        found = T.learning_rates(replace(recipe, epochs=epochs), per_epoch)
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_supervised_step_by_hand() -> None:
    """First step of SGD with Nesterov momentum 0.9: p - lr * 1.9 (gradient + decay p), where p is trained."""
    graphdef, params, statistics = nnx.split(initialize(CONFIG, 0), nnx.Param, ...)
    images, targets = pixels(), one_hot()

    def loss(params: nnx.State) -> jax.Array:
        out = nnx.merge(graphdef, params, statistics, copy=True)(normalize(images, *PIXELS), train=True)
        return cross_entropy(out.logits, 0.9 * targets + 0.1 / 8)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    old = jax.tree.map(np.array, params)  # the step takes the buffers
    recipe = replace(BASE, freeze="spatial_filters", weight_decay=0.01, label_smoothing=0.1, ema_decay=0.5)
    carry, knobs = T._start(recipe, (params, statistics))
    knobs = knobs._replace(learning_rate=np.float32(0.1))
    carry, found = T.supervised_step(graphdef, carry, images, targets, knobs, PIXELS)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    new, average = dict(nnx.to_flat_state(carry.params)), dict(nnx.to_flat_state(carry.average[0]))
    for (path, p), (_, g) in zip(nnx.to_flat_state(old), nnx.to_flat_state(gradient), strict=True):
        frozen = len(p.shape) == 4 and p.shape[0] > 1
        step = 0.0 if frozen else 0.19 * (np.asarray(g[...]) + 0.01 * np.asarray(p[...]))
        np.testing.assert_allclose(new[path][...], p[...] - step, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(average[path][...], p[...] - step / 2, rtol=1e-4, atol=1e-6)


CHANGES = {
    "epochs": (BASE, 2),
    "batch_size": (BASE, 9),
    "learning_rate": (BASE, 0.05),
    "weight_decay": (BASE, 0.1),
    "label_smoothing": (BASE, 0.2),
    "ema_decay": (BASE, 0.5),
    "augment": (BASE, ("noise",)),
    "attack": (BASE, PGD("linf", 0.05, 1, 0.05)),
    "objective": (PAIR, "simclr"),
    "freeze": (BASE, "spatial_filters"),
    "temperature": (PAIR, 0.5),
}


@pytest.fixture(scope="module")
def results() -> dict[Recipe, dict]:
    return {recipe: run(recipe) for recipe in (BASE, PAIR)}


def test_every_field_is_in_the_table() -> None:
    assert {f.name for f in fields(Recipe)} - {"name", "category"} == CHANGES.keys()


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_weights(results: dict, field: str) -> None:
    recipe, value = CHANGES[field]
    assert distance(results[recipe], run(replace(recipe, **{field: value}))) > 1e-4


def test_seed_decides_everything(results: dict) -> None:
    for recipe, expected in results.items():
        assert distance(expected, run(recipe)) == 0
        assert distance(expected, run(recipe, seed=1)) > 1e-2


def test_frozen_filters_keep_their_start() -> None:
    start = {p: np.asarray(leaf[...]) for p, leaf in nnx.to_flat_state(nnx.state(initialize(CONFIG, 0)))}
    found = run(replace(BASE, freeze="spatial_filters", ema_decay=0.9))
    spatial = [p for p, x in start.items() if x.ndim == 4 and x.shape[0] == 3]
    assert len(spatial) == 5  # the stem and one a stage
    for path in start:
        assert np.array_equal(start[path], found[path]) == (path in spatial), path


def test_recipes_share_their_programs() -> None:
    """Whatever a recipe's numbers and whichever the recipe: nothing compiles but augmentations not yet seen."""
    compiled: list[str] = []

    def listen(event: str, seconds: float, **facts: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(facts.get("fun_name")))

    def augment(recipe: Recipe) -> None:
        T._augment(recipe.functions, jax.random.key(0), np.asarray(pixels()), np.asarray(one_hot()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 1)(1)
        assert len(compiled) == 1  # the listener hears
        for recipe in (BASE, PAIR, replace(BASE, attack=PGD("l2", 1.0, 1, 0.1))):
            run(recipe)
        for recipe in RECIPES.values():
            augment(recipe)
        compiled.clear()
        for recipe in RECIPES.values():
            run(replace(recipe, epochs=1, batch_size=8))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    assert len(RECIPES) >= 17 and {recipe.category for recipe in RECIPES.values()} == set(CATEGORIES)


def test_linear_probe_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    rows = rng.normal(size=(90, 4)) * [1, 2, 5, 0] + np.eye(4)[labels] + 3
    kernel, bias = T.linear_probe(rows, labels, 3, penalty=0.01)
    scaled = (rows - rows.mean(axis=0)) / np.array([*rows.std(axis=0)[:3], 1])
    expected = LogisticRegression(C=1 / (90 * 0.01), tol=1e-8, max_iter=1000).fit(scaled, labels)
    log_odds = expected.decision_function(scaled)
    found = rows @ kernel + bias
    np.testing.assert_allclose(found - found.mean(axis=1, keepdims=True), log_odds, atol=2e-3)
    assert np.abs(T.linear_probe(rows, labels, 3, penalty=1.0)[0] - kernel).max() > 0.1


def test_linear_probe_of_two_classes_and_of_absent_ones() -> None:
    """Two columns w and -w under the penalty of both: scikit-learn's single column 2 w under half of it."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    labels = np.arange(80) % 2
    rows = rng.normal(size=(80, 3)) + np.eye(3)[labels]
    kernel, bias = T.linear_probe(rows, labels, 2, penalty=0.01)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    expected = LogisticRegression(C=2 / (80 * 0.01), tol=1e-8, max_iter=1000).fit(scaled, labels)
    found = rows @ kernel + bias
    np.testing.assert_allclose(found[:, 1] - found[:, 0], expected.decision_function(scaled), atol=2e-3)
    kernel, bias = T.linear_probe(rows, labels, 4, penalty=0.01)
    assert kernel.shape == (3, 4) and (np.argmax(rows @ kernel + bias, axis=1) < 2).all()


def test_a_recipe_of_ones_own() -> None:
    """Any function of (key, images, targets) is an augmentation."""
    recipe = replace(BASE, name="dark", augment=("shift", darken(0.5)))
    assert distance(run(recipe), run(replace(BASE, augment=("shift",)))) > 1e-4


def darken(share: float) -> Any:
    def dark(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return images * share, targets

    return dark


DESCRIBED = {field: value for field, (_, value) in CHANGES.items()} | {"augment": (darken(0.5),)}


@pytest.mark.parametrize("field", CHANGES)
def test_the_description_holds_every_field_that_decides_the_weights(field: str) -> None:
    recipe, _ = CHANGES[field]
    described = recipe.describe()
    assert described == json.loads(json.dumps(described))
    assert replace(recipe, **{field: DESCRIBED[field]}).describe() != described


def test_the_description_holds_nothing_else() -> None:
    assert replace(BASE, name="other", category="improved").describe() == BASE.describe()
    assert "name" not in BASE.describe() and "category" not in BASE.describe()
    by_name, by_function = replace(BASE, augment=("shift",)), replace(BASE, augment=[augmentations.shift])
    assert by_name.describe() == by_function.describe()
    numbers = {"epochs": np.int64(1), "batch_size": np.uint8(8), "learning_rate": np.float64(0.1), "ema_decay": 0}
    assert replace(BASE, **numbers).describe() == BASE.describe()


def test_the_description_follows_the_source_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    described = [replace(BASE, augment=(darken(share),)).describe() for share in (0.5, 0.25)]
    assert described[0] != described[1] and described[0]["augment"][0]["name"].endswith("dark")
    monkeypatch.setitem(recipes.FREEZE, "none", lambda path, shape: len(shape) == 1)
    assert BASE.describe()["freeze"]["source"] != FREEZE_NOTHING
    attack = RECIPES["adversarial_l2_0.5"].describe()["attack"]
    assert {k: v for k, v in attack.items() if k != "source"} == {
        "norm": "l2",
        "eps": 0.5,
        "steps": 3,
        "step_size": 0.25,
    }
    assert len({json.dumps(recipe.describe()) for recipe in RECIPES.values()}) == len(RECIPES)
    space: dict = {}
    exec("def unknown(key, images, targets):\n    return images, targets", space)
    with pytest.raises(ValueError, match="unknown has no fingerprint.*version"):
        replace(BASE, augment=(space["unknown"],)).describe()


FREEZE_NOTHING = BASE.describe()["freeze"]["source"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["simclr", "supcon"])
def test_contrastive_training_ends_in_a_head_that_reads_the_encoder(objective: str) -> None:
    images, labels = toy_data(60)
    state = train(replace(PAIR, objective=objective, epochs=3), CONFIG, images, labels, MEAN, STD)
    graphdef = nnx.split(initialize(CONFIG, 0))[0]
    found = logits(graphdef, state, jnp.asarray(images, jnp.float32) / 255)
    assert (np.argmax(found, axis=1) == labels).mean() > 0.9


@pytest.mark.slow
def test_training_learns() -> None:
    """Two epochs on the digits; each is reported. Chance is 0.13; 0.84 was measured."""
    data, done = digits.load(0), []
    args = (data.train.images, data.train.labels, data.mean, data.std)
    recipe = replace(BASE, epochs=2, learning_rate=0.02)
    state = train(recipe, CONFIG, *args, progress=lambda *counts: done.append(counts))
    scaling = T.Pixels(jnp.asarray(data.mean, jnp.float32), jnp.asarray(data.std, jnp.float32))
    x = jnp.asarray(data.id_test.images, jnp.float32) / 255
    found = logits(nnx.split(initialize(CONFIG, 0))[0], state, x, scaling)
    assert (np.argmax(found, axis=1) == data.id_test.labels).mean() > 0.7
    assert done == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "other"}, "category must be one of baseline, .*, got 'other'"),
        ({"objective": "moco"}, "objective must be one of supervised, simclr, supcon"),
        ({"freeze": "head"}, "freeze must be one of none, spatial_filters"),
        ({"augment": ("blur",)}, "augment must be one of shift, .*, got 'blur'"),
        ({"epochs": 0}, "epochs must be a whole number, at least 1, got 0"),
        ({"epochs": 2.5}, "epochs must be a whole number, at least 1, got 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number, at least 2, got True"),
        ({"batch_size": "64"}, "batch_size must be a whole number, at least 2, got '64'"),
        ({"learning_rate": 0.0}, "learning_rate must be a number, positive, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number, positive, got nan"),
        ({"temperature": np.inf}, "temperature must be a number, positive, got inf"),
        ({"weight_decay": float("nan")}, "weight_decay must be a number, 0 or more, got nan"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be a number, in \[0, 1\), got 1.0"),
        ({"ema_decay": -0.1}, r"ema_decay must be a number, in \[0, 1\)"),
        ({"augment": "shift"}, "augment must be a tuple of functions or names, got 'shift'"),
        ({"augment": (3,)}, "augment must be one of shift, .*, got 3"),
        ({"attack": "pgd"}, "attack must be a PGD or None, got 'pgd'"),
        ({"objective": "simclr", "augment": ("mixup",)}, "takes no attack, label_smoothing or mixed labels"),
        ({"objective": "simclr", "augment": (augmentations.mixup,)}, "takes no attack, label_smoothing or mixed"),
    ],
)
def test_bad_recipes(change: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        replace(BASE, **change)


def test_bad_attacks() -> None:
    with pytest.raises(ValueError, match="norm must be one of l2, linf, got 'l1'"):
        PGD("l1", 1.0, 1, 1.0)
    for change, message in (
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number, at least 1, got 1.5"),
        ({"eps": float("nan")}, "eps must be a number, positive, got nan"),
        ({"step_size": -1}, "step_size must be a number, positive, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(PGD("l2", 1.0, 1, 1.0), **change)


def test_bad_data() -> None:
    images, labels = toy_data()
    for args, message in (
        ((CONFIG, images / 255, labels), "images must be uint8"),
        ((CONFIG, images, labels[:-1]), "one per image"),
        ((CONFIG, images, labels + 6), r"labels must lie in 0\.\.7, got 6\.\.8"),
        ((CONFIG, images, labels / 2), r"labels must be whole numbers, got 0\.5"),
        ((CONFIG, images, np.eye(8)[labels]), r"from one-hot rows take labels\.argmax"),
        ((CONFIG, np.ma.array(images, mask=images > 200), labels), "images is a masked array with"),
        ((CONFIG, images[:6], labels[:6]), "batch_size must be at most the number of images, 6, got 8"),
        ((replace(CONFIG, folded=True), images, labels), "must not be folded"),
    ):
        with pytest.raises(ValueError, match=message):
            train(BASE, *args, MEAN, STD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": (0.3, 0.0, 0.2)}, "std must be three finite positive numbers, one a channel, got .*0.0"),
        ({"mean": (0.5, np.nan, 0.5)}, "mean must be three finite numbers, one a channel, got .*nan"),
        ({"mean": 0.5}, "mean must be three finite numbers, one a channel, got 0.5"),
        ({"seed": -1}, "seed must be a whole number, 0 or more, got -1"),
        ({"seed": 0.5}, "seed must be a whole number, 0 or more, got 0.5"),
    ],
)
def test_bad_numbers(change: dict, message: str) -> None:
    images, labels = toy_data()
    with pytest.raises(ValueError, match=message):
        train(
            **{"recipe": BASE, "config": CONFIG, "images": images, "labels": labels, "mean": MEAN, "std": STD, **change}
        )


def test_training_that_diverges_is_no_result() -> None:
    with pytest.raises(
        ValueError, match="'base' diverged: its weights are NaN or infinite; lower learning_rate.*1e\\+30"
    ):
        run(replace(BASE, learning_rate=1e30))


def test_labels_of_any_whole_type_train_the_same(results: dict) -> None:
    images, labels = toy_data()
    for given in (labels.astype(np.uint8), labels.astype(np.float64), labels.tolist(), jnp.asarray(labels)):
        state = train(BASE, CONFIG, images, given, MEAN, STD, np.int64(0))
        assert distance(results[BASE], {p: np.asarray(leaf[...]) for p, leaf in nnx.to_flat_state(state)}) == 0
