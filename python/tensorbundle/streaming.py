# SPDX-License-Identifier: Apache-2.0
"""Tensors larger than memory, read while what came before is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from tensorbundle import _core, dtypes
from tensorbundle.arguments import integer, size
from tensorbundle.errors import ShapeMismatchError

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")

# Bytes of a chunk by default. From 4 MB on, handing a chunk over no longer counts; above 8 MB two
# of them leave the processor's cache and cost a fifth more time (docs/performance.md).
CHUNK_BYTES = 8 << 20
# What may be read ahead of small chunks, so that handing them over one by one does not count.
_MIN_AHEAD = 4 << 20
# Up to this size two chunks are read ahead: while one is handed over the other is read.
_MAX_DOUBLED = 8 << 20


class Stream(Iterator[Item], Generic[Item]):
    """An iterator whose items are read ahead on another thread.

    The thread starts with the first item, and ends with the last, with ``close()``, at the end of a
    ``with`` statement, or when the iterator is collected. It belongs to this process: a forked
    child must begin a stream of its own. Closing the checkpoint does not end it.
    """

    def __init__(self, advance: Callable[[], Item], close: Callable[[], None]) -> None:
        """Made by ``Tensor.chunks`` and ``Checkpoint.stream``."""
        self._advance = advance
        self._close = close

    def __iter__(self) -> Stream[Item]:
        return self

    def __next__(self) -> Item:
        return self._advance()

    def close(self) -> None:
        """Ends the reading. Arrays that were handed out stay as they are."""
        self._close()

    def __enter__(self) -> Stream[Item]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def chunks(
    tensor: _core.Tensor, rows: int | None, out: Array | Sequence[Array] | None
) -> Stream[tuple[int, Array]]:
    """Implements ``Tensor.chunks``.

    With ``io="auto"``, ranges that are not in the page cache are read past it where the stream is
    long and the file system local: faster, and nothing else is thrown out; but a second reading
    then is no faster. ``io="pread"`` leaves the bytes in the page cache.
    """
    if not tensor.shape:
        raise ValueError(f"tensor {tensor.name!r} is a scalar: it has no rows to stream")
    outs = [] if out is None else [out] if isinstance(out, np.ndarray) else list(out)
    if out is not None:
        rows = _checked_outs(tensor, rows, outs)
    if rows is not None:
        rows = integer(rows, "rows")
        if rows < 1:
            raise ValueError(f"a chunk needs at least one row, not {rows}")
        rows = min(rows, max(1, tensor.shape[0]))
    if tensor.type_number in (dtypes.STRING, dtypes.VARIANT):
        return _string_chunks(tensor, rows, outs)
    row_bytes = tensor.row_size()
    if rows is None:
        rows = max(1, CHUNK_BYTES // row_bytes if row_bytes else tensor.shape[0])
    source = _core.Stream.of_rows(tensor, rows=rows, max_ahead=_ahead(rows * row_bytes), outs=outs)

    def advance() -> tuple[int, Array]:
        _, start, count, array = source.next()
        if isinstance(array, int):
            array = outs[array][:count]
        assert array is not None
        dtypes.sign_extend(tensor.type_number, array)
        return start, array

    return Stream(advance, source.close)


def _ahead(chunk_bytes: int) -> int:
    doubled = 2 * chunk_bytes if chunk_bytes <= _MAX_DOUBLED else chunk_bytes
    return max(doubled, _MIN_AHEAD)


def stream(
    checkpoint: _core.Checkpoint,
    names: Mapping[int, str],
    tensors: list[_core.Tensor],
    max_bytes: int,
) -> Stream[tuple[str, Array]]:
    """Implements ``Checkpoint.stream``.

    Args:
        checkpoint: The checkpoint.
        names: The name under which to hand out each tensor, by its index.
        tensors: The tensors, without repetition.
        max_bytes: See ``Checkpoint.stream``.
    """
    max_bytes = size(max_bytes, "max_bytes")
    source = _core.Stream.of_tensors(checkpoint, tensors, max_ahead=max_bytes)
    by_index = {tensor.index: tensor for tensor in tensors}

    def advance() -> tuple[str, Array]:
        index, _, _, array = source.next()
        tensor = by_index[index]
        if array is None:
            array = tensor.read_string_box([0] * len(tensor.shape), tensor.shape)
        assert isinstance(array, np.ndarray)
        dtypes.sign_extend(tensor.type_number, array)
        return names[index], array

    return Stream(advance, source.close)


def _checked_outs(tensor: _core.Tensor, rows: int | None, outs: list[Array]) -> int:
    """The rows of a chunk, from the arrays that take them in turn."""
    if not outs:
        raise ValueError("out has no array to fill")
    for array in outs:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"out must hold numpy.ndarrays, not {type(array).__name__}")
        count = rows if rows is not None else len(outs[0]) if outs[0].ndim else 0
        if array.shape != (count, *tensor.shape[1:]):
            raise ShapeMismatchError(
                f"out has shape {array.shape}, chunks of tensor {tensor.name!r} have "
                f"{(count, *tensor.shape[1:])}"
            )
        if array.dtype != tensor.dtype:
            raise TypeError(
                f"out has dtype {array.dtype}, tensor {tensor.name!r} has {tensor.dtype}"
            )
        if not (array.flags.writeable and array.flags.c_contiguous):
            raise ValueError("arrays to be filled must be writable and C-contiguous")
    for i, array in enumerate(outs):
        if any(np.may_share_memory(array, other) for other in outs[:i]):
            raise ValueError("arrays to be filled in turn must not share memory")
    return len(outs[0])


def _string_chunks(
    tensor: _core.Tensor, rows: int | None, outs: list[Array]
) -> Stream[tuple[int, Array]]:
    """Chunks of strings: Python objects, created by the thread that asks for them."""
    tensor.ranges_of_box([0] * len(tensor.shape), tensor.shape)  # raises if elements are missing
    if rows is None:
        rows = max(1, CHUNK_BYTES * tensor.shape[0] // max(tensor.nbytes, 1))
    chunks = _iterate_strings(tensor, rows, outs)
    return Stream(chunks.__next__, chunks.close)


def _iterate_strings(
    tensor: _core.Tensor, rows: int, outs: list[Array]
) -> Generator[tuple[int, Array], None, None]:
    """Reads each stored slice once, and holds it while chunks need rows of it."""
    shape = tensor.shape
    slices = tensor.slices()
    held: dict[int, Array] = {}
    for turn, start in enumerate(range(0, shape[0], rows)):
        count = min(rows, shape[0] - start)
        chunk = outs[turn % len(outs)] if outs else np.empty((count, *shape[1:]), object)
        chunk = chunk[:count]
        for i, (offset, lengths, *_) in enumerate(slices):
            first = max(offset[0], start)
            end = min(offset[0] + lengths[0], start + count)
            if first >= end:
                continue
            if i not in held:
                held[i] = tensor.read_string_slice(i)
            columns = (slice(a, a + n) for a, n in zip(offset[1:], lengths[1:], strict=True))
            where = (slice(first - start, end - start), *columns)
            chunk[where] = held[i][first - offset[0] : end - offset[0]]
            if end == offset[0] + lengths[0]:
                del held[i]
        yield start, chunk
        del chunk
