"""The later detectors once more, as plain float64 NumPy with a loop over samples, each from its paper's equation.

Nothing here shares code or algebra with the package. `ORACLES[name](problem, **options)` returns the scores of
`problem.test`; pieces such as a softmax are those of the study's oracles. A detector's function stands under its name;
`OPTIONS[name]` are those that it is compared at, which `@oracle` names.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from oracles import CUTOFF, each, f64, head_of, lse, predictions, softmax, unit
from scipy.optimize import minimize_scalar

ORACLES: dict[str, Callable] = {}
OPTIONS: dict[str, list[dict[str, Any]]] = {}


def oracle(*options: dict[str, Any]) -> Callable:
    """Makes a function the oracle of the detector of its name, compared at these options, or at none."""

    def keep(function: Callable) -> Callable:
        ORACLES[function.__name__], OPTIONS[function.__name__] = function, list(options) or [{}]
        return function

    return keep


@oracle()
def entropy(p):
    """-log(H / log K) in decimals, as many as 1 - p of a sample needs."""
    scores = []
    for z in f64(p.test.logits):
        with localcontext(prec=30 + int(np.ptp(z))):
            weights = [Decimal(v - z.max()).exp() for v in z]
            shares = [w / sum(weights) for w in weights]
            scores.append(-float((-sum(q * q.ln() for q in shares) / Decimal(len(shares)).ln()).ln()))
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# OpenMax


def weibull_of(tail) -> tuple[float, float]:
    """(shape, scale) that minimise the Weibull's negative log-likelihood of these values, the scale being known
    for each shape. In units of the mean, so that values 1 + u with |u| far below 1 keep their digits.
    """
    logs = np.log(tail / np.mean(tail))

    def log_scale(shape):
        return lse(shape * logs - np.log(len(logs))) / shape

    def nll(log_shape):
        reached = np.exp(log_shape) * (logs - log_scale(np.exp(log_shape)))
        return np.mean(np.exp(reached) - reached) - log_shape

    start = -np.log(np.std(logs))
    shape = np.exp(minimize_scalar(nll, bounds=(start - 3, start + 3), method="bounded", options={"xatol": 1e-12}).x)
    return shape, float(np.exp(log_scale(shape)) * np.mean(tail))


@oracle(*({"alpha": a, "tail": t} for a, t in ((1, 20), (3, 5), (3, 20), (10, 20))))
def openmax(p, alpha=10, tail=20):
    z, y, predicted = f64(p.train.logits), np.asarray(p.train.labels), predictions(p.train)
    classes = z.shape[1]
    centers, fits = [], []
    for c in range(classes):
        members = next(m for m in ((y == c) & (predicted == c), y == c, y >= 0) if m.any())
        centers.append(z[members].mean(axis=0))
        far = np.sort([np.linalg.norm(v - centers[c]) for v in z[members]])[-tail:]
        fits.append((far[0], *weibull_of(far - far[0] + 1e4)))
    scores, alpha = [], min(alpha, classes)
    for v in f64(p.test.logits):
        revised, unknown = v.copy(), 0.0
        for i, c in enumerate(np.argsort(-v, kind="stable")[:alpha], start=1):
            least, shape, scale = fits[c]
            reached = (np.linalg.norm(v - centers[c]) - least + 1e4) / scale
            weight = (1 - np.exp(-np.exp(min(shape * np.log(reached), 700)))) * (alpha - i + 1) / alpha
            revised[c] = v[c] * (1 - weight)
            unknown += v[c] * weight
        scores.append(lse(revised) - unknown)
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# Feature


@oracle(*({"dim": d} for d in (0, 6, 12, 23)))
def residual(p, dim=12):
    kernel, bias = head_of(p)
    origin = np.linalg.lstsq(kernel.T, -bias, rcond=None)[0]
    _, _, axes = np.linalg.svd(f64(p.train.features) - origin)
    return [-np.linalg.norm(axes[dim:] @ (x - origin)) for x in f64(p.test.features)]


def gaussians_of(h, y, classes, least=0.0):
    """Shares, means, and the inverse covariances within the classes and in all."""
    means = np.stack([h[y == c].mean(axis=0) if (y == c).any() else h.mean(axis=0) for c in range(classes)])
    within, total = ((h - m).T @ (h - m) / len(h) for m in (means[y], h.mean(axis=0)))
    largest = np.linalg.eigvalsh(total)[-1]
    inverses = inverse_of(within, max(largest, least)), inverse_of(total, least)
    return [np.mean(y == c) for c in range(classes)], means, *inverses


def inverse_of(covariance, largest):
    """The pseudo-inverse without directions that are next to nothing, against `largest` too."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > CUTOFF * max(values[-1], largest if values[-1] > 16 * CUTOFF * largest else np.inf)
    return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T


