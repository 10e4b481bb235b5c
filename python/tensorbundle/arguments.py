# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments: an odd value raises an error of one sentence, with the argument's name."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np

from tensorbundle import _core
from tensorbundle.errors import ShapeMismatchError

# The extension takes sizes as 64-bit numbers; nothing that exists is as large as this.
MOST = (1 << 63) - 1


def integer(value: Any, name: str) -> int:
    """Returns `value` as an int if it is an integer: NumPy's are, bools are not.

    Raises:
        TypeError: It is not an integer.
    """
    if isinstance(value, (bool, np.bool_)) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return operator.index(value)


def size(value: Any, name: str, least: int = 0, most: int = MOST) -> int:
    """Returns `value` as an int if it is an integer in a range.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is out of the range.
    """
    number = integer(value, name)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(number)}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, not {shown(number)}")
    return number


def shown(value: object) -> str:
    """The repr of a value for a message, the middle of a long one left out."""
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 400 else hex(value)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


def check_out(out: Any, shape: tuple[int, ...], tensor: _core.Tensor) -> None:
    """Checks that `out` can take elements of a tensor, before anything is read.

    Args:
        out: The caller's array.
        shape: The shape that it must have.
        tensor: The tensor whose elements it takes.

    Raises:
        ShapeMismatchError: It has another shape.
        TypeError: It is not an array, or has another dtype than the tensor.
        ValueError: It is read-only.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, not {type(out).__name__}")
    if out.shape != shape:
        raise ShapeMismatchError(
            f"out has shape {out.shape}, but what is read of tensor {tensor.name!r} has {shape}"
        )
    if out.dtype != tensor.dtype:
        raise TypeError(f"out has dtype {out.dtype}, tensor {tensor.name!r} has {tensor.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")


def apart_from(out: np.ndarray[Any, Any], array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns `array`, or a copy of it if it may overlap `out`."""
    return array.copy() if np.may_share_memory(out, array) else array


_MOST = 1 << 16  # more than any machine has processors


def set_num_threads(n: SupportsIndex | None) -> None:
    """Sets how many threads a call may use when nothing else was asked for.

    Args:
        n: At least 1, or None for the default: the processors that this process may run on, by its
            affinity and its cgroup's quota.

    Raises:
        ValueError: `n` is less than 1.
    """
    _core.set_default_threads(0 if n is None else check_threads(n))


def check_threads(n: SupportsIndex) -> int:
    """Returns `n` if it is a usable number of threads.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is less than 1, or more than any machine has.
    """
    return size(n, "threads", 1, _MOST)


def num_threads(wanted: int | None) -> int:
    """The number of threads of a call: `wanted`, else the default, else all processors."""
    return wanted or _core.default_threads() or _core.available_processors()
