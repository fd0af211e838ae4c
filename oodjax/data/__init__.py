"""Image sets of the study: what they are (`sets`), where they come from (`digits`, `synthetic`), how they are read."""

from oodjax.data import digits, synthetic
from oodjax.data.digits import DigitsData
from oodjax.data.loader import Batch, batches, epoch_order
from oodjax.data.sets import ImageSet

__all__ = ["Batch", "DigitsData", "ImageSet", "batches", "digits", "epoch_order", "synthetic"]
