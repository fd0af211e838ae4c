"""The files of `examples/`, as a user runs them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from oodjax import Outputs, TrainStatistics, detectors, plugins
from oodjax.detectors.base import METHODS
from oodjax.testing import check_detector
from oodjax.training import RECIPES

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def usual():
    """JAX as it is for users, not as strict as for the tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def forgotten(monkeypatch):
    """What a plugin registers is forgotten after the test, and modules of its name from elsewhere before."""
    monkeypatch.chdir(EXAMPLES)
    for name in ("own_detector", "own_recipe"):
        sys.modules.pop(name, None)
    tables = (METHODS, dict(METHODS)), (RECIPES, dict(RECIPES))
    path = list(sys.path)
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
    sys.path[:] = path
    for name in ("own_detector", "own_recipe"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["plain_jax", "flax_nnx", "flax_linen", "equinox_model"])
def test_a_model_of_each_framework_is_scored(name, usual, capsys):
    found = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    network, head = found["network"], found["stats"].head
    direct = Outputs(*network(jnp.asarray(found["train"])), labels=found["labels"])
    again = detectors.create("vim", dim=4).fit(TrainStatistics.collect(direct, head))
    want = again.score(Outputs(*network(jnp.asarray(found["new"]))))
    # Another batch size adds float32 sums in another order.
    np.testing.assert_allclose(found["scores"], want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert np.ptp(want) > 1e-2 and str(np.asarray(found["scores"]))[:12] in capsys.readouterr().out


def test_a_detector_of_one_s_own_is_a_plugin(forgotten):
    plugins.load(["own_detector"])
    logits = oracles.problem().test.logits
    ordered = np.sort(np.asarray(logits, np.float64), axis=1)
    scores = detectors.create("margin").score(oracles.problem().test)
    np.testing.assert_allclose(scores, ordered[:, -1] - ordered[:, -2], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_detector_of_one_s_own_keeps_all_laws(forgotten):
    plugins.load(["own_detector"])
    check_detector("margin")


def test_a_recipe_of_one_s_own_is_a_plugin(forgotten, usual):
    plugins.load(["own_recipe"])
    images = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    targets = np.eye(2, dtype=np.float32)
    blurred, same = RECIPES["blurred"].functions[-1](jax.random.key(0), images, targets)
    np.testing.assert_allclose(blurred[:, :, 1], (images[:, :, 1] + images[:, :, 2]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(same, targets)
    assert [*RECIPES][-1] == "blurred"
