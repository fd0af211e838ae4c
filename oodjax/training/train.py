"""Trains any recipe with four compiled programs: supervised steps, attacked ones, contrastive ones, the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import log_softmax

from oodjax.arrays import class_indices, describe, host_array, is_whole
from oodjax.data.loader import epoch_order
from oodjax.models.normalize import normalize
from oodjax.models.resnet import ResNetConfig, initialize
from oodjax.training.attacks import attack
from oodjax.training.augmentations import Augmentation
from oodjax.training.losses import contrastive
from oodjax.training.recipes import FREEZE, Recipe

EMBEDDING = 64
PROBE_PENALTY = 1e-3
MOMENTUM = 0.9
TOGETHER = 8  # steps a call: taking the weights apart for one costs as much as a small network's step


class Progress(NamedTuple):
    """What a step takes and returns: `average` follows `params` and `statistics`."""

    params: Any
    statistics: Any
    optimizer: Any
    average: tuple[Any, Any]


class Knobs(NamedTuple):
    """Float32 scalars, and for each parameter 1 when it is trained, 0 when kept: arguments, so nothing recompiles."""

    learning_rate: Any
    weight_decay: Any
    label_smoothing: Any
    ema_decay: Any
    temperature: Any
    trained: Any


class Pixels(NamedTuple):
    """(3,) each: what the network takes pixels in 0..1 to."""

    mean: jax.Array
    std: jax.Array


def train(
    recipe: Recipe,
    config: ResNetConfig,
    images: ArrayLike,
    labels: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> nnx.State:
    """A network trained from nothing; the same arguments give the same weights on the same machine.

    Args:
      recipe: for example `RECIPES["baseline"]`.
      config: batch norm not folded.
      images: (n, H, W, 3) uint8.
      labels: (n,) integers in 0..K-1.
      mean, std: (3,) normalisation of pixels scaled to 0..1.
      seed: of weights, order and augmentation.
      progress: called with (epochs done, epochs) after each epoch.

    Returns:
      The state of `ResNet(config)`; `nnx.update` a model with it or merge it with the graph definition.

    Raises:
      ValueError: arguments that do not fit each other, named; training that ends in NaN.
      TypeError: arrays of anything but numbers.
    """
    images, labels = _checked(recipe, config, images, labels, seed)
    pixels = _pixels(mean, std)
    split: Any = nnx.split(initialize(config, seed), nnx.Param, ...)
    graphdef, params, statistics = split
    run = _train_supervised if recipe.objective == "supervised" else _train_contrastive
    params, statistics = run(recipe, graphdef, (params, statistics), images, labels, pixels, seed, progress)
    trained = nnx.merge_state(params, statistics)
    if not all(np.isfinite(leaf).all() for leaf in jax.device_get(jax.tree.leaves(trained))):
        raise ValueError(
            f"the training of {recipe.name!r} diverged: its weights are NaN or infinite; lower learning_rate, which is "
            f"{recipe.learning_rate}, or look for NaN in what its augmentations return"
        )
    return trained


def _checked(
    recipe: Recipe, config: ResNetConfig, images: Any, labels: Any, seed: Any
) -> tuple[np.ndarray, np.ndarray]:
    if config.folded:
        raise ValueError("config must not be folded: training needs batch norm")
    images = host_array(images, "images")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be uint8 of shape (n, H, W, 3), got {images.dtype} {images.shape}")
    labels = class_indices(labels, config.num_classes, "train")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape {images.shape[:1]}, one per image, got {labels.shape}")
    if len(labels) < recipe.batch_size:
        raise ValueError(f"batch_size must be at most the number of images, {len(labels)}, got {recipe.batch_size}")
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, got {describe(seed)}")
    return images, labels


def _pixels(mean: Any, std: Any) -> Pixels:
    arrays = {name: host_array(value, name).astype(np.float32) for name, value in (("mean", mean), ("std", std))}
    for name, array in arrays.items():
        if array.shape != (3,) or not np.isfinite(array).all() or (name == "std" and array.min() <= 0):
            words = "positive numbers" if name == "std" else "numbers"
            raise ValueError(f"{name} must be three finite {words}, one a channel, got {array.tolist()}")
    return Pixels(jnp.asarray(arrays["mean"]), jnp.asarray(arrays["std"]))


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> np.ndarray:
    """(steps,) float64: linear over the first epoch, then a cosine to zero."""
    total = recipe.epochs * steps_per_epoch
    with jax.enable_x64(True):
        return np.asarray(_rates(recipe.learning_rate, min(steps_per_epoch, total // 2), total))


@partial(jax.jit, static_argnames=("warm", "total"))
def _rates(peak: jax.Array, warm: int, total: int) -> jax.Array:
    rise = optax.linear_schedule(peak / max(warm, 1), peak, warm - 1)
    fall = optax.cosine_decay_schedule(peak, total - warm)
    return optax.join_schedules([rise, fall], [warm])(jnp.arange(total, dtype=float))


def sgd(knobs: Knobs) -> optax.GradientTransformation:
    """Nesterov momentum and L2 on what is trained.

    A factor freezes, where `optax.masked` would make another program of every choice of parameters.
    """

    def freeze(updates: Any, params: Any) -> Any:
        return jax.tree.map(jnp.multiply, knobs.trained, updates)

    return optax.chain(
        optax.add_decayed_weights(knobs.weight_decay),
        optax.stateless(freeze),
        optax.sgd(knobs.learning_rate, MOMENTUM, nesterov=True),
    )


def _train_supervised(recipe, graphdef, weights, images, labels, pixels, seed, progress):
    carry, knobs = _start(recipe, weights)
    classes = np.eye(weights[0]["head"]["kernel"][...].shape[1], dtype=np.float32)
    strength = None if recipe.attack is None else recipe.attack.scalars()
    for steps in _schedule(recipe, len(labels), seed, progress):
        batches = []
        for rows, key, rate in steps:
            augment_key, attack_key = jax.random.split(key)
            batch = _augment(recipe.functions, augment_key, _scaled(images[rows]), classes[labels[rows]])
            batches.append((*batch, attack_key, rate))
        carry = supervised_steps(graphdef, carry, _stacked(batches), strength, knobs, pixels)
    return carry.average


def _train_contrastive(recipe, graphdef, weights, images, labels, pixels, seed, progress):
    """Khosla et al., section 3: encoder and projection first; the projection goes, a linear head comes."""
    params, statistics = weights
    width = params["head"]["kernel"][...].shape[0]
    carry, knobs = _start(recipe, ((params, _projection(width, seed)), statistics))
    classes = np.eye(params["head"]["kernel"][...].shape[1], dtype=np.float32)
    for steps in _schedule(recipe, len(labels), seed, progress):
        batches = []
        for rows, key, rate in steps:
            batch = _scaled(images[rows])
            views = [_augment(recipe.functions, k, batch, classes[labels[rows]])[0] for k in jax.random.split(key)]
            names = np.tile(labels[rows] if recipe.objective == "supcon" else rows, 2).astype(np.int32)
            batches.append((jnp.concatenate(views), names, rate))
        carry = contrastive_steps(graphdef, carry, _stacked(batches), knobs, pixels)
    (params, _), statistics = carry.average
    state = nnx.merge_state(params, statistics)
    size = recipe.batch_size
    parts = [images[i : i + size] for i in range(0, len(images), size)]
    parts[-1] = np.concatenate([parts[-1], images[: size - len(parts[-1])]])
    found = np.concatenate([np.asarray(features(graphdef, state, _scaled(part), pixels)) for part in parts])
    kernel, bias = linear_probe(found[: len(labels)], labels, params["head"]["kernel"][...].shape[1])
    params["head"]["kernel"] = params["head"]["kernel"].replace(jnp.asarray(kernel))
    params["head"]["bias"] = params["head"]["bias"].replace(jnp.asarray(bias))
    return params, statistics


def _start(recipe: Recipe, weights: tuple[Any, Any]) -> tuple[Progress, Knobs]:
    params, statistics = weights
    frozen = FREEZE[recipe.freeze]
    knobs = Knobs(
        learning_rate=np.float32(0),
        weight_decay=np.float32(recipe.weight_decay),
        label_smoothing=np.float32(recipe.label_smoothing),
        ema_decay=np.float32(recipe.ema_decay),
        temperature=np.float32(recipe.temperature),
        trained=jax.tree_util.tree_map_with_path(lambda path, p: np.float32(not frozen(path, p.shape)), params),
    )
    copy = jax.tree.map(jnp.copy, (params, statistics))  # donated apart from what it averages
    return Progress(params, statistics, sgd(knobs).init(params), copy), knobs


def _schedule(
    recipe: Recipe, count: int, seed: int, progress: Callable[[int, int], None] | None
) -> Iterator[list[tuple[np.ndarray, jax.Array, np.float32]]]:
    """(rows, key, learning rate) of the steps of each call; a step depends on its own number and the seed alone."""
    size, root = recipe.batch_size, jax.random.key(seed)
    per_epoch = count // size
    rates = learning_rates(recipe, per_epoch).astype(np.float32)
    for epoch in range(recipe.epochs):
        order = epoch_order(count, seed, epoch)
        first = epoch * per_epoch
        steps = [
            (order[i * size : (i + 1) * size], jax.random.fold_in(root, first + i), rates[first + i])
            for i in range(per_epoch)
        ]
        yield from (steps[i : i + TOGETHER] for i in range(0, per_epoch, TOGETHER))
        if progress is not None:
            progress(epoch + 1, recipe.epochs)


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(255)


def _stacked(batches: list[tuple[Any, ...]]) -> tuple[jax.Array, ...]:
    """The parts of several batches, each with a leading axis of steps."""
    return tuple(jnp.stack(parts) for parts in zip(*batches, strict=True))


@cache
def _compiled(augmentation: Augmentation) -> Callable:
    return jax.jit(augmentation)


def _augment(functions: tuple[Augmentation, ...], key: Any, images: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    for i, function in enumerate(functions):
        images, targets = _compiled(function)(jax.random.fold_in(key, i), images, targets)
    return images, targets


@partial(jax.jit, static_argnames="graphdef", donate_argnames="carry")
def supervised_steps(
    graphdef: Any, carry: Progress, batches: tuple[jax.Array, ...], strength: Any, knobs: Knobs, pixels: Pixels
) -> Progress:
    """Steps one after the other: images, targets, keys of the attack and learning rates, each with an axis of steps.

    `strength` holds the scalars of `attack` against the network as it is at each step, or is None.
    """

    def step(carry: Progress, batch: Any) -> tuple[Progress, None]:
        images, targets, key, rate = batch
        if strength is not None:
            state = nnx.merge_state(carry.params, carry.statistics)
            images = attack(graphdef, state, images, targets, key, *strength, *pixels)
        return supervised_step(graphdef, carry, images, targets, knobs._replace(learning_rate=rate), pixels)[0], None

    return jax.lax.scan(step, carry, batches)[0]


@partial(jax.jit, static_argnames="graphdef", donate_argnames="carry")
def contrastive_steps(
    graphdef: Any, carry: Progress, batches: tuple[jax.Array, ...], knobs: Knobs, pixels: Pixels
) -> Progress:
    """Steps one after the other: images, labels and learning rates, each with an axis of steps."""

    def step(carry: Progress, batch: Any) -> tuple[Progress, None]:
        images, labels, rate = batch
        return contrastive_step(graphdef, carry, images, labels, knobs._replace(learning_rate=rate), pixels)[0], None

    return jax.lax.scan(step, carry, batches)[0]


@partial(jax.jit, static_argnames="graphdef", donate_argnames="carry")
def supervised_step(
    graphdef: Any, carry: Progress, images: jax.Array, targets: jax.Array, knobs: Knobs, pixels: Pixels
) -> tuple[Progress, jax.Array]:
    """One step of SGD on the cross entropy; returns the new progress and the loss before it."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        out, statistics = _forward(graphdef, params, carry.statistics, normalize(images, *pixels))
        smooth = optax.smooth_labels(targets, knobs.label_smoothing)
        return optax.softmax_cross_entropy(out.logits, smooth).mean(), statistics

    return _descend(loss, carry, knobs)


