# SPDX-License-Identifier: Apache-2.0
"""Comparison of the elements of two tensors, block by block, for ``diff``.

For each block: compare the bits; then, of the elements whose bits differ, the values. Floats are
compared in float64 and complex numbers in complex128, integers exactly. The core does both at once
for the most frequent dtypes; elements of others are compared here by their bits, and converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbundle import _core, blocks
from tensorbundle.tensor import Tensor

Array = np.ndarray[Any, Any]

# The dtypes that the core compares, and the one for elements of other dtypes, by kind.
_COMPARED = tuple(map(np.dtype, (np.float32, np.float64, np.complex128, np.int64, np.uint64)))
_WIDE: dict[str, Any] = {"integer": np.int64, "float": np.float64, "complex": np.complex128}
_FLOATS = ("float", "half", "bfloat")
_INTEGERS = ("int", "uint", "qint", "quint")
# Four times those of other blocks: there is little work on a block, and its overhead counts more.
_BOX_ELEMENTS = 4 * blocks.BLOCK_ELEMENTS
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
    needs_conversion = not kind or a.dtype != b.dtype or a.dtype not in _COMPARED
    if needs_conversion:
        if same_type:
            unequal = a != b if a.dtype == object else _bits_differ(a, b)
            different = np.count_nonzero(unequal)
            if not different:
                return ValueDiff(count)
            if different < count:
                a, b = a[unequal], b[unequal]
        if not kind:
            return ValueDiff(count, a.size)
        scratch = scratch or blocks.Scratch()
        a, b = _converted(a, _WIDE[kind], scratch, "x"), _converted(b, _WIDE[kind], scratch, "y")
    figures = _core.compare_elements(
        a,
        b,
        not needs_conversion,
        same_type and tolerance.is_exact,
        tolerance.rtol,
        tolerance.atol,
    )
    return ValueDiff(count, *figures)


def _converted(array: Array, dtype: Any, scratch: blocks.Scratch, name: str) -> Array:
    """Returns an array in another type."""
    result = scratch.array(name, array.size, dtype)
    with np.errstate(all="ignore"):
        np.copyto(result, array, casting="unsafe")
    return result


def _bits_differ(a: Array, b: Array) -> Array:
    """Returns a mask of the elements with different bits. The arrays have the same dtype."""
    unsigned = f"u{a.dtype.itemsize}"
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
