"""The 21 detectors once more, as plain float64 NumPy with a loop over samples, and the random problems to compare on.

Nothing here shares code or algebra with the package: Gram matrices, inverse covariances, divergences and gradients are
written out. `ORACLES[name](problem, **options)` returns the scores of `problem.test`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import jax
import numpy as np

import oodjax
from oodjax.detectors import score_all

TEMPERATURES = (1, 10, 100, 1000)
NOISES = (0.0014, 0.0028)
FEATURES, CLASSES = 24, 7
TRAIN, VAL, TEST = 240, 60, 40

# One compilation serves every problem of the same shapes; without LLVM's optimisation it takes half the time.
score_together = jax.jit(score_all, compiler_options={"xla_backend_optimization_level": 0})


@dataclass(frozen=True)
class Problem:
    """Outputs of the three splits, float32, and the head; `test` has in- and out-of-distribution rows."""

    train: oodjax.Outputs
    val: oodjax.Outputs
    test: oodjax.Outputs
    head: oodjax.Head


def make(signed: bool = False, scale: float = 1.0, seed: int = 0, d: int = FEATURES, k: int = CLASSES) -> Problem:
    """Overlapping classes about random means; features rectified unless `signed`; logits multiplied by `scale`."""
    sizes = TRAIN, VAL, TEST
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, d)) + (0.0 if signed else 0.4)
    kernel = (scale * (centers.T * 0.4 + 0.1 * rng.normal(size=(d, k)))).astype(np.float32)
    bias = (scale * 0.3 * rng.normal(size=k)).astype(np.float32)
    splits = []
    for size, ood in zip(sizes, (0, 0, sizes[2] // 3), strict=True):
        labels = rng.integers(0, k, size)
        h = centers[labels] + rng.normal(size=(size, d))
        h[size - ood :] = 1.5 * rng.normal(size=(ood, d))
        labels[size - ood :] = -1
        splits.append(outputs_of(h if signed else np.maximum(h, 0), labels, kernel, bias, rng, signed))
    return Problem(*splits, oodjax.Head(kernel, bias))


def outputs_of(features, labels, kernel, bias, rng, signed=False) -> oodjax.Outputs:
    """Outputs whose logits are the head's, with two random layers and random ODIN scores."""
    h = np.asarray(features, np.float32)
    n = len(h)
    logits = (h.astype(np.float64) @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)).astype(np.float32)
    maps = [rng.normal(size=(n, 3, 3, 5)), rng.normal(size=(n, 4, 6)) * (1 + np.abs(h[:, :1, None]))]
    maps = [(m if signed else np.maximum(m, 0)).astype(np.float32) for m in maps]
    gram, means = jax.device_get(summarize(maps))
    odin = rng.uniform(0.1, 1, (n, len(TEMPERATURES), len(NOISES))).astype(np.float32)
    return oodjax.Outputs(logits, h, labels.astype(np.int32), gram, means, odin)


summarize = jax.jit(oodjax.summarize)

VARIANTS = {
    "rectified": {},
    "signed": {"signed": True, "seed": 1},
    "sharp": {"scale": 100.0, "seed": 2},
    "flat": {"scale": 1e-3, "seed": 3},
}


@cache
def problem(variant: str = "rectified") -> Problem:
    return make(**VARIANTS[variant])


@cache
def stats(variant: str = "rectified") -> oodjax.TrainStatistics:
    return oodjax.TrainStatistics.collect(problem(variant).train, problem(variant).head)


# ---------------------------------------------------------------------------------------------------------------------
# Pieces


def f64(x) -> np.ndarray:
    return np.asarray(x, np.float64)


def lse(z) -> float:
    top = np.max(z)
    return float(top + np.log(np.sum(np.exp(z - top))))


def log_softmax(z) -> np.ndarray:
    return z - lse(z)


def softmax(z) -> np.ndarray:
    return np.exp(log_softmax(z))


def each(*arrays):
    return zip(*(f64(a) for a in arrays), strict=True)


