# SPDX-License-Identifier: Apache-2.0
"""Streams of chunks and of tensors with read-ahead, for tensors larger than memory."""

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

# The default size of a chunk. From 4 MB on, the overhead per chunk is negligible; above 8 MB, two
# chunks exceed the processor's cache and take a fifth more time (docs/performance.md).
CHUNK_BYTES = 8 << 20
# The minimum read-ahead, which hides the overhead per chunk for small chunks.
_MIN_AHEAD = 4 << 20
# Up to this chunk size, two chunks are read ahead, so that one is read while the other is returned.
_MAX_DOUBLED = 8 << 20


class Stream(Iterator[Item], Generic[Item]):
    """An iterator whose items are read ahead on another thread.

    The thread starts with the first item. It ends after the last item, on ``close()``, at the end
    of a ``with`` statement, or when the iterator is garbage-collected. A forked child cannot use
    the stream and must create its own. Closing the checkpoint does not end the thread.

    After MemoryError, every further item raises MemoryError: the stream would skip the item that
    there was no memory for.
    """

    def __init__(self, advance: Callable[[], Item], close: Callable[[], None]) -> None:
        """Called by ``Tensor.chunks`` and ``Checkpoint.stream``."""
        self._advance = advance
        self._close = close
        self._is_lost = False

    def __iter__(self) -> Stream[Item]:
        return self

    def __next__(self) -> Item:
        if self._is_lost:
            raise MemoryError(
                "there was no memory for an item of this stream, which is lost; begin another"
            )
        try:
            return self._advance()
        except (MemoryError, SystemError):  # CPython 3.11 raises either if it cannot call
            self._is_lost = True
            raise

    def close(self) -> None:
        """Stops the read-ahead. Returned arrays stay valid."""
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


class IterableMethod:
    """The decorator of ``Tensor.chunks``: a method that also is the shape of a chunk.

    Libraries such as Dask read ``array.chunks`` as h5py and zarr define it, and iterate over it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Stores the method's function."""
        self.__doc__ = function.__doc__
        self._function = function

    def __get__(self, instance: Any, owner: type) -> Any:
        return self._function if instance is None else _BoundChunks(self._function, instance)


class _BoundChunks:
    """``tensor.chunks`` of one tensor."""

    __slots__ = ("__func__", "__self__")

    def __init__(self, function: Callable[..., Any], tensor: Any) -> None:
        self.__func__ = function
        self.__self__ = tensor

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__func__(self.__self__, *args, **options)

    def __iter__(self) -> Iterator[int]:
        """Yields the shape of a chunk of the default size; nothing for a scalar."""
        tensor = self.__self__._core
        return iter((_default_rows(tensor), *tensor.shape[1:]) if tensor.shape else ())

    def __repr__(self) -> str:
        return f"<chunks of {self.__self__!r}: call it, with a number of rows>"

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, "chunks")


def _default_rows(tensor: _core.Tensor) -> int:
    """Returns the number of rows of a chunk of the default size."""
    row_bytes = tensor.row_size()
    rows = CHUNK_BYTES // row_bytes if row_bytes else tensor.shape[0]
    return max(1, min(rows, tensor.shape[0]))


def chunks(
    tensor: _core.Tensor, rows: int | None, out: Array | Sequence[Array] | None
) -> Stream[tuple[int, Array]]:
    """Implements ``Tensor.chunks``.

    With ``io="auto"``, long streams from a local file system use direct I/O for ranges that are not
    in the page cache. This is faster and evicts no other pages, but a second pass is not faster
    than the first. ``io="pread"`` always uses the page cache.
    """
    if not tensor.shape:
        raise ValueError(f"tensor {tensor.name!r} is a scalar: it has no rows to stream")
    outs = [] if out is None else [out] if isinstance(out, np.ndarray) else list(out)
    if out is not None:
        rows = _check_outs(tensor, rows, outs)
    if rows is not None:
        rows = integer(rows, "rows")
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        rows = min(rows, max(1, tensor.shape[0]))
    if tensor.type_number in dtypes.VARIABLE_SIZE:
        return _string_chunks(tensor, rows, outs)
    row_bytes = tensor.row_size()
    if rows is None:
        rows = _default_rows(tensor)
    source = _core.Stream.of_rows(tensor, rows, _ahead(rows * row_bytes), outs)

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
        names: The name to return for each tensor, by the tensor's index.
        tensors: The tensors, without duplicates.
        max_bytes: See ``Checkpoint.stream``.
    """
    max_bytes = size(max_bytes, "max_bytes")
    source = _core.Stream.of_tensors(checkpoint, tensors, max_bytes)
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


def _check_outs(tensor: _core.Tensor, rows: int | None, outs: list[Array]) -> int:
    """Checks the caller's arrays for chunks, and returns their number of rows."""
    if not outs:
        raise ValueError("out must contain at least one array")
    for array in outs:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"out must contain numpy.ndarrays, not {type(array).__name__}")
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
            raise ValueError("arrays in out must be writable and C-contiguous")
    for i, array in enumerate(outs):
        if any(np.may_share_memory(array, other) for other in outs[:i]):
            raise ValueError("arrays in out must not share memory")
    return len(outs[0])


def _string_chunks(
    tensor: _core.Tensor, rows: int | None, outs: list[Array]
) -> Stream[tuple[int, Array]]:
    """Streams chunks of strings, which the consumer's thread creates as Python objects."""
    tensor.ranges_of_box([0] * len(tensor.shape), tensor.shape)  # raises if elements are missing
    if rows is None:
        rows = max(1, CHUNK_BYTES * tensor.shape[0] // max(tensor.nbytes, 1))
    chunks = _iterate_strings(tensor, rows, outs)
    return Stream(chunks.__next__, chunks.close)


def _iterate_strings(
    tensor: _core.Tensor, rows: int, outs: list[Array]
) -> Generator[tuple[int, Array], None, None]:
    """Reads each stored slice once, and keeps it until its last row has been yielded."""
    shape = tensor.shape
    slices = tensor.slices()
    loaded: dict[int, Array] = {}
    for number, start in enumerate(range(0, shape[0], rows)):
        count = min(rows, shape[0] - start)
        chunk = outs[number % len(outs)] if outs else np.empty((count, *shape[1:]), object)
        chunk = chunk[:count]
        for i, (offset, lengths, *_) in enumerate(slices):
            first = max(offset[0], start)
            end = min(offset[0] + lengths[0], start + count)
            if first >= end:
                continue
            if i not in loaded:
                loaded[i] = tensor.read_string_slice(i)
            columns = (slice(a, a + n) for a, n in zip(offset[1:], lengths[1:], strict=True))
            box = (slice(first - start, end - start), *columns)
            chunk[box] = loaded[i][first - offset[0] : end - offset[0]]
            if end == offset[0] + lengths[0]:
                del loaded[i]
        yield start, chunk
        del chunk
