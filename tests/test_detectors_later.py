"""The later detectors against their float64 oracles, at every option, and where numbers are hard."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import oracles
import oracles_later
import pytest
from oracles_later import OPTIONS

from oodjax import detectors

LATER = tuple(name for name in detectors.names() if name not in detectors.NAMES)
POINTS = [(name, options) for name in LATER for options in OPTIONS.get(name, ())]


@cache
def scored(variant: str) -> np.ndarray:
    """(n, points): all points in one compiled call, the same program for every variant."""
    p, stats = oracles.problem(variant), oracles.stats(variant)
    fitted = tuple(detectors.create(name, **options).fit(stats) for name, options in POINTS)
    return np.asarray(oracles.score_together(fitted, p.test), np.float64)


def oracle(name: str, variant: str, options: dict) -> np.ndarray:
    p = oracles.problem(variant)
    if name == "relation":  # which rows are drawn is the statistics' affair
        chosen = oracles.stats(variant).bank_subset(round(options["fraction"] * oracles.TRAIN))
        return np.array(oracles_later.relation(p, chosen, options["power"]))
    return np.array(oracles_later.ORACLES[name](p, **options))


def tolerance(name: str, want: np.ndarray, variant: str) -> tuple[float, float]:
    """(relative, absolute): some hundred float32 roundings, of the terms where a score is their difference."""
    top = np.abs(want).max()
    if name == "openmax":  # the likelihood is flat at its maximum, where the oracle finds the shape to some 1e-7
        return 2e-5, 2e-5 * max(top, np.abs(oracles.problem(variant).test.logits).max())
    if name == "mdspp":  # differences of distances of up to 100
        return 1e-5, 1e-5 * max(top, 100)
    if name == "residual":  # of the features, before they are projected
        return 1e-5, 5e-6 * np.abs(oracles.problem(variant).test.features).max()
    return 5e-6, 5e-6 * top


def test_all_oracles_are_of_later_detectors():
    assert set(oracles_later.ORACLES) <= set(LATER) and len(LATER) >= 8


@pytest.mark.parametrize("name", LATER)
def test_each_has_an_oracle_at_every_option(name):
    assert name in oracles_later.ORACLES, f"tests/oracles_later.py has no oracle of {name}"
    assert set().union(*OPTIONS[name]) == set(detectors.create(name).options)


@pytest.mark.parametrize("variant", oracles.VARIANTS)
@pytest.mark.parametrize("name", LATER)
def test_scores_agree(name, variant):
    for i, (other, options) in enumerate(POINTS):
        if other == name:
            want = oracle(name, variant, options)
            rtol, atol = tolerance(name, want, variant)
            np.testing.assert_allclose(scored(variant)[:, i], want, rtol=rtol, atol=atol, err_msg=f"{name} {options}")


@pytest.mark.parametrize("name", [name for name in LATER if len(OPTIONS.get(name, ())) > 1])
def test_every_option_changes_the_score(name):
    columns = {str(o): scored("rectified")[:, i] for i, (other, o) in enumerate(POINTS) if other == name}
    for (a, x), (b, y) in itertools.combinations(columns.items(), 2):
        assert np.abs(x - y).max() > 1e-4 * min(np.abs(x).max(), np.abs(y).max()), f"{name}: {a} and {b} agree"
