"""Image sets of the study: where they come from (`sources`), what they are (`sets`), how they are read (`loader`)."""

from oodjax.data import digits, sources, synthetic
from oodjax.data.digits import DigitsData
from oodjax.data.loader import Batch, Geometry, Loader, epoch_order, load
from oodjax.data.sets import ImageSet
from oodjax.data.sources import BadImage, DataError, Source, source_of

__all__ = [
    "BadImage",
    "Batch",
    "DataError",
    "DigitsData",
    "Geometry",
    "ImageSet",
    "Loader",
    "Source",
    "digits",
    "epoch_order",
    "load",
    "source_of",
    "sources",
    "synthetic",
]
