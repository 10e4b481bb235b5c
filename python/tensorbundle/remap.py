# SPDX-License-Identifier: Apache-2.0
"""The implementation of ``load_and_remap``: reading a table with reordered rows and columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorbundle import _core, dtypes
from tensorbundle.arguments import check_out, copy_if_overlapping
from tensorbundle.errors import UnsupportedError

Array = np.ndarray[Any, Any]


def load(
    tensor: _core.Tensor,
    rows: Array | None,
    columns: Array | None,
    num_rows: int | None,
    fill: Any,
    num_oov_rows: int,
    num_oov_columns: int,
    out: Array | None,
) -> Array:
    """Implements ``tensorbundle.load_and_remap``."""
    rows = _select_rows(tensor, rows, num_rows)
    count = len(rows) if rows is not None else tensor.shape[0] if num_rows is None else num_rows
    body = _body_shape(tensor, count, columns, num_oov_columns)
    shape = (count + num_oov_rows, *body[1:])
    if num_oov_columns:
        shape = (shape[0], body[1] + num_oov_columns, *body[2:])
    if tensor.has_row_errors or rows is None:
        # Raise before memory is allocated for rows that do not exist or are not stored.
        tensor.check_remap(rows, count, columns)
    result = _destination(tensor, shape, out)
    if out is not None:
        rows = None if rows is None else copy_if_overlapping(out, rows)
        columns = None if columns is None else copy_if_overlapping(out, columns)

    def missing() -> list[int]:
        body_cells = tensor.missing_cells(rows, count, columns)
        oov_rows = num_oov_rows * math.prod(body[1:])
        return [body_cells, oov_rows, num_oov_columns * shape[0] * math.prod(body[2:])]

    fill_values = _FillValues(tensor, fill, missing)
    row_bytes = math.prod(shape[1:]) * tensor.dtype.itemsize
    cells, is_element = fill_values.get(0)
    tensor.remap(rows, count, columns, cells, is_element, result, row_bytes)
    dtypes.sign_extend(tensor.type_number, result)
    width = slice(None) if len(body) < 2 else slice(0, body[1])
    fill_values.write(1, result[count:] if len(body) < 2 else result[count:, width])
    if num_oov_columns:
        fill_values.write(2, result[:, body[1] :])
    return result


def _select_rows(tensor: _core.Tensor, rows: Array | None, num_rows: int | None) -> Array | None:
    if not tensor.shape:
        raise ValueError(f"tensor {tensor.name!r} is a scalar: it has no rows to remap")
    if tensor.dtype == object:
        stored = dtypes.stored_name(tensor.type_number)
        raise UnsupportedError(
            f"tensor {tensor.name!r} of type {stored} does not have elements of fixed size"
        )
    if rows is None or num_rows is None:
        return rows
    if num_rows > len(rows):
        raise ValueError(f"num_rows is {num_rows}, but the remap has {len(rows)} rows")
    return rows[:num_rows]


def _body_shape(
    tensor: _core.Tensor, count: int, columns: Array | None, num_oov_columns: int
) -> tuple[int, ...]:
    """Returns the shape of the result without its out-of-vocabulary rows and columns."""
    if len(tensor.shape) < 2:
        if columns is not None or num_oov_columns:
            raise ValueError(f"tensor {tensor.name!r} has rank 1: it has no columns")
        return (count,)
    width = tensor.shape[1] if columns is None else len(columns)
    return (count, width, *tensor.shape[2:])


def _destination(tensor: _core.Tensor, shape: tuple[int, ...], out: Array | None) -> Array:
    if out is None:
        return np.empty(shape, tensor.dtype)
    check_out(out, shape, tensor)
    if not out.flags.c_contiguous:
        raise ValueError("out must be C-contiguous")
    return out


class _FillValues:
    """Values of missing cells in three blocks: remapped rows, OOV rows, OOV columns."""

    def __init__(self, tensor: _core.Tensor, fill: Any, missing: Callable[[], list[int]]) -> None:
        """`missing` counts the missing cells of each block. It is slow: a pass over all rows."""
        self._dtype = tensor.dtype
        self._element: Array | None = None
        if callable(fill):
            self._blocks = [self._call(fill, count) for count in missing()]
            return
        values = self._cast(np.asarray(fill), fill)
        if values.ndim == 0:
            self._element = values
            return
        counts = missing()
        flat = values.reshape(-1)
        if flat.size != sum(counts):
            raise ValueError(
                f"the fill has {flat.size} elements, but {sum(counts)} cells of tensor "
                f"{tensor.name!r} are missing: {counts[0]} in the remapped rows, {counts[1]} in "
                f"out-of-vocabulary rows, {counts[2]} in out-of-vocabulary columns"
            )
        self._blocks = np.split(flat, np.cumsum(counts)[:-1])

    def get(self, block: int) -> tuple[Array, bool]:
        """Returns the values of a block, and whether they are one element for all cells."""
        if self._element is not None:
            return self._element, True
        return self._blocks[block], False

    def write(self, block: int, destination: Array) -> None:
        """Writes the values of a block in which all cells are missing."""
        if destination.size:
            values, is_element = self.get(block)
            destination[...] = values if is_element else values.reshape(destination.shape)

    def _call(self, fill: Callable[[int], Any], count: int) -> Array:
        if count == 0:
            return np.empty(0, self._dtype)
        values = self._cast(np.asarray(fill(count)), None).reshape(-1)
        if values.size != count:
            raise ValueError(f"the fill returned {values.size} values instead of {count}")
        return values

    def _cast(self, values: Array, scalar: Any) -> Array:
        """Converts values to the tensor's dtype, if only precision can be lost."""
        if values.dtype != self._dtype:
            fits = np.can_cast(values.dtype, self._dtype, "same_kind")
            if isinstance(scalar, (int, float)):
                with np.errstate(all="ignore"):
                    fits = fits or bool(np.array(scalar).astype(self._dtype) == scalar)
            if not fits:
                raise TypeError(f"a fill of {values.dtype} cannot be cast to {self._dtype}")
        return np.ascontiguousarray(values.astype(self._dtype)).reshape(values.shape)
