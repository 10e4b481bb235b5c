# SPDX-License-Identifier: Apache-2.0
"""Conversion of NumPy's basic indices (integers, slices, ``...`` and ``None``) to boxes."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

_MAX_AXIS_SIZE = 1 << 63  # larger than every axis


@dataclass(frozen=True)
class BoxIndex:
    """A basic index, split into a box and an index into that box.

    Attributes:
        offset: The box's first element per axis.
        shape: The box's elements per axis.
        rest: The basic index that turns an array of the box's elements into the result.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    rest: tuple[Any, ...]

    @property
    def is_trivial(self) -> bool:
        """Whether the result is the array of the box."""
        return all(isinstance(part, slice) and part == slice(None) for part in self.rest)

    @property
    def has_unit_steps(self) -> bool:
        """Whether the result has every element of the box."""
        return all(not isinstance(part, slice) or part.step in (None, 1) for part in self.rest)


def is_basic(index: Any) -> bool:
    """Returns whether an index consists of integers, slices, ``...`` and ``None``.

    Raises:
        IndexError: An integer is out of bounds for every axis. NumPy would raise OverflowError.
    """
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is Ellipsis or isinstance(part, slice) or _is_integer(part)
        for part in parts
    )


def require_basic(index: Any, name: str) -> None:
    """Raises TypeError unless an index is basic. `name` is the tensor's name for the message."""
    if not is_basic(index):
        raise TypeError(
            f"cannot index tensor {name!r} with {type(index).__name__}: "
            "an index consists of integers, slices, '...' and None"
        )


def _is_integer(part: Any) -> bool:
    if isinstance(part, (bool, np.bool_)):
        return False
    if isinstance(part, (int, np.integer)):
        if not -_MAX_AXIS_SIZE <= part < _MAX_AXIS_SIZE:
            raise IndexError(f"index {part} is out of bounds for every axis")
        return True
    if isinstance(part, np.ndarray):
        return part.ndim == 0 and part.dtype.kind in "iu"
    if getattr(part, "ndim", 0) != 0:
        return False  # an array of PyTorch with one element, which Python takes for an integer
    try:
        operator.index(part)  # other integer types, such as a handle of a scalar tensor
    except TypeError:
        return False
    return True


def to_box(index: Any, shape: tuple[int, ...]) -> BoxIndex:
    """Finds the smallest box that contains the elements of a basic index.

    Args:
        index: Integers, slices with any step, ``...`` and ``None``, or a tuple of them.
        shape: The shape of the indexed array.

    Raises:
        IndexError: The index has too many parts or more than one ``...``, or an integer is out of
            bounds.
    """
    offset: list[int] = []
    lengths: list[int] = []
    rest: list[Any] = []
    for part in _expand(index, len(shape)):
        if part is None:
            rest.append(None)
            continue
        axis = len(offset)
        if isinstance(part, slice):
            start, length, step = _slice_to_range(part, shape[axis])
            rest.append(step)
        else:
            start, length = _check_position(part, axis, shape), 1
            rest.append(0)
        offset.append(start)
        lengths.append(length)
    return BoxIndex(tuple(offset), tuple(lengths), tuple(rest))


def _expand(index: Any, rank: int) -> list[Any]:
    """Expands an index to one part per axis, and keeps the ``None``s."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if used > rank:
        raise IndexError(f"too many indices: the tensor has {rank} axes, but {used} were indexed")
    ellipses = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    position = ellipses[0] if ellipses else len(parts)
    full_axes = [slice(None)] * (rank - used)
    return parts[:position] + full_axes + parts[position + len(ellipses) :]


def _check_position(part: Any, axis: int, shape: tuple[int, ...]) -> int:
    position = operator.index(part)
    size = shape[axis]
    if not -size <= position < size:
        raise IndexError(f"index {position} is out of bounds for axis {axis} with size {size}")
    return position + size if position < 0 else position


def _slice_to_range(part: slice, size: int) -> tuple[int, int, slice]:
    """Returns (start, length, remaining slice) of a slice over an axis."""
    positions = range(*part.indices(size))
    if len(positions) == 0:
        return 0, 0, slice(None)
    low, high = sorted((positions[0], positions[-1]))
    remaining = slice(None) if positions.step == 1 else slice(None, None, positions.step)
    return low, high - low + 1, remaining
