# SPDX-License-Identifier: Apache-2.0
"""Gathering of rows by number: ``Tensor.take``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorbundle import _core, dtypes, indexing
from tensorbundle.arguments import check_out, copy_if_overlapping, format_value
from tensorbundle.errors import ShapeMismatchError

Array = np.ndarray[Any, Any]

_ID_TYPES = tuple(map(np.dtype, (np.int32, np.int64, np.uint32, np.uint64)))


def is_row_index(index: Any) -> bool:
    """Returns whether an index selects rows by number: a list, a range or an array.

    The array may be one of another library. Of PyTorch's, those with one element are also integers
    for Python; but their shape counts, as it does for all others.
    """
    if isinstance(index, (list, range)):
        return True
    return hasattr(index, "__array__") and getattr(index, "ndim", 0) > 0


def take(tensor: _core.Tensor, ids: Any, out: Array | None, fill: Any) -> Array:
    """Implements ``Tensor.take``."""
    if not tensor.shape:
        raise TypeError(f"tensor {tensor.name!r} is a scalar: it has no rows")
    numbers = row_numbers(ids)
    shape = numbers.shape + tensor.shape[1:]
    if out is not None:
        check_out(out, shape, tensor)
        numbers = copy_if_overlapping(out, numbers)
    if tensor.dtype == object:
        return _take_objects(tensor, numbers, out, fill)
    kind, fill_values = _fill_values(tensor, fill, numbers)
    if out is not None:
        fill_values = copy_if_overlapping(out, fill_values)
    destination = out if out is not None and out.flags.c_contiguous else None
    result = tensor.take(numbers, destination, kind, fill_values)
    dtypes.sign_extend(tensor.type_number, result)
    if out is None or result is out:
        return result
    out[...] = result
    return out


def take_part(tensor: _core.Tensor, ids: Any, rest: tuple[Any, ...]) -> Array:
    """Gathers rows, and returns a view of them by a basic index of the axes after the first.

    Raises:
        IndexError: The index does not fit the row shape; before a row is read.
        TypeError: It is not basic.
    """
    indexing.require_basic(rest, tensor.name)
    indexing.to_box((slice(None), *rest), tensor.shape)
    rows = take(tensor, ids, None, None)
    axes = (slice(None),) * (rows.ndim - len(tensor.shape) + 1)
    result: Array = rows[(*axes, *rest)]
    return result


def row_numbers(ids: Any) -> Array:
    """Converts ids to a C-contiguous array of a type that the core accepts."""
    numbers = np.asarray(ids)
    if numbers.size == 0 and not isinstance(ids, np.ndarray):
        numbers = numbers.astype(np.int64)  # NumPy makes an empty list float64
    if numbers.dtype.kind not in "iu" and not isinstance(ids, np.ndarray):
        _check_id_range(ids)
    if numbers.dtype.kind not in "iu":
        given = "a boolean mask" if numbers.dtype.kind == "b" else str(numbers.dtype)
        raise TypeError(f"row ids must be integers, not {given}")
    if numbers.dtype not in _ID_TYPES:
        numbers = numbers.astype(np.int64)
    return np.require(numbers, requirements=["C", "A"])


def _check_id_range(ids: Any) -> None:
    """Raises IndexError for integers beyond 64 bits, which NumPy converts to objects or floats."""
    flat = np.asarray(ids, object).reshape(-1)
    if all(isinstance(each, (int, np.integer)) and not isinstance(each, bool) for each in flat):
        huge = next(each for each in flat if not -(1 << 63) <= each < 1 << 63)
        raise IndexError(f"row {format_value(int(huge))} is out of bounds for every tensor")


def _fill_values(tensor: _core.Tensor, fill: Any, numbers: Array) -> tuple[str, Array]:
    """Returns the kind of a fill, as a keyword of the core, and its values."""
    if fill is None:
        return "none", np.empty(0, tensor.dtype)
    row_shape = tensor.shape[1:]
    array = as_fill_values(tensor, fill)
    if array.shape == ():
        return "element", array
    if array.shape == row_shape:
        return "row", array
    missing = int(np.count_nonzero(numbers < 0))
    if array.shape == (missing, *row_shape):
        return "rows", array
    raise _fill_shape_error(tensor, array.shape, missing)


def as_fill_values(tensor: _core.Tensor, fill: Any) -> Array:
    """Converts a fill to an array of the tensor's dtype.

    Raises:
        TypeError: `fill` is an array of another dtype, or a number that the dtype cannot represent.
    """
    if isinstance(fill, (np.ndarray, np.generic)):
        if fill.dtype != tensor.dtype:
            raise TypeError(
                f"fill has dtype {fill.dtype}, tensor {tensor.name!r} has {tensor.dtype}"
            )
        return np.ascontiguousarray(fill).reshape(np.shape(fill))
    given = np.array(fill)
    # A number may be rounded to the tensor's precision, but must not lose its imaginary part or its
    # fraction, and must not wrap around.
    kind = tensor.dtype.kind
    allowed_kinds = "biu" if kind in "biu" else "biufc" if kind == "c" else "biuf"
    if given.dtype.kind not in allowed_kinds:
        raise TypeError(f"fill {format_value(fill)} cannot be converted to {tensor.dtype}")
    array = given.astype(tensor.dtype)
    if given.dtype.kind in "iu" and not np.array_equal(array.astype(given.dtype), given):
        raise TypeError(f"fill {format_value(fill)} cannot be represented in {tensor.dtype}")
    return array


def _string_fill_values(tensor: _core.Tensor, fill: Any, missing: int) -> Any:
    """Converts a fill of strings: one element, one row, or one row per missing row.

    Raises:
        ShapeMismatchError: `fill` has another shape.
        TypeError: An element is not bytes.
    """
    if isinstance(fill, bytes):
        return fill
    given = np.asarray(fill, object)
    values = np.empty(given.shape, object)
    for place, value in np.ndenumerate(given):
        if not isinstance(value, bytes):
            raise TypeError(f"fill of a string tensor must be bytes, not {format_value(value)}")
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
    """Gathers rows of strings. Their stored slices are read whole."""
    positions = numbers.astype(np.int64).reshape(-1)
    count = tensor.shape[0]
    least = -count if fill is None else -1
    bad = np.flatnonzero((positions < least) | (positions >= count))
    if bad.size:
        first = int(bad[0])
        raise IndexError(
            f"row {positions[first]} at position {first} is not in tensor {tensor.name!r} of "
            f"{count} rows"
        )
    present = np.full(positions.size, True) if fill is None else positions >= 0
    requested = positions[present]
    rows, inverse = np.unique(
        np.where(requested < 0, requested + count, requested), return_inverse=True
    )
    strings = tensor.read_string_rows(rows)[inverse.reshape(requested.shape)]
    missing = int(np.count_nonzero(~present))
    values = None if fill is None else _string_fill_values(tensor, fill, missing)
    result = np.empty((positions.size, *tensor.shape[1:]), object)
    result[present] = strings
    if fill is not None:
        result[~present] = values
    result = result.reshape(numbers.shape + tensor.shape[1:])
    if out is None:
        return result
    out[...] = result
    return out
