"""ResNet-50 equals torchvision's; folding, batch statistics, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from oodjax.models import ModelOutput, ResNet, ResNetConfig, checkpoint, fold_batch_norm, initialize
from oodjax.models.resnet import abstract

TINY = ResNetConfig((2, 1, 1, 1), (2, 3, 4, 4), (1, 2, 2, 1), 4, "small", "direct", 3, 16)
NORM = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var"))


def images(n: int, size: int = 16, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, size, size, 3)), jnp.float32)


@partial(jax.jit, static_argnames=("graphdef", "train"))
def _apply(graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array, train: bool) -> tuple[ModelOutput, nnx.State]:
    model = nnx.merge(graphdef, state)
    return model(x, train=train), nnx.state(model)


def apply(model: ResNet, x: jax.Array, train: bool = False) -> ModelOutput:
    """The model as one program; it keeps what training updates."""
    out, state = _apply(*nnx.split(model), x, train)
    nnx.update(model, state)
    return out


def stirred(config: ResNetConfig, seed: int = 0, dtype: str = "float32") -> ResNet:
    """A model whose scales, biases and running statistics are not the initial ones."""
    model, rng = initialize(config, seed, dtype), np.random.default_rng(seed)

    def stir(path: tuple, leaf: nnx.Variable) -> nnx.Variable:
        shift = rng.uniform(0.5, 1.5, leaf.shape) if path[-1] in ("scale", "var") else rng.normal(0, 0.1, leaf.shape)
        return leaf.replace(jnp.asarray(shift, leaf.dtype)) if len(leaf.shape) == 1 else leaf

    nnx.update(model, nnx.from_flat_state([(p, stir(p, leaf)) for p, leaf in nnx.to_flat_state(nnx.state(model))]))
    return model


def torchvision_keys() -> list[tuple[str, tuple]]:
    """Keys of torchvision's resnet50 state dict in its order, and the paths they belong to."""

    def conv_norm(conv: str, norm: str, path: tuple) -> list[tuple[str, tuple]]:
        keys = [(f"{conv}.weight", (*path, "conv", "kernel"))]
        keys += [(f"{norm}.{theirs}", (*path, "norm", ours)) for theirs, ours in NORM]
        return [*keys, (f"{norm}.num_batches_tracked", ())]

    keys = conv_norm("conv1", "bn1", ("stem",))
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            theirs, ours = f"layer{stage + 1}.{block}", ("stages", stage, block)
            for i, name in enumerate(("reduce", "spatial", "expand"), start=1):
                keys += conv_norm(f"{theirs}.conv{i}", f"{theirs}.bn{i}", (*ours, name))
            if block == 0:
                keys += conv_norm(f"{theirs}.downsample.0", f"{theirs}.downsample.1", (*ours, "shortcut"))
    return [*keys, ("fc.weight", ("head", "kernel")), ("fc.bias", ("head", "bias"))]


def made_up(index: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weight number `index` of the state dict that the golden outputs were computed with, in torch's layout."""
    rng = np.random.default_rng([3, index])
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if key.endswith("bias"):
        return rng.normal(0, 0.05, shape)
    if len(shape) == 1:
        return rng.uniform(0.4, 0.8, shape)
    return rng.normal(0, 1, shape) * np.sqrt(1.5 / np.prod(shape[1:]))


@pytest.fixture(scope="module")
def torchvision_resnet50() -> ResNet:
    graphdef, target = nnx.split(abstract(ResNetConfig.resnet50()))
    leaves = dict(nnx.to_flat_state(target))
    for index, (key, path) in enumerate(torchvision_keys()):
        if not path:
            continue
        shape = leaves[path].shape
        if len(shape) == 4:
            value = made_up(index, key, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
        else:
            value = made_up(index, key, shape[::-1]).T
        leaves[path] = leaves[path].replace(jnp.asarray(value, jnp.float32))
    assert not any(isinstance(leaf[...], jax.ShapeDtypeStruct) for leaf in leaves.values())
    return nnx.merge(graphdef, nnx.from_flat_state(leaves.items()))


def test_resnet50_equals_torchvision(torchvision_resnet50: ResNet) -> None:
    """Logits, features and stage means of torchvision's resnet50 with the same made-up weights, also when folded."""
    x = np.random.default_rng([3, 999]).normal(size=(2, 3, 224, 224)).astype(np.float64) * 0.8
    x = jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32)
    out = apply(fold_batch_norm(torchvision_resnet50), x)
    with np.load(Path(__file__).parent / "data" / "resnet50_golden.npz") as golden:
        for name in ("logits", "features"):
            np.testing.assert_allclose(getattr(out, name), golden[name], rtol=0, atol=1e-3 * golden[name].std())
        means = np.stack([np.maximum(m, 0).mean(axis=(1, 2, 3)) for m in out.maps])
        expected = np.stack([golden[f"stage{i}_mean_relu"] for i in range(1, 6)])
    np.testing.assert_allclose(means, expected, rtol=1e-4)
    shapes = [(2, 56, 56, 64), (2, 56, 56, 256), (2, 28, 28, 512), (2, 14, 14, 1024), (2, 1, 1, 2048)]
    assert [m.shape for m in out.maps] == shapes


def test_parameter_counts() -> None:
    """25,557,032 as published; folding drops scale and bias but gains a bias: 26,560 channels fewer."""
    config = ResNetConfig.resnet50()
    channels = 26_560  # summed over the 53 batch norms
    for folded, expected in ((False, 25_557_032), (True, 25_557_032 - channels)):
        state = nnx.state(abstract(replace(config, folded=folded)), nnx.Param)
        assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state)) == expected
    head = abstract(ResNetConfig.resnet50(num_classes=7)).head
    assert head.kernel.shape == (2048, 7)


