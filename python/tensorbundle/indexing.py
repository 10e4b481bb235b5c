# SPDX-License-Identifier: Apache-2.0
"""Basic indices as boxes: NumPy's meaning of integers, slices, ``...`` and ``None``."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST = 1 << 63  # more elements than an axis can have


@dataclass(frozen=True)
class BoxIndex:
    """A basic index, split into the box that holds all its elements and what is left to do with it.

    Attributes:
        starts: First element per axis.
        lengths: Elements per axis.
        rest: The basic index that turns an array of shape `lengths` into the result.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    rest: tuple[Any, ...]

    @property
    def is_trivial(self) -> bool:
        """Whether the box's array is the result already."""
        return all(isinstance(part, slice) and part == slice(None) for part in self.rest)

    @property
    def has_unit_steps(self) -> bool:
        """Whether the result has every element of the box."""
        return all(not isinstance(part, slice) or part.step in (None, 1) for part in self.rest)


def is_basic(index: Any) -> bool:
    """Whether an index has integers, slices, ``...`` and ``None`` only.

    Raises:
        IndexError: An integer is beyond every possible axis. NumPy would raise OverflowError.
    """
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is Ellipsis or isinstance(part, slice) or _is_integer(part)
        for part in parts
    )


def require_basic(index: Any, name: str) -> None:
    """Raises TypeError unless an index of the tensor of that name is basic; as `is_basic`."""
    if not is_basic(index):
        raise TypeError(
            f"cannot index tensor {name!r} with {type(index).__name__}: "
            "only integers, slices, '...' and None are understood"
        )


def _is_integer(part: Any) -> bool:
    if isinstance(part, (bool, np.bool_)):
        return False
    if isinstance(part, (int, np.integer)):
        if not -_MOST <= part < _MOST:
            raise IndexError(f"index {part} is out of bounds for every axis")
        return True
    if isinstance(part, np.ndarray):
        return part.ndim == 0 and part.dtype.kind in "iu"
    try:
        operator.index(part)  # whatever else may count as an integer, such as a scalar handle
    except TypeError:
        return False
    return True


def to_box(index: Any, shape: tuple[int, ...]) -> BoxIndex:
    """Finds the smallest box that holds what a basic index selects.

    Args:
        index: Integers, slices with any step, ``...`` and ``None``, or a tuple of them.
        shape: The shape that it indexes.

    Raises:
        IndexError: Too many indices, more than one ``...``, or an integer out of bounds.
    """
    starts: list[int] = []
    lengths: list[int] = []
    rest: list[Any] = []
    for part in _expand(index, len(shape)):
        if part is None:
            rest.append(None)
            continue
        axis = len(starts)
        if isinstance(part, slice):
            start, length, step = _slice_to_range(part, shape[axis])
            rest.append(step)
        else:
            start, length = _checked_position(part, axis, shape), 1
            rest.append(0)
        starts.append(start)
        lengths.append(length)
    return BoxIndex(tuple(starts), tuple(lengths), tuple(rest))


def _expand(index: Any, rank: int) -> list[Any]:
    """One part per axis, and the ``None``s between them."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if used > rank:
        raise IndexError(f"too many indices: the tensor has {rank} axes, but {used} were indexed")
    ellipses = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    at = ellipses[0] if ellipses else len(parts)
    return parts[:at] + [slice(None)] * (rank - used) + parts[at + len(ellipses) :]


def _checked_position(part: Any, axis: int, shape: tuple[int, ...]) -> int:
    position = operator.index(part)
    size = shape[axis]
    if not -size <= position < size:
        raise IndexError(f"index {position} is out of bounds for axis {axis} with size {size}")
    return position + size if position < 0 else position


def _slice_to_range(part: slice, size: int) -> tuple[int, int, slice]:
    """(start, length, the slice that is left) of a slice over an axis."""
    positions = range(*part.indices(size))
    if len(positions) == 0:
        return 0, 0, slice(None)
    low, high = sorted((positions[0], positions[-1]))
    after = slice(None) if positions.step == 1 else slice(None, None, positions.step)
    return low, high - low + 1, after
