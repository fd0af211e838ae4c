"""The shapes in annotations are checked in this suite: a function that breaks its own is found by any test of it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import shapes
from jaxtyping import Float, TypeCheckError, jaxtyped

from oodjax import Head, neighbors, odin, taps
from oodjax.detectors import base


def test_wrong_shapes_are_found():
    features, bank = jnp.ones((3, 4)), jnp.ones((5, 4))
    with pytest.raises(TypeCheckError, match="queries"):
        neighbors.nearest(features[0], bank, 1)
    with pytest.raises(TypeCheckError, match="maps"):
        taps.gram_rows(jnp.ones((3, 4)), 2)
    with pytest.raises(TypeCheckError, match="temperatures"):
        odin.perturbed_scores(lambda x: (x, None), features, jnp.float32(1), jnp.ones(1), jnp.ones(4))
    with pytest.raises(TypeCheckError, match="values"):
        base.kth_largest(jnp.ones(3), 1)


def test_a_wrong_result_is_found_and_words_are_left_to_the_function():
    @jaxtyped(typechecker=shapes.check)
    def doubled(x: Float[np.ndarray, " n"], times: int = 2) -> Float[np.ndarray, " n"]:
        return np.concatenate([x] * times)

    with pytest.raises(TypeCheckError, match="return value"):
        doubled(np.ones(3))
    np.testing.assert_array_equal(doubled(np.ones(3), "1" == "1"), np.ones(3))
    with pytest.raises(ValueError, match="Head takes features"):
        Head(np.ones((4, 2)), np.ones(2))(np.ones((3, 3)))