def test_study_shapes() -> None:
    out = apply(initialize(ResNetConfig.study(), 0), images(5))
    assert out.logits.shape == (5, 8) and out.features.shape == (5, 128)
    assert [m.shape for m in out.maps] == [(5, 8, 8, 8), (5, 8, 8, 32), (5, 4, 4, 64), (5, 2, 2, 128), (5, 1, 1, 128)]
    np.testing.assert_array_equal(out.maps[4][:, 0, 0], out.features)
    assert all(float(m.min()) >= 0 for m in out.maps)


@pytest.mark.parametrize("convolution", ["direct", "patches"])
def test_folded_equals_unfolded(convolution: str) -> None:
    model = stirred(replace(TINY, convolution=convolution))
    folded = fold_batch_norm(model)
    assert folded.config == replace(model.config, folded=True) and type(folded) is ResNet
    assert fold_batch_norm(folded) is folded
    plain, fast = apply(model, images(4)), apply(folded, images(4))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(fast), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * float(jnp.abs(a).max()), rtol=0)


def test_patches_equal_direct() -> None:
    """The two forms of convolution are the same sums, at odd sizes and in both stems too."""
    for config in (TINY, replace(TINY, stem="imagenet", image_size=33)):
        direct = stirred(config)
        patches = nnx.merge(nnx.split(abstract(replace(config, convolution="patches")))[0], nnx.state(direct))
        x = images(3, config.image_size + 4)
        for a, b in zip(apply(direct, x).maps, apply(patches, x).maps, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(a).max()), rtol=0)


def test_stride_is_on_the_spatial_convolution() -> None:
    block = initialize(TINY, 0).stages[1][0]
    assert (block.reduce.conv.strides, block.spatial.conv.strides) == ((1, 1), (2, 2))


def test_batch_norm_trains() -> None:
    """running = momentum * old + (1 - momentum) * batch; training output is normalised by the batch itself."""
    model = initialize(replace(TINY, momentum=0.7), 0)
    x = images(8) + 2.0
    before = model.stem.conv(x)
    apply(model, x)
    np.testing.assert_array_equal(model.stem.norm.mean[...], 0.0)
    trained = apply(model, x, train=True)
    axes = (0, 1, 2)
    np.testing.assert_allclose(model.stem.norm.mean[...], 0.3 * before.mean(axes), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.stem.norm.var[...], 0.7 + 0.3 * before.var(axes), rtol=1e-4)
    assert float(jnp.abs(trained.logits - apply(model, x).logits).max()) > 1e-2


def test_one_program_serves_all_weights() -> None:
    """Graph definitions hold nothing of the weights: trained, loaded, folded or fresh, they are equal."""
    first, second = (nnx.split(initialize(TINY, seed)) for seed in (0, 1))
    made = nnx.split(nnx.eval_shape(lambda: ResNet(TINY, dtype=jnp.float32, rngs=nnx.Rngs(2))))
    folded = [nnx.split(fold_batch_norm(initialize(TINY, seed)))[0] for seed in (0, 1)]
    assert first[0] == second[0] == made[0] and hash(first[0]) == hash(second[0]) == hash(made[0])
    assert folded[0] == folded[1] and hash(folded[0]) == hash(folded[1])
    before = _apply._cache_size()
    one, other = (_apply(*split, images(2), False)[0].logits for split in (first, second))
    assert float(jnp.abs(one - other).max()) > 1e-3
    assert _apply._cache_size() == before + 1


