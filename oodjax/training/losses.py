"""What contrastive training minimises, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def contrastive(embeddings: jax.Array, labels: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, eq. 2, L_out).

    For anchor i, P(i) the other rows of its label and A(i) all other rows, with embeddings at unit length:
    - 1 / |P(i)| sum_{p in P(i)} log( exp(z_i . z_p / t) / sum_{a in A(i)} exp(z_i . z_a / t) ).
    With the index of the image as label and two views of each it is SimCLR's NT-Xent (Chen et al., ICML 2020, eq. 1).

    Args:
      embeddings: (m, d) rows of any length but 0.
      labels: (m,) integers; every label at least twice.
      temperature: t.
    """
    z = embeddings / jnp.sqrt((embeddings**2).sum(axis=1, keepdims=True) + 1e-12)
    itself = jnp.eye(z.shape[0], dtype=bool)
    similarity = jnp.where(itself, -jnp.inf, jnp.matmul(z, z.T, precision="highest") / temperature)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    log_shares = jnp.where(positive, jax.nn.log_softmax(similarity), 0.0)
    return -(log_shares.sum(axis=1) / positive.sum(axis=1).astype(z.dtype)).mean()
