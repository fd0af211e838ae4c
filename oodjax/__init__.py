"""Out-of-distribution detection at accelerator speed, in JAX."""

from oodjax._version import __version__ as __version__
