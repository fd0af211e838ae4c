"""Means and second moments in float64 from the rows themselves, where there are few enough of them.

The sums of a streaming pass are of float32 products: in the directions that training hardly uses, of which there are
many when there are fewer samples than features, their rounding is all there is.
"""

from __future__ import annotations

import numpy as np

# n D^2 up to which the rows are used: seconds on a host, 50,000 rows of 2,048 features.
PRODUCTS = 2.2e11
BLOCK = 4096


def class_means(rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(n, D) rows, (n,) labels -> (classes, D) float64 means; zeros for a class without rows."""
    sums, counts = np.zeros((classes, rows.shape[1])), np.bincount(labels, minlength=classes)
    for start in range(0, len(rows), BLOCK):
        np.add.at(sums, labels[start : start + BLOCK], rows[start : start + BLOCK].astype(np.float64))
    return sums / np.maximum(counts, 1)[:, None]


def covariance(rows: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(D, D) float64 mean outer product of (n, D) rows, each less the row of `centers` (K, D) that its label names."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), BLOCK):
        centred = rows[start : start + BLOCK].astype(np.float64) - centers[labels[start : start + BLOCK]]
        total += centred.T @ centred
    return total / len(rows)
