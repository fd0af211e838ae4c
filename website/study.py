"""Figures of the studies that the pages show; those of digits are kept from a results folder.

python -m website.study oodjax-results/digits
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from oodjax.analysis import mean_ranks

DATA = Path(__file__).parents[1] / "docs" / "data"
DIGITS, PAPER = DATA / "digits.csv", DATA / "paper.csv"
CATEGORIES = ("near", "far", "extreme", "synthetic")


class Standing(NamedTuple):
    """How a detector did in the digits study; AUROC in percent, mean over sets.

    Attributes:
      rank, detectors: its place by mean rank, of how many.
      mean_rank, low, high: with the 95 % interval over recipes.
      mean: over recipes and sets.
      worst, worst_recipe: the lowest of the recipes' means.
      by_category: OOD category -> mean over recipes.
    """

    rank: int
    detectors: int
    mean_rank: float
    low: float
    high: float
    mean: float
    worst: float
    worst_recipe: str
    by_category: dict[str, float]


@cache
def rows() -> pd.DataFrame:
    """A row a recipe, detector and set: `recipe`, `seeds`, `detector`, `dataset`, `ood_category`, `auroc` (percent)."""
    long = pd.read_csv(DIGITS).melt(["recipe", "seeds", "detector"], var_name="set", value_name="auroc")
    split = long["set"].str.split("/", n=1, expand=True)
    return long.assign(ood_category=split[0], dataset=split[1]).drop(columns="set")


@cache
def standings() -> dict[str, Standing]:
    table = rows()
    ranks = mean_ranks(table, block="recipe")
    found = {}
    for place, (name, rank, low, high) in enumerate(ranks.itertuples(index=False, name=None), start=1):
        own = table[table["detector"] == name]
        recipes, categories = own.groupby("recipe")["auroc"].mean(), own.groupby("ood_category")["auroc"].mean()
        by_category = {category: float(categories[category]) for category in CATEGORIES}
        lowest = str(recipes.idxmin())
        found[name] = Standing(
            place, len(ranks), rank, low, high, float(recipes.mean()), float(recipes[lowest]), lowest, by_category
        )
    return found


@cache
def paper() -> pd.DataFrame:
    """What the paper says of a detector's rank, by detector."""
    return pd.read_csv(PAPER).set_index("detector")


def write(folder: Path) -> None:
    """The AUROC of a results folder in percent, mean over seeds: a row a recipe and detector, a column a set."""
    table = pd.read_csv(folder / "results.csv")
    table["recipe"] = table["recipe"] if "recipe" in table else table["model"]
    table["seeds"] = table.groupby("recipe")["model"].transform("nunique")
    table["set"] = table["ood_category"] + "/" + table["dataset"]
    rows = ["recipe", "seeds", "detector"]
    wide = table.pivot_table(index=rows, columns="set", values="auroc", sort=False).mul(100).round(2)
    named = [name for category in CATEGORIES for name in wide.columns if name.startswith(f"{category}/")]
    wide[named].to_csv(DIGITS, encoding="utf-8", lineterminator="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