@partial(jax.jit, static_argnames="graphdef", donate_argnames="carry")
def contrastive_step(
    graphdef: Any, carry: Progress, images: jax.Array, labels: jax.Array, knobs: Knobs, pixels: Pixels
) -> tuple[Progress, jax.Array]:
    """One step of SGD on the contrastive loss of projected features; `params` are (network, projection)."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        network, projection = params
        out, statistics = _forward(graphdef, network, carry.statistics, normalize(images, *pixels))
        hidden = jax.nn.relu(jnp.matmul(out.features, projection["in"]) + projection["bias"][None])
        return contrastive(jnp.matmul(hidden, projection["out"]), labels, knobs.temperature), statistics

    return _descend(loss, carry, knobs)


def _forward(graphdef: Any, params: Any, statistics: Any, x: jax.Array) -> tuple[Any, Any]:
    model = nnx.merge(graphdef, params, statistics, copy=True)
    out = model(x, train=True)
    return out, nnx.state(model, nnx.Not(nnx.Param))


def _descend(loss: Callable, carry: Progress, knobs: Knobs) -> tuple[Progress, jax.Array]:
    (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(carry.params)
    updates, state = sgd(knobs).update(gradient, carry.optimizer, carry.params)
    params = optax.apply_updates(carry.params, updates)
    average = optax.incremental_update((params, statistics), carry.average, 1.0 - knobs.ema_decay)
    return Progress(params, statistics, state, average), value


@partial(jax.jit, static_argnames="graphdef")
def features(graphdef: Any, state: Any, images: jax.Array, pixels: Pixels) -> jax.Array:
    """(n, H, W, 3) images in 0..1 -> (n, D), with running statistics."""
    return nnx.merge(graphdef, state)(normalize(images, *pixels)).features


def _projection(width: int, seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng([seed, width])
    arrays = {
        "in": rng.normal(0, np.sqrt(2 / width), (width, width)),
        "bias": np.zeros(width),
        "out": rng.normal(0, np.sqrt(1 / width), (width, EMBEDDING)),
    }
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


def linear_probe(
    rows: np.ndarray, labels: np.ndarray, num_classes: int, penalty: float = PROBE_PENALTY
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression on standardised features, in float64 on the host.

    scikit-learn's `LogisticRegression` has the same optimum and takes as long, but of two classes it makes one column
    of weights under half the penalty, and none of a class that no label names.

    Args:
      rows: (n, D) features.
      labels: (n,) in 0..num_classes-1.
      penalty: on half the squared length of the weights of standardised features.

    Returns:
      kernel (D, K) and bias (K,) for the features as given, float32.
    """
    x = np.asarray(rows, np.float64)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x = (x - centre) / spread
    targets = np.eye(num_classes)[labels]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, num_classes)
        log_p = log_softmax(x @ weights[:-1] + weights[-1], axis=1)
        residual = (np.exp(log_p) - targets) / len(x)
        gradient = np.vstack([x.T @ residual + penalty * weights[:-1], residual.sum(axis=0)])
        value = -(targets * log_p).sum() / len(x) + penalty / 2 * (weights[:-1] ** 2).sum()
        return value, gradient.ravel()

    start = np.zeros((x.shape[1] + 1) * num_classes)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weights = found.x.reshape(-1, num_classes)
    kernel = weights[:-1] / spread[:, None]
    return kernel.astype(np.float32), (weights[-1] - centre @ kernel).astype(np.float32)
