# SPDX-License-Identifier: Apache-2.0
"""One tensor of a planned checkpoint, and the stream of its values in row blocks.

A row block is a C-contiguous array of consecutive rows along axis 0. Four ways produce them from a
tensor of a checkpoint; all compare the checksums of the source:

===============================  ===================================================================
axis 0 stays, and up to 64 MB    the tensor is verified first; then each block is a view of the file
axis 0 stays the first axis      ``Tensor.chunks``, which reads ahead and compares while it reads;
                                 the other axes are transposed within each block
axis 0 moves                     the tensor is verified first; then each block is a box of the
                                 source that has all of its rows
slices cut along several axes    the tensor is verified first; then each block is a box of a slice
===============================  ===================================================================
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbundle import _core, casts
from tensorbundle.blocks import copy_box, require_unchanged
from tensorbundle.tensor import Tensor
from tensorbundle.verification import verify_tensors

Array = np.ndarray[Any, Any]
# Offset and shape, per axis.
Box = tuple[tuple[int, ...], tuple[int, ...]]

BLOCK_BYTES = 8 << 20
# Blocks that are cast or transposed, if the caller takes any size: they stay in the cache.
_COMPUTED_BYTES = 1 << 20
# Tensors of this size are read at once: a stream starts a thread.
_SMALL_BYTES = 1 << 20
# Blocks of a transposition that moves axis 0 are larger: each of them reads a part of every row.
_TRANSPOSED_BYTES = 12 << 20
# Up to this size, a tensor stays in the page cache between the comparison and the copy.
_CACHED_BYTES = 64 << 20
# Bytes of the source that are transposed at once: they fit into the second-level cache.
_TILE_BYTES = 1 << 18


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the result, and what it is made from.

    Attributes:
        name: The name in the result.
        source: A tensor of the source, or the caller's value: an array, or ``bytes`` for a scalar
            string.
        source_name: The key in the source; None for a tensor that ``update`` adds.
        dtype: The type of the elements in the result.
        stored_dtype: TensorFlow's name of that type.
        shape: The shape in the result.
        permutation: The axis of the source for each axis of the result; None if they are the same.
        slices: (offset, shape) of each slice in which the tensor is to be stored.
        is_unchanged: Whether the stored bytes and slices are those of the source, so that they can
            be copied with their checksums.
    """

    name: str
    source: Tensor | Array | bytes
    source_name: str | None
    dtype: np.dtype[Any]
    stored_dtype: str
    shape: tuple[int, ...]
    permutation: tuple[int, ...] | None
    slices: tuple[Box, ...]
    is_unchanged: bool

    @property
    def nbytes(self) -> int:
        """The number of bytes of the values in the result; of the source for strings."""
        if self.dtype == object:
            return self.source.nbytes if isinstance(self.source, Tensor) else 0
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored_rows(self) -> Tensor | None:
        """The tensor of the source if ``_core.copy_rows`` can write the result, else None."""
        source = self.source
        if not self.is_unchanged or not isinstance(source, Tensor):
            return None
        return source if _core.can_copy_rows(source._core) else None

    def blocks(self, max_bytes: int = BLOCK_BYTES, *, splits_rows: bool = False) -> Iterator[Array]:
        """Yields the values in row blocks, in row-major order.

        Every byte of the source is compared with its checksum, unless the checkpoint was opened
        with ``verify="none"``.

        Args:
            max_bytes: The size of a block, in the source and in the result; at least 12 MB if the
                transposition moves axis 0. A block has at least one row.
            splits_rows: Whether the caller takes blocks of any size: parts of rows that are larger
                than `max_bytes`, with the lengths 1 along the first axes; and small blocks of
                tensors that are cast.

        Yields:
            Arrays of shape ``(rows, *shape[1:])`` that nothing else uses, or that are read-only; a
            single array of shape ``()`` for a scalar.

        Raises:
            CorruptionError: The source does not match its checksum. The last block that has been
                yielded may already be wrong.
        """
        if splits_rows and not self.is_unchanged:
            max_bytes = min(max_bytes, _COMPUTED_BYTES)
        return map(self.finish, self._source_blocks(max_bytes, splits_rows, rereads=True))

    def slice_blocks(
        self, max_bytes: int = BLOCK_BYTES
    ) -> Generator[tuple[Box, Iterator[Array]], None, None]:
        """Yields each slice of the result, with its values in row-major order.

        Closing the generator stops the read-ahead.

        The blocks of a slice must be consumed before the next slice is requested. They have not
        been transposed and cast: `finish` does that, which may run on any thread. They are row
        blocks, or parts of rows that are larger than `max_bytes`.

        Raises:
            CorruptionError: As for `blocks`.
        """
        if not self.shape or len(self.slices) == 1:
            with contextlib.closing(self._source_blocks(max_bytes, splits_rows=True)) as blocks:
                yield self.slices[0], blocks
        elif self._slices_are_row_ranges() and not self._has_large_rows(self.shape, max_bytes):
            with contextlib.closing(self._source_blocks(max_bytes)) as blocks:
                rows = _RowSplitter(blocks, self._first_axis)
                for box in self.slices:
                    yield box, rows.take(box[1][0])
        else:
            with self._verified():
                for box in self.slices:
                    yield box, self._boxes(box, max_bytes, splits_rows=True)

    def finish(self, block: Array) -> Array:
        """Transposes and casts a block of the source. Returns a C-contiguous array."""
        if self.permutation is None:
            array = casts.cast(block, self.dtype)
            return np.asarray(casts.bits(array), order="C").view(array.dtype)
        view = np.transpose(block, self.permutation)
        result = np.empty(view.shape, self.dtype)
        # In tiles of source rows that fit into the cache: each of them is read once.
        axis = self.permutation.index(0)
        rows = max(1, _TILE_BYTES * view.shape[axis] // max(block.nbytes, 1))
        for start in range(0, view.shape[axis], rows):
            tile = (*(slice(None),) * axis, slice(start, start + rows))
            casts.bits(result)[tile] = casts.bits(casts.cast(view[tile], self.dtype))
        return result

    @property
    def _first_axis(self) -> int:
        return 0 if self.permutation is None else self.permutation[0]

    def _source_blocks(
        self, max_bytes: int, splits_rows: bool = False, *, rereads: bool = False
    ) -> Generator[Array, None, None]:
        """Yields what `finish` turns into the blocks of the whole tensor.

        With `rereads`, small tensors are compared first, and then read again, in small blocks. A
        thread that reads ahead for others that cast is faster without.
        """
        box = whole(self.shape)
        if not isinstance(self.source, Tensor):
            yield from self._boxes(box, max_bytes, splits_rows)
        elif not self.shape:
            yield _scalar(self.source.read(), self.source.dtype)
        elif rereads and self._stays_cached():
            with self._verified():
                yield from self._boxes(box, max_bytes, splits_rows)
        elif self._first_axis == 0 and self.source.nbytes <= min(_SMALL_BYTES, max_bytes):
            yield self.source.read(tuple(slice(length) for length in self.source.shape))
        elif self._first_axis == 0 and not (
            splits_rows and self._has_large_rows(self.shape, max_bytes)
        ):
            with self.source.chunks(self._rows_per_block(max_bytes, self.shape)) as chunks:
                for _, block in chunks:
                    yield block
        else:
            with self._verified():
                yield from self._boxes(box, max_bytes, splits_rows)

    def _stays_cached(self) -> bool:
        """Returns whether the tensor is in the page cache after it was compared."""
        source = self.source
        return (
            self._first_axis == 0
            and isinstance(source, Tensor)
            and source.nbytes <= _CACHED_BYTES
            and source._core.view() is not None
        )

    def _boxes(self, box: Box, max_bytes: int, splits_rows: bool) -> Iterator[Array]:
        """Yields the source of the blocks of a box of the result."""
        offset, shape = box
        if not shape:
            yield self._read_box(offset, shape)
            return
        if self._first_axis != 0:
            max_bytes = max(max_bytes, _TRANSPOSED_BYTES)
        axis = 0  # the axis to cut; all axes before it have the length 1 in a block
        while (
            splits_rows and axis + 1 < len(shape) and self._has_large_rows(shape[axis:], max_bytes)
        ):
            axis += 1
        rows = self._rows_per_block(max_bytes, shape[axis:])
        for head in np.ndindex(*shape[:axis]):
            first = tuple(start + i for start, i in zip(offset, head, strict=False))
            for start in range(0, shape[axis], rows):
                count = min(rows, shape[axis] - start)
                yield self._read_box(
                    (*first, offset[axis] + start, *offset[axis + 1 :]),
                    (*(1,) * axis, count, *shape[axis + 1 :]),
                )

    def _read_box(self, offset: Sequence[int], shape: Sequence[int]) -> Array:
        if isinstance(self.source, bytes):
            return _scalar(self.source, np.dtype(object))
        index: list[slice] = [slice(None)] * len(shape)
        for axis, (start, count) in enumerate(zip(offset, shape, strict=True)):
            source_axis = axis if self.permutation is None else self.permutation[axis]
            index[source_axis] = slice(start, start + count)
        return copy_box(self.source, tuple(index))

    def _item_bytes(self) -> int:
        """Returns the size of an element in memory, in the source or in the result."""
        if isinstance(self.source, Tensor):
            if self.dtype == object:
                return max(1, self.source.nbytes // max(self.source.size, 1))
            return max(self.dtype.itemsize, self.source.dtype.itemsize)
        return self.dtype.itemsize

    def _has_large_rows(self, shape: Sequence[int], max_bytes: int) -> bool:
        return math.prod(shape[1:]) * self._item_bytes() > max_bytes

    def _rows_per_block(self, max_bytes: int, shape: Sequence[int]) -> int:
        row_bytes = math.prod(shape[1:]) * self._item_bytes()
        return max(1, max_bytes // row_bytes if row_bytes else shape[0])

    def _slices_are_row_ranges(self) -> bool:
        """Returns whether the slices are consecutive ranges of whole rows."""
        end = 0
        for offset, shape in self.slices:
            if offset != (end, *(0 for _ in offset[1:])) or shape[1:] != self.shape[1:]:
                return False
            end += shape[0]
        return end == self.shape[0]

    @contextlib.contextmanager
    def _verified(self) -> Iterator[None]:
        """Compares all checksums of the source, whose boxes are read in the ``with`` statement.

        Raises:
            CorruptionError: A checksum differs, or a file was rewritten in place since its open.
        """
        source = self.source
        if not isinstance(source, Tensor) or not source._core.verify:
            yield
            return
        checkpoint = source._checkpoint
        path = getattr(checkpoint, "path", "")
        verify_tensors(checkpoint._core, path, [source._core], None).raise_for_damage()
        yield
        require_unchanged(checkpoint._core)


class _RowSplitter:
    """Divides a stream of row blocks at the boundaries of slices."""

    def __init__(self, blocks: Iterator[Array], axis: int) -> None:
        self._blocks = blocks
        self._axis = axis  # of the rows, in the blocks
        self._rest: Array | None = None

    def take(self, rows: int) -> Iterator[Array]:
        """Yields the blocks of the next rows."""
        while rows:
            block = next(self._blocks) if self._rest is None else self._rest
            count = min(rows, block.shape[self._axis])
            before: list[Any] = [slice(None)] * block.ndim
            after = list(before)
            before[self._axis], after[self._axis] = slice(0, count), slice(count, None)
            self._rest = block[tuple(after)] if count < block.shape[self._axis] else None
            rows -= count
            yield block[tuple(before)]


def _scalar(value: Any, dtype: np.dtype[Any]) -> Array:
    """Returns an array without axes. ``np.array`` would remove trailing zero bytes of a string."""
    array = np.empty((), dtype)
    array[()] = value
    return array


def whole(shape: tuple[int, ...]) -> Box:
    """Returns the box of a whole tensor."""
    return (0,) * len(shape), shape


def row_slices(shape: tuple[int, ...], count: int) -> tuple[Box, ...]:
    """Returns the slices of a tensor that is cut along axis 0, as TensorFlow cuts it.

    The rows are divided evenly, and the first slices get one row more, as by
    ``fixed_size_partitioner``. There are at most as many slices as rows.
    """
    count = max(1, min(count, shape[0]))
    size, larger = divmod(shape[0], count)
    slices, start = [], 0
    for number in range(count):
        rows = size + (number < larger)
        offset = (start, *(0 for _ in shape[1:]))
        slices.append((offset, (rows, *shape[1:])))
        start += rows
    return tuple(slices)


def transposed(boxes: Sequence[Box], permutation: tuple[int, ...] | None) -> tuple[Box, ...]:
    """Returns the boxes of a transposed tensor."""
    if permutation is None:
        return tuple(boxes)

    def permute(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in permutation)

    return tuple((permute(offset), permute(shape)) for offset, shape in boxes)
