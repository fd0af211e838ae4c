"""The detectors as the reference implementations compute them, in NumPy and SciPy, for comparison only.

Each takes a small batch of cached outputs and what `fit` learned in its plain form, and returns the same scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import entropy


@dataclass(frozen=True)
class Problem:
    """Cached outputs of n samples, and the training split's plain statistics."""

    logits: np.ndarray
    features: np.ndarray
    gram: np.ndarray
    layer_means: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    bank: np.ndarray
    bank_energies: np.ndarray
    class_means: np.ndarray
    mean: np.ndarray
    within: np.ndarray
    total: np.ndarray
    templates: np.ndarray
    gram_low: np.ndarray
    gram_high: np.ndarray
    layer_samples: np.ndarray
    temperature: float
    threshold: float
    vim_origin: np.ndarray
    vim_basis: np.ndarray
    vim_alpha: float


def _energy(z: np.ndarray) -> np.ndarray:
    return logsumexp(z, axis=1)


def _unit(h: np.ndarray) -> np.ndarray:
    return h / np.linalg.norm(h, axis=1, keepdims=True)


def msp(p: Problem) -> np.ndarray:
    return softmax(p.logits, axis=1).max(axis=1)


def mls(p: Problem) -> np.ndarray:
    return p.logits.max(axis=1)


def ebo(p: Problem) -> np.ndarray:
    return _energy(p.logits)


def tempscale(p: Problem) -> np.ndarray:
    return softmax(p.logits / p.temperature, axis=1).max(axis=1)


def klm(p: Problem) -> np.ndarray:
    rows = softmax(p.logits.astype(np.float64), axis=1)
    return -np.array([min(entropy(row, template) for template in p.templates) for row in rows])


def gen(p: Problem) -> np.ndarray:
    top = np.sort(softmax(p.logits.astype(np.float64), axis=1), axis=1)[:, -100:]
    return -((top * (1 - top)) ** 0.1).sum(axis=1)


def mds(p: Problem) -> np.ndarray:
    return -_class_distances(p).min(axis=1)


def rmds(p: Problem) -> np.ndarray:
    centred = p.features - p.mean
    background = np.diag(centred @ np.linalg.pinv(p.total) @ centred.T)
    return -(_class_distances(p) - background[:, None]).min(axis=1)


def _class_distances(p: Problem) -> np.ndarray:
    inverse = np.linalg.pinv(p.within)
    columns = []
    for mean in p.class_means:
        centred = p.features - mean
        columns.append(np.diag(centred @ inverse @ centred.T))
    return np.stack(columns, axis=1)


def knn(p: Problem) -> np.ndarray:
    h, bank = _unit(p.features), _unit(p.bank)
    distances = (h**2).sum(1)[:, None] + (bank**2).sum(1)[None] - 2 * h @ bank.T
    return -np.sort(distances, axis=1)[:, 49]


def she(p: Problem) -> np.ndarray:
    return np.array([h @ p.class_means[z.argmax()] for h, z in zip(p.features, p.logits, strict=True)])


def vim(p: Problem) -> np.ndarray:
    residual = np.linalg.norm((p.features - p.vim_origin) @ p.vim_basis, axis=1)
    return _energy(p.logits) - p.vim_alpha * residual


def ash(p: Problem) -> np.ndarray:
    d = p.features.shape[1]
    k = d - int(np.round(d * 0.9))
    shaped = np.zeros_like(p.features)
    top = np.argsort(-p.features, axis=1)[:, :k]
    np.put_along_axis(shaped, top, (p.features.sum(axis=1) / k)[:, None], axis=1)
    return _energy(shaped @ p.kernel + p.bias)


def react(p: Problem) -> np.ndarray:
    return _energy(np.minimum(p.features, p.threshold) @ p.kernel + p.bias)


def dice(p: Problem) -> np.ndarray:
    contribution = p.mean[:, None] * p.kernel
    masked = p.kernel * (contribution > np.percentile(contribution, 90))
    return _energy(np.stack([(h[:, None] * masked).sum(axis=0) for h in p.features]) + p.bias)


def scale(p: Problem) -> np.ndarray:
    d = p.features.shape[1]
    k = d - int(np.round(d * 0.85))
    ratio = p.features.sum(axis=1) / np.sort(p.features, axis=1)[:, -k:].sum(axis=1)
    return _energy((p.features * np.exp(ratio)[:, None]) @ p.kernel + p.bias)


def nnguide(p: Problem) -> np.ndarray:
    bank = _unit(p.bank[:1000]) * p.bank_energies[:1000, None]
    return _energy(p.logits) * np.sort(_unit(p.features) @ bank.T, axis=1)[:, -100:].mean(axis=1)


def fdbd(p: Problem) -> np.ndarray:
    scores = []
    for z, h in zip(p.logits, p.features, strict=True):
        y, total = int(z.argmax()), 0.0
        for c in range(len(z)):
            if c != y:
                total += abs(z[y] - z[c]) / np.linalg.norm(p.kernel[:, y] - p.kernel[:, c])
        scores.append(total / np.linalg.norm(h - p.mean))
    return np.array(scores)


def gram(p: Problem) -> np.ndarray:
    confidence = softmax(p.logits, axis=1).max(axis=1)
    scores = []
    for z, g, top in zip(p.logits, p.gram, confidence, strict=True):
        y, total = int(z.argmax()), 0.0
        for power in range(g.shape[0]):
            low, high, row = p.gram_low[y, power], p.gram_high[y, power], g[power]
            total += (np.maximum(low - row, 0) / np.abs(low + 1e-6)).sum()
            total += (np.maximum(row - high, 0) / np.abs(high + 1e-6)).sum()
        scores.append(-total / top)
    return np.array(scores)


def ats(p: Problem) -> np.ndarray:
    n, scores = p.layer_samples.shape[0], []
    for z, a in zip(p.logits, p.layer_means, strict=True):
        place = np.array([(1 + (p.layer_samples[:, i] <= a[i]).sum()) / (n + 2) for i in range(len(a))])
        pvalue = np.minimum(1.0, 2 * np.minimum(place, 1 - place))
        scores.append(logsumexp(z / max(1e-3, -2 * np.log(pvalue).sum())))
    return np.array(scores)


def gradnorm(p: Problem) -> np.ndarray:
    @jax.jit
    def norm(h: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda w: -jax.nn.log_softmax(h @ w + p.bias).sum())(jnp.asarray(p.kernel))
        return jnp.abs(gradient).sum()

    return np.array([norm(jnp.asarray(h)) for h in p.features])


FORMS: dict[str, Callable[[Problem], np.ndarray]] = {
    f.__name__: f
    for f in (
        msp,
        mls,
        ebo,
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
