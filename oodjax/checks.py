"""What is asked of `Outputs` where they enter the statistics and the detectors: one sentence a fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oodjax.arrays import class_indices, describe
from oodjax.outputs import HOW_TO_GET, Head, Outputs

LARGEST = 1e15  # of features and logits: up to 3e8 squares of it still add up below float32's 3.4e38
HEAD_ROWS = 256  # of the first batch, enough to tell another head or a softmax
HEAD_TOLERANCE = 2.0**-7  # bfloat16 rounds features, kernel and logits by 2**-9 each; a quarter is left for the sums
PER_BATCH = ("gram", "layer_means")


def require(outputs: Outputs, fields: tuple[str, ...], who: str) -> None:
    """Raises a ValueError that names the first field of `fields` which `outputs` lacks, and how to get it."""
    for name in fields:
        if getattr(outputs, name) is None:
            raise ValueError(f"{who} needs Outputs.{name}, which is None: {HOW_TO_GET[name]}")


def require_outputs(value: Any, who: str) -> None:
    """Raises a TypeError that says how to make `Outputs`, unless `value` is that."""
    if not isinstance(value, Outputs):
        raise TypeError(f"{who} takes oodjax.Outputs(logits=..., features=...), got {describe(value)}")


def require_head(value: Any, who: str) -> None:
    if not isinstance(value, Head):
        raise TypeError(f"{who} takes oodjax.Head(kernel, bias), kernel (features, classes), got {describe(value)}")


def check_finite(outputs: Outputs, fields: tuple[str, ...], who: str) -> None:
    """Raises a ValueError that names the first field with values that float32 sums do not carry.

    That is NaN, an infinity, and in logits and features a magnitude above `LARGEST`; traced values are not looked at.
    """
    values = {name: getattr(outputs, name) for name in fields}
    values = {name: v for name, v in values.items() if v is not None and not isinstance(v, jax.core.Tracer) and v.size}
    on_device = {name: v for name, v in values.items() if isinstance(v, jax.Array)}
    largest = {name: float(v) for name, v in jax.device_get(_largest(on_device)).items()} if on_device else {}
    for name, value in values.items():
        top = largest[name] if name in largest else max(float(value.max()), -float(value.min()))
        limit = LARGEST if name in ("logits", "features") else float(np.finfo(np.float32).max)
        if not top <= limit:
            raise ValueError(f"{who}: Outputs.{name} {_what_is_wrong(np.asarray(value), limit)}")


@jax.jit
def _largest(values: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The largest magnitude in each array; NaN where there is one."""
    return jax.tree.map(lambda x: jnp.abs(x.astype(jnp.float32)).max(), values)


def _what_is_wrong(value: np.ndarray, limit: float) -> str:
    value = value.astype(np.float64)
    bad = int(np.count_nonzero(~(np.abs(value) <= np.finfo(np.float32).max)))  # the computation is in float32
    if bad:
        return f"holds {bad} values that are NaN or infinite; all must be finite"
    return (
        f"reaches {np.abs(value).max():.3g}; float32 sums carry magnitudes up to {limit:g}: scale the network's outputs"
    )


def training_batches(batches: Any, head: Head, *, check_head: bool = True) -> Iterator[Outputs]:
    """Each batch of `batches` (`Outputs` or an iterable of them), checked to be fit for training statistics.

    Raises:
      TypeError: something else than Outputs, or no Head.
      ValueError: no samples; labels missing or out of range; NaN, infinite or huge values; shapes that do not fit;
        logits that are not head(features); gram or layer_means in some batches only.
    """
    who = "TrainStatistics.collect"
    require_head(head, who)
    require_finite_head(head, who)
    seen: dict[str, tuple[int, ...] | None] | None = None
    for number, outputs in enumerate(_iterable(batches, who)):
        if not isinstance(outputs, Outputs):
            raise TypeError(
                f"{who}: batch {number} is {describe(outputs)}; it takes Outputs(logits=..., features=..., labels=...) "
                "or an iterable of them"
            )
        if len(outputs) == 0:
            raise ValueError(f"{who} got a batch without samples")
        require(outputs, ("labels",), who)
        _check_widths(outputs, head)
        check_finite(outputs, ("logits", "features", *PER_BATCH), who)
        widths = {
            name: None if v is None else tuple(v.shape[1:]) for name in PER_BATCH for v in [getattr(outputs, name)]
        }
        if seen is None:
            seen = widths
            if check_head:
                check_logits(outputs, head, who, "check_head=False skips this")
        _check_same_fields(widths, seen, number, who)
        labels = class_indices(outputs.labels, int(head.kernel.shape[1]), who)
        yield outputs if isinstance(outputs.labels, jax.Array) else outputs.replace(labels=labels)


def _iterable(batches: Any, who: str) -> Iterable[Any]:
    if isinstance(batches, Outputs):
        return [batches]
    arrays = isinstance(batches, (dict, str, bytes)) or hasattr(batches, "dtype")
    if arrays or not isinstance(batches, Iterable):
        raise TypeError(
            f"{who} takes Outputs(logits=..., features=..., labels=...) or an iterable of them, got {describe(batches)}"
        )
    return batches


def require_finite_head(head: Head, who: str) -> None:
    for name in ("kernel", "bias"):
        finite = np.isfinite(np.asarray(getattr(head, name)))
        if not finite.all():
            raise ValueError(f"{who}: Head.{name} holds {int((~finite).sum())} values that are NaN or infinite")


def _width(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(value.shape[1:])


def _check_widths(outputs: Outputs, head: Head) -> None:
    shapes = outputs.features.shape[1], outputs.logits.shape[1]
    if shapes != tuple(head.kernel.shape):
        raise ValueError(
            f"features and logits have {shapes[0]} features and {shapes[1]} classes, the head's kernel has shape "
            f"{tuple(head.kernel.shape)}; it must be (features, classes)"
        )


def _check_same_fields(widths: dict, first: dict, number: int, who: str) -> None:
    for name, width in widths.items():
        if width != first[name]:
            was, now = ("None" if w is None else f"(n, {', '.join(map(str, w))})" for w in (first[name], width))
            raise ValueError(f"{who}: Outputs.{name} is {now} in batch {number}, in the first it was {was}")


def check_logits(outputs: Outputs, head: Head, who: str, skip: str = "") -> None:
    """Raises a ValueError with the measured difference unless logits = head(features) within bfloat16's rounding.

    Args:
      outputs, head: what is compared; the first rows suffice.
      who: begins the message.
      skip: ends it: how to go without the comparison, where that is possible.
    """
    logits, features = (np.asarray(x[:HEAD_ROWS]).astype(np.float64) for x in (outputs.logits, outputs.features))
    kernel, bias = (np.asarray(x).astype(np.float64) for x in (head.kernel, head.bias))
    difference = np.abs(logits - (features @ kernel + bias))
    allowed = HEAD_TOLERANCE * (np.abs(features) @ np.abs(kernel) + np.abs(bias)) + 1e-30
    worst = np.unravel_index(np.argmax(difference / allowed), difference.shape)
    if difference[worst] <= allowed[worst]:
        return
    if logits.min() >= 0 and np.abs(logits.sum(axis=1) - 1).max() < 0.01:
        hint = "they look like probabilities: pass the values before the softmax"
    else:
        hint = "features must be what the head reads and logits what it returns"
        hint += f"; {skip}" if skip else ""
    raise ValueError(
        f"{who}: logits differ from head(features) by up to {difference[worst]:.3g}, where rounding explains "
        f"{allowed[worst]:.3g}: {hint}"
    )
