"""`oodjax.export`: one file that JAX alone runs, for any number of images."""

from __future__ import annotations

import subprocess
import sys

import jax.numpy as jnp
import monitors
import numpy as np
import pytest
from test_saving import a_monitor_of_a_vit

import oodjax
from oodjax import detectors
from oodjax.models.network import Network
from oodjax.neighbors import StreamedBank

RUN = """
import sys
import jax.export
import numpy as np

artefact, images, out = sys.argv[1:]
with open(artefact, "rb") as file:
    monitor = jax.export.deserialize(bytearray(file.read()))
images = np.load(images)
found = {}
for n in (1, 5, len(images)):
    label, score, p_value, verdict = monitor.call(images[:n])
    found |= {f"label{n}": label, f"score{n}": score, f"p{n}": p_value, f"in{n}": verdict}
np.savez(out, platforms=monitor.platforms, **found)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"oodjax", "flax", "orbax", "scipy.stats"}, loaded
"""


def run_with_jax_alone(folder, artefact) -> dict[str, np.ndarray]:
    (folder / "run.py").write_text(RUN, encoding="utf-8")
    np.save(folder / "images.npy", monitors.NEW)
    command = [sys.executable, "-I", "run.py", str(artefact), "images.npy", "out.npz"]
    subprocess.run(command, cwd=folder, check=True, env={"PATH": ""})  # without the library's folder on its path
    with np.load(folder / "out.npz") as found:
        return dict(found)


def assert_same(found, monitor) -> None:
    for n in (1, 5, len(monitors.NEW)):
        expected = monitor(monitors.NEW[:n])
        spread = monitor(monitors.NEW).score.std()
        np.testing.assert_allclose(found[f"score{n}"], expected.score, rtol=0, atol=1e-5 * spread)
        np.testing.assert_array_equal(found[f"label{n}"], expected.label)
        # Another batch size rounds differently: a score may pass one calibration score, no more.
        assert np.abs(found[f"p{n}"] - expected.p_value).max() < 1.5 / 41
        np.testing.assert_array_equal(
            found[f"in{n}"], found[f"score{n}"] >= np.float32(monitor.detector.calibration.threshold)
        )
        assert found[f"in{n}"].dtype == bool and found[f"label{n}"].dtype == np.int32


@pytest.mark.parametrize("name", ["mds", pytest.param("gram", marks=pytest.mark.slow)])
def test_jax_alone_runs_the_artefact_for_any_number_of_images(tmp_path, name):
    monitor = oodjax.Monitor(monitors.network(), monitors.calibrated(name), batch_size=32)
    oodjax.export(monitor, tmp_path / "artefact")
    found = run_with_jax_alone(tmp_path, tmp_path / "artefact")
    assert tuple(found["platforms"]) == ("cpu", "cuda", "tpu")
    assert_same(found, monitor)


@pytest.mark.slow
def test_a_vit_is_exported_too(tmp_path):
    monitor = a_monitor_of_a_vit()
    oodjax.export(monitor, tmp_path / "artefact", platforms=("cpu",))
    found = run_with_jax_alone(tmp_path, tmp_path / "artefact")
    assert tuple(found["platforms"]) == ("cpu",)
    assert_same(found, monitor)


@pytest.mark.slow
@pytest.mark.parametrize("name", detectors.names())
def test_every_detector_lowers_for_all_platforms(tmp_path, name):
    from jax import export

    monitor = oodjax.Monitor(monitors.network(), monitors.calibrated(name), batch_size=32)
    oodjax.export(monitor, tmp_path / "artefact")
    again = export.deserialize(bytearray((tmp_path / "artefact").read_bytes()))
    _, score, *_ = again.call(monitors.NEW)
    expected = monitor(monitors.NEW).score
    # GEN's scores of such flat logits spread by 0.0015 of their size: one rounding of float32 is 8e-5 of that.
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5 * expected.std())


def without_a_size():
    kernel = np.ones((48, 4), np.float32)

    def run(images):
        features = images.reshape(images.shape[0], -1)[:, :48].astype(jnp.float32)
        return jnp.matmul(features, kernel, precision="highest"), features

    network = Network.from_function(run, (kernel, np.zeros(4, np.float32)), resize=None, crop=None)
    det = detectors.create("mls").calibrate(oodjax.extract(network, monitors.KNOWN[:, :4, :4]))
    return oodjax.Monitor(network, det)


def streamed(folder):
    det = monitors.calibrated("knn")
    bank = StreamedBank(str(folder / "rows"), (96, 128))
    return oodjax.Monitor(
        monitors.network(),
        detectors.Detector(det.name, det.settings, {**det.params, "bank": bank}, det.widths, det.reference),
    )


def test_what_cannot_be_exported_is_said_in_a_sentence(tmp_path, monkeypatch):
    monitor = oodjax.Monitor(monitors.network(), monitors.calibrated("mls"))
    (tmp_path / "old").write_bytes(b"an earlier one")
    faults = [
        (ValueError, "platforms must be some of cpu, cuda, rocm, tpu, got abacus", monitor, ("abacus",)),
        (ValueError, "platforms must be some of .*, got none", monitor, ()),
        (TypeError, "export takes an oodjax.Monitor, got a Detector", monitors.calibrated("mls"), ("cpu",)),
        (ValueError, "says no size of images", without_a_size(), ("cpu",)),
        (ValueError, "the bank of knn stays in a file", streamed(tmp_path), ("cpu",)),
    ]
    for kind, words, thing, platforms in faults:
        with pytest.raises(kind, match=words) as caught:
            oodjax.export(thing, tmp_path / "old", platforms)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("oodjax.exporting.LARGEST", 1000)
    with pytest.raises(ValueError, match="an artefact holds less than 2"):
        oodjax.export(monitor, tmp_path / "old", "cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'oodjax\[export\]'"):
        oodjax.export(monitor, tmp_path / "old", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (
        tmp_path / "old"
    ).read_bytes() == b"an earlier one"
