"""`oodjax.save` and `oodjax.load`: bit for bit the same in another process, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import monitors
import numpy as np
import pytest
from flax import nnx

import oodjax
from oodjax import detectors, saving
from oodjax.detectors import names
from oodjax.models import ResNetConfig, checkpoint, initialize
from oodjax.models.checkpoint import CheckpointError
from oodjax.models.network import Network
from oodjax.models.vit import ViT, ViTConfig
from oodjax.neighbors import StreamedBank
from oodjax.outputs import Head

SCORE = """
import sys
from pathlib import Path
import numpy as np
import oodjax

folder = Path(sys.argv[1])
data = np.load(folder / "in.npz")
outputs = oodjax.Outputs(**{name: data[name] for name in data.files if name != "images"})
found = {}
for path in sorted((folder / "saved").iterdir()):
    thing = oodjax.load(path)
    if isinstance(thing, oodjax.Monitor):
        found |= {f"{path.name}.{key}": value for key, value in thing(data["images"])._asdict().items()}
        continue
    found[path.name] = np.asarray(thing.score(outputs))
    if thing.reference is not None:
        found[f"{path.name}.p"] = np.asarray(thing.p_value(outputs))
        found[f"{path.name}.in"] = np.asarray(thing.predict(outputs))
np.savez(folder / "out.npz", **found)
"""


def in_another_process(folder: Path) -> dict[str, np.ndarray]:
    new = monitors.outputs("new")
    fields = {name: value for name, value in vars(new).items() if value is not None}
    np.savez(folder / "in.npz", **fields, images=monitors.NEW)
    subprocess.run([sys.executable, "-c", SCORE, str(folder)], check=True)
    with np.load(folder / "out.npz", allow_pickle=False) as found:
        return dict(found)


@pytest.mark.slow
def test_all_detectors_score_the_same_bits_in_another_process(tmp_path):
    new = monitors.outputs("new")
    for i, name in enumerate(names()):
        det = monitors.calibrated(name) if i % 2 else monitors.fitted(name)
        oodjax.save(tmp_path / "saved" / name, det)
        assert oodjax.load(tmp_path / "saved" / name) == det
    found = in_another_process(tmp_path)
    for i, name in enumerate(names()):
        det = monitors.calibrated(name)
        np.testing.assert_array_equal(found[name], det.score(new), err_msg=name)
        assert (f"{name}.p" in found) == bool(i % 2)
        if i % 2:
            np.testing.assert_array_equal(found[f"{name}.p"], det.p_value(new), err_msg=name)
            np.testing.assert_array_equal(found[f"{name}.in"], det.predict(new), err_msg=name)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle", ".npy")]


def a_vit() -> Network:
    config = ViTConfig(depth=2, width=16, heads=2, hidden=32, patch=8, num_classes=8, image_size=16, taps=(1, 2))
    model = ViT(config, rngs=nnx.Rngs(0))
    head = Head(model.head.kernel[...], model.head.bias[...])
    return Network.of(model, head=head, mean=[0.5] * 3, std=[0.25] * 3, fingerprint="1" * 64, resize=16, crop=16)


def a_monitor_of_a_vit() -> oodjax.Monitor:
    network = a_vit()
    train = oodjax.extract(network, monitors.TRAIN, monitors.LABELS, batch_size=32)
    det = detectors.create("vim").fit(oodjax.TrainStatistics.collect(train, network.head))
    return oodjax.Monitor(network, det.calibrate(oodjax.extract(network, monitors.KNOWN), tpr=0.9), batch_size=16)


@pytest.mark.slow
def test_monitors_take_their_network_with_them(tmp_path):
    made = {
        "resnet": oodjax.Monitor(monitors.network(), monitors.calibrated("mds"), batch_size=32),
        "odin": oodjax.Monitor(monitors.network(), monitors.calibrated("odin")),
        "vit": a_monitor_of_a_vit(),
    }
    for name, monitor in made.items():
        oodjax.save(tmp_path / "saved" / name, monitor)
        again = oodjax.load(tmp_path / "saved" / name)
        assert again.network.apply == monitor.network.apply  # one compiled program serves both
        for field in ("resize", "crop", "fingerprint", "has_maps", "manifest"):
            assert getattr(again.network, field) == getattr(monitor.network, field)
        assert again.batch_size == monitor.batch_size and again.detector == monitor.detector
        np.testing.assert_array_equal(again.network.head.kernel, monitor.network.head.kernel)
        np.testing.assert_array_equal(again.network.std, monitor.network.std)
    found = in_another_process(tmp_path)
    for name, monitor in made.items():
        for field, value in monitor(monitors.NEW)._asdict().items():
            np.testing.assert_array_equal(found[f"{name}.{field}"], value, err_msg=f"{name} {field}")


def test_a_bank_that_stays_in_a_file_is_kept_as_rows(tmp_path):
    det, features = monitors.fitted("knn"), np.ascontiguousarray(monitors.stats().features, np.float32)
    features.tofile(tmp_path / "rows")
    streamed = dataclasses.replace(
        det, params={**det.params, "bank": StreamedBank(str(tmp_path / "rows"), features.shape)}
    )
    oodjax.save(tmp_path / "to", streamed)
    (tmp_path / "rows").unlink()
    again = oodjax.load(tmp_path / "to")
    assert isinstance(again.params["bank"], jax.Array)
    np.testing.assert_allclose(again.score(monitors.outputs("new")), det.score(monitors.outputs("new")), rtol=1e-6)


def test_empty_arrays_and_nested_parameters_come_back(tmp_path):
    det = monitors.fitted("msp")
    params = {"a": [jnp.zeros((3, 0), jnp.float32), None], "b": (jnp.int32(3), {"c": jnp.ones(2, jnp.float32)})}
    oodjax.save(tmp_path / "to", dataclasses.replace(det, params=params))
    again = oodjax.load(tmp_path / "to").params
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert [leaf.dtype for leaf in jax.tree.leaves(again)] == [leaf.dtype for leaf in jax.tree.leaves(params)]


def test_an_earlier_one_is_replaced_and_nothing_else(tmp_path):
    to = tmp_path / "to"
    oodjax.save(to, monitors.fitted("mds"))
    oodjax.save(to, monitors.calibrated("msp"))
    assert oodjax.load(to) == monitors.calibrated("msp")
    model = initialize(ResNetConfig((1, 1, 1, 1), (1, 1, 1, 1), (1, 2, 2, 1), 2, "small", "direct", 2, 16), 0)
    checkpoint.save(tmp_path / "network", model)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("network", "thesis"):
        with pytest.raises(CheckpointError, match=f"{name} is not only a saved detector or monitor of ours"):
            oodjax.save(tmp_path / name, monitors.fitted("mds"))
    with pytest.raises(CheckpointError, match="to is not only a checkpoint of ours"):
        checkpoint.save(to, model)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    oodjax.save(tmp_path / "to", monitors.fitted("msp"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        oodjax.save(tmp_path / "to", monitors.fitted("mds"))
    assert oodjax.load(tmp_path / "to") == monitors.fitted("msp") and [p.name for p in tmp_path.iterdir()] == ["to"]


def edit(folder: Path, change) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def sealed(change):
    """An edit by a program that writes the checksum anew."""

    def both(manifest):
        change(manifest)
        saved = {"saved": manifest["saved"]}
        manifest["sha256"] = saving._seal(saved, {k: v for k, v in manifest.items() if k != "saved"})

    return lambda folder: edit(folder, both)


def flip(folder: Path) -> None:
    path = max((folder / "weights").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_a_folder_in_its_place(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def delete_weights(folder: Path) -> None:
    for path in sorted((folder / "weights").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "weights").rmdir()


def renamed(manifest):
    manifest["arrays"]["detector/other"] = manifest["arrays"].pop("detector/center")


DAMAGE = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "that oodjax.save wrote: manifest.json is missing"),
    "a folder": (put_a_folder_in_its_place, "manifest.json cannot be read: Is a directory"),
    "no json": (lambda f: (f / "manifest.json").write_text("{", encoding="utf-8"), "manifest.json is damaged"),
    "a bit": (flip, "weights is damaged"),
    "no arrays": (delete_weights, "weights is damaged"),
    "another threshold": (lambda f: edit(f, lambda m: m["detector"].update(tpr=0.5)), "was changed after it was"),
    "another option": (lambda f: edit(f, lambda m: m["detector"].update(name="rmds")), "was changed after"),
    "later schema": (lambda f: edit(f, lambda m: m["saved"].update(schema=2)), "schema 2, this version .* reads 1"),
    "shape": (
        sealed(lambda m: m["arrays"].update({"detector/center": ["float32", [5]]})),
        r"detector/center is float32 \(128,\), not float32 \(5,\)",
    ),
    "missing": (sealed(renamed), "missing detector/other; left over detector/center"),
    "unknown detector": (sealed(lambda m: m["detector"].update(name="mine")), "unknown detector 'mine'.*registers it"),
    "unknown option": (sealed(lambda m: m["detector"].update(options={"k": 3})), "mds has no hyper-parameter k"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_what_does_not_fit_is_said_in_a_sentence(tmp_path, damage, words):
    oodjax.save(tmp_path / "to", monitors.calibrated("mds"))
    damage(tmp_path / "to")
    with pytest.raises(CheckpointError, match=words) as caught:
        oodjax.load(tmp_path / "to")
    assert "\n" not in str(caught.value)


def test_a_network_s_checkpoint_is_told_apart(tmp_path):
    model = initialize(ResNetConfig((1, 1, 1, 1), (1, 1, 1, 1), (1, 2, 2, 1), 2, "small", "direct", 2, 16), 0)
    checkpoint.save(tmp_path / "network", model)
    with pytest.raises(CheckpointError, match="a network's checkpoint, which oodjax.zoo.load reads"):
        oodjax.load(tmp_path / "network")


def own_network(scale: float = 1.0, **settings) -> Network:
    kernel = np.full((48, 4), scale, np.float32)

    def run(images):
        features = images.reshape(images.shape[0], -1).astype(jnp.float32)
        return jnp.matmul(features, kernel, precision="highest"), features

    return Network.from_function(run, (kernel, np.zeros(4, np.float32)), **{"resize": None, "crop": 4, **settings})


def test_a_function_of_your_own_is_given_again(tmp_path):
    images, own = monitors.KNOWN[:, :4, :4], own_network()
    own = dataclasses.replace(own, manifest={"class_names": list("abcd")})
    monitor = oodjax.Monitor(own, detectors.create("mls").calibrate(oodjax.extract(own, images)), batch_size=8)
    oodjax.save(tmp_path / "to", monitor)
    again = oodjax.load(tmp_path / "to", own_network())
    assert again.batch_size == 8 and again.network.class_names == ("a", "b", "c", "d")
    for mine, theirs in zip(again(images), monitor(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(saving.NetworkNeeded, match=r"a function of your own, .* give it again, oodjax.load\(folder, n"):
        oodjax.load(tmp_path / "to")
    oodjax.load(tmp_path / "to", own_network(1 + 1e-6))  # another device's rounding
    others = {"another head: its kernel differs": own_network(1.01), "crop 4, this one has 2": None}
    others["crop 4, this one has 2"] = dataclasses.replace(own, crop=2)
    others["resize None, this one has 8"] = own_network(resize=8)
    for said, other in others.items():
        with pytest.raises(CheckpointError, match=said):
            oodjax.load(tmp_path / "to", other)
    with pytest.raises(TypeError, match="load takes an oodjax.Network beside the folder, got a dict"):
        oodjax.load(tmp_path / "to", {})
    oodjax.save(tmp_path / "alone", monitor.detector)
    with pytest.raises(CheckpointError, match="alone holds a detector alone: load it without a network"):
        oodjax.load(tmp_path / "alone", own)


def test_what_cannot_be_kept_is_said_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="mds is not fitted"):
        oodjax.save(tmp_path / "to", detectors.create("mds"))
    with pytest.raises(TypeError, match="save takes a fitted detector or an oodjax.Monitor, got a dict"):
        oodjax.save(tmp_path / "to", {})
    odd = dataclasses.replace(monitors.fitted("msp"), params=(monitors.stats(),))
    with pytest.raises(TypeError, match="arrays in dicts, lists, tuples and Head from its fit, got a TrainStatistics"):
        oodjax.save(tmp_path / "to", odd)
    assert not list(tmp_path.iterdir())
