# SPDX-License-Identifier: Apache-2.0
"""Comparison of the elements of two tensors, block by block, for ``diff``.

For each block: compare the bits; then, of the elements whose bits differ, the values. Floats are
compared in float64 and complex numbers in complex128, integers exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbundle import blocks
from tensorbundle.tensor import Tensor

Array = np.ndarray[Any, Any]

_FLOATS = ("float", "half", "bfloat")
_INTEGERS = ("int", "uint", "qint", "quint")
# Twice those of other blocks: the overhead of a block counts more than the cache here.
_BOX_ELEMENTS = 2 * blocks.BLOCK_ELEMENTS
# Rows of a chunk of strings.
_STRING_ROWS = 1 << 14


@dataclass(frozen=True)
class ValueDiff:
    """How the elements of two tensors differ.

    Attributes:
        elements: The number of elements.
        different: The number of elements that differ by more than the tolerance. Without a
            tolerance, elements are the same if their bits are: 0.0 differs from -0.0, and NaN only
            from a NaN with other bits. With one, 0.0 equals -0.0 and NaN equals NaN.
        not_finite: How many of the different elements are NaN or infinite on either side.
        max_abs: The largest ``abs(a - b)``, also within the tolerance, where both are finite. None
            without such elements, and for types without numbers.
        max_rel: The largest ``abs(a - b) / abs(b)`` where b is not 0, likewise.
    """

    elements: int
    different: int = 0
    not_finite: int = 0
    max_abs: int | float | None = None
    max_rel: float | None = None

    def __add__(self, other: ValueDiff) -> ValueDiff:
        """Returns the sum of two parts of a tensor."""
        return ValueDiff(
            self.elements + other.elements,
            self.different + other.different,
            self.not_finite + other.not_finite,
            _largest(self.max_abs, other.max_abs),
            _largest(self.max_rel, other.max_rel),
        )


@dataclass(frozen=True)
class Tolerance:
    """The elements a and b are close if ``abs(a - b) <= atol + rtol * abs(b)``."""

    rtol: float = 0.0
    atol: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether elements must have the same bits."""
        return self.rtol == 0 and self.atol == 0


def needs_chunks(a: Tensor, b: Tensor) -> bool:
    """Returns whether a stored slice of the tensors must be decoded as a whole."""
    return any(tensor.dtype == object or tensor._core.is_decoded for tensor in (a, b))


def compare_in_boxes(
    a: Tensor, b: Tensor, tolerance: Tolerance, scratch: blocks.Scratch
) -> Iterator[ValueDiff]:
    """Compares two tensors of the same shape, a box at a time."""
    kind, same_type = _kind(a, b), a.stored_dtype == b.stored_dtype
    for box in blocks.boxes(a.shape, elements=_BOX_ELEMENTS):
        left, right = scratch.read_box("a", a, box), scratch.read_box("b", b, box)
        yield compare(left, right, kind, same_type, tolerance, scratch)


