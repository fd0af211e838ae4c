"""A stranger's detector: `register`, and the laws of `check_detector`, each broken once."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from oodjax import detectors
from oodjax.detectors import NAMES, Method, names, register
from oodjax.detectors.base import METHODS
from oodjax.testing import check_detector


def center_fit(stats, validation, scale):
    return {"center": stats.mean, "scale": scale}


def center_score(params, outputs, scale):
    """- distance to the mean training feature times `scale`."""
    offset = outputs.features - params["center"][None, :]
    return -params["scale"] * jnp.sqrt((offset**2).sum(axis=-1))


OWN = Method(
    "center",
    "own",
    center_score,
    needs=("features",),
    fit=center_fit,
    reads=("label_sums",),
    options={"scale": 1.0},
    grid=({"scale": 1.0}, {"scale": 2.0}),
)


@pytest.fixture
def free():
    """What a test registers is forgotten after it."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_a_registered_method_is_one_of_all(free):
    assert detectors.names()[:21] == NAMES
    assert register(OWN) is OWN
    assert NAMES == detectors.names()[:21] and detectors.names()[-1] == "center" and "center" not in NAMES
    assert list(detectors.families()) == list(detectors.names()) and detectors.families()["center"] == "own"
    assert detectors.grid("center") == [{"scale": 1.0}, {"scale": 2.0}]
    assert detectors.reads(["center"]) == {"label_sums"}
    points, notes = detectors.search_space("center", oracles.stats())
    assert [p.options for p in points] == detectors.grid("center") and notes == []
    p = oracles.problem()
    for scale in (1.0, 2.0):
        det = detectors.create("center", scale=scale).fit(oracles.stats())
        features, mean = (
            np.asarray(x, np.float64) for x in (p.test.features, np.asarray(p.train.features).mean(axis=0))
        )
        expected = -scale * np.sqrt(((features - mean) ** 2).sum(axis=1))
        np.testing.assert_allclose(det.score(p.test), expected, rtol=1e-5)
    register(dataclasses.replace(OWN, aliases=("distance to the mean",)), replace=True)
    with pytest.raises(ValueError, match=r"Did you mean 'center'\?$"):
        detectors.create("distance_to_mean")
    with pytest.raises(
        ValueError, match="unknown detector 'centre'; there are: msp, .*, center. Did you mean 'center'"
    ):
        detectors.create("centre")


def test_a_name_twice_is_an_error_unless_it_is_to_be_replaced(free):
    register(OWN)
    stats, test = oracles.stats(), oracles.problem().test
    before = np.asarray(detectors.create("center").fit(stats).score(test))
    doubled = dataclasses.replace(OWN, score=lambda params, outputs, scale: 2 * center_score(params, outputs, scale))
    for again in (OWN, doubled):
        with pytest.raises(ValueError, match="'center' is registered already: .* pass replace=True"):
            register(again)
    register(doubled, replace=True)
    np.testing.assert_allclose(detectors.create("center").fit(stats).score(test), 2 * before, rtol=1e-6)
    assert detectors.names().count("center") == 1


FAULTS = {
    "the study's": (lambda: register(dataclasses.replace(OWN, name="msp"), replace=True), ValueError, "of the study"),
    "no method": (lambda: register("center"), TypeError, "takes a Method"),
    "no word": (lambda: register(dataclasses.replace(OWN, name="my center:1")), ValueError, "got 'my center:1'"),
    "no score": (lambda: register(dataclasses.replace(OWN, score=3)), TypeError, "score must be a function, got 3"),
    "no limit": (lambda: register(dataclasses.replace(OWN, limit=5)), TypeError, "limit must be a function, got 5"),
    "aliases": (
        lambda: register(dataclasses.replace(OWN, aliases="middle")),
        TypeError,
        "aliases must be a tuple of texts, got",
    ),
    "needs": (
        lambda: register(dataclasses.replace(OWN, needs=("maps",))),
        ValueError,
        "needs names maps; possible: logits, features, gram",
    ),
    "reads": (lambda: register(dataclasses.replace(OWN, reads=("mean",))), ValueError, "reads names mean; possible: "),
    "grid": (lambda: register(dataclasses.replace(OWN, grid=({"k": 1},))), ValueError, "grid names k; possible: scale"),
}


@pytest.mark.parametrize(("call", "kind", "words"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_registered_is_said_in_a_sentence(call, kind, words):
    before = dict(METHODS)
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value) and before == METHODS


# ---------------------------------------------------------------------------------------------------------------------
# The laws


def broken(**changes) -> Method:
    return dataclasses.replace(OWN, **changes)


def rescaled(change):
    def score(params, outputs, scale):
        """A law is broken here."""
        return change(center_score(params, outputs, scale), outputs)

    return broken(score=score)


def odd_fit(stats, validation, scale):
    stats.features[0, 0] += 1
    return center_fit(stats, validation, scale)


def eager_only(params, outputs, scale):
    """Another score outside of a program."""
    factor = 1.0 if isinstance(outputs.features, jax.core.Tracer) else 2.0
    return factor * center_score(params, outputs, scale)


def undocumented(params, outputs, scale):
    return center_score(params, outputs, scale)


BROKEN = {
    "docstring": broken(score=undocumented),
    "shape and type": rescaled(lambda s, o: s[:, None]),
    "finite": rescaled(lambda s, o: s.at[3].set(jnp.nan)),
    "not constant": rescaled(lambda s, o: 0 * s),
    "batch split": rescaled(lambda s, o: s - s.mean()),
    "permutation": rescaled(lambda s, o: s * jnp.where(jnp.arange(len(s)) % 20 < 10, 1.0, 2.0)),
    "eager": broken(score=eager_only),
}


@pytest.mark.slow
def test_a_detector_that_keeps_all_laws_passes_and_leaves_no_trace():
    check_detector(OWN)
    check_detector(OWN, scale=3.0)
    assert "center" not in METHODS
    with pytest.raises(ValueError, match="center has no hyper-parameter k; it takes: scale"):
        check_detector(OWN, k=3)
    with pytest.raises(ValueError, match="unknown detector 'centre'"):
        check_detector("centre")


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_is_named(law):
    with pytest.raises(AssertionError, match=f"center breaks the law '{law}': ") as caught:
        check_detector(BROKEN[law])
    assert "\n" not in str(caught.value)


FEW = ("msp", "vim")


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in names()])
def test_our_own_keep_all_laws(name):
    check_detector(name, **{"gen": {"top_m": 5}, "knn": {"k": 10}}.get(name, {}))
