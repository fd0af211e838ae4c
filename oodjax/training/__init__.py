"""Training recipes, and the trainer that runs them."""

from oodjax.training.attacks import PGD
from oodjax.training.recipes import CATEGORIES, RECIPES, Recipe, register
from oodjax.training.train import train

__all__ = ["CATEGORIES", "PGD", "RECIPES", "Recipe", "register", "train"]
