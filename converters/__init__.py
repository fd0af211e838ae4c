"""Published checkpoints -> models of `oodjax`: `convert` for tensors at hand, `python -m converters` for files."""

from converters.convert import convert
from converters.errors import ConversionError
from converters.rules import LAYOUTS

__all__ = ["LAYOUTS", "ConversionError", "convert"]
