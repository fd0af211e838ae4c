"""What a detector is: a named method with its options, and after `fit` the arrays it scores with."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from oodjax.accumulate import STATISTICS
from oodjax.arrays import describe, is_number, is_whole
from oodjax.checks import check_finite, require, require_outputs
from oodjax.detectors.calibration import Calibration, Reference, reference
from oodjax.detectors.names import NAMES
from oodjax.outputs import Outputs, canonical
from oodjax.statistics import TrainStatistics

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One detection method: of the study, or your own with `register`.

    Attributes:
      name: the paper's short name.
      family: classification, feature, hybrid, intermediate or gradient; your own may have another.
      score: (params, outputs, **options) -> (n,) float32; pure and traceable; higher = more ID.
      needs: the fields of `Outputs` that `score` reads.
      fit: (stats, validation, **options) -> params, a pytree of arrays; None when there is nothing to fit.
      reads: the statistics that `fit`, `resolve` and `limit` read, of `oodjax.accumulate.STATISTICS`; the counts, the
        largest logits and the head are always there. All of them unless a method says so.
      reads_validation: whether `fit` reads the logits and labels of the validation split.
      options: default of each hyper-parameter; None means that `resolve` chooses it from the training statistics.
      grid: the study's search space.
      check: raises ValueError for options that are wrong in themselves.
      resolve: (stats, options) -> options with every None filled in.
      limit: (stats, options) -> why the problem cannot carry these options, or None.
      note: (stats, options as asked) -> what `resolve` chooses otherwise than the study would, and why, or None.
      cap: options with what `limit` objects to lowered to what the problem carries, where the method allows that.
      score_many: (list of (params, options), outputs) -> (n, points): shares work between the points of a grid.
      aliases: other names that the field has for it, by which a mistaken name is recognised.
      version: by which kept scores are found; change it with the functions. None finds them by the functions' source.
    """

    name: str
    family: str
    score: Callable[..., jax.Array]
    needs: tuple[str, ...] = ("logits",)
    fit: Callable[..., Any] | None = None
    reads: tuple[str, ...] = STATISTICS
    reads_validation: bool = False
    options: Options = field(default_factory=dict)
    grid: tuple[Options, ...] = ({},)
    check: Callable[..., None] | None = None
    resolve: Callable[[TrainStatistics, dict], dict] | None = None
    limit: Callable[[TrainStatistics, Options], str | None] | None = None
    note: Callable[[TrainStatistics, dict], str | None] | None = None
    cap: Callable[[TrainStatistics, Options], dict] | None = None
    score_many: Callable[..., jax.Array] | None = None
    aliases: tuple[str, ...] = ()
    version: str | None = None


METHODS: dict[str, Method] = {}


FIELDS = ("logits", "features", "gram", "layer_means", "odin")
_PARTS = ("fit", "check", "resolve", "limit", "note", "cap", "score_many")


def register(method: Method, *, replace: bool = False) -> Method:
    """Makes a method known by its name: to `create`, `grid`, `names`, `families` and all that take a detector's name.

    Args:
      method: the method. Its name is a word of small letters, digits and "_".
      replace: whether it may take the place of one that was registered under the name before, as when a notebook's cell
        is run again. Without it a name twice is an error, the very same method twice too: a module that is imported
        under two names would otherwise go unnoticed. The study's own methods are never replaced.

    Returns:
      The method.

    Raises:
      TypeError: no `Method`, or a part of it that is no function.
      ValueError: a name that is taken or no word; needs, reads, or options in the grid that do not exist.
    """
    if not isinstance(method, Method):
        raise TypeError(f"register takes a Method(name, family, score, ...), got {describe(method)}")
    if not isinstance(method.name, str) or not re.fullmatch("[a-z][a-z0-9_]*", method.name):
        raise ValueError(f"a method's name must be small letters, digits and _, got {method.name!r}")
    for part in ("score", *(p for p in _PARTS if getattr(method, p) is not None)):
        if not callable(getattr(method, part)):
            raise TypeError(f"{method.name}: {part} must be a function, got {describe(getattr(method, part))}")
    if isinstance(method.aliases, str) or not all(isinstance(alias, str) for alias in method.aliases):
        raise TypeError(f"{method.name}: aliases must be a tuple of texts, got {describe(method.aliases)}")
    known = {"needs": FIELDS, "reads": STATISTICS, "grid": tuple(method.options)}
    given = {"needs": method.needs, "reads": method.reads, "grid": [key for point in method.grid for key in point]}
    for what, names in given.items():
        if unknown := [str(name) for name in names if name not in known[what]]:
            allowed = ", ".join(known[what]) or "none"
            raise ValueError(f"{method.name}: {what} names {', '.join(unknown)}; possible: {allowed}")
    if method.name in METHODS and method.name in NAMES:
        raise ValueError(f"{method.name!r} is a detector of the study, which stays as it is: choose another name")
    if method.name in METHODS and not replace:
        raise ValueError(f"a detector {method.name!r} is registered already: choose another name, or pass replace=True")
    if method.name in METHODS:
        jax.clear_caches()  # compiled programs know a method by its name
    METHODS[method.name] = method
    return method