def head_of(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    return f64(p.head.kernel), f64(p.head.bias)


def predictions(outputs) -> np.ndarray:
    return np.array([int(np.argmax(z)) for z in np.asarray(outputs.logits)])


# ---------------------------------------------------------------------------------------------------------------------
# Classification


def confidence(z) -> float:
    """log of the largest probability over the mean of the others, the package's form of the largest probability."""
    top = int(np.argmax(z))
    return z[top] - lse(np.delete(z, top)) + float(np.log(len(z) - 1)) if len(z) > 1 else 0.0


def msp(p):
    return [confidence(z) for z in f64(p.test.logits)]


def mls(p):
    return [z.max() for z in f64(p.test.logits)]


def ebo(p):
    return [lse(z) for z in f64(p.test.logits)]


def odin(p, temperature=1000, noise=0.0014):
    return f64(p.test.odin)[:, TEMPERATURES.index(temperature), NOISES.index(noise)]


def best_temperature(logits, labels) -> float:
    """Bisection on the derivative of the NLL with respect to 1/T, which ascends."""

    def slope(beta):
        return np.mean([(softmax(beta * z) * z).sum() - z[y] for z, y in zip(logits, labels, strict=True)])

    spread = np.std(logits, axis=1).mean() or 1.0
    low, high = 1e-3 / spread, 1e3 / spread
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / low


def tempscale(p):
    t = best_temperature(f64(p.val.logits), p.val.labels)
    return [confidence(z / t) for z in f64(p.test.logits)]


def klm(p):
    predicted = predictions(p.train)
    templates = []
    for c in range(len(p.head.bias)):
        members = [softmax(z) for z in f64(p.train.logits)[predicted == c]]
        templates.append(np.mean(members, axis=0) if members else np.eye(len(p.head.bias))[c])
    floor = float(np.finfo(np.float32).tiny)

    def divergence(q, d):
        return sum(a * np.log(a / max(b, floor)) for a, b in zip(q, d, strict=True) if a > 0)

    return [-min(divergence(softmax(z), d) for d in templates) for z in f64(p.test.logits)]


def gen(p, gamma=0.1, top_m=100):
    scores = []
    for z in f64(p.test.logits):
        order = np.argsort(-z)
        total = lse(z)
        logs = []
        for c in order[:top_m]:
            rest = np.delete(z, c)
            logs.append(gamma * ((z[c] - total) + (lse(rest) - total)))  # 1 - p_c is the sum of the others
        below = np.log(1e-20) - lse(np.array(logs))  # how the package goes on below 1e-20
        scores.append(-np.exp(lse(np.array(logs))) if below <= 0 else -1e-20 / (1 + below))
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# Feature


def distances_to(rows, centers, x, least) -> np.ndarray:
    """(len(x), len(centers)) squared Mahalanobis distances under the pseudo-inverse of rows' rows / n.

    Directions are left out whose summed squares do not exceed `least`.
    """
    _, values, vectors = np.linalg.svd(rows, full_matrices=False)
    kept = values**2 > max(least, CUTOFF * values[0] ** 2)
    white = vectors[kept].T / values[kept] * np.sqrt(len(rows))
    return np.stack([(((x - c) @ white) ** 2).sum(axis=1) for c in centers], axis=1)


CUTOFF = 1e-10  # of the largest variance, where moments are taken from the rows


def class_distances(p) -> tuple[np.ndarray, np.ndarray]:
    """To the nearest class mean within the classes, and to the global mean."""
    h, y, x = f64(p.train.features), np.asarray(p.train.labels), f64(p.test.features)
    mean = h.mean(axis=0)
    means = np.stack([h[y == c].mean(axis=0) if (y == c).any() else mean for c in range(len(p.head.bias))])
    least = CUTOFF * np.linalg.svd(h - mean, compute_uv=False)[0] ** 2
    residual = h - means[y]
    if np.linalg.svd(residual, compute_uv=False)[0] ** 2 <= 16 * least:  # what is left is rounding
        residual = np.zeros_like(residual)
    return distances_to(residual, means, x, least).min(axis=1), distances_to(h - mean, [mean], x, 0.0)[:, 0]


def mds(p):
    return -class_distances(p)[0]


def rmds(p):
    nearest, background = class_distances(p)
    return background - nearest


def unit(x) -> np.ndarray:
    length = np.sqrt((x**2).sum())
    return x / length if length > 0 else x


def knn(p, k=50):
    bank = [unit(x) for x in f64(p.train.features)]
    return [-sorted(((unit(x) - b) ** 2).sum() for b in bank)[k - 1] for x in f64(p.test.features)]


def she(p):
    h, y, predicted = f64(p.train.features), np.asarray(p.train.labels), predictions(p.train)
    patterns = []
    for c in range(len(p.head.bias)):
        for members in ((y == c) & (predicted == c), y == c, y >= 0):
            if members.any():
                patterns.append(h[members].mean(axis=0))
                break
    return [x @ patterns[c] for x, c in zip(f64(p.test.features), predictions(p.test), strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Hybrid


def vim(p, dim=12):
    kernel, bias = head_of(p)
    origin = -np.linalg.pinv(kernel.T) @ bias
    h = f64(p.train.features) - origin
    values, vectors = np.linalg.eigh(h.T @ h / len(h))
    rest = vectors[:, np.argsort(-values)[dim:]]
    norms = np.linalg.norm(h @ rest, axis=1)
    rank = (values > CUTOFF * values.max()).sum()
    alpha = np.mean(f64(p.train.logits).max(axis=1)) / np.mean(norms) if dim < rank else 0.0
    return [lse(z) - alpha * np.linalg.norm(rest.T @ (x - origin)) for z, x in each(p.test.logits, p.test.features)]


def ash(p, percentile=90):
    kernel, bias = head_of(p)
    scores = []
    for x in f64(p.test.features):
        k = len(x) - round(len(x) * percentile / 100)
        shaped = np.zeros_like(x)
        shaped[np.argsort(-x, kind="stable")[:k]] = x.sum() / k
        scores.append(lse(shaped @ kernel + bias))
    return scores


def react(p, percentile=90):
    kernel, bias = head_of(p)
    threshold = np.percentile(f64(p.train.features), percentile)
    return [lse(np.minimum(x, threshold) @ kernel + bias) for x in f64(p.test.features)]


def dice(p, percentile=90):
    kernel, bias = head_of(p)
    contribution = f64(p.train.features).mean(axis=0)[:, None] * kernel
    kept = np.where(contribution > np.percentile(contribution, percentile), kernel, 0.0)
    return [lse(x @ kept + bias) for x in f64(p.test.features)]


def scale(p, percentile=85):
    kernel, bias = head_of(p)
    scores = []
    for x in f64(p.test.features):
        k = len(x) - round(len(x) * percentile / 100)
        r = x.sum() / np.sort(x)[::-1][:k].sum() if x.any() else 1.0
        scores.append(lse((x * np.exp(r)) @ kernel + bias))
    return scores


def nnguide(p, chosen, k):
    bank = [unit(x) * lse(z) for x, z in each(p.train.features[chosen], p.train.logits[chosen])]
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        products = sorted((unit(x) @ b for b in bank), reverse=True)
        scores.append(lse(z) * np.mean(products[:k]))
    return scores


def fdbd(p, distance_as_normalizer=True):
    kernel, _ = head_of(p)
    mean = f64(p.train.features).mean(axis=0)
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        y = int(np.argmax(z))
        total = sum(abs(z[y] - z[c]) / np.linalg.norm(kernel[:, y] - kernel[:, c]) for c in range(len(z)) if c != y)
        scores.append(total / max(np.linalg.norm(x - mean if distance_as_normalizer else x), 1e-12))
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# Intermediate and gradient


def gram_rows(maps, powers=10) -> np.ndarray:
    """(n, powers, C) row sums of the explicit C x C Gram matrices of one layer, then the signed root."""
    found = []
    for layer in f64(maps).reshape(len(maps), -1, np.shape(maps)[-1]):
        rows = []
        for power in range(1, powers + 1):
            matrix = (layer**power).T @ (layer**power)
            total = matrix.sum(axis=1)
            rows.append(np.sign(total) * np.abs(total) ** (1 / power))
        found.append(rows)
    return np.array(found)


def gram(p, divide_by_confidence=True, powers=tuple(range(1, 11))):
    predicted, y = predictions(p.train), np.asarray(p.train.labels)
    train, scores = f64(p.train.gram), []
    for g, z, c in zip(f64(p.test.gram), f64(p.test.logits), predictions(p.test), strict=True):
        for members in (predicted == c, y == c, y >= 0):
            if members.any():
                low, high = train[members].min(axis=0), train[members].max(axis=0)
                break
        total = 0.0
        for power, i in itertools.product(powers, range(g.shape[1])):
            value, lo, hi = g[power - 1, i], low[power - 1, i], high[power - 1, i]
            total += max(lo - value, 0) / abs(lo + 1e-6) + max(value - hi, 0) / abs(hi + 1e-6)
        scores.append(-total / (softmax(z).max() if divide_by_confidence else 1.0))
    return scores


def ats(p, tail="two-sided"):
    train, scores = f64(p.train.layer_means), []
    for means, z in each(p.test.layer_means, p.test.logits):
        statistic = 0.0
        for layer, a in enumerate(means):
            place = (1 + (train[:, layer] <= a).sum()) / (len(train) + 2)
            p_value = {"left": place, "right": 1 - place, "two-sided": min(1, 2 * min(place, 1 - place))}[tail]
            statistic -= 2 * np.log(p_value)
        scores.append(lse(z / max(1e-3, statistic)))
    return scores


def gradnorm(p):
    """The gradient itself: d(-sum_c log p_c)/dW_dk = h_d (K p_k - 1)."""
    scores = []
    for x, z in each(p.test.features, p.test.logits):
        q = softmax(z)
        gradient = sum(np.outer(x, q - np.eye(len(z))[c]) for c in range(len(z)))
        scores.append(np.abs(gradient).sum())
    return scores


ORACLES = {
    f.__name__: f
    for f in (
        msp,
        mls,
        ebo,
        odin,
        tempscale,
        klm,
        gen,
        mds,
        rmds,
        knn,
        she,
        vim,
        ash,
        react,
        dice,
        scale,
        nnguide,
        fdbd,
        gram,
        ats,
        gradnorm,
    )
}
