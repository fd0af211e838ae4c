"""Which detector suits a model: a small study on held-out images and stand-ins, and a ranking with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from oodjax.data.contract import Source
from oodjax.data.imitations import KINDS, imitate
from oodjax.data.loader import Geometry
from oodjax.data.sets import ImageSet
from oodjax.data.sources import unlabelled
from oodjax.detectors import NAMES
from oodjax.execute import Engine
from oodjax.models.network import Network
from oodjax.opening import hold_out
from oodjax.presets.models import in_memory
from oodjax.study import Model, Study, StudyError

VALIDATION_SHARE = 0.3  # of the held-out images, for detectors that are fitted to their labels
FEWEST, MOST = 20, 2_000  # ID images to test on; more would cost passes and move no rank
REPLICATES = 1000
LEVEL = 0.95


def study_of(
    model: Model, train: Source, held_out: Source, ood: Mapping[str, Source], network: Network, **settings: Any
) -> Study:
    """The study that a recommendation rests on: every detector with its default options, nothing searched.

    Args:
      model: the one to choose for.
      train: its training images and their classes.
      held_out: ID images that the model was not trained on, with classes.
      ood: name -> OOD images; stand-ins made of `held_out` where there are none.
      network: the model's, whose input the stand-ins have.
      settings: of the `Study`: detectors, precision, seed, batch_size.

    Raises:
      StudyError: too few images are held out.
    """
    seed = settings.get("seed", 0)
    test, val = hold_out(held_out, VALIDATION_SHARE, seed)
    if len(test) > MOST:
        test = hold_out(test, MOST / len(test), seed)[1]
    if len(test) < FEWEST:
        raise StudyError(
            f"{len(held_out)} ID images are held out and {len(test)} left to test on, which tells nothing apart: "
            f"at least {FEWEST} are needed"
        )
    id_test = ImageSet("held_out", "id_test", "id", test)
    if ood:
        tests = tuple(ImageSet(name, "ood_test", "given", unlabelled(source)) for name, source in ood.items())
    else:
        tests = imitate(in_memory(id_test, _before_crop(network)), id_test.labels, seed)
    sets = (ImageSet("train", "train", "id", train), ImageSet("validation", "id_val", "id", val), id_test, *tests)
    return Study("recommend", sets, (model,), **{"detectors": NAMES, **settings})


def _before_crop(network: Network) -> Geometry:
    """Squares that the network's own resizing leaves as they are."""
    return Geometry(network.resize, network.resize or network.crop)


@dataclass(frozen=True)
class Recommendation:
    """What the evidence says.

    Attributes:
      table: a row a detector, best first: detector, auroc (mean over kinds of the mean over their sets), low, high,
        rank_low, rank_high, worst (the lowest mean of a kind), apart (whether the best is better, by the interval of
        their difference), and the mean AUROC of each kind. All AUROC in 0..1.
      sets: the OOD sets behind it, name -> (kind, images).
      held_out: how many ID images they were told from.
    """

    table: pd.DataFrame
    sets: Mapping[str, tuple[str, int]]
    held_out: int

    @property
    def best(self) -> str:
        return str(self.table["detector"].iloc[0])

    @property
    def equals(self) -> list[str]:
        """Detectors that the evidence cannot tell from the best."""
        return self.table.loc[~self.table["apart"], "detector"].iloc[1:].tolist()

    @property
    def imitated(self) -> bool:
        return all(kind in KINDS for kind, _ in self.sets.values())


