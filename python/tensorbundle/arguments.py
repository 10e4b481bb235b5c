# SPDX-License-Identifier: Apache-2.0
"""Argument checks, whose one-sentence errors name the argument, and the default thread count."""

from __future__ import annotations

import operator
from typing import Any, Literal, SupportsIndex

import numpy as np

from tensorbundle import _core
from tensorbundle.errors import ShapeMismatchError

# The values of the arguments `verify` and `io` of ``tensorbundle.open``, and of `missing` and
# `mismatch` of the functions that load variables.
Verify = Literal["none", "lazy", "full"]
FileAccess = Literal["auto", "mmap", "pread", "direct"]
OnProblem = Literal["raise", "skip"]

# The largest size that the extension accepts, a signed 64-bit integer.
MAX_SIZE = (1 << 63) - 1

_MAX_THREADS = 1 << 16  # more than any machine has processors


def integer(value: Any, name: str) -> int:
    """Returns an integer as an int. Accepts NumPy's integers, and rejects bools.

    Raises:
        TypeError: `value` is not an integer.
    """
    if isinstance(value, (bool, np.bool_)) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return operator.index(value)


def size(value: Any, name: str, minimum: int = 0, maximum: int = MAX_SIZE) -> int:
    """Returns an integer from `minimum` to `maximum` as an int.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is out of range.
    """
    number = integer(value, name)
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {format_value(number)}")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, not {format_value(number)}")
    return number


def format_value(value: object) -> str:
    """Returns the repr of a value for a message, without the middle if it is long."""
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 400 else hex(value)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


def check_out(out: Any, shape: tuple[int, ...], tensor: _core.Tensor) -> None:
    """Checks that elements of a tensor can be written to `out`.

    Args:
        out: The caller's array.
        shape: The required shape.
        tensor: The tensor that is read.

    Raises:
        ShapeMismatchError: The shapes differ.
        TypeError: `out` is not an array, or the dtypes differ.
        ValueError: `out` is read-only.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, not {type(out).__name__}")
    if out.shape != shape:
        raise ShapeMismatchError(
            f"out has shape {out.shape}, but the elements read from tensor {tensor.name!r} have "
            f"shape {shape}"
        )
    if out.dtype != tensor.dtype:
        raise TypeError(f"out has dtype {out.dtype}, tensor {tensor.name!r} has {tensor.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")


def copy_if_overlapping(
    out: np.ndarray[Any, Any], array: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Returns `array`, or a copy of it if it may overlap `out`."""
    return array.copy() if np.may_share_memory(out, array) else array


def set_num_threads(n: SupportsIndex | None) -> None:
    """Sets the number of threads for calls that do not specify their own.

    Args:
        n: At least 1, or None for the default: the processors that this process may run on, by its
            affinity and its cgroup's quota.

    Raises:
        ValueError: `n` is less than 1.
    """
    _core.set_default_threads(0 if n is None else check_threads(n))


def check_threads(n: SupportsIndex) -> int:
    """Returns a number of threads from 1 to 65536.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is out of range.
    """
    return size(n, "threads", 1, _MAX_THREADS)


def thread_count(n: SupportsIndex | None) -> int:
    """Returns the threads of a call: `n` after checking it, else as ``num_threads(None)``.

    Raises:
        TypeError, ValueError: As by ``check_threads``.
    """
    return num_threads(None if n is None else check_threads(n))


def check_alignment(value: SupportsIndex, minimum: int) -> int:
    """Returns a power of two from `minimum` to 2**30.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is another integer.
    """
    number = integer(value, "alignment")
    if not minimum <= number <= 1 << 30 or number & (number - 1):
        raise ValueError(
            f"alignment must be a power of two from {minimum} to 2**30, not {format_value(number)}"
        )
    return number


def check_progress(progress: object) -> None:
    """Checks a callback.

    Raises:
        TypeError: `progress` is neither None nor callable.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")


def num_threads(requested: int | None) -> int:
    """Returns the threads of a call: `requested`, else the default, else all processors."""
    return requested or _core.default_threads() or _core.available_processors()
