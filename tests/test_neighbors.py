"""The blocked search against NumPy and scikit-learn."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from oodjax.neighbors import nearest, normalize

M = 60


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(M, 8)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, M])
@pytest.mark.parametrize("block", [4, 16, 20, 59, 60, 1000])
def test_equal_to_a_full_sort(k, block):
    """Blocks that divide the bank, that do not, that are smaller than k and that hold all of it."""
    queries, bank = data()
    products, indices = nearest(queries, bank, k, block=block)
    exact = queries.astype(np.float64) @ bank.astype(np.float64).T
    want = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, want)
    assert indices.dtype == jnp.int32 and products.dtype == jnp.float32
    # eight float32 products of up to 9
    np.testing.assert_allclose(products, np.take_along_axis(exact, want, axis=1), rtol=1e-6, atol=5e-6)


def test_equal_to_sklearn_on_unit_vectors():
    queries, bank = (normalize(jnp.asarray(x)) for x in data())
    products, indices = nearest(queries, bank, 10, block=16)
    distances, want = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(bank).kneighbors(queries)
    np.testing.assert_array_equal(indices, want)
    np.testing.assert_allclose(2 - 2 * products, distances**2, atol=1e-6)


@pytest.mark.parametrize("block", [5, 16, 60])
def test_ties_go_to_the_first_row(block):
    bank = np.tile(np.eye(3, dtype=np.float32), (20, 1))  # rows 0, 3, 6, ... are equal
    products, indices = nearest(np.array([[1, 0.5, 0]], np.float32), bank, 25, block=block)
    np.testing.assert_array_equal(indices[0], [*range(0, 60, 3), *range(1, 15, 3)])
    np.testing.assert_array_equal(products[0], [1.0] * 20 + [0.5] * 5)


def test_negative_products_are_found_too():
    queries, bank = data()
    products, indices = nearest(np.abs(queries), -np.abs(bank), M, block=16)
    assert (np.asarray(products) < 0).all()
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(M), (5, 1)))


@pytest.mark.parametrize("k", [0, -1, 61])
def test_k_beyond_the_bank_is_refused(k):
    with pytest.raises(ValueError, match=rf"k must be between 1 and the bank's 60 rows, got {k}"):
        nearest(*data(), k)


def test_normalize_to_unit_length_at_any_scale():
    rows = data()[1]
    for scale in (1.0, 1e25, 1e-25):  # squares leave float32
        got = normalize(jnp.asarray(scale * rows, jnp.float32))
        want = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(normalize(jnp.zeros((2, 3))), 0)
