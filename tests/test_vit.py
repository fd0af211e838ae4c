"""The Vision Transformer: agreement with torchvision and timm, its variants, its taps."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import models_golden as golden
import numpy as np
import pytest
from flax import nnx

import converters
from converters.convert import parameter_count
from oodjax import summarize
from oodjax.models.resnet import ModelOutput
from oodjax.models.vit import ViT, ViTConfig

TINY = ViTConfig(depth=4, width=16, heads=2, hidden=32, patch=4, num_classes=5, image_size=12, taps=(1, 2, 3, 4))


def tiny(dtype: str = "float32", **changes: object) -> ViT:
    """Drawn with NumPy, by path: variants share the weights that they have in common."""
    model = nnx.eval_shape(lambda: ViT(replace(TINY, **changes), dtype=dtype, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    drawn = []
    for path, leaf in nnx.to_flat_state(state):
        g = np.random.default_rng(list("/".join(map(str, path)).encode()))
        drawn.append((path, leaf.replace(jnp.asarray(g.normal(0, 0.3, leaf.shape).astype(np.float32)))))
    return nnx.merge(graphdef, nnx.from_flat_state(drawn))


def run(model: ViT) -> ModelOutput:
    return golden.forward(model, inputs())


def inputs() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, 12, 12, 3)).astype(np.float32))


@pytest.mark.parametrize(
    "arch", [golden.ARCHS[2], *(pytest.param(a, marks=pytest.mark.slow) for a in golden.ARCHS[3:])]
)
def test_logits_and_features_equal_the_reference(arch: str) -> None:
    """float32 sums in another order differ by some 1e-6 standard deviations; a wrong GELU or epsilon by over 1e-3."""
    model = converters.convert(golden.state_dict(arch), arch)
    assert parameter_count(model) == 86_567_656
    out, expected = golden.forward(model), golden.expected(arch)
    assert golden.drift(out.logits, expected["logits"]) < 1e-4
    assert golden.drift(out.features, expected["features"]) < 1e-4
    assert [m.shape for m in out.maps] == [(2, 197, 768)] * 4


@pytest.mark.parametrize(
    "change",
    [{"pool": "mean"}, {"norm": "pooled", "pool": "mean"}, {"norm": "none"}, {"epsilon": 1e-2}, {"gelu": "tanh"}],
    ids=str,
)
def test_every_variant_changes_the_result(change: dict) -> None:
    plain, other = run(tiny()), run(tiny(**change))
    assert float(jnp.abs(plain.logits - other.logits).max()) > 1e-6


def test_pooling_and_norm_by_hand() -> None:
    """The three places of the last norm, from the taps of the last block."""

    scale, bias = (np.asarray(getattr(tiny().norm, name)[...]) for name in ("scale", "bias"))

    def norm(v: np.ndarray) -> np.ndarray:
        centred = v - v.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + TINY.epsilon) * scale + bias

    for pool, place in (("token", "tokens"), ("mean", "tokens"), ("mean", "pooled"), ("mean", "none")):
        out = run(tiny(pool=pool, norm=place))
        tokens = np.asarray(out.maps[-1])
        tokens = norm(tokens) if place == "tokens" else tokens
        pooled = tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(axis=1)
        expected = norm(pooled) if place == "pooled" else pooled
        np.testing.assert_allclose(out.features, expected, atol=1e-5)


def test_representation_is_a_tanh_layer_before_the_head() -> None:
    model = tiny(representation=7)
    out = run(model)
    assert out.features.shape == (3, 7) and out.logits.shape == (3, 5) and float(jnp.abs(out.features).max()) < 1
    np.testing.assert_allclose(out.logits, model.head(out.features), atol=1e-6)


def test_taps_feed_gram_and_ats() -> None:
    out = run(tiny())
    assert len(out.maps) == 4 and all(m.shape == (3, 10, 16) for m in out.maps)
    gram, means = summarize(out.maps)
    assert gram.shape == (3, 10, 64) and means.shape == (3, 4)
    assert len(run(tiny(taps=(2,))).maps) == 1


def test_bfloat16_keeps_logits_in_float32() -> None:
    low, high = run(tiny("bfloat16")), run(tiny())
    assert low.logits.dtype == jnp.float32 and low.maps[0].dtype == jnp.bfloat16
    assert 0 < golden.drift(low.logits, np.asarray(high.logits)) < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": "max"}, "pool must be one of token, mean, got 'max'"),
        ({"norm": "last"}, "norm must be one of"),
        ({"gelu": "fast"}, "gelu must be one of"),
        ({"image_size": 13}, "multiple of patch 4, got 13"),
        ({"heads": 3}, "multiple of heads 3, got 16"),
        ({"taps": (0, 5)}, "taps must be block numbers from 1 to 4"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
