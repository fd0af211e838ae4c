"""`oodjax.extract`: outputs of any model on any images, in batches of one shape."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from studies import small

import oodjax
from oodjax import detectors, extraction, forward
from oodjax.data.sources import Arrays, BadImage, Files
from oodjax.models.network import Network
from oodjax.outputs import Head
from oodjax.taps import summarize

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 16, 16, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 8, 23)


@pytest.fixture(scope="module")
def network():
    return small(1).models[0].load("float32")


@pytest.fixture(scope="module")
def whole(network):
    """Every image at once, without the library's batches."""
    return network(IMAGES)


def test_outputs_are_the_networks(network, whole):
    found = oodjax.extract(network, IMAGES, LABELS, batch_size=8, needs=("gram", "layer_means"))
    gram, means = summarize(whole.maps)
    for mine, theirs in ((found.logits, whole.logits), (found.features, whole.features), (found.layer_means, means)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.gram, gram, rtol=1e-4, atol=1e-5)  # batches of another length add in another order
    np.testing.assert_array_equal(found.labels, LABELS)


def test_any_number_of_images_compiles_nothing_new(network, whole):
    oodjax.extract(network, IMAGES, batch_size=8)
    programs = forward.forward._cache_size()
    for count in (1, 7, 8, 9, 23):
        found = oodjax.extract(network, IMAGES[:count], batch_size=8)
        np.testing.assert_allclose(found.logits, whole.logits[:count], rtol=1e-5, atol=1e-5)
    assert forward.forward._cache_size() == programs


def test_a_source_and_an_iterable_give_what_the_array_gives(network):
    expected = oodjax.extract(network, IMAGES, LABELS, batch_size=8)
    source = oodjax.extract(network, Arrays(IMAGES, LABELS), batch_size=8)
    pieces = oodjax.extract(
        network, (IMAGES[a:b] for a, b in ((0, 5), (5, 5), (5, 22), (22, 23))), LABELS, batch_size=8
    )
    for other in (source, pieces):
        np.testing.assert_array_equal(other.logits, expected.logits)
        np.testing.assert_array_equal(other.labels, expected.labels)
    assert oodjax.extract(network, Arrays(IMAGES), batch_size=8).labels is None


def test_odin_is_odin_scores(network):
    found = oodjax.extract(network, IMAGES[:5], batch_size=4, needs=("odin",), temperatures=(1, 100), noises=(0.01,))
    mean, std = network.normalisation
    normalised = (IMAGES[:5] / np.float32(255) - np.asarray(mean)) / np.asarray(std)
    expected = oodjax.odin_scores(
        lambda x: network.apply(network.state, x).logits, jnp.asarray(normalised, jnp.float32), (1, 100), (0.01,), std
    )
    assert found.odin.shape == (5, 2, 1)
    np.testing.assert_allclose(found.odin, expected, rtol=2e-3, atol=2e-3)  # a sign may flip at a gradient of zero


def test_the_steps_length_changes_odin(network):
    one, other = (
        oodjax.extract(network, IMAGES[:4], batch_size=4, needs=("odin",), noises=(e,)).odin for e in (0, 0.05)
    )
    assert np.abs(one - other).max() > 1e-3


class Linen(nnx.Module):
    """A user's model: one hidden layer."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(48, 6, rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        features = jax.nn.relu(self.hidden(x.reshape(len(x), -1)))
        return self.head(features), features


@pytest.fixture(scope="module")
def model():
    return Linen(nnx.Rngs(0))


def function_of(model):
    graphdef, state = nnx.split(model)

    def run(images):
        return nnx.merge(graphdef, state)(images.astype(jnp.float32) / 255.0)

    return run


def test_a_plain_function_needs_no_network(model):
    images = RNG.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    found = oodjax.extract(function_of(model), images, batch_size=4, needs=("odin",))
    logits, features = model(jnp.asarray(images, jnp.float32) / 255.0)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.features, features, rtol=1e-5, atol=1e-6)
    assert found.odin.shape == (9, 4, 2) and found.gram is None


def test_floats_of_a_function_are_pixels_of_one(model):
    """ODIN's step in floats of 0..1 is that in the same pixels as uint8."""
    images = RNG.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)

    def of_floats(x):
        return model(x)

    one = oodjax.extract(function_of(model), images, batch_size=3, needs=("odin",), noises=(0.1,))
    two = oodjax.extract(of_floats, images / np.float32(255), batch_size=3, needs=("odin",), noises=(0.1,))
    np.testing.assert_allclose(one.odin, two.odin, rtol=1e-3, atol=1e-4)