@oracle()
def gmm(p):
    """Of densities, less that of a Gaussian at its own mean."""
    shares, means, inverse, _ = gaussians_of(f64(p.train.features), np.asarray(p.train.labels), len(p.head.bias))
    return [
        lse([np.log(s) - (x - m) @ inverse @ (x - m) / 2 for s, m in zip(shares, means, strict=True) if s])
        for x in f64(p.test.features)
    ]


@oracle({"relative": False}, {"relative": True})
def mdspp(p, relative=False):
    h, y = np.stack([unit(x) for x in f64(p.train.features)]), np.asarray(p.train.labels)
    rounding = 16 * np.finfo(np.float32).eps / np.sqrt(h.shape[1])  # of an entry, as a deviation
    _, means, inverse, background = gaussians_of(h, y, len(p.head.bias), rounding**2 / CUTOFF)
    scores = []
    for x in (unit(x) for x in f64(p.test.features)):
        nearest = min((x - m) @ inverse @ (x - m) for m in means)
        d = x - h.mean(axis=0)
        scores.append(d @ background @ d - nearest if relative else -nearest)
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# Hybrid


@oracle(*({"dim": d, "max_logit": m} for d, m in ((1, False), (5, False), (23, False), (5, True))))
def neco(p, dim=5, max_logit=False):
    h = f64(p.train.features)
    mean, deviation = h.mean(axis=0), h.std(axis=0)
    deviation[deviation <= np.sqrt(CUTOFF) * deviation.max()] = 1
    _, values, axes = np.linalg.svd((h - mean) / deviation, full_matrices=True)
    if dim is None:
        explained = np.cumsum(values**2) / max(np.sum(values**2), 1e-300)
        rank = int((values**2 > CUTOFF * values[0] ** 2).sum())
        dim = max(1, min(int((explained < 0.9).sum()) + 1, rank, h.shape[1] - 1))
    if not values.any():  # without variance there is no axis
        axes = np.zeros_like(axes)
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        standard = (x - mean) / deviation
        share = np.linalg.norm(axes[:dim] @ standard) / np.linalg.norm(standard) if standard.any() else 0.0
        scores.append(share * (max(z) if max_logit else 1.0))
    return scores


@oracle(*({"alpha": a} for a in (0, 1e-4, 1e-3, 1e-2, 0.1)))
def nci(p, alpha=1e-4):
    kernel, _ = head_of(p)
    mean = f64(p.train.features).mean(axis=0)
    return [
        kernel[:, int(np.argmax(z))] @ (x - mean) / np.linalg.norm(x - mean) + alpha * np.abs(x).sum()
        for x, z in each(p.test.features, p.test.logits)
    ]


@oracle(*({"low": a, "high": b} for a, b in ((0, 100), (15, 85), (60, 95), (80, 99))))
def vra(p, low=10, high=90):
    kernel, bias = head_of(p)
    least, most = np.percentile(f64(p.train.features), [low, high])
    return [lse([0 if a < least else min(a, most) for a in x] @ kernel + bias) for x in f64(p.test.features)]


@oracle(*({"percentile": q} for q in (0, 65, 80, 95)))
def lts(p, percentile=95):
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        x = np.maximum(x, 0)
        k = len(x) - round(len(x) * percentile / 100)
        scores.append(lse((x.sum() / np.sort(x)[-k:].sum()) ** 2 * z if x.any() else z))
    return scores


@oracle({"decoupled": True}, {"decoupled": False})
def cadref(p, decoupled=True):
    kernel, _ = head_of(p)
    h, predicted = f64(p.train.features), predictions(p.train)
    usual = np.mean([lse(z) for z in f64(p.train.logits)])
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        y = int(np.argmax(z))
        members = predicted == y if (predicted == y).any() else predicted >= 0
        error, length = x - h[members].mean(axis=0), max(np.abs(x).sum(), 1e-12)
        if not decoupled:
            scores.append(-np.abs(error).sum() / length)
            continue
        signs = error * np.sign(kernel[:, y])
        own, mean = (max(s, 0.01 * abs(usual), 1e-12) for s in (lse(z), usual))
        scores.append(-(signs[signs > 0].sum() / length / own - signs[signs < 0].sum() / length / mean))
    return scores


@oracle(*({"power": q, "fraction": f} for q, f in ((1, 1.0), (1, 0.25), (2, 1.0), (8, 1.0))))
def relation(p, chosen, power=1):
    bank = [(unit(x), softmax(z)) for x, z in each(p.train.features[chosen], p.train.logits[chosen])]
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        relations = np.array([max(0.0, unit(x) @ b) * (softmax(z) @ q) for b, q in bank])
        scores.append(np.mean(np.where(relations > 0.03, relations, 0.0) ** power))
    return scores