def compare_chunks(a: Tensor, b: Tensor, tolerance: Tolerance) -> Iterator[ValueDiff]:
    """Compares two tensors of the same shape whose slices must be decoded, a chunk at a time."""
    kind, same_type = _kind(a, b), a.stored_dtype == b.stored_dtype
    if not a.shape:
        pairs: Any = [(as_array(a.read(), a.dtype), as_array(b.read(), b.dtype))]
    else:
        rows = max(1, min(_STRING_ROWS * a.shape[0] // max(a.size, 1), a.shape[0]))
        pairs = (
            (left, right)
            for (_, left), (_, right) in zip(a.chunks(rows), b.chunks(rows), strict=True)
        )
    for left, right in pairs:
        yield compare(left.reshape(-1), right.reshape(-1), kind, same_type, tolerance)


def as_array(value: Any, dtype: np.dtype[Any]) -> Array:
    """Returns a single element as an array; NumPy would strip zeros from bytes."""
    array = np.empty((), dtype)
    array[()] = value
    return array


def compare(
    a: Array,
    b: Array,
    kind: str,
    same_type: bool,
    tolerance: Tolerance = Tolerance(),
    scratch: blocks.Scratch | None = None,
) -> ValueDiff:
    """Compares flat arrays of the same length.

    Args:
        a: The first elements.
        b: The second elements.
        kind: ``"integer"``, ``"float"``, ``"complex"``, or ``""`` for elements that are no numbers.
        same_type: Whether both have the same stored type, so that bits can be compared.
        tolerance: When elements are close.
        scratch: Arrays to compute in; default: new ones.
    """
    count = a.size
    if count == 0:
        return ValueDiff(0)
    if same_type:
        unequal = a != b if a.dtype == object else _bits_differ(a, b)
        different = np.count_nonzero(unequal)
        if not different:
            return ValueDiff(count)
        if different < count:
            a, b = a[unequal], b[unequal]
    if not kind:
        return ValueDiff(count, a.size)
    with np.errstate(all="ignore"):
        figures = _compare_numbers(
            a, b, kind, tolerance, same_type and tolerance.is_exact, scratch or blocks.Scratch()
        )
    return ValueDiff(count, *figures)


def _compare_numbers(
    a: Array,
    b: Array,
    kind: str,
    tolerance: Tolerance,
    all_differ: bool,
    scratch: blocks.Scratch,
) -> tuple[int, int, int | float | None, float | None]:
    """Returns the numbers of different and not finite elements, and the largest differences."""
    wide: Any = np.complex128 if kind == "complex" else np.float64
    x, y = _converted(a, wide, scratch, "x"), _converted(b, wide, scratch, "y")
    size, relative = (scratch.array(name, a.size, np.float64) for name in ("size", "relative"))
    if kind == "integer":
        distance = _integer_distance(a, b, scratch)
    else:
        difference = np.subtract(x, y, out=scratch.array("difference", a.size, wide))
        distance = np.abs(difference, out=scratch.array("distance", a.size, np.float64))
    np.abs(y, out=size)
    np.divide(distance, size, out=relative)
    # These are finite if all elements are and no `y` is 0, which needs no masks then.
    largest, largest_relative = distance.max(), relative.max()
    finite = None if np.isfinite(largest) else np.isfinite(x) & np.isfinite(y)
    if all_differ:
        far = None
    else:
        far = distance > tolerance.atol + tolerance.rtol * size
        if finite is not None:
            equal = (x == y) | (np.isnan(x) & np.isnan(y))
            far = ~equal & (far | ~finite)
    not_finite = 0
    if finite is not None:
        not_finite = int(np.count_nonzero(~finite if far is None else far & ~finite))
        largest = distance[finite].max(initial=-1)
    if not np.isfinite(largest_relative):
        chosen = size != 0 if finite is None else (size != 0) & finite
        largest_relative = relative[chosen].max(initial=-1)
    return (
        a.size if far is None else int(np.count_nonzero(far)),
        not_finite,
        largest.item() if largest >= 0 else None,
        largest_relative.item() if largest_relative >= 0 else None,
    )


def _converted(array: Array, dtype: Any, scratch: blocks.Scratch, name: str) -> Array:
    """Returns an array in another type."""
    result = scratch.array(name, array.size, dtype)
    np.copyto(result, array, casting="unsafe")
    return result


def _integer_distance(a: Array, b: Array, scratch: blocks.Scratch) -> Array:
    """Returns the exact ``abs(a - b)`` as uint64, by subtraction modulo 2**64."""
    wide = np.dtype(np.uint64) if a.dtype == b.dtype == np.uint64 else np.dtype(np.int64)
    x, y = _converted(a, wide, scratch, "m"), _converted(b, wide, scratch, "n")
    larger = np.maximum(x, y, out=scratch.array("distance", a.size, wide)).view(np.uint64)
    smaller = np.minimum(x, y, out=x).view(np.uint64)
    return np.subtract(larger, smaller, out=larger)


def _bits_differ(a: Array, b: Array) -> Array:
    """Returns a mask of the elements with different bits. The arrays have the same dtype."""
    size = a.dtype.itemsize
    if size == 16:
        pairs = a.view(np.uint64) != b.view(np.uint64)
        mask: Array = pairs.reshape(-1, 2).any(axis=1)
        return mask
    unsigned = f"u{size}"
    return np.asarray(a.view(unsigned) != b.view(unsigned))


def _kind(a: Tensor, b: Tensor) -> str:
    """Returns how the elements of two tensors are compared."""
    kinds = {_kind_of(tensor) for tensor in (a, b)}
    if "" in kinds:
        return ""
    for kind in ("complex", "float"):
        if kind in kinds:
            return kind
    # int64 and uint64 have no common type.
    types = {a.stored_dtype, b.stored_dtype}
    return "float" if len(types) > 1 and "uint64" in types else "integer"


def _kind_of(tensor: Tensor) -> str:
    name = tensor.stored_dtype
    if name.startswith(_FLOATS) and tensor.dtype.kind in "iu":
        return ""  # the installed ml_dtypes lacks the type, and its bits are integers
    if name.startswith("complex"):
        return "complex"
    if name.startswith(_FLOATS):
        return "float"
    return "integer" if name.startswith(_INTEGERS) else ""


def _largest(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else max(a, b)
