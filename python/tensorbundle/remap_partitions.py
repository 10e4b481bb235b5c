# SPDX-License-Identifier: Apache-2.0
"""What each partition of a variable takes from a table whose vocabulary changed.

TensorFlow's arithmetic for remapped partitions, for any rank and either axis: rows of the new
vocabulary, then out-of-vocabulary rows (axis 0); or the table's own rows, with the new vocabulary's
columns and out-of-vocabulary columns behind them (axis 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tensorbundle.errors import ShapeMismatchError
from tensorbundle.variables import Variable

Shape = tuple[int, ...]

_INT32_MAX = 2**31 - 1


class PartitionRemap(NamedTuple):
    """One partition's share of a remap.

    Attributes:
        axis: The axis that the vocabulary numbers.
        shape: The partition's.
        remapped_shape: The shape that the remap produces: `shape`, but with all columns if the
            partition has only some.
        window_offset: Where the partition begins in `remapped_shape`.
        offset: The first row: in the vocabulary (axis 0), in the table (axis 1).
        num_rows: Rows from there on, without out-of-vocabulary rows.
        num_cols: Columns from the vocabulary; -1 for axis 0.
        num_oov: Out-of-vocabulary rows (axis 0) or columns (axis 1) behind them.
        is_all_oov: Whether all rows are out-of-vocabulary, so nothing comes from the table.
    """

    axis: int
    shape: Shape
    remapped_shape: Shape
    window_offset: Shape
    offset: int
    num_rows: int
    num_cols: int
    num_oov: int
    is_all_oov: bool

    @property
    def is_window(self) -> bool:
        """Whether the partition has only some of the columns."""
        return self.remapped_shape != self.shape

    @property
    def first_entry(self) -> int:
        """The first of the new vocabulary's entries that matter here."""
        return self.offset if self.axis == 0 else 0

    @property
    def num_entries(self) -> int:
        """How many entries of the new vocabulary matter here."""
        return self.num_rows if self.axis == 0 else self.num_cols

    @property
    def cells_per_entry(self) -> int:
        """Cells that are missing for each entry that the old vocabulary lacks."""
        if self.axis == 0:
            return math.prod(self.remapped_shape[1:])
        return self.num_rows * math.prod(self.remapped_shape[2:])

    @property
    def counts_in_int32(self) -> bool:
        """Whether the number of missing cells fits the type that TensorFlow counts them in."""
        return self.num_entries * self.cells_per_entry <= _INT32_MAX

    @property
    def oov_shape(self) -> Shape:
        """The block of out-of-vocabulary cells; axis 1: of all rows."""
        if self.axis == 0:
            return (self.num_oov, *self.remapped_shape[1:])
        return (self.num_rows, self.num_oov, *self.remapped_shape[2:])


def plan_partitions(
    name: str, partitions: Sequence[Variable], *, axis: int, new_size: int, num_oov: int
) -> tuple[PartitionRemap, ...]:
    """Works out the remap of every partition of a variable.

    Args:
        name: The variable's, for messages.
        partitions: All its partitions, or those that were selected.
        axis: Which axis the vocabulary numbers.
        new_size: How many entries of the new vocabulary count.
        num_oov: How many out-of-vocabulary buckets follow them.

    Raises:
        ShapeMismatchError: A shape is unknown, has no such axis, or does not suit the sizes.
    """
    return tuple(
        _plan_partition(name, partition, axis, new_size, num_oov) for partition in partitions
    )


def _plan_partition(
    name: str, partition: Variable, axis: int, new_size: int, num_oov: int
) -> PartitionRemap:
    shape = _known_shape(name, partition, axis)
    whole = shape if partition.slice is None else partition.slice.full_shape
    start = (0,) * len(shape) if partition.slice is None else partition.slice.offset
    remapped_shape = (shape[0], *whole[1:])
    if axis == 0:
        rows, oov_rows = new_size, num_oov
    else:
        rows, oov_rows = whole[0], 0
        _check_width(name, whole, new_size, num_oov)
    offset = start[0]
    if offset + shape[0] > rows + oov_rows:
        raise ShapeMismatchError(
            f"{name!r}: Trying to initialize {shape[0]} additional rows after {offset} rows have "
            "already been initialized, which would exceed expected total row count of "
            f"new_row_vocab_size ({rows}) + num_row_oov_buckets ({oov_rows}) = {rows + oov_rows}."
        )
    oov_here = min(shape[0], max(0, offset + shape[0] - rows))
    return PartitionRemap(
        axis=axis,
        shape=shape,
        remapped_shape=remapped_shape,
        window_offset=(0, *start[1:]),
        offset=offset,
        num_rows=shape[0] - oov_here,
        num_cols=-1 if axis == 0 else new_size,
        num_oov=oov_here if axis == 0 else num_oov,
        # TensorFlow goes the ordinary way, with no row, where a partition begins right behind them.
        is_all_oov=offset > rows,
    )


def _known_shape(name: str, partition: Variable, axis: int) -> Shape:
    if partition.shape is None:
        raise ShapeMismatchError(f"{name!r}: a variable of unknown rank cannot follow a vocabulary")
    shape = tuple(extent for extent in partition.shape if extent is not None)
    if len(shape) != len(partition.shape):
        raise ShapeMismatchError(
            f"{name!r}: expected a shape that is known, but received: {list(partition.shape)}"
        )
    if len(shape) <= axis:
        raise ShapeMismatchError(
            f"{name!r}: Expected {axis + 1}-dim shape or more for a vocabulary on axis {axis}, but "
            f"received: {list(shape)}"
        )
    if shape[0] <= 0:
        raise ShapeMismatchError(
            f"{name!r}: Expected 1st dim of shape to be > 0, but received shape: {list(shape)}"
        )
    return shape


def _check_width(name: str, whole: Shape, new_size: int, num_oov: int) -> None:
    if whole[1] != new_size + num_oov:
        raise ShapeMismatchError(
            f"{name!r}: Expected 2nd dim of shape to be new_col_vocab_size ({new_size}) + "
            f"num_col_oov_buckets ({num_oov}) = {new_size + num_oov}, but received shape: "
            f"{list(whole)}"
        )
