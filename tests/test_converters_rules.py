"""State dicts at hand: agreement of the ResNet-50 with its sources, and every problem of a state dict in one error."""

import models_golden as golden
import numpy as np
import pytest
from flax import nnx

import converters
from converters.convert import map_arrays, match_keys, parameter_count
from converters.rules import LAYOUTS, Layout, Rule, find_layout
from oodjax.models.resnet import fold_batch_norm
from oodjax.zoo.loading import MODELS

RESNET = "torchvision-resnet50"


def target_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    entry = find_layout(arch)
    model = nnx.eval_shape(lambda: MODELS[entry.architecture][1](entry.config(1000), rngs=nnx.Rngs(0)))
    kept = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    return {"/".join(map(str, path)): tuple(leaf.shape) for path, leaf in nnx.to_flat_state(kept)}


SHAPES = {arch: target_shapes(arch) for arch in golden.ARCHS}


def test_resnet50_equals_the_reference() -> None:
    """float32 sums in another order differ by some 1e-6 standard deviations. timm's weights are drawn alike."""
    model = converters.convert(golden.state_dict(RESNET), RESNET)
    assert parameter_count(model) == 25_557_032
    out = golden.forward(model)
    folded = golden.forward(fold_batch_norm(model))
    assert golden.shapes("timm-resnet50") == golden.shapes(RESNET)
    for arch in golden.ARCHS[:2]:
        expected = golden.expected(arch)
        for name in ("logits", "features"):
            assert golden.drift(getattr(out, name), expected[name]) < 1e-4
            assert golden.drift(getattr(folded, name), expected[name]) < 1e-4
        for i, tapped in enumerate(out.maps, 1):
            means = np.maximum(np.asarray(tapped), 0).mean(axis=(1, 2, 3))
            np.testing.assert_allclose(means, expected[f"stage{i}_mean_relu"], rtol=1e-5)


@pytest.mark.parametrize("arch", golden.ARCHS)
def test_every_key_has_one_rule_and_every_target_one_key(arch: str) -> None:
    plan, problems = match_keys(golden.shapes(arch), find_layout(arch), SHAPES[arch])
    assert problems == []
    assert {target for target, _ in plan.values()} == set(SHAPES[arch])


def test_every_problem_is_listed_at_once() -> None:
    state = golden.empty(RESNET)
    state["surprise.weight"] = state.pop("fc.bias")
    state["conv1.weight"] = np.zeros((64, 3, 3, 3), np.float32)
    state["layer1.0.conv1.weight"] = np.zeros((64, 64), np.float32)
    state["bn1.weight"] = np.full(64, np.nan, np.float32)
    state["bn1.bias"] = np.zeros(64, np.int32)
    state["bn1.running_var"] = np.full(64, -1, np.float32)
    del state["layer4.2.bn3.running_mean"]
    with pytest.raises(converters.ConversionError) as error:
        map_arrays(state, find_layout(RESNET), SHAPES[RESNET])
    for text in (
        "does not fit torchvision-resnet50",
        "no place for surprise.weight",
        "nothing fills head/bias",
        "wrong shape: conv1.weight ((64, 3, 3, 3), not (64, 3, 7, 7))",
        "layer1.0.conv1.weight ((64, 64), a conv has",
        "NaN or infinite values in bn1.weight",
        "not floating point: bn1.bias (int32)",
        "negative variance in bn1.running_var",
        "nothing fills stages/3/2/expand/norm/mean",
    ):
        assert text in str(error.value)


def test_another_architecture_is_refused_with_a_short_summary() -> None:
    state = golden.empty("timm-vit_base_patch16_224")
    with pytest.raises(converters.ConversionError) as error:
        map_arrays(state, find_layout(RESNET), SHAPES[RESNET])
    assert len(error.value.problems) == len(state) + len(SHAPES[RESNET])
    summary = error.value.summary()
    assert "no place for cls_token, pos_embed, patch_embed.proj.weight and 149 more" in summary
    assert "\n" not in summary and len(summary) < 400


def test_average_pooling_needs_its_own_norm() -> None:
    entry = find_layout("timm-vit_base_patch16_224-avgpool")
    _, problems = match_keys(golden.shapes("timm-vit_base_patch16_224"), entry, SHAPES[entry.name])
    assert ("no place for", "norm.weight") in problems and ("nothing fills", "norm/scale") in problems


def test_two_rules_for_a_key_and_two_keys_for_a_target() -> None:
    entry = Layout("x", "resnet50", int, (Rule("a.*", "t"), Rule(".*b", "u"), Rule("c|d", "t")))
    _, problems = match_keys(["ab", "c", "d"], entry, {"t": (1,), "u": (1,)})
    assert problems == [("two rules take", "ab (t and u)"), ("two keys fill", "t (c and d)"), ("nothing fills", "u")]


def test_transforms_and_types() -> None:
    entry = Layout("x", "resnet50", int, (Rule("m", "m", "matrix"), Rule("c", "c", "conv"), Rule("s", "s")))
    rng = np.random.default_rng(0)
    state = {
        "m": rng.normal(size=(2, 3)),
        "c": rng.normal(size=(5, 4, 3, 2)).astype(np.float16),
        "s": rng.normal(size=7),
    }
    found = map_arrays(state, entry, {"m": (3, 2), "c": (3, 2, 4, 5), "s": (7,)})
    assert all(array.dtype == np.float32 for array in found.values())
    assert found["m"][2, 1] == np.float32(state["m"][1, 2])
    assert found["c"][2, 1, 3, 4] == np.float32(state["c"][4, 3, 2, 1])


def test_another_number_of_classes() -> None:
    state = golden.empty(RESNET) | {"fc.weight": np.zeros((10, 2048), np.float32), "fc.bias": np.zeros(10, np.float32)}
    assert converters.convert(state, RESNET, num_classes=10).head.kernel.shape == (2048, 10)
    with pytest.raises(converters.ConversionError, match=r"fc.bias \(\(10,\), not \(1000,\)\)"):
        map_arrays(state, find_layout(RESNET), SHAPES[RESNET])


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no layout 'resnet18'; there are: torchvision-resnet50, timm-resnet50"):
        converters.convert({}, "resnet18")
    assert set(LAYOUTS) == set(golden.ARCHS)
