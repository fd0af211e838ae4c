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
      mean_rank, low, high: with the 95 % interval over models.
      mean: over models and sets.
      worst, worst_model: the lowest of the models' means.
      by_category: OOD category -> mean over models.
    """

    rank: int
    detectors: int
    mean_rank: float
    low: float
    high: float
    mean: float
    worst: float
    worst_model: str
    by_category: dict[str, float]


@cache
def rows() -> pd.DataFrame:
    """A row a model, detector and set: `model`, `detector`, `dataset`, `ood_category`, `auroc` in percent."""
    wide = pd.read_csv(DIGITS)
    long = wide.melt(["model", "detector"], var_name="set", value_name="auroc")
    split = long["set"].str.split("/", n=1, expand=True)
    return long.assign(ood_category=split[0], dataset=split[1]).drop(columns="set")


@cache
def standings() -> dict[str, Standing]:
    table = rows()
    ranks = mean_ranks(table).reset_index(drop=True)
    found = {}
    for place, (name, rank, low, high) in enumerate(ranks.itertuples(index=False, name=None), start=1):
        own = table[table["detector"] == name]
        models, categories = own.groupby("model")["auroc"].mean(), own.groupby("ood_category")["auroc"].mean()
        by_category = {category: float(categories[category]) for category in CATEGORIES}
        lowest = str(models.idxmin())
        found[name] = Standing(
            place, len(ranks), rank, low, high, float(models.mean()), float(models[lowest]), lowest, by_category
        )
    return found


@cache
def paper() -> pd.DataFrame:
    """What the paper says of a detector's rank, by detector."""
    return pd.read_csv(PAPER).set_index("detector")


def write(folder: Path) -> None:
    """The AUROC of a results folder in percent, a row a model and detector, a column a set."""
    table = pd.read_csv(folder / "results.csv")
    table["set"] = table["ood_category"] + "/" + table["dataset"]
    wide = table.pivot(index=["model", "detector"], columns="set", values="auroc").mul(100).round(2)
    order = pd.MultiIndex.from_frame(table[["model", "detector"]].drop_duplicates())
    sets = table[["ood_category", "set"]].drop_duplicates()
    named = [name for category in CATEGORIES for name in sets.loc[sets["ood_category"] == category, "set"]]
    wide.loc[order, named].to_csv(DIGITS, encoding="utf-8", lineterminator="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
