"""Exact blocked k-nearest-neighbour search by inner product, on the device."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

BLOCK = 16_384


def normalize(features: jax.Array) -> jax.Array:
    """(n, D) rows at unit L2 length; an all-zero row stays zero."""
    # The largest magnitude goes first, so that squares of large features do not overflow.
    scale = jnp.abs(features).max(axis=-1, keepdims=True)
    scaled = features / jnp.where(scale > 0, scale, 1.0)
    norm = jnp.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    return scaled / jnp.where(norm > 0, norm, 1.0)


@partial(jax.jit, static_argnames=("k", "block"))
def nearest(queries: jax.Array, bank: jax.Array, k: int, block: int = BLOCK) -> tuple[jax.Array, jax.Array]:
    """The k bank rows with the largest inner product with each query, best first.

    One pass over the bank in blocks with a running top-k: memory is n x (block + k), whatever the bank's size.

    Args:
      queries: (n, D) float32.
      bank: (m, D) float32, m >= k.
      k: how many neighbours.
      block: bank rows a step.

    Returns:
      products: (n, k) float32 inner products, descending.
      indices: (n, k) int32 rows of the bank.
    """
    m = bank.shape[0]
    if not 1 <= k <= m:
        raise ValueError(f"k must be between 1 and the bank's {m} rows, got {k}")
    if m <= block:
        return jax.lax.top_k(jnp.matmul(queries, bank.T, precision="highest"), k)
    n, whole = queries.shape[0], m // block

    def merge(carry, start, size):
        values, indices = carry
        rows = jax.lax.dynamic_slice_in_dim(bank, start, size)
        found = jnp.matmul(queries, rows.T, precision="highest")
        if size > k:  # a block's own top k first: the merge then sorts 2k values instead of k + block
            found, local = jax.lax.top_k(found, k)
        else:
            local = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32)[None, :], (n, size))
        both = jnp.concatenate([values, found], axis=1)
        ids = jnp.concatenate([indices, local + start], axis=1)
        values, chosen = jax.lax.top_k(both, k)
        return values, jnp.take_along_axis(ids, chosen, axis=1)

    carry = (jnp.full((n, k), -jnp.inf, jnp.float32), jnp.zeros((n, k), jnp.int32))
    starts = jnp.arange(whole, dtype=jnp.int32) * block
    carry, _ = jax.lax.scan(lambda c, s: (merge(c, s, block), None), carry, starts)
    return merge(carry, jnp.int32(whole * block), m - whole * block) if m % block else carry
