"""Hyper-parameters by AUROC on a held-out ID + OOD validation set."""

from __future__ import annotations

import numpy as np

from oodjax.metrics import auroc


def select(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[int, float]:
    """The best grid point of one detector.

    Args:
      id_scores: (n, P) scores of the ID validation samples, a column a point.
      ood_scores: (k, P) scores of the OOD validation samples.

    Returns:
      Its column and its AUROC in 0..1; the first best point wins a tie.
    """
    values = np.atleast_1d(auroc(id_scores, ood_scores))
    best = int(np.argmax(values))
    return best, float(values[best])