def recommend(engine: Engine, replicates: int = REPLICATES) -> Recommendation:
    """The ranking of the detectors of a finished `study_of`.

    Intervals are percentiles of a bootstrap over images, each set and the held-out images drawn anew by themselves,
    all detectors on the same draw. They say what other images of these sets would do, not what other sets would.

    Args:
      engine: of the study, after `run`.
      replicates: of the bootstrap.
    """
    study = engine.study
    shelf = engine.shelf(study.models[0])
    assert shelf is not None
    inside = shelf.columns(study.id_test)
    names = [name for name in study.detectors if name in inside]
    outside = {s.name: np.stack([shelf.columns(s)[n] for n in names], axis=1) for s in study.ood_tests}
    kinds = {s.name: s.category for s in study.ood_tests}
    scores = np.stack([inside[name] for name in names], axis=1)
    table = rank(names, scores, outside, kinds, replicates, study.seed)
    sets = {name: (kinds[name], len(rows)) for name, rows in outside.items()}
    return Recommendation(table, sets, len(scores))


def rank(
    names: Sequence[str],
    id_scores: np.ndarray,
    ood_scores: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> pd.DataFrame:
    """`Recommendation.table` of scores.

    Args:
      names: of the P detectors.
      id_scores: (n, P), higher = more ID.
      ood_scores: set -> (m, P).
      kinds: set -> its kind; kinds weigh the same, and sets within a kind.
      replicates, seed: of the bootstrap.
    """
    sets = list(ood_scores)
    order = list(dict.fromkeys(kinds[name] for name in sets))
    weights = np.array([[kinds[name] == kind for name in sets] for kind in order], float)
    weights /= weights.sum(axis=1, keepdims=True)
    values = auroc_replicates(id_scores, [ood_scores[name] for name in sets], replicates, seed)
    by_kind = values @ weights.T  # (1 + R, P, kinds)
    means = by_kind.mean(axis=-1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means[1:], [tail, 100 - tail], axis=0)
    ranks = (means[1:, None, :] > means[1:, :, None]).sum(axis=-1) + 1
    rank_low, rank_high = np.percentile(ranks, [tail, 100 - tail], axis=0, method="nearest")
    best = int(means[0].argmax())
    behind = np.percentile(means[1:, [best]] - means[1:], tail, axis=0)
    table = pd.DataFrame(
        {
            "detector": list(names),
            "auroc": means[0],
            "low": low,
            "high": high,
            "rank_low": rank_low.astype(int),
            "rank_high": rank_high.astype(int),
            "worst": by_kind[0].min(axis=-1),
            "apart": behind > 0,
            **{kind: by_kind[0, :, i] for i, kind in enumerate(order)},
        }
    )
    return table.sort_values("auroc", ascending=False, kind="stable", ignore_index=True)


def auroc_replicates(id_scores: np.ndarray, ood_scores: Sequence[np.ndarray], replicates: int, seed: int) -> np.ndarray:
    """AUROC of every detector on every set: of the sample first, then of bootstrap samples of the images.

    Args:
      id_scores: (n, P).
      ood_scores: a set each, (m, P).
      replicates: R, how many samples are drawn; each set's size stays.
      seed: of the draw.

    Returns:
      (1 + R, P, sets); ties count half.
    """
    rng, n = np.random.default_rng(seed), len(id_scores)
    drawn = _draw(rng, n, replicates)
    others = [_draw(rng, len(rows), replicates) for rows in ood_scores]
    found = np.empty((1 + replicates, id_scores.shape[1], len(ood_scores)))
    for p in range(id_scores.shape[1]):
        order = np.argsort(id_scores[:, p], kind="stable")
        ordered = id_scores[order, p]
        below = np.zeros((1 + replicates, n + 1))  # how many of the drawn lie below each place
        np.cumsum(drawn[:, order], axis=1, out=below[:, 1:])
        for s, rows in enumerate(ood_scores):
            first, last = (np.searchsorted(ordered, rows[:, p], side) for side in ("left", "right"))
            not_above = below[:, first] + below[:, last]
            found[:, p, s] = 1 - np.einsum("rm,rm->r", not_above, others[s]) / (2 * n * len(rows))
    return found


def _draw(rng: np.random.Generator, n: int, replicates: int) -> np.ndarray:
    """(1 + replicates, n): how often each image is drawn, in the sample itself once."""
    return np.vstack([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=replicates)])