def names() -> tuple[str, ...]:
    """Every registered detector: the study's 21 in its order, then the others as they came."""
    return (*NAMES, *(name for name in METHODS if name not in NAMES))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Detector:
    """A detector: a pytree whose arrays are what `fit` learned and whose options are static.

    `fit` returns a fitted copy, `calibrate` one with a threshold. `score`, `predict` and `p_value` are pure:
    `jax.jit(lambda det, outputs: det.score(outputs))` works. `oodjax.save` keeps a detector. Two detectors are equal
    when their settings and arrays are.

    Attributes:
      name: the method's name.
      settings: its hyper-parameters as (name, value) pairs; see `options`.
      params: the fitted arrays; None before `fit`.
      widths: the shape of a sample in each field of `needs`, as in training; empty before `fit`.
      reference: the scores that `calibrate` kept; None before it.
    """

    name: str = field(metadata={"static": True})
    settings: tuple[tuple[str, Any], ...] = field(metadata={"static": True})
    params: Any = None
    widths: tuple[tuple[str, tuple[int, ...]], ...] = field(default=(), metadata={"static": True})
    reference: Reference | None = None

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def family(self) -> str:
        return self.method.family

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Outputs` that `score` reads."""
        return self.method.needs

    @property
    def options(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return dict(self.settings)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detector):
            return NotImplemented
        mine, theirs = jax.tree.leaves(self), jax.tree.leaves(other)
        same_settings = bool(jax.tree.structure(self) == jax.tree.structure(other))  # type: ignore[operator]
        return same_settings and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def __hash__(self) -> int:
        return hash((self.name, self.settings, self.widths))  # equal detectors have equal settings

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.settings)
        widths = dict(self.widths)
        if self.params is None:
            state = ", not fitted"
        elif "features" in widths:
            state = f" fitted on {widths['features'][0]} features"
        else:
            state = f" fitted on {widths['logits'][0]} classes" if "logits" in widths else ""
        if self.reference is not None:
            state += f", calibrated on {self.reference.scores.shape[0]} samples to accept {self.reference.tpr:g}"
        return f"{self.name}({options}){state}"

    def fit(self, stats: TrainStatistics, validation: Outputs | None = None) -> Detector:
        """A fitted copy, not calibrated.

        Args:
          stats: statistics of the ID training split.
          validation: outputs of the ID validation split with labels; only `tempscale` reads it.

        Raises:
          TypeError: arrays instead of statistics or outputs.
          ValueError: the statistics lack what the method needs, or cannot carry its options.
        """
        if not isinstance(stats, TrainStatistics):
            raise TypeError(
                f"{self.name}: fit takes statistics = TrainStatistics.collect(Outputs(logits=..., features=..., "
                f"labels=...), head), got {describe(stats)}"
            )
        if validation is not None:
            require_outputs(validation, f"{self.name}: validation")
        method, options = self.method, self.options
        # Whether there are maps to take these two from is for each method's `limit` to say.
        lacking = sorted(set(method.reads) - stats.kept - {"gram", "layer_means"})
        if lacking:
            raise ValueError(
                f"{self.name} reads {', '.join(lacking)} of the training statistics, which were collected without: "
                f"collect them with needs=detectors.reads([{self.name!r}]), or with needs=None for all"
            )
        if method.resolve is not None:
            options = method.resolve(stats, options)
        reason = None if method.limit is None else method.limit(stats, options)
        if reason is not None:
            if method.cap is None:
                raise ValueError(f"{self.name}: {reason}")
            options = method.cap(stats, options)
        params = () if method.fit is None else method.fit(stats, validation, **options)
        params = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.int32 if jnp.issubdtype(jnp.result_type(x), jnp.integer) else jnp.float32),
            params,
        )
        widths = tuple((name, stats.widths[name]) for name in self.needs if name in stats.widths)
        return Detector(self.name, tuple(options.items()), params, widths)

    def score(self, outputs: Outputs) -> Float[jax.Array, " n"]:
        """(n,) float32 scores, higher = more in-distribution.

        Raises:
          TypeError: arrays instead of `Outputs`.
          ValueError: not fitted; no samples; a field of `outputs` is missing, has another width than in training, or
            (outside `jit`) holds NaN, infinite or huge values.
        """
        require_outputs(outputs, f"{self.name}: score")
        check_finite(outputs, self.needs, self.name)
        # Without the reference, whose length would ask for a program of its own.
        bare = Detector(self.name, self.settings, self.params, self.widths)
        method = self.method
        return _score_one((method.score, method.score_many), bare, outputs.only(self.needs))

    def calibrate(self, id_outputs: Outputs, tpr: float = 0.95) -> Detector:
        """A copy with a threshold that accepts at least the share `tpr` of in-distribution data.

        The threshold is the k-th smallest of the n calibration scores, k = floor((n + 1) (1 - tpr)). A new sample of
        the same distribution reaches it with a probability of at least `tpr`, over the draw of both, ties or not
        (split conformal prediction: Vovk et al., Algorithmic Learning in a Random World, 2005, sec. 4.1). It needs
        n >= 1 / (1 - tpr) - 1 samples, 19 for 0.95.

        Args:
          id_outputs: in-distribution outputs that neither the network nor the detector was fitted to.
          tpr: the share to accept, in (0, 1).

        Raises:
          TypeError: arrays instead of `Outputs`.
          ValueError: what `score` raises; too few samples for `tpr`; samples with the label -1; NaN or infinite scores.
        """
        scores = self.score(id_outputs)
        return dataclasses.replace(self, reference=reference(scores, id_outputs.labels, tpr, self.name))

    @property
    def calibration(self) -> Calibration:
        """Of a calibrated detector: n, tpr, threshold, and the expected false-alarm rate with its 95 % interval."""
        return self._reference().summary()

    @property
    def threshold(self) -> jax.Array:
        """() float32, the lowest score that is accepted."""
        return self._reference().threshold

    def predict(self, outputs: Outputs) -> Bool[jax.Array, " n"]:
        """(n,) whether a sample is in-distribution: its score is at or above the threshold.

        The same as p_value > 1 - tpr.

        Raises:
          ValueError: not calibrated; what `score` raises.
        """
        return self._reference().accept(self.score(outputs))

    def p_value(self, outputs: Outputs) -> Float[jax.Array, " n"]:
        """(n,) float32 conformal p-values, (1 + #{calibration scores <= score}) / (n + 1).

        For in-distribution samples P(p <= a) <= a for every a, over the draw of the calibration set and the sample
        (Vovk et al., Algorithmic Learning in a Random World, 2005, prop. 2.4). NaN where the score is.

        Raises:
          ValueError: not calibrated; what `score` raises.
        """
        return self._reference().p_values(self.score(outputs))

    def _reference(self) -> Reference:
        if self.params is None:
            raise ValueError(f"{self.name} is not fitted: call det = det.fit(stats) first")
        if self.reference is None:
            raise ValueError(f"{self.name} is not calibrated: call det = det.calibrate(id_outputs, tpr=0.95) first")
        return self.reference


def score_all(points: Sequence[Detector], outputs: Outputs) -> Float[jax.Array, "n points"]:
    """(n, len(points)) scores of many fitted detectors; points of one method in a row share their work. Traceable."""
    require_outputs(outputs, "score_all")
    if not isinstance(points, (tuple, list)) or not all(isinstance(point, Detector) for point in points):
        raise TypeError(f"score_all takes a sequence of fitted detectors, got {describe(points)}")
    if not points or outputs.logits.shape[0] == 0:  # not len(outputs): a program for any number of rows has none
        raise ValueError(f"score needs at least one detector and one sample, got {len(points)} and {len(outputs)}")
    outputs = canonical(outputs)
    columns, start = [], 0
    while start < len(points):
        method = points[start].method
        stop = start
        while stop < len(points) and points[stop].name == method.name:
            stop += 1
        group = points[start:stop]
        for point in group:
            if point.params is None:
                raise ValueError(f"{point.name} is not fitted: call det = det.fit(stats) first")
            _check_shapes(point, outputs)
        if method.score_many is not None:
            columns.append(method.score_many([(p.params, p.options) for p in group], outputs))
        else:
            columns += [method.score(p.params, outputs, **p.options)[:, None] for p in group]
        start = stop
    return jnp.concatenate(columns, axis=1)


@partial(jax.jit, static_argnums=0)
def _score_one(functions: tuple, point: Detector, outputs: Outputs) -> Float[jax.Array, " n"]:
    """`functions` are what the name of the method stands for: another method of the name has its own program."""
    return score_all((point,), outputs)[:, 0]


def _check_shapes(point: Detector, outputs: Outputs) -> None:
    require(outputs, point.needs, point.name)
    for name, width in point.widths:
        got = getattr(outputs, name).shape[1:]
        if got != width:
            got, want = (", ".join(map(str, ("n", *shape))) for shape in (got, width))
            raise ValueError(f"{point.name}: Outputs.{name} has shape ({got}), in training it had ({want})")


def dot(a: Float[jax.Array, "n d"], b: Float[jax.Array, "d m"]) -> Float[jax.Array, "n m"]:
    return jnp.matmul(a, b, precision="highest")


def kth_largest(values: Float[jax.Array, "n d"], k: int) -> Float[jax.Array, " n"]:
    """(n, d) -> (n,) the k-th largest of each row, exactly, by bisection over the bits of float32: no sort.

    Each of 32 steps fixes one bit by counting the entries at or above a candidate, which is many times faster than
    XLA's sort on a CPU and leaves nothing to move on a GPU.
    """
    bits = jax.lax.bitcast_convert_type(values + 0.0, jnp.int32)  # -0.0 + 0.0 is +0.0
    ordered = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)

    def fix(i, low):
        candidate = low + jnp.left_shift(jnp.int32(1), 31 - i)  # from the lowest integer; the first step wraps to 0
        enough = (ordered >= candidate[:, None]).sum(axis=-1, dtype=jnp.int32) >= k
        return jnp.where(enough, candidate, low)

    low = jax.lax.fori_loop(0, 32, fix, jnp.full(values.shape[:1], -(2**31), jnp.int32))
    return jax.lax.bitcast_convert_type(jnp.where(low < 0, low ^ jnp.int32(0x7FFFFFFF), low), jnp.float32)


def check_number(method: str, name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    """Raises unless `value` is a number in [low, high], or (low, high] when `open_low`."""
    if not is_number(value) or not low <= value <= high or (open_low and value == low):
        raise ValueError(
            f"{method}: {name} must be a number in {'(' if open_low else '['}{low:g}, {high:g}], got {value!r}"
        )


def check_count(method: str, name: str, value: Any) -> None:
    if not is_whole(value) or value < 1:
        raise ValueError(f"{method}: {name} must be a whole number of at least 1, got {value!r}")
