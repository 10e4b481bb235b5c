# SPDX-License-Identifier: Apache-2.0
"""Writing of checkpoints that TensorFlow reads: ``Writer`` and ``save``.

A writer streams: each call writes its elements to the data files, and ``close`` writes the index
and gives all files their names. Arrays are written from their own memory.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, SupportsIndex, TypeVar

import numpy as np

from tensorbundle import _core, arguments, blocks, dtypes, naming
from tensorbundle.errors import ShapeMismatchError, UnsupportedError
from tensorbundle.filenames import AnyPath, destination_errors, destination_prefix
from tensorbundle.tensor import StoredSlice, Tensor

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Result = TypeVar("Result")

# Bytes that one call of the extension writes. Between two calls, Ctrl-C is noticed.
_MAX_BYTES_PER_CALL = 64 << 20
# Bytes of a copy that makes elements contiguous.
_BLOCK_BYTES = 8 << 20


class Writer:
    """Writes a checkpoint of the V2 format, which TensorFlow reads as its own.

    All files are written under temporary names in the destination's directory. ``close``, which a
    ``with`` statement calls, syncs them and gives them their names, the index last. A killed
    process leaves no checkpoint, or with ``overwrite=True`` the old one; the next write to the same
    prefix removes its temporary files. After an exception, the ``with`` statement removes all
    files.

    Calls from several threads are executed one after another; each uses `threads` threads.

    Attributes:
        path: The prefix.

    Examples:
        >>> with tb.Writer("model.ckpt-1000") as writer:
        ...     writer.add("global_step", np.int64(1000))
        ...     writer.add("embedding", table)
    """

    def __init__(
        self,
        prefix: AnyPath,
        *,
        shards: SupportsIndex = 1,
        alignment: SupportsIndex = 64,
        overwrite: bool = False,
        threads: SupportsIndex | None = None,
    ) -> None:
        """Creates the temporary files.

        Args:
            prefix: The prefix, or one of the checkpoint's file names. Its directory is created if
                the parent of the directory exists.
            shards: The number of data files. Each stored slice is put into the smallest one.
            alignment: A power of two from 1 to ``2**30``. Slices of 1 MB (``10**6`` bytes) or more
                start at a multiple of it, smaller ones at a multiple of 64 or of `alignment`,
                whichever is less. With 1, the files are those of TensorFlow's ``SaveV2`` op, byte
                for byte.
            overwrite: Whether to replace a checkpoint of that prefix. At every moment, the prefix
                has either the old or the new checkpoint.
            threads: Default: as many as the process may use, see ``set_num_threads``.

        Raises:
            DestinationExistsError: The prefix has a checkpoint, and `overwrite` is False. It is an
                IOFailure and a FileExistsError.
            IOFailure: The system failed a call.
            UnsupportedError: The path is not local.
            TypeError: An argument has the wrong type.
            ValueError: `prefix` is a directory, or a number is out of its range.
        """
        self._core: _core.Writer | None = None
        self._lock = threading.RLock()
        self._error: BaseException | None = None
        self._sliced: set[bytes] = set()  # names of tensors with several slices
        self._is_discarded = False
        self._process = os.getpid()
        self.path: str = destination_prefix(prefix)
        with destination_errors():
            self._core = _core.Writer.create(
                os.fsencode(os.path.abspath(self.path)),  # the working directory may change
                arguments.size(shards, "shards", 1, 100_000),
                arguments.check_alignment(alignment, 1),
                bool(overwrite),
                arguments.thread_count(threads),
            )

    @property
    def closed(self) -> bool:
        """Whether the checkpoint was published or discarded."""
        return self._core is None

    def add(self, name: str | bytes, value: Any) -> None:
        """Writes a tensor.

        Args:
            name: The tensor's name.
            value: An array of any dtype that TensorFlow writes, or a value that ``numpy.asarray``
                converts to one; a ``bytes`` or ``str``, or an array of them; or a
                ``tensorbundle.Tensor``, which is copied with its stored slices after its bytes have
                been compared with their checksums. A ``str`` is written as UTF-8.

        Raises:
            CorruptionError: The bytes of a ``Tensor`` do not match their checksum.
            IOFailure: The system failed a write.
            TypeError: TensorFlow has no such dtype, or an object is not a string.
            UnsupportedError: The ``Tensor`` is a variant in another byte order.
            ValueError: The name is empty or was used before, or the writer is closed.
        """
        if isinstance(value, Tensor):
            self.copy({naming.as_text(name): value})
            return
        array = as_array(value)
        self._call(lambda core: self._add_slice(core, name, array.shape, None, array))

    def add_slices(
        self,
        name: str | bytes,
        shape: Sequence[int],
        slices: Iterable[tuple[Sequence[int], Any] | tuple[Sequence[int], Sequence[int], Any]],
        dtype: Any = None,
    ) -> None:
        """Writes a tensor in slices, as TensorFlow stores partitioned variables.

        Args:
            name: The tensor's name.
            shape: The shape of the whole tensor.
            slices: Pairs of (offset per axis, array), or triples of (offset, shape, iterable of
                blocks of rows, as for ``add_chunks``). Together they must cover the tensor, and
                must not overlap.
            dtype: The dtype; needed for iterables.

        Raises:
            ShapeMismatchError: A slice is outside the tensor, two slices overlap, or elements are
                in no slice; or the blocks of an iterable do not fill their slice.
            IOFailure: The system failed a write.
            TypeError: The slices differ in dtype.
            ValueError: The name is empty or was used before, or the writer is closed.
        """
        label = repr(naming.as_text(name))
        whole = _as_shape(shape)
        result_dtype = None if dtype is None else np.dtype(dtype)
        parts: list[tuple[Shape, Shape, Any]] = []
        for entry in slices:
            offset, *middle, value = entry
            if middle:
                if result_dtype is None:
                    raise TypeError(f"{label}: slices that are iterables need a dtype")
                size = _as_shape(middle[0])
            else:
                value = as_array(value)
                result_dtype = value.dtype if result_dtype is None else result_dtype
                size = value.shape
                if value.dtype != result_dtype:
                    raise TypeError(
                        f"{label}: a slice has the dtype {value.dtype}, others {result_dtype}"
                    )
            parts.append((_as_shape(offset), size, value))
        _check_cover(label, whole, [(offset, size) for offset, size, _ in parts])

        def write(core: _core.Writer) -> None:
            if naming.as_bytes(name) in self._sliced:
                raise ValueError(f"the tensor {label} was added before: a name can be used once")
            self._sliced.add(naming.as_bytes(name))
            for offset, size, value in parts:
                box = (offset, size)
                if isinstance(value, np.ndarray):
                    self._add_slice(core, name, whole, box, value)
                else:
                    assert result_dtype is not None
                    self._add_blocks(core, name, whole, box, result_dtype, value)

        self._call(write)

    def add_chunks(
        self, name: str | bytes, shape: Sequence[int], dtype: Any, chunks: Iterable[Any]
    ) -> None:
        """Writes a tensor from blocks of its rows, in bounded memory.

        Args:
            name: The tensor's name.
            shape: The shape of the whole tensor, which has at least one axis.
            dtype: The dtype.
            chunks: Arrays of shape ``(n, *shape[1:])`` and this dtype, for any n, in the order of
                the rows; or pairs of (first row, array), as ``Tensor.chunks`` yields them.

        Raises:
            ShapeMismatchError: A block has another shape, or the blocks have fewer or more rows
                than `shape`.
            IOFailure: The system failed a write.
            TypeError: A block has another dtype.
            ValueError: The name is empty or was used before, or the writer is closed.
        """
        whole = _as_shape(shape)
        self._call(lambda core: self._add_blocks(core, name, whole, None, np.dtype(dtype), chunks))

    def copy(
        self,
        tensors: Mapping[str, Tensor],
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Copies stored tensors under new names, with their slices.

        Bytes are compared with their checksums, which are stored again. Tensors whose bytes cannot
        be copied (of V1 checkpoints, or in another byte order) are read and written.

        Args:
            tensors: New name to tensor. They are written in this order.
            progress: Called from time to time with (bytes done, total bytes).

        Raises:
            Error: As by ``add``.
        """
        total = sum(tensor.nbytes for tensor in tensors.values())

        def write(core: _core.Writer) -> None:
            done = 0
            batch: list[tuple[_core.Tensor, bytes]] = []
            batch_bytes = 0

            def flush() -> None:
                nonlocal done, batch_bytes
                if batch:
                    core.copy(batch, progress, done, total)
                done += batch_bytes
                batch.clear()
                batch_bytes = 0

            for name, tensor in tensors.items():
                if core.can_copy(tensor._core):
                    batch.append((tensor._core, naming.as_bytes(name)))
                    batch_bytes += tensor.nbytes
                    continue
                flush()
                self._convert(core, name, tensor)
                done += tensor.nbytes
            flush()
            if progress is not None:
                progress(total, total)

        self._call(write)

    def close(self) -> None:
        """Publishes the checkpoint. Does nothing if it was published before.

        Raises:
            DestinationExistsError: Another process has written the prefix meanwhile.
            IOFailure: The system failed a call. All files are removed.
            ValueError: An earlier call failed, or `discard` was called, so that the files were
                removed; or the writer was created by another process, before ``fork``.
        """
        with self._lock:
            self._check_process()
            if self._error is not None:
                raise ValueError(_discarded(self.path, self._error)) from self._error
            if self._is_discarded:
                raise ValueError(f"nothing is written to {self.path!r}: it was discarded")
            if self._core is None:
                return
            core, self._core = self._core, None
            try:
                with destination_errors():
                    core.publish()
            except BaseException as error:
                self._error = error
                raise
            finally:
                core.close()

    def discard(self) -> None:
        """Removes all files. Does nothing if the checkpoint was published."""
        with self._lock:
            core, self._core = self._core, None
            if core is not None:
                self._is_discarded = True
                core.close()

    def _check_process(self) -> None:
        """A child of ``fork`` has the parent's files; both would write to them."""
        if self._process != os.getpid():
            raise ValueError(f"the writer of {self.path!r} belongs to another process")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.discard()
        elif not self._is_discarded or self._error is not None:
            self.close()

    def _call(self, write: Callable[[_core.Writer], Result]) -> Result:
        """Runs a call that writes. A failed one discards the checkpoint: it may be incomplete."""
        with self._lock:
            if self._error is not None:
                raise ValueError(_discarded(self.path, self._error)) from self._error
            self._check_process()
            if self._core is None:
                raise ValueError(f"the writer of {self.path!r} is closed")
            try:
                result = write(self._core)
                if self._core is None:
                    raise ValueError(f"the writer of {self.path!r} was closed during the call")
                return result
            except BaseException as error:
                self._error = error
                self.discard()
                raise

    def _add_all(self, tensors: Mapping[str, Any]) -> None:
        """Does what ``add`` does for each tensor, with one check of the writer's state."""

        def write(core: _core.Writer) -> None:
            for name, value in tensors.items():
                if isinstance(value, Tensor):
                    self.copy({naming.as_text(name): value})
                else:
                    array = as_array(value)
                    self._add_slice(core, name, array.shape, None, array)

        self._call(write)

    def _add_slice(
        self,
        core: _core.Writer,
        name: str | bytes,
        shape: Shape,
        box: tuple[Shape, Shape] | None,
        array: Array,
    ) -> None:
        number = dtypes.number_of(array.dtype)
        offset, size = box or (None, None)
        if number == dtypes.STRING:
            core.add_strings(naming.as_bytes(name), shape, offset, size, _strings(array, name))
        elif array.flags.c_contiguous and array.nbytes <= _MAX_BYTES_PER_CALL:
            stored = dtypes.to_stored(number, array)
            core.add(naming.as_bytes(name), number, shape, offset, size, stored)
        else:
            part = core.begin(naming.as_bytes(name), number, shape, offset, size, array.itemsize)
            for block in _contiguous_blocks(array):
                part.append(dtypes.to_stored(number, block))
            part.finish()

    def _add_blocks(
        self,
        core: _core.Writer,
        name: str | bytes,
        shape: Shape,
        box: tuple[Shape, Shape] | None,
        dtype: np.dtype[Any],
        chunks: Iterable[Any],
    ) -> None:
        label = repr(naming.as_text(name))
        number = dtypes.number_of(dtype)
        offset, size = box or (None, None)
        size_or_shape = size or shape
        if not size_or_shape:
            raise ValueError(f"{label}: a scalar has no rows: use add()")
        arrays = _checked_blocks(label, size_or_shape, dtype, chunks)
        if number == dtypes.STRING:
            strings = [text for array in arrays for text in _strings(array, name)]
            core.add_strings(naming.as_bytes(name), shape, offset, size, strings)
            return
        part = core.begin(naming.as_bytes(name), number, shape, offset, size, dtype.itemsize)
        for array in arrays:
            for block in _contiguous_blocks(array):
                part.append(dtypes.to_stored(number, block))
        part.finish()

    def _convert(self, core: _core.Writer, name: str, tensor: Tensor) -> None:
        """Reads a tensor and writes it, slice by slice."""
        number = tensor._core.type_number
        if number == dtypes.VARIANT:
            raise UnsupportedError(
                f"tensor {tensor.name!r} is a variant in another byte order, which only TensorFlow "
                "can convert"
            )
        tensor._checkpoint.verify([tensor.name]).raise_for_damage()
        for stored in tensor.slices:
            if number == dtypes.STRING:
                is_whole = stored.shape == tensor.shape
                offset, size = (None, None) if is_whole else (stored.offset, stored.shape)
                texts = _strings(np.asarray(tensor.read(_index(stored)), object), name)
                core.add_strings(naming.as_bytes(name), tensor.shape, offset, size, texts)
                continue
            part = begin_slice(core, name, tensor, stored)
            elements = _BLOCK_BYTES // tensor.dtype.itemsize
            for box in blocks.boxes(stored.shape, stored.offset, elements):
                part.append(dtypes.to_stored(number, np.asarray(tensor.read(box))))
            part.finish()


