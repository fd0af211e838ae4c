"""Sums of squares of types II and III for designs whose cells differ in size, by least squares on the cell means."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

Array = NDArray[np.float64]
Term = tuple[int, ...]

_SINGULAR = 1e-10  # of the largest pivot; those of indicator columns are 0 or of the order of cell sizes


def type_2(means: Array, counts: Array, terms: Sequence[Term]) -> list[tuple[float, int]]:
    """Each term's sum of squares and degrees of freedom after all terms that do not contain it.

    Args:
      means: the mean of every cell, one axis per factor; cells without rows may hold anything.
      counts: the rows of every cell, as floats.
      terms: the axes of each term.
    """
    fits: dict[frozenset[Term], tuple[float, int]] = {}

    def fit(margins: Sequence[Term]) -> tuple[float, int]:
        largest = frozenset(t for t in margins if not any(set(t) < set(other) for other in margins))
        if largest not in fits:
            fits[largest] = _fit(means, counts, sorted(largest))
        return fits[largest]

    found = []
    for term in terms:
        others = [t for t in [(), *terms] if not set(term) <= set(t)]
        without, rank = fit(others)
        within, full = fit([*others, term])
        found.append((without - within, full - rank))
    return found


def type_3(means: Array, counts: Array, terms: Sequence[Term]) -> list[tuple[float, int]]:
    """Each term's sum of squares after all others, effects adding up to zero, and its degrees of freedom.

    A term's effects are those of the unweighted means over the other factors, whose variances are the means of
    1 / counts, less what the terms within it explain (Searle 1987, ch. 4). Every cell needs a row.
    """
    found = []
    for term in terms:
        others = tuple(axis for axis in range(means.ndim) if axis not in term)
        share = math.prod(means.shape[axis] for axis in others)
        weights = share / np.mean(1 / counts, axis=others)
        inner = list(itertools.combinations(range(len(term)), len(term) - 1))
        left, _ = _fit(np.mean(means, axis=others), weights, inner)
        found.append((left, math.prod(means.shape[axis] - 1 for axis in term)))
    return found


def _fit(values: Array, weights: Array, margins: Sequence[Term]) -> tuple[float, int]:
    """Weighted residual sum of squares and rank of the model whose terms are the given margins and all within them."""
    seen = weights > 0
    cells, w, y = np.argwhere(seen), weights[seen], values[seen]
    groups = [_groups(cells, margin, values.shape) for margin in margins]
    groups.sort(key=lambda g: -int(g.max()))
    first, rest = groups[0], groups[1:]
    size = np.bincount(first, w)
    summed = scipy.sparse.csr_array((w, (first, np.arange(len(w)))))

    def centre(columns: Array) -> Array:
        """The largest margin is eliminated group by group; what is left to solve is small."""
        return columns - (summed @ columns / size[:, None])[first]

    scaled = np.sqrt(w)[:, None] * centre(y[:, None])
    rank = len(size)
    if rest:
        design = np.sqrt(w)[:, None] * centre(np.hstack([_indicators(g) for g in rest]))
        gram = design.T @ design
        tolerance = _SINGULAR * max(float(gram.diagonal().max()), 1.0)
        factor, pivots, independent, _ = scipy.linalg.lapack.dpstrf(gram, tol=tolerance, lower=1)
        design = design[:, pivots[:independent] - 1]
        triangle = factor[:independent, :independent], True
        for _ in range(2):  # the second takes off what rounding of the first has left
            scaled = scaled - design @ scipy.linalg.cho_solve(triangle, design.T @ scaled)
        rank += int(independent)
    return float(np.sum(scaled**2)), rank


def _groups(cells: NDArray[np.int64], margin: Term, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The group of each cell in a margin, numbered without gaps."""
    if not margin:
        return np.zeros(len(cells), np.int64)
    codes = np.ravel_multi_index(tuple(cells[:, axis] for axis in margin), tuple(shape[axis] for axis in margin))
    return np.unique(codes, return_inverse=True)[1]


def _indicators(groups: NDArray[np.int64]) -> Array:
    return (groups[:, None] == np.arange(groups.max() + 1)).astype(np.float64)
