"""Detectors that read gradients of the head's weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from oodjax.detectors.base import Method, register
from oodjax.outputs import Outputs
from oodjax.softmax import log_against_uniform


def gradnorm_score(params: Any, outputs: Outputs) -> Float[jax.Array, " n"]:
    """L1 norm of d(sum_c -log p_c)/dW (Huang et al., NeurIPS 2021, eq. 3), the head's weights.

    The gradient is the outer product of h and K p - 1, so its L1 norm is |h|_1 |K p - 1|_1: no backward pass.
    Deviations: the sum over classes, not the mean, as in OpenOOD.
    """
    excess = jnp.expm1(log_against_uniform(outputs.logits))  # K p - 1, which cancels where p is next to 1 / K
    return jnp.abs(outputs.features).sum(axis=-1) * jnp.abs(excess).sum(axis=-1)


register(
    Method("gradnorm", "gradient", gradnorm_score, needs=("logits", "features"), reads=(), aliases=("gradient norm",))
)
