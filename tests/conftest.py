"""Every test runs with strict dtype promotion and explicit broadcasting, so that no precision is lost unnoticed."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
