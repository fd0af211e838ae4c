"""ODIN against a textbook implementation: one gradient and one forward pass a sample, temperature and noise."""

from __future__ import annotations

from functools import cache

import golden
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import oodjax

TEMPERATURES, NOISES = (1, 10, 100, 1000), (0.0, 0.0014, 0.0028)
STD = (0.2, 0.25, 0.3)


@jax.jit
def textbook(x: jax.Array, temperature: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One image: the logits of its perturbed copy, and its input gradient."""
    predicted = jnp.argmax(golden.apply(x[None])[0])

    def loss(x):
        return -jax.nn.log_softmax(golden.apply(x[None])[0] / temperature)[predicted]

    gradient = jax.grad(loss)(x)
    sign = jnp.where(gradient >= 0, 1.0, -1.0)
    moved = x - noise * sign / jnp.asarray(STD)[None, None]
    return golden.apply(moved[None])[0], gradient


def textbook_score(x: jax.Array, temperature: float, noise: float) -> float:
    return oracles.confidence(np.asarray(textbook(x, temperature, noise)[0], np.float64) / temperature)


@cache
def scores() -> np.ndarray:
    run = jax.jit(lambda x: oodjax.odin_scores(golden.apply, x, TEMPERATURES, NOISES, STD))
    return np.asarray(run(golden.images("test")[:4]))


def test_every_temperature_and_noise_agrees_with_the_textbook():
    images, got = golden.images("test")[:4], scores()
    assert got.shape == (4, 4, 3) and got.dtype == jnp.float32
    want = np.array([[[textbook_score(x, float(t), e) for e in NOISES] for t in TEMPERATURES] for x in images])
    # At noise 0 only float32 rounding, of logits after five layers; with noise, a sign of a gradient next to 0 may
    # fall the other way, in one of 768 inputs: less than a hundredth of what the noise moves.
    np.testing.assert_allclose(got[..., 0], want[..., 0], rtol=1e-5)  # float32, other batch shape
    moved = np.abs(want[..., 1:] - want[..., :1]).max(axis=(0, 2))
    error = np.abs(got[..., 1:] - want[..., 1:]).max(axis=(0, 2))
    assert (moved > 20 * np.finfo(np.float32).eps).all()
    assert (error <= 0.01 * moved + np.finfo(np.float32).eps).all(), (error, moved)


def test_the_noise_raises_the_confidence():
    """x' descends the loss against the predicted class: every score at temperature 1 goes up."""
    assert (np.diff(scores()[:, 0], axis=1) > 0).all()


def test_a_gradient_of_zero_counts_as_positive():
    def apply(x):  # the logits do not depend on the second pixel
        return jnp.stack([3 * x[:, 0, 0, 0], jnp.zeros(len(x))], axis=1) + (x[:, 0, 1, 0] ** 2)[:, None]

    def at(x):
        return oracles.confidence(np.asarray(apply(x)[0], np.float64))

    images = jnp.asarray([[[[1.0], [0.5]]]])
    got = oodjax.odin_scores(apply, images, (1,), (0.1,), (0.5,))
    assert float(got[0, 0, 0]) == pytest.approx(at(jnp.asarray([[[[1.2], [0.3]]]])), rel=1e-6)


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 30.0, 200.0])
def test_a_certain_prediction_keeps_the_sign_of_its_gradient(sharpness):
    """Float32 rounds p to 1 beyond a gap of 17, where 1 - p, and with it the gradient, would be 0."""

    def apply(x):
        return sharpness * jnp.stack([x[:, 0, 0, 0], -x[:, 0, 1, 0]], axis=1)

    images = jnp.asarray([[[[1.0], [0.5]]]])  # both pixels raise the predicted class against the other
    got = oodjax.odin_scores(apply, images, (1, 10), (0.1,), (0.5,))
    np.testing.assert_allclose(got[0, :, 0], np.array([1, 0.1]) * sharpness * (1.2 + 0.7), rtol=1e-6)


def test_scores_of_certain_samples_differ():
    images = jnp.asarray([[[[20.0], [0.0]]], [[[30.0], [0.0]]]])
    got = oodjax.odin_scores(lambda x: x[:, 0, :, 0], images, (1,), (0.0,), (1.0,))
    np.testing.assert_allclose(got[:, 0, 0], [20, 30], rtol=1e-6)