def test_bfloat16_keeps_the_head_exact() -> None:
    """The network in bfloat16 is near the one in float32; features and logits are float32."""
    model = stirred(TINY)
    low = nnx.merge(nnx.split(abstract(TINY, "bfloat16"))[0], nnx.state(model))
    exact, out = apply(model, images(4)), apply(low, images(4))
    assert out.maps[1].dtype == jnp.bfloat16 and out.logits.dtype == out.features.dtype == jnp.float32
    difference = float(jnp.abs(out.logits - exact.logits).max())
    assert 0 < difference < 0.05 * float(jnp.abs(exact.logits).max())
    head = np.asarray(out.features, np.float64) @ np.asarray(low.head.kernel[...], np.float64)
    np.testing.assert_allclose(
        out.logits, head + np.asarray(low.head.bias[...], np.float64)[None], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem": "large"}, "stem must be one of imagenet, small, got 'large'"),
        ({"convolution": "fft"}, "convolution must be one of direct, patches"),
        ({"depths": (1, 1)}, "one entry per stage"),
        ({"widths": (1, 0, 1, 1)}, "at least 1"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_bad_configurations(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = stirred(TINY)
    saved = checkpoint.save(tmp_path / "a", model, recipe={"name": "x"}, seed=3)
    loaded = checkpoint.load(tmp_path / "a")
    assert loaded.config == TINY and nnx.split(loaded)[0] == nnx.split(model)[0]
    assert saved == checkpoint.weights_hash(loaded) == checkpoint.weights_hash(nnx.state(model))
    for a, b in zip(jax.tree.leaves(nnx.state(model)), jax.tree.leaves(nnx.state(loaded)), strict=True):
        np.testing.assert_array_equal(a, b)
    manifest = checkpoint.read_manifest(tmp_path / "a")
    assert manifest is not None and (manifest["recipe"], manifest["seed"]) == ({"name": "x"}, 3)
    assert checkpoint.load(tmp_path / "a", "bfloat16").dtype == "bfloat16"
    other = stirred(TINY, seed=1)
    assert checkpoint.save(tmp_path / "a", other) != saved
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "a")) == checkpoint.weights_hash(other)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_weights_hash_sees_names_shapes_and_values() -> None:
    state = nnx.state(initialize(TINY, 0))
    expected = checkpoint.weights_hash(state)
    assert expected == checkpoint.weights_hash(nnx.state(initialize(TINY, 0)))
    state["head"]["bias"] = state["head"]["bias"].replace(jnp.asarray([0.0, 0.0, 1e-7]))
    assert checkpoint.weights_hash(state) != expected


def test_half_written_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the rename leaves no checkpoint; damage after it is noticed."""
    model, folder = stirred(TINY), tmp_path / "a"
    with pytest.raises(checkpoint.CheckpointError, match="no finished checkpoint"):
        checkpoint.load(folder)

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, model)
    assert checkpoint.read_manifest(folder) is None
    checkpoint.save(folder, model)
    assert checkpoint.weights_hash(checkpoint.load(folder)) == checkpoint.weights_hash(model)

    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest)[:40])
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.load(folder)
    (folder / checkpoint.MANIFEST).write_text(json.dumps({**manifest, "weights": "0" * 64}))
    with pytest.raises(checkpoint.CheckpointError, match="not those of its manifest"):
        checkpoint.load(folder)
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    for path in (folder / checkpoint.WEIGHTS).rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(checkpoint.CheckpointError, match="weights is damaged"):
        checkpoint.load(folder)


def test_a_disk_that_is_full_leaves_nothing_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed before anything is written; a disk that fills up meanwhile makes Orbax raise what is raised here."""
    model, folder = stirred(TINY), tmp_path / "a"
    kept = checkpoint.save(folder, model)

    def fill_up(checkpointer: object, path: Path, arrays: object) -> None:
        path.mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [os_error_code='28']")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp.StandardCheckpointer, "save", fill_up)
        with pytest.raises(OSError, match="No space left on device: .*/a"):
            checkpoint.save(folder, initialize(TINY, 1))
    usage = checkpoint.shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(OSError, match="No space left on device: .*/a"):
            checkpoint.save(folder, initialize(TINY, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert checkpoint.weights_hash(checkpoint.load(folder)) == kept


def test_fill_checks_both_sides() -> None:
    """Flax merges states with unfilled leaves, and fails much later."""
    target = nnx.state(abstract(TINY))
    arrays = checkpoint.flat_arrays(initialize(TINY, 0))
    wrong = {**arrays, "extra": np.zeros(1), "head/kernel": np.zeros((4, 4))}
    del wrong["stem/conv/kernel"]
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.fill(target, wrong, "a file")
    message = str(caught.value)
    assert "missing stem/conv/kernel" in message and "left over extra" in message
    assert "head/kernel has shape (4, 4), not (16, 3)" in message
