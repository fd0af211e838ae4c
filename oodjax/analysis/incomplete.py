"""Tables with cells missing: the largest part that is complete, and a test of ranks that takes gaps."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from oodjax.analysis.clusters import cluster_column, cluster_values
from oodjax.analysis.table import numbers_of, require_columns

AXES = ("model", "detector", "dataset")
_EXACT = 10  # every choice of up to so many data sets is tried, and of up to so many rows of what is left

Mask = NDArray[np.bool_]


def largest_block(
    table: pd.DataFrame, response: str = "auroc", axes: Sequence[str] = AXES
) -> tuple[pd.DataFrame, dict[str, list]]:
    """The largest complete part of a table: models, detectors and sets that have a value in every combination.

    Finding it is hard in general. With up to 10 values of the last axis and of the shorter of the first two it is the
    largest; beyond that a search that removes the value with most gaps, then takes back what fits, and may miss it.

    Args:
      table: one row per combination of the axes.
      response: a column; a combination is there where it has a finite value.
      axes: three columns, or two.

    Returns:
      The rows of the block, and per axis the values that were dropped, in order of appearance.

    Raises:
      ValueError: a combination has two rows, or none has a value.
    """
    require_columns(table, [response, *axes])
    if len(axes) not in (2, 3):
        raise ValueError(f"axes must be two or three columns, got {list(axes)}")
    twice = table.duplicated(list(axes))
    if twice.any():
        first = ", ".join(f"{a}={table.loc[twice, a].iloc[0]!r}" for a in axes)
        raise ValueError(f"table has more than one row for {first}")
    coded = [pd.factorize(table[a]) for a in axes]
    values = numbers_of(table, response).astype(np.float64)
    seen = np.zeros([len(names) for _, names in coded], bool)
    finite = np.isfinite(values)
    seen[tuple(code[finite] for code, _ in coded)] = True
    if not seen.any():
        raise ValueError(f"{response} has no finite value")
    kept = _largest(seen if len(axes) == 3 else seen[:, :, None])[: len(axes)]
    rows = np.logical_and.reduce([keep[code] for keep, (code, _) in zip(kept, coded, strict=True)])
    dropped = {a: names[~keep].tolist() for a, keep, (_, names) in zip(axes, kept, coded, strict=True)}
    return table[rows], dropped


def _largest(seen: Mask) -> tuple[Mask, Mask, Mask]:
    best: tuple[int, tuple[Mask, Mask, Mask]] = (-1, (np.any(seen, (1, 2)), np.any(seen, (0, 2)), np.any(seen, (0, 1))))
    for third in _subsets(seen):
        full = np.all(seen[:, :, third], axis=2)
        if full.sum() * third.sum() > best[0]:
            first, second = _rectangle(full)
            size = int(first.sum() * second.sum() * third.sum())
            best = max(best, (size, (first, second, third)), key=lambda found: found[0])
    return best[1]


def _subsets(seen: Mask) -> Iterator[Mask]:
    """Choices of the last axis: all of them where there are few, else without those with most gaps, one by one."""
    n = seen.shape[2]
    if n <= _EXACT:
        for bits in range(2**n - 1, 0, -1):
            yield (bits >> np.arange(n)) & 1 == 1
        return
    order = np.argsort(-seen.sum(axis=(0, 1)), kind="stable")
    for size in range(n, 0, -1):
        yield np.isin(np.arange(n), order[:size])


def _rectangle(full: Mask) -> tuple[Mask, Mask]:
    """Rows and columns of the largest rectangle without a gap."""
    if full.shape[0] > full.shape[1]:
        columns, rows = _rectangle(full.T)
        return rows, columns
    n = len(full)
    if n <= _EXACT:
        choices = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int64)
        columns = choices @ (~full).astype(np.int64) == 0  # a column is in where no chosen row lacks it
        best = int(np.argmax(choices.sum(1) * columns.sum(1)))
        return choices[best] == 1, columns[best]
    return _greedy(full)


def _greedy(full: Mask) -> tuple[Mask, Mask]:
    rows, columns = np.ones(full.shape[0], bool), np.ones(full.shape[1], bool)
    best = rows & False, columns & False
    while rows.any() and columns.any():
        for grown in ((rows & np.all(full[:, columns], axis=1), columns), (rows, columns & np.all(full[rows], axis=0))):
            grown = _grow(full, *grown)
            if grown[0].sum() * grown[1].sum() > best[0].sum() * best[1].sum():
                best = grown
        gaps = ~full & rows[:, None] & columns
        if not gaps.any():
            break
        by_row, by_column = gaps.sum(axis=1) / columns.sum(), gaps.sum(axis=0) / rows.sum()
        if by_row.max() >= by_column.max():
            rows[np.argmax(by_row)] = False
        else:
            columns[np.argmax(by_column)] = False
    return best


def _grow(full: Mask, rows: Mask, columns: Mask) -> tuple[Mask, Mask]:
    """All rows that have the columns, then all columns that have those rows."""
    rows = np.all(full[:, columns], axis=1) if columns.any() else rows
    return rows, np.all(full[rows], axis=0) if rows.any() else columns


class SkillingsMack(NamedTuple):
    """Skillings' and Mack's statistic and its chi-squared p over `blocks` and `treatments`; NaN with a `reason`."""

    statistic: float
    p: float
    df: int
    blocks: int
    treatments: int
    reason: str = ""


def skillings_mack(
    table: pd.DataFrame, response: str = "auroc", block: str | None = None, treatment: str = "detector"
) -> SkillingsMack:
    """The test that treatments do not differ, where a block may lack some of them (Skillings and Mack 1981).

    Ranks are taken within each block among the treatments it has. On a complete table it is Friedman's test, ties
    corrected for as there: a block's ranks have their own variance. Blocks with fewer than two treatments are left out.

    Args:
      table: results; a block's value of a treatment is the mean over its sets, adjusted for missing ones.
      response: the column to rank.
      block: the column of blocks; by default `recipe` where the table has it, and `model` otherwise.
      treatment: the column of treatments.
    """
    block = block or cluster_column(table)
    means, _ = cluster_values(table, response, block, treatment)
    return skillings_mack_of(means.to_numpy(), block)


def skillings_mack_of(values: NDArray[np.float64], block: str = "block") -> SkillingsMack:
    """The test on an array `(blocks, treatments)`, NaN where there is no value."""
    values = values[(~np.isnan(values)).sum(axis=1) > 1]
    values = values[:, ~np.isnan(values).all(axis=0)]
    blocks, treatments = values.shape
    if treatments < 2:
        raise ValueError("the Skillings-Mack test takes blocks with two or more treatments, and there is none")
    if blocks < 2:
        return SkillingsMack(math.nan, math.nan, 0, blocks, treatments, f"one {block}")
    seen = ~np.isnan(values)
    size = seen.sum(axis=1, keepdims=True)
    ranks = scipy.stats.rankdata(values, axis=1, nan_policy="omit")
    scores = np.where(seen, ranks - (size + 1) / 2, 0.0) * np.sqrt(12 / (size + 1))
    spread = np.sum(scores**2, axis=1) / (size[:, 0] - 1)  # k without ties
    shares = seen / size
    covariance = np.diag(spread @ seen) - (seen * spread[:, None]).T @ shares
    total = scores.sum(axis=0)
    df = int(np.linalg.matrix_rank(covariance, hermitian=True))
    if df == 0:
        return SkillingsMack(math.nan, math.nan, 0, blocks, treatments, "all values tie")
    statistic = float(total @ np.linalg.pinv(covariance, hermitian=True) @ total)
    return SkillingsMack(statistic, float(scipy.stats.chi2.sf(statistic, df)), df, blocks, treatments)