@pytest.mark.parametrize(("temperatures", "noises"), [((1,), (0.1,)), ((1, 10, 100, 1000), (0.0014, 0.0028))])
def test_forward_passes_one_plus_one_a_pair_and_one_pull_back_a_temperature(temperatures, noises):
    counts = {"forward": 0, "backward": 0}

    def count(kind):
        counts[kind] += 1

    @jax.custom_vjp
    def network(x):
        jax.debug.callback(lambda: count("forward"))
        return x.reshape(len(x), -1)[:, :3]

    def forward(x):
        return network(x), x.shape

    def backward(shape, cotangent):
        jax.debug.callback(lambda: count("backward"))
        return (jnp.zeros(shape).reshape(shape[0], -1).at[:, :3].set(cotangent).reshape(shape),)

    network.defvjp(forward, backward)
    images = jnp.arange(24.0).reshape(2, 2, 2, 3) / 24
    jax.block_until_ready(oodjax.odin_scores(network, images, temperatures, noises, STD))
    jax.effects_barrier()
    assert counts == {"forward": 1 + len(temperatures) * len(noises), "backward": len(temperatures)}


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperatures": ()}, r"needs temperatures and noises as sequences, got temperatures \(\)"),
        ({"noises": ()}, r"needs temperatures and noises as sequences, got noises \(\)"),
        ({"temperatures": 1000}, "needs temperatures and noises as sequences, got temperatures 1000"),
        ({"temperatures": (1, 0)}, r"temperatures must be finite and positive, got \[1, 0\]"),
        ({"temperatures": (NAN,)}, r"temperatures must be finite and positive, got \[nan\]"),
        ({"temperatures": (INF,)}, "temperatures must be finite and positive"),
        ({"temperatures": ("1",)}, "odin_scores: temperatures must be an array of real numbers"),
        ({"noises": (-0.1,)}, r"noises must be finite and 0 or above, got \[-0.1\]"),
        ({"noises": (NAN,)}, "noises must be finite and 0 or above"),
        ({"input_std": (0.5, 0.5)}, r"input_std must have shape \(3,\), got \(2,\)$"),
        ({"input_std": (0.5, 0.0, 0.5)}, r"input_std must be finite and positive, got \[0.5, 0.0, 0.5\]"),
        ({"input_std": (0.5, -0.1, 0.5)}, "input_std must be finite and positive"),
        ({"input_std": NAN}, "input_std must be finite and positive, got nan"),
        ({"input_std": None}, "input_std must be an array of real numbers, got None"),
        (
            {"images": np.zeros((2, 4, 4, 3), np.uint8)},
            r"images must be normalised, \(pixels / 255 - mean\) / std, got",
        ),
        ({"images": jnp.zeros((2, 4, 4, 3), int)}, "images must be normalised"),
        ({"images": np.zeros((2, 3, 4, 4))}, r"got \(3,\): images have their channels first, pass images.transpose"),
        ({"images": np.zeros((0, 4, 4, 3))}, r"images must have shape \(n, H, W, C\) with no empty axis"),
        ({"images": [["a"]]}, "images must be an array of real numbers"),
        ({"apply_fn": None}, "apply_fn must map images to logits, got None"),
        ({"apply_fn": lambda x: (x, x)}, r"apply_fn must return logits \(2, classes\), got a tuple"),
        ({"apply_fn": lambda x: x}, r"apply_fn must return logits \(2, classes\), got .*\(2, 4, 4, 3\)"),
    ],
)
def test_bad_input_is_named(changes, match):
    arguments = {
        "apply_fn": lambda x: x[:, 0, 0],
        "images": np.zeros((2, 4, 4, 3)),
        "temperatures": (1,),
        "noises": (0.1,),
        "input_std": STD,
    }
    with pytest.raises((ValueError, TypeError), match=match):
        oodjax.odin_scores(**{**arguments, **changes})


def test_any_kind_of_array_is_accepted():
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    want = oodjax.odin_scores(lambda x: x[:, 0, 0], jnp.asarray(images), (1, 10), (0.1, 0.2), STD)
    for convert in (np.asarray, lambda x: x.astype(">f4"), lambda x: x.astype(np.float64), lambda x: x.tolist()):
        got = oodjax.odin_scores(
            lambda x: x[:, 0, 0], convert(images), np.array([1, 10]), jnp.array([0.1, 0.2]), np.array(STD)
        )
        np.testing.assert_array_equal(got, want)
