"""Every test runs with strict dtype promotion and explicit broadcasting, so that no precision is lost unnoticed.

Annotated shapes are checked on every call of the modules in `shapes.MODULES`. Processes that tests start answer SIGINT,
also where the tests themselves run in the background of a shell, which ignores it. Several test processes share an
accelerator, so none takes its memory beforehand.
"""

import os
import signal

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import shapes
from jaxtyping import install_import_hook

install_import_hook([f"oodjax.{name}" for name in shapes.MODULES], "shapes.check")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
signal.signal(signal.SIGINT, signal.default_int_handler)
