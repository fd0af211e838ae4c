"""Hyper-parameters by AUROC on a held-out ID + OOD validation set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from oodjax.detectors import Detector
from oodjax.metrics import auroc


def select(points: Sequence[Detector], id_scores: np.ndarray, ood_scores: np.ndarray) -> dict[str, int]:
    """The best grid point of each detector.

    Args:
      points: fitted detectors, the points of one method next to each other.
      id_scores: (n, len(points)) scores of the ID validation samples.
      ood_scores: (k, len(points)) scores of the OOD validation samples.

    Returns:
      detector name -> index into `points`; the first best point wins a tie.
    """
    values = np.atleast_1d(auroc(id_scores, ood_scores))
    return {
        name: max(members, key=lambda i: values[i])
        for name, members in ((n, list(g)) for n, g in groupby(range(len(points)), key=lambda i: points[i].name))
    }
