# SPDX-License-Identifier: Apache-2.0
"""Rows of a tensor by number: ``Tensor.take``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorbundle import _core, dtypes
from tensorbundle.arguments import apart_from, check_out, shown
from tensorbundle.errors import ShapeMismatchError

Array = np.ndarray[Any, Any]

_ID_TYPES = tuple(map(np.dtype, (np.int32, np.int64, np.uint32, np.uint64)))


def is_row_index(index: Any) -> bool:
    """Whether an index asks for rows by number: a list or an array of integers."""
    return isinstance(index, list) or (isinstance(index, np.ndarray) and index.ndim > 0)


def take(tensor: _core.Tensor, ids: Any, out: Array | None, fill: Any) -> Array:
    """Implements ``Tensor.take``."""
    if not tensor.shape:
        raise TypeError(f"tensor {tensor.name!r} is a scalar: it has no rows")
    numbers = row_numbers(ids)
    shape = numbers.shape + tensor.shape[1:]
    if out is not None:
        check_out(out, shape, tensor)
        numbers = apart_from(out, numbers)
    if tensor.dtype == object:
        return _take_objects(tensor, numbers, out, fill)
    kind, fill_values = _fill_values(tensor, fill, numbers)
    if out is not None:
        fill_values = apart_from(out, fill_values)
    into = out if out is not None and out.flags.c_contiguous else None
    result = tensor.take(numbers, into, kind, fill_values)
    dtypes.sign_extend(tensor.type_number, result)
    if out is None or result is out:
        return result
    out[...] = result
    return out


def row_numbers(ids: Any) -> Array:
    """The ids as a C-contiguous array of a type that the core reads."""
    numbers = np.asarray(ids)
    if numbers.size == 0 and not isinstance(ids, np.ndarray):
        numbers = numbers.astype(np.int64)  # an empty list has no type of its own
    if numbers.dtype.kind not in "iu" and not isinstance(ids, np.ndarray):
        _refuse_huge(ids)
    if numbers.dtype.kind not in "iu":
        what = "boolean masks are" if numbers.dtype.kind == "b" else f"{numbers.dtype} is"
        raise TypeError(f"rows are named by integers; {what} not understood")
    if numbers.dtype not in _ID_TYPES:
        numbers = numbers.astype(np.int64)
    return np.require(numbers, requirements=["C", "A"])


def _refuse_huge(ids: Any) -> None:
    """Raises IndexError for integers so large that NumPy makes objects or floats of them."""
    every = np.asarray(ids, object).reshape(-1)
    if all(isinstance(each, (int, np.integer)) and not isinstance(each, bool) for each in every):
        huge = next(each for each in every if not -(1 << 63) <= each < 1 << 63)
        raise IndexError(f"{shown(int(huge))} is not the number of a row of any tensor")


def _fill_values(tensor: _core.Tensor, fill: Any, numbers: Array) -> tuple[str, Array]:
    """The kind of a fill, as the core names it, and its values."""
    if fill is None:
        return "none", np.empty(0, tensor.dtype)
    row_shape = tensor.shape[1:]
    array = as_fill(tensor, fill)
    if array.shape == ():
        return "element", array
    if array.shape == row_shape:
        return "row", array
    missing = int(np.count_nonzero(numbers < 0))
    if array.shape == (missing, *row_shape):
        return "rows", array
    raise _fill_shape_error(tensor, array.shape, missing)


def as_fill(tensor: _core.Tensor, fill: Any) -> Array:
    """A fill as an array of the tensor's dtype.

    Raises:
        TypeError: It is an array of another dtype, or a number that the dtype does not hold.
    """
    if isinstance(fill, (np.ndarray, np.generic)):
        if fill.dtype != tensor.dtype:
            raise TypeError(
                f"fill has dtype {fill.dtype}, tensor {tensor.name!r} has {tensor.dtype}"
            )
        return np.ascontiguousarray(fill).reshape(np.shape(fill))
    given = np.array(fill)
    # A number may be rounded to the tensor's precision, but neither lose its imaginary part nor its
    # fraction, nor wrap around.
    wanted = tensor.dtype.kind
    numbers = "biu" if wanted in "biu" else "biufc" if wanted == "c" else "biuf"
    if given.dtype.kind not in numbers:
        raise TypeError(f"{shown(fill)} is no fill for {tensor.dtype}")
    array = given.astype(tensor.dtype)
    if given.dtype.kind in "iu" and not np.array_equal(array.astype(given.dtype), given):
        raise TypeError(f"{shown(fill)} is no fill for {tensor.dtype}: it would not keep its value")
    return array


def _string_fill(tensor: _core.Tensor, fill: Any, missing: int) -> Any:
    """A fill of strings: one element, one row, or as many rows as are missing.

    Raises:
        ShapeMismatchError: It has another shape.
        TypeError: An element is not bytes.
    """
    if isinstance(fill, bytes):
        return fill
    given = np.asarray(fill, object)
    values = np.empty(given.shape, object)
    for place, value in np.ndenumerate(given):
        if not isinstance(value, bytes):
            raise TypeError(f"{shown(value)} is no fill for strings, which are bytes")
        values[place] = value
    row_shape = tensor.shape[1:]
    if values.shape in ((), row_shape, (missing, *row_shape)):
        return values[()] if values.shape == () else values
    raise _fill_shape_error(tensor, values.shape, missing)


def _fill_shape_error(
    tensor: _core.Tensor, shape: tuple[int, ...], missing: int
) -> ShapeMismatchError:
    row_shape = tensor.shape[1:]
    return ShapeMismatchError(
        f"fill has shape {shape}; tensor {tensor.name!r} needs (), {row_shape} or, for "
        f"{missing} missing rows, {(missing, *row_shape)}"
    )


def _take_objects(tensor: _core.Tensor, numbers: Array, out: Array | None, fill: Any) -> Array:
    """Rows of strings, whose stored slices are read whole."""
    positions = numbers.astype(np.int64).reshape(-1)
    count = tensor.shape[0]
    least = -count if fill is None else -1
    bad = np.flatnonzero((positions < least) | (positions >= count))
    if bad.size:
        at = int(bad[0])
        raise IndexError(
            f"row {positions[at]} at position {at} is not in tensor {tensor.name!r} of {count} rows"
        )
    present = np.full(positions.size, True) if fill is None else positions >= 0
    wanted = positions[present]
    rows, places = np.unique(np.where(wanted < 0, wanted + count, wanted), return_inverse=True)
    found = tensor.read_string_rows(rows)[places.reshape(wanted.shape)]
    missing = int(np.count_nonzero(~present))
    values = None if fill is None else _string_fill(tensor, fill, missing)
    result = np.empty((positions.size, *tensor.shape[1:]), object)
    result[present] = found
    if fill is not None:
        result[~present] = values
    result = result.reshape(numbers.shape + tensor.shape[1:])
    if out is None:
        return result
    out[...] = result
    return out
