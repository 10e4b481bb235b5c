# SPDX-License-Identifier: Apache-2.0
"""Work on the elements of tensors in small blocks, on several threads, in bounded memory.

A block is a box whose elements are contiguous in row-major order, so blocks in order are the
tensor, whatever its shape: a block may be many rows, or a part of one.

Reading a part of a stored slice compares no checksum, so ``damage`` verifies whole tensors before
their blocks are used, and ``require_unchanged`` checks afterwards that no file was rewritten in
between.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tensorbundle import _core
from tensorbundle.errors import CorruptionError
from tensorbundle.tensor import Tensor

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Array = np.ndarray[Any, Any]
Box = tuple[slice, ...]
Item = TypeVar("Item")
Result = TypeVar("Result")

# The elements of a block. A few arrays of float64 of that length fit into a processor's L2 cache,
# and the overhead of a block, some 20 us, is small beside the work on it.
BLOCK_ELEMENTS = 1 << 16
# More threads than that do not help, because memory is the limit.
_MAX_THREADS = 16
# Tensors are verified together up to this size, and are then still in the page cache.
_BATCH_BYTES = 64 << 20


def boxes(
    shape: Sequence[int], offset: Sequence[int] | None = None, elements: int = BLOCK_ELEMENTS
) -> Iterator[Box]:
    """Yields the boxes of at most `elements` elements that make up a box, in row-major order.

    Args:
        shape: The shape of the whole box.
        offset: Its first element; default: zeros.
        elements: The limit, at least 1.
    """
    start = tuple(offset) if offset is not None else (0,) * len(shape)
    if math.prod(shape) == 0:
        return
    if not shape:
        yield ()
        return
    # The first axis that is cut: its rows are small enough.
    axis = next(i for i in range(len(shape)) if math.prod(shape[i + 1 :]) <= elements)
    rows = min(shape[axis], elements // math.prod(shape[axis + 1 :]))
    rows = -(-shape[axis] // -(-shape[axis] // rows))  # of equal size
    inner = [slice(start[i], start[i] + shape[i]) for i in range(axis + 1, len(shape))]
    for outer in itertools.product(*(range(start[i], start[i] + shape[i]) for i in range(axis))):
        for first in range(start[axis], start[axis] + shape[axis], rows):
            end = min(first + rows, start[axis] + shape[axis])
            yield (*(slice(i, i + 1) for i in outer), slice(first, end), *inner)


def copy_box(source: Any, box: Box) -> Array:
    """Returns the elements of a box of a tensor, or of another source that takes an index.

    A tensor is copied, not viewed: a file that is truncated meanwhile raises an exception, where a
    view would end the process.
    """
    return np.asarray(source.read(box) if isinstance(source, Tensor) else source[box])


def read_box(tensor: Tensor, box: Box) -> Array:
    """Returns the elements of a box, flat and contiguous."""
    return np.ascontiguousarray(copy_box(tensor, box)).reshape(-1)


class Scratch:
    """Arrays that are used again for each block.

    A new array of a block's size consists of new pages, and their page faults take several times as
    long as the arithmetic on it. Threads: one.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, Array] = {}

    def array(self, name: str, count: int, dtype: Any) -> Array:
        """Returns a flat array without initial values.

        Lifetime: until the next call with that name.
        """
        size = count * np.dtype(dtype).itemsize
        found = self._bytes.get(name)
        if found is None or found.size < size:
            found = self._bytes[name] = np.empty(size, np.uint8)
        return found[:size].view(dtype)

    def read_box(self, name: str, tensor: Tensor, box: Box) -> Array:
        """As the function ``read_box``, into an array of that name."""
        shape = [part.stop - part.start for part in box]
        out = self.array(name, math.prod(shape), tensor.dtype)
        tensor.read(box, out=out.reshape(shape))
        return out


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """Yields ``function(item)`` for each item, in order, with a few items per thread in flight.

    If the system refuses to start a thread, the others do its work. Closing the generator waits for
    the items in flight.
    """
    threads = min(threads, _MAX_THREADS)
    if threads == 1:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # it imports many modules

    pending: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="tensorbundle") as pool:
        try:
            for item in items:
                pending.append(submit(pool, function, item))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def submit(pool: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submits a call to a pool, or makes it now if the system refuses to start a thread.

    The function may run twice: a thread that the pool has already may call it too.
    """
    from concurrent.futures import Future

    try:
        return pool.submit(function, item)
    except RuntimeError:  # "can't start new thread"
        future: Future[Result] = Future()
        future.set_result(function(item))
        return future


def batches(items: Iterable[Item], nbytes: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yields lists of consecutive items with a few dozen megabytes in all, or one larger item."""
    batch: list[Item] = []
    total = 0
    for item in items:
        size = nbytes(item)
        if batch and total + size > _BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


def damage(core: _core.Checkpoint, tensors: Sequence[Tensor]) -> dict[str, tuple[str, int]]:
    """Compares the checksums of tensors of one checkpoint, with all of its threads.

    Returns:
        The message, and the system's error number or 0, for each tensor that cannot be read.
    """
    found: dict[str, tuple[str, int]] = {}
    checked = [tensor._core for tensor in tensors if tensor._core.verify]
    if checked:
        _, rows = core.verify(checked, None)
        for name, _, _, _, message, _, number in rows:
            found.setdefault(name, (message, number))
    return found


def require_unchanged(*checkpoints: _core.Checkpoint) -> None:
    """Raises CorruptionError if a data file was rewritten in place since it was opened."""
    for each in checkpoints:
        path = each.rewritten_file()
        if path is not None:
            raise CorruptionError(
                f"{path} was rewritten while it was read: start again when no process writes it"
            )


def file_order(tensor: Tensor) -> tuple[str, int]:
    """Returns the place of the first stored byte, for reading tensors in the order of the files."""
    return min(((row[2], row[3]) for row in tensor._core.slices()), default=("", 0))