def save(
    prefix: AnyPath,
    tensors: Mapping[str, Any],
    *,
    shards: SupportsIndex = 1,
    alignment: SupportsIndex = 64,
    overwrite: bool = False,
    threads: SupportsIndex | None = None,
) -> str:
    """Writes a checkpoint in one call.

    Args:
        prefix: As for ``Writer``.
        tensors: Name to value, as for ``Writer.add``. Tensors are written in this order.
        shards: As for ``Writer``.
        alignment: As for ``Writer``; with 1, the files are those of TensorFlow's ``SaveV2`` op.
        overwrite: As for ``Writer``.
        threads: As for ``Writer``.

    Returns:
        The prefix.

    Raises:
        Error: As by ``Writer`` and ``Writer.add``. No file is left.

    Examples:
        >>> tb.save("model.ckpt-1000", {"global_step": np.int64(1000), "embedding": table})
        'model.ckpt-1000'
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors must be a mapping of names, not {type(tensors).__name__}")
    with Writer(
        prefix, shards=shards, alignment=alignment, overwrite=overwrite, threads=threads
    ) as writer:
        writer._add_all(tensors)
    return writer.path


def as_array(value: Any) -> Array:
    """Converts a value to an array whose dtype TensorFlow has.

    Raises:
        TypeError: TensorFlow has no such dtype.
    """
    if isinstance(value, (bytes, str)):  # NumPy would remove trailing zero bytes
        array = np.empty((), object)
        array[()] = value
        return array
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("TensorFlow has no masked arrays: use filled() to choose a value")
    array = np.asarray(value)
    if array.dtype.kind in "SU" and not isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value, object)  # keeps trailing zero bytes, and numbers among strings
    dtypes.number_of(array.dtype)
    return array


def begin_slice(
    core: _core.Writer, name: str, tensor: Tensor, stored: StoredSlice
) -> _core.SliceWriter:
    """Starts to write a slice of a tensor that gets the type and the slices of a stored one."""
    is_whole = stored.shape == tensor.shape
    return core.begin(
        naming.as_bytes(name),
        tensor._core.type_number,
        tensor.shape,
        None if is_whole else stored.offset,
        None if is_whole else stored.shape,
        tensor.dtype.itemsize,
    )


def _index(stored: StoredSlice) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(stored.offset, stored.shape, strict=True))


def _as_shape(shape: Any) -> Shape:
    return tuple(arguments.size(length, "a size") for length in shape)


def _discarded(path: str, error: BaseException) -> str:
    return f"nothing is written to {path!r}, because an earlier call failed: {error}"


def _strings(array: Array, name: str | bytes) -> list[Any]:
    """Returns the strings of an array in row-major order.

    Raises:
        TypeError: An object is not a string.
    """
    strings: list[Any] = array.ravel().tolist()
    for text in strings:
        if not isinstance(text, (bytes, str)):
            raise TypeError(
                f"{naming.as_text(name)!r}: an object of type {type(text).__name__} is not a "
                "string, and TensorFlow stores no other objects"
            )
    return strings


def _contiguous_blocks(array: Array) -> Iterator[Array]:
    """Yields the elements in row-major order, as C-contiguous arrays of bounded size."""
    limit = _MAX_BYTES_PER_CALL if array.flags.c_contiguous else _BLOCK_BYTES
    if array.nbytes <= limit or array.ndim == 0:
        yield np.ascontiguousarray(array)
        return
    step = limit * len(array) // array.nbytes
    if step == 0:
        for row in array:
            yield from _contiguous_blocks(row)
        return
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step])


def _checked_blocks(
    label: str, shape: Shape, dtype: np.dtype[Any], chunks: Iterable[Any]
) -> Iterator[Array]:
    """Yields the blocks of rows after checking each, and that they are all rows."""
    row = 0
    for chunk in chunks:
        first, array = chunk if isinstance(chunk, tuple) and len(chunk) == 2 else (row, chunk)
        if first != row:
            raise ShapeMismatchError(f"{label}: a block begins at row {first}, expected {row}")
        array = np.asarray(array, dtype if dtypes.number_of(dtype) == dtypes.STRING else None)
        if array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise TypeError(f"{label}: a block of rows has the dtype {array.dtype}, not {dtype}")
        if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
            raise ShapeMismatchError(
                f"{label}: a block of rows has the shape {array.shape}, expected "
                f"{('n', *shape[1:])}"
            )
        row += len(array)
        if row > shape[0]:
            break
        yield array
    if row != shape[0]:
        more = "or more " if row > shape[0] else ""
        raise ShapeMismatchError(f"{label}: there are {row} {more}rows, expected {shape[0]}")


def _check_cover(label: str, shape: Shape, boxes: list[tuple[Shape, Shape]]) -> None:
    """Checks that boxes cover a tensor and do not overlap.

    Raises:
        ShapeMismatchError: They do not.
    """
    if not boxes:
        raise ShapeMismatchError(f"{label}: there are no slices")
    rank = len(shape)
    for offset, size in boxes:
        if len(offset) != rank or len(size) != rank:
            raise ShapeMismatchError(
                f"{label}: the slice at {offset} of shape {size} has another rank than the tensor, "
                f"whose shape is {shape}"
            )
        if any(o + n > d or (n == 0 < d) for o, n, d in zip(offset, size, shape, strict=True)):
            raise ShapeMismatchError(
                f"{label}: the slice at {offset} of shape {size} is empty or not inside the tensor "
                f"of shape {shape}"
            )
    # Sweep along axis 0: only boxes that share rows can overlap.
    active: list[tuple[Shape, Shape]] = []
    for offset, size in sorted(boxes):
        if rank:
            active = [box for box in active if box[0][0] + box[1][0] > offset[0]]
        for other, other_size in active:
            if all(
                max(a, b) < min(a + m, b + n)
                for a, m, b, n in zip(offset, size, other, other_size, strict=True)
            ):
                raise ShapeMismatchError(f"{label}: the slices at {other} and {offset} overlap")
        active.append((offset, size))
    if sum(math.prod(size) for _, size in boxes) != math.prod(shape):
        raise ShapeMismatchError(f"{label}: some elements of the shape {shape} are in no slice")
