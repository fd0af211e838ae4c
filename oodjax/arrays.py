"""What users hand over as arrays, labels and numbers, made into what the computation reads, or refused by name."""

from __future__ import annotations

import numbers
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def host_array(value: Any, name: str) -> np.ndarray:
    """`value` as a NumPy array of real numbers of at most 8 bytes, in this machine's byte order.

    Lists, pandas, JAX arrays and torch tensors on any device are taken; booleans become 0 and 1.

    Raises:
      TypeError: complex numbers, text, dates or objects; `name` names the argument.
      ValueError: a masked array with masked entries; nested lists of unequal length.
    """
    array = _plain_array(value, name)
    if not is_real(array.dtype):
        raise TypeError(f"{name} must be an array of real numbers, got {describe(value)}")
    if array.dtype.kind in "bV":  # V: bfloat16 and narrower, which NumPy can do little with
        return array.astype(np.float32)
    if array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def real_array(value: Any, name: str) -> Any:
    """`host_array`, but JAX arrays, traced or not, stay as and where they are; so do stand-ins (ShapeDtypeStruct)."""
    jax = sys.modules.get("jax")  # where it is not imported, nothing is a JAX array
    on_device = jax is not None and isinstance(value, jax.Array)
    stand_in = hasattr(value, "shape") and hasattr(value, "dtype") and not hasattr(value, "__array__")
    if not on_device and not stand_in:
        return host_array(value, name)
    if not is_real(value.dtype):
        raise TypeError(f"{name} must be an array of real numbers, got {describe(value)}")
    return value.astype(np.float32) if on_device and value.dtype == bool else value


def is_real(dtype: Any) -> bool:
    """Whether a NumPy dtype, bfloat16 and its like among them, is of real numbers."""
    return isinstance(dtype, np.dtype) and np.can_cast(dtype, np.longdouble)


def class_indices(labels: Any, classes: int | None, who: str, *, ood: bool = False) -> NDArray[np.int64]:
    """Labels as int64 class indices in 0..classes-1, and -1 for out-of-distribution samples where `ood` is true.

    Whole numbers of any type are taken, floats among them. `classes` None leaves the upper end open.

    Raises:
      TypeError: booleans, text or objects.
      ValueError: another shape than (n,), fractions, or values out of range; the message says what they look like.
    """
    array = _plain_array(labels, f"{who}: labels")
    if array.dtype == bool or not is_real(array.dtype):
        hint = "; where they are the classes 0 and 1, pass labels.astype(int)" if array.dtype == bool else ""
        raise TypeError(f"{who}: labels must be whole numbers, the class of every sample, got {describe(labels)}{hint}")
    if array.ndim != 1:
        hint = ": from one-hot rows take labels.argmax(axis=1)" if array.ndim == 2 else ""
        raise ValueError(f"{who}: labels must have shape (n,), got {array.shape}{hint}")
    if array.dtype.kind not in "iu":
        wrong = array[~(np.isfinite(array) & (np.floor(array) == array))]
        if len(wrong):
            raise ValueError(f"{who}: labels must be whole numbers, got {wrong[0]} among them")
    low, high = -1 if ood else 0, np.inf if classes is None else classes - 1
    if len(array) and (array.min() < low or array.max() > high):
        raise ValueError(_out_of_range(array, low, classes, who))
    return array.astype(np.int64)


def is_number(value: Any) -> bool:
    """Whether `value` is one real number, Python's or NumPy's; True and False are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether `value` is one whole number, Python's or NumPy's; True and False are not, nor is 5.0."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def describe(value: Any) -> str:
    """What `value` is, short enough for one sentence."""
    value = value.item() if isinstance(value, np.generic) else value
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        kind = "jax.Array" if type(value).__module__.startswith("jax") else type(value).__name__
        return f"{kind} of {dtype}, shape {shape}"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    return f"a {type(value).__name__}"


def _plain_array(value: Any, name: str) -> np.ndarray:
    """A plain NumPy array of whatever dtype."""
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            hidden = int(np.ma.count_masked(value))
            raise ValueError(f"{name} is a masked array with {hidden} masked entries: drop those samples or fill them")
        return np.asarray(value.data)
    if isinstance(value, (str, bytes, dict, set, frozenset)) or value is None:
        raise TypeError(f"{name} must be an array of real numbers, got {describe(value)}")
    if type(value).__module__.partition(".")[0] == "torch":
        value = _from_torch(value)
    try:
        return np.asarray(value)
    except Exception as error:  # an array-like of any library may fail in any way of its own
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be made an array, got {describe(value)}: {reason}") from error


def _from_torch(value: Any) -> Any:
    """What NumPy can read of a tensor that has a gradient, lies on another device or is in bfloat16."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value


def _out_of_range(labels: np.ndarray, low: int, classes: int | None, who: str) -> str:
    found = f"{int(labels.min())}..{int(labels.max())}"
    span = f"{low} or above" if classes is None else f"{low}..{classes - 1}"
    hint = ""
    if classes is not None and labels.min() >= 1 and labels.max() == classes:
        hint = "; they seem to count from 1: subtract 1"
    elif low == 0 and labels.min() == -1:
        hint = "; -1 marks samples that are out-of-distribution: leave those out"
    return f"{who}: labels must lie in {span}, got {found}{hint}"