def test_a_network_of_a_function_scores_as_its_outputs(model):
    head = (model.head.kernel[...], model.head.bias[...])
    network = Network.from_function(function_of(model), head, resize=None, crop=4)
    images = RNG.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    found = oodjax.extract(network, images, batch_size=4)
    np.testing.assert_allclose(
        detectors.create("mls").score(found), np.asarray(network(images).logits).max(axis=1), rtol=1e-5
    )
    assert not network.has_maps


def test_other_weights_have_another_fingerprint(model):
    head = (model.head.kernel[...], model.head.bias[...])
    one = Network.from_function(function_of(model), head, resize=None, crop=4)
    again = Network.from_function(function_of(model), head, resize=None, crop=4)
    changed = nnx.clone(model)
    changed.hidden.kernel[...] = model.hidden.kernel[...] * 1.01
    other = Network.from_function(function_of(changed), head, resize=None, crop=4)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert (
        Network.from_function(function_of(changed), head, resize=None, crop=4, version="1").fingerprint
        != other.fingerprint
    )


def wrong_head(model):
    return Network.from_function(function_of(model), Head(np.ones((6, 4), np.float32), np.zeros(4, np.float32)), crop=4)


FAULTS = {
    "no images": (lambda n, m: oodjax.extract(n, IMAGES[:0]), "at least one"),
    "floats for a network": (
        lambda n, m: oodjax.extract(n, IMAGES / np.float32(255)),
        r"uint8 \(n, H, W, 3\), got float32",
    ),
    "channels first": (lambda n, m: oodjax.extract(n, IMAGES.transpose(0, 3, 1, 2)), "uint8"),
    "one image": (lambda n, m: oodjax.extract(n, IMAGES[0]), r"got uint8 \(16, 16, 3\)"),
    "two sizes": (lambda n, m: oodjax.extract(n, [IMAGES, IMAGES[:, :8]]), "one size"),
    "a path": (lambda n, m: oodjax.extract(n, "photos"), "got str"),
    "unknown field": (lambda n, m: oodjax.extract(n, IMAGES, needs=("maps",)), "unknown needs maps; possible: logits"),
    "no maps": (
        lambda n, m: oodjax.extract(function_of(m), IMAGES[:, :4, :4], needs=("gram",)),
        "at least one feature map",
    ),
    "another head": (lambda n, m: wrong_head(m), "differ from head"),
    "four values": (lambda n, m: oodjax.extract(lambda x: (x, x, x, x), IMAGES), "got 4 of them"),
}


@pytest.mark.parametrize("call, words", FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_run_is_said_in_a_sentence(network, model, call, words):
    with pytest.raises(ValueError, match=words):
        call(network, model)


def test_a_stream_leaves_out_what_cannot_be_read_and_names_it(network, tmp_path):
    from image_files import save, truncate

    for i in range(7):
        save(tmp_path / f"class_{i % 2}" / f"{i}.png", i, 16, 16)
    broken = [truncate(tmp_path / "class_0" / "2.png"), truncate(tmp_path / "class_1" / "5.png")]
    source, found, done = Files.from_folder(tmp_path), [], []
    parts = list(extraction.stream(network, source, batch_size=4, unreadable=found, advance=done.append))
    assert [bad.path for bad in found] == list(map(str, broken)) and done == [4, 3]
    kept = [i for i, path in enumerate(source.paths) if str(source.root / path) not in map(str, broken)]
    pixels = np.stack([np.asarray(source.open(i)) for i in kept])
    np.testing.assert_allclose(np.concatenate([p.logits for p in parts]), network(pixels).logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([p.labels for p in parts]), source.labels[kept])
    with pytest.raises(BadImage, match="2.png"):
        list(extraction.stream(network, source, batch_size=4))
