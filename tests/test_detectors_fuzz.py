"""Random problems, from one sample to 600 and from one feature to 2,048, against the float64 oracles."""

from __future__ import annotations

import numpy as np
import oracles
import oracles_later
import pytest

import oodjax
from oodjax import detectors
from oodjax.detectors.hybrid import kept_units

pytestmark = pytest.mark.slow

EPS = float(np.finfo(np.float32).eps)
SHARE = 1e-3  # of the scores' standard deviation: an AUROC of 1,000 samples resolves no less
KINDS = ("plain", "dead units", "duplicated rows", "collinear", "zero rows", "one class", "offset")


def kernel_of(rng, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    kernel = (rng.normal(size=(d, k)) / np.sqrt(d)).astype(np.float32)
    return kernel, (0.3 * rng.normal(size=k)).astype(np.float32)


def draw(seed: int, big: bool) -> tuple[oracles.Problem, str]:
    """A problem of random size, kind and scale, and a line that says which."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    n = int(np.exp(rng.uniform(0, np.log(600)))) if not big else 600
    d = int(np.exp(rng.uniform(0, np.log(300)))) if not big else 2048
    k, scale = int(rng.integers(2, 100)), float(10.0 ** rng.integers(-6, 7))
    kernel, bias = kernel_of(rng, d, k)
    centers, mix = 0.5 * rng.normal(size=(k, d)), np.eye(d)
    if kind == "collinear":
        mix = np.linalg.qr(rng.normal(size=(d, d)))[0][:, : max(1, d // 3)]
        mix = mix @ mix.T

    def split(rows: int, ood: int) -> oodjax.Outputs:
        labels = np.zeros(rows, int) if kind == "one class" else rng.integers(0, k, rows)
        h = centers[labels] + rng.normal(size=(rows, d))
        h[rows - ood :] = 2 * rng.normal(size=(ood, d))
        h = h @ mix if kind == "collinear" else np.maximum(h + (1e3 if kind == "offset" else 0), 0)
        if kind == "collinear":
            h[rows - ood :] += rng.normal(size=(ood, d))  # tests leave the plane
            h = h + 8 * np.ones(d) @ mix
        if kind == "dead units":
            h[:, rng.permutation(d)[: d // 2]] = 0
        if kind == "duplicated rows":
            h, labels = h[np.arange(rows) // 2], labels[np.arange(rows) // 2]
        if kind == "zero rows":
            h[::4] = 0
        return oracles.outputs_of(scale * h, labels, kernel, bias, rng)

    problem = oracles.Problem(split(n, 0), split(20, 0), split(30, 15), oodjax.Head(kernel, bias))
    return problem, f"seed {seed}: {kind}, n {n}, D {d}, K {k}, scale {scale:g}"


def points(stats: oodjax.TrainStatistics, val: oodjax.Outputs) -> list[detectors.Detector]:
    """All at their defaults, but for shaping that must keep a feature."""
    keep = {name: {"percentile": 0} for name in ("ash", "scale", "lts") if stats.dim < 14}
    return [detectors.create(name, **keep.get(name, {})).fit(stats, val) for name in detectors.names()]


def oracle(det: detectors.Detector, stats: oodjax.TrainStatistics, p: oracles.Problem) -> np.ndarray:
    options = {name: value for name, value in det.options.items() if name not in ("temperatures", "noises")}
    if det.name == "nnguide":
        chosen = stats.bank_subset(len(det.params["bank"]))
        return np.array(oracles.nnguide(p, chosen, options["k"]))
    if det.name == "relation":
        return np.array(oracles_later.relation(p, stats.bank_subset(len(det.params["bank"])), options["power"]))
    return np.array((oracles.ORACLES | oracles_later.ORACLES)[det.name](p, **options))


def beyond_its_oracle(det: detectors.Detector, p: oracles.Problem) -> bool:
    """Tails of one distance have no likelihood, and entropies of a million digits no time: these are but finite."""
    return det.name == "openmax" or (det.name == "entropy" and np.ptp(oracles.f64(p.test.logits)) > 500)


def carried(det: detectors.Detector, p: oracles.Problem, want: np.ndarray) -> float:
    """What float32 cannot carry, whatever the spread of the scores: roundings of the terms that a score is made of."""
    kernel, x = np.abs(oracles.f64(p.head.kernel)), np.abs(oracles.f64(p.test.features))
    top = np.abs(want).max()
    if det.name in ("ash", "react", "dice", "scale"):  # a product with the head
        factor = float(np.exp(det.name == "scale") ** 3)
        return 8 * EPS * (top + factor * (x @ kernel).max())
    if det.name == "she":  # a product with a mean
        return 8 * EPS * (x * np.abs(oracles.f64(det.params["patterns"])).max(axis=0)).sum(axis=1).max()
    if det.name in ("vra", "lts"):  # a product with the head, which lts scales
        units = x.shape[1]
        factor = (units / kept_units(units, det.options["percentile"])) ** 2 if det.name == "lts" else 1
        return 8 * EPS * (top + factor * (x @ kernel).max())
    if det.name == "residual":  # of the features, before they are projected
        return 8 * EPS * (top + x.sum(axis=1).max())
    if det.name == "entropy":  # next to uniform a product of two differences of logits
        z = oracles.f64(p.test.logits)
        return 8 * EPS * (top + np.abs(z).max() * min(1.0, np.ptp(z)))
    if det.name == "gmm":  # logarithms of shares
        return 8 * EPS * (top + 1)
    if det.name == "nci":  # a product of unit vectors with the head
        return 8 * EPS * (top + kernel.sum(axis=0).max())
    if det.name == "knn":  # neighbours are ranked by products of unit vectors
        return 8 * EPS
    if det.name == "rmds":  # a difference of two distances
        return 16 * EPS * max(-oracles.mds(p).min(), (oracles.rmds(p) - oracles.mds(p)).max())
    if det.name == "klm":  # sum p log p - p log d cancels where a sample is next to its template
        return 8 * EPS * (top + np.log(len(p.head.bias)))
    return 8 * EPS * top


@pytest.mark.parametrize("seed", [*range(14), *(pytest.param(s, id=f"2048 features {s}") for s in (100, 102, 103))])
def test_random_problems_agree_with_float64(seed):
    p, title = draw(seed, big=seed >= 100)
    stats = oodjax.TrainStatistics.collect(p.train, p.head)
    dets = points(stats, p.val)
    got = np.asarray(oracles.score_together(dets, p.test), np.float64)
    assert np.isfinite(got).all(), title
    wrong = []
    for i, det in enumerate(dets):
        if beyond_its_oracle(det, p):
            continue
        want = oracle(det, stats, p)
        error, allowed = np.abs(got[:, i] - want).max(), SHARE * want.std() + carried(det, p, want)
        if not error <= allowed:
            wrong.append(f"{det.name}: error {error:.3g}, std {want.std():.3g}, largest {np.abs(want).max():.3g}")
    assert wrong == [], title
