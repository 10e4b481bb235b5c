# SPDX-License-Identifier: Apache-2.0
"""A lazy handle to one stored tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorbundle import _core as core_module
from tensorbundle import dtypes, indexing, plan, rows, streaming, strings
from tensorbundle.destination import check_out
from tensorbundle.errors import UnsupportedError
from tensorbundle.scalars import ScalarConversions

if TYPE_CHECKING:
    from tensorbundle.reader import Checkpoint

Array = np.ndarray[Any, Any]

# Tensors that enter TensorFlow, JAX or PyTorch without a copy must start at a multiple of this.
_ALIGNMENT = 64

# Memory of this size is got only for elements that are known to be stored.
_LARGE = 1 << 20


class Partition(NamedTuple):
    """One stored slice of a tensor.

    Attributes:
        extents: ``(start, extent)`` per axis: where it lies in the tensor.
        file: The data shard's path.
        offset: Where its bytes begin in that file.
        nbytes: How many there are.
    """

    extents: tuple[tuple[int, int], ...]
    file: str
    offset: int
    nbytes: int


class Tensor(ScalarConversions):
    """A tensor of an open checkpoint. Nothing of its data is read until someone asks for elements.

    Handles are cheap, immutable, safe to share between threads, and pickle as the checkpoint's path
    and the tensor's name. After the checkpoint's ``close()`` they raise ValueError; arrays made
    from them live on.

    Attributes:
        name: As stored. Bytes that are not UTF-8 are lone surrogates (``surrogateescape``).
        shape: Elements per axis.
        dtype: Of the elements handed out: ``object`` holding ``bytes`` for strings and variants.
    """

    __slots__ = ("_checkpoint", "_index", "_number", "dtype", "name", "shape")

    def __init__(
        self, checkpoint: Checkpoint, index: int, name: str, shape: tuple[int, ...], number: int
    ) -> None:
        """Made by the checkpoint, from what its catalog holds at `index`."""
        self._checkpoint = checkpoint
        self._index = index
        self._number = number
        self.name = name
        self.shape = shape
        self.dtype: np.dtype[Any] = dtypes.numpy_dtype(number)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes in its files."""
        return sum(partition.nbytes for partition in self.partitions)

    @property
    def stored_dtype(self) -> str:
        """TensorFlow's name of the stored type: ``"bfloat16"``, ``"qint8"``, ``"int2"``."""
        return dtypes.stored_name(self._number)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The stored slices, in the order in which the checkpoint lists them."""
        return tuple(
            Partition(tuple(zip(starts, lengths, strict=True)), file, offset, nbytes)
            for starts, lengths, file, offset, nbytes in self._core.slices(self._index)
        )

    @property
    def aligned(self) -> bool:
        """Whether the stored bytes can be handed over without a copy at 64-byte alignment."""
        view = self._view()
        return isinstance(view, np.ndarray) and _address(view) % _ALIGNMENT == 0

    @property
    def problem(self) -> str | None:
        """Why the tensor cannot be read whole, or None. ``verify`` compares checksums too."""
        found = self._core.problem(self._index)
        return None if found is None else found[1]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<tensorbundle.Tensor {self.name!r} {self.stored_dtype} {self.shape}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._checkpoint, self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The whole tensor as an array.

        A read-only view of the mapped file where the stored pieces lie one behind the other; it
        keeps the mapping alive, also after ``close()``. Otherwise one copy, which the caller owns.
        A view's bytes are not compared with their checksum.

        Raises:
            ValueError: ``copy=False``, and there can be no view.
        """
        wanted = self.dtype if dtype is None else _as_dtype(dtype)
        if copy is not True:
            view = self._view()
            if isinstance(view, np.ndarray) and wanted == self.dtype:
                return view
            if copy is False:
                why = view if isinstance(view, str) else f"it would have to be cast to {wanted}"
                raise ValueError(f"no view of tensor {self.name!r} without a copy: {why}")
        array = self._read_box(indexing.to_box(..., self.shape), None)
        return array if wanted == self.dtype else array.astype(wanted)

    def __getitem__(self, index: Any) -> Any:
        """Basic indexing, as in NumPy: integers, slices, ``...`` and ``None``; or rows by number.

        Zero-copy, read-only, where what is asked for lies in one stored piece or the whole tensor
        can be viewed; else one copy of just those elements. A list or an array of integers copies
        those rows, as ``take`` does; negative ones count from the end.

        Raises:
            IndexError: An index is out of bounds, or there are too many.
            TypeError: The index is none of the above.
        """
        if rows.is_row_index(index):
            return self.take(index)
        self._require_basic(index)
        view = self._view()
        if isinstance(view, np.ndarray):
            return view[index]
        box = indexing.to_box(index, self.shape)
        piece = self._view_in_one_piece(box)
        return (self._read_box(box, None) if piece is None else piece)[box.rest]

    def read(self, index: Any = ..., *, out: Array | None = None) -> Any:
        """Copies elements out of the checkpoint.

        Args:
            index: A basic index; everything by default.
            out: Where to put them: a writable C-contiguous array of exactly the resulting shape and
                of this tensor's dtype.

        Returns:
            An array that the caller owns and may write to (`out` when given); for a single element
            a NumPy scalar or ``bytes``.

        Raises:
            CorruptionError: A stored piece that was read whole does not have its stored checksum
                (unless the checkpoint was opened with ``verify="none"``), is cut off, or leaves a
                hole.
            ShapeMismatchError: `out` has another shape.
            TypeError: `out` has another dtype.
        """
        self._require_basic(index)
        box = indexing.to_box(index, self.shape)
        if out is None:
            result = self._read_box(box, None)[box.rest]
            return (
                result
                if box.is_trivial or np.isscalar(result) or isinstance(result, bytes)
                else result.copy()
            )
        # Strides of 0 cost nothing: the shape that NumPy gives this index.
        shape = np.broadcast_to(np.empty((), np.bool_), box.lengths)[(*box.rest, ...)].shape
        check_out(self, out, shape)
        same_order = out.flags.c_contiguous and all(
            part != slice(None, None, -1) for part in box.rest
        )
        if same_order and math.prod(shape) == math.prod(box.lengths) and _steps_are_one(box):
            self._read_box(box, out.reshape(box.lengths))
        else:
            out[...] = self._read_box(box, None)[(*box.rest, ...)]
        return out

    def take(self, ids: Any, *, out: Array | None = None, fill: Any = None) -> Array:
        """Gathers rows of axis 0 by number, in any order, across stored pieces.

        Args:
            ids: Integers of any shape. Without a `fill`, negative ones count from the end, as in
                NumPy. With one, -1 is a missing row and any other negative number an error.
            out: Where to put the rows: shape ``ids.shape + shape[1:]``, this tensor's dtype.
            fill: What a missing row gets: one element; one row; or as many rows as are missing, in
                order. Arrays must have this tensor's dtype.

        Returns:
            An array of shape ``ids.shape + shape[1:]`` that the caller owns (`out` when given).
            Checksums are not compared: most rows are not read.

        Raises:
            IndexError: A number is no row; nothing has been written then.
            ShapeMismatchError: `out` or `fill` has the wrong shape.
            TypeError: Masks, floats, another dtype, or a scalar tensor.
        """
        return rows.take(self, ids, out, fill)

    def chunks(
        self, rows: int | None = None, *, out: Array | Sequence[Array] | None = None
    ) -> streaming.Stream[tuple[int, Array]]:
        """Streams the tensor along axis 0, in order, reading ahead on other threads.

        Holds two chunks and a few megabytes while the consumer drops each array before it asks for
        the next but one. What it keeps stays valid for ever: the stream then takes new memory.
        Strings, and V1 pieces that must be decoded, also take the pieces that a chunk lies in.

        Args:
            rows: Per chunk, the last of which may be shorter. By default about 8 MB.
            out: An array, or several, of shape ``(rows, *shape[1:])``, to be filled in turn and
                handed out: each is valid until the next one is asked for. With a single one nothing
                is read ahead.

        Returns:
            An iterator of (first row, array to read and write), and a context manager that ends it.

        Raises:
            CorruptionError: From the iterator, instead of the chunk with the last bytes of a stored
                piece whose checksum is not the stored one (not with ``verify="none"``).
            ShapeMismatchError, TypeError: `out` has another shape, or another dtype.
            ValueError: A scalar; or fewer than one row.
        """
        return streaming.chunks(self, rows, out)

    def byte_ranges(self, index: Any = ...) -> list[tuple[str, int, int]]:
        """Which bytes a read touches: (file, offset, nbytes), ascending, merged where they touch.

        `index` is basic (its box is read whatever its steps) or has rows by number. What must be
        decoded (strings, some V1 pieces) is read in whole pieces. Nothing is read for the answer.
        """
        return plan.byte_ranges(self, index)

    def explain(self, index: Any = ...) -> plan.ReadPlan:
        """What a read would do now: means, pieces, bytes, residency. ``print`` it."""
        return plan.explain(self, index)

    def copy_on_write(self) -> Array:
        """The whole tensor as a writable array over a private mapping of the file.

        Pages are copied when they are written to, and never reach the file; nothing is reserved for
        the rest.

        Raises:
            ValueError: The stored bytes are not the tensor's in one piece, so that there is nothing
                to map.
        """
        array = self._core.copy_on_write(self._index, self.dtype)
        if isinstance(array, str):
            raise ValueError(f"tensor {self.name!r} cannot be mapped: {array}")
        return array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The whole tensor as a DLPack capsule.

        A view, flagged read-only, when the consumer speaks DLPack 1.0 and the bytes lie at a
        multiple of 64; an aligned copy otherwise, because older consumers cannot be told and some
        abort on other addresses. The view is of a private mapping of its own: what the consumer
        writes, whatever the flag says, costs memory for the page and reaches neither the file nor
        any other array.

        Raises:
            BufferError: ``copy=False`` and a copy would be needed; another device is asked for; or
                DLPack has no such type.
        """
        from tensorbundle import dlpack

        return dlpack.export(self, stream, max_version, dl_device, copy)

    @property
    def _core(self) -> core_module.Checkpoint:
        return self._checkpoint._opened

    def _view(self) -> Array | str:
        """A read-only view of everything, or why there can be none."""
        if self._number in dtypes.SIGN_EXTENDED:
            return f"{self.stored_dtype} must be widened to {self.dtype}"
        return self._core.view(self._index, self.dtype)

    def _view_in_one_piece(self, box: indexing.BoxIndex) -> Array | None:
        """A view of a box that lies inside one stored piece, or None."""
        if self._number in dtypes.SIGN_EXTENDED:
            return None
        pieces = self._core.slices_of_box(self._index, box.starts, box.lengths)
        if len(pieces) != 1:
            return None
        ((piece, starts, *_),) = pieces
        view = self._core.view_slice(self._index, piece, self.dtype)
        if isinstance(view, str):
            return None
        ranges = zip(box.starts, starts, box.lengths, strict=True)
        return view[tuple(slice(a - b, a - b + n) for a, b, n in ranges)]

    def _read_box(self, box: indexing.BoxIndex, out: Array | None) -> Array:
        """The box's elements as an array of its lengths."""
        if self._number in (dtypes.STRING, dtypes.VARIANT):
            return self._read_strings(box)
        if out is None:
            out = self._empty(box)
        self._core.read(
            self._index,
            box.starts,
            box.lengths,
            out,
            threads=self._checkpoint.threads,
            verify=self._checkpoint._verifies,
        )
        if self._number in dtypes.SIGN_EXTENDED:
            dtypes.sign_extend(out, dtypes.SIGN_EXTENDED[self._number])
        return out

    def _empty(self, box: indexing.BoxIndex) -> Array:
        """An array for a box; a large one only if its elements are stored."""
        self._require_known_type()
        if math.prod(box.lengths) * self.dtype.itemsize >= _LARGE:
            self._core.require_box(self._index, box.starts, box.lengths)
        return np.empty(box.lengths, self.dtype)

    def _read_strings(self, box: indexing.BoxIndex) -> Array:
        return strings.read_box(
            self._core, self._index, box.starts, box.lengths, self._checkpoint._verifies
        )

    def _require_basic(self, index: Any) -> None:
        if not indexing.is_basic(index):
            raise TypeError(
                f"cannot index tensor {self.name!r} with {type(index).__name__}: "
                "only integers, slices, '...' and None are understood"
            )

    def _require_known_type(self) -> None:
        if self.dtype == object:
            raise UnsupportedError(
                f"tensor {self.name!r} in {self._checkpoint.path!r} has a type that this version "
                f"of tensorbundle does not know: {self.stored_dtype}"
            )


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except UnicodeEncodeError:
        raise TypeError(f"{dtype!r} is not the name of a dtype") from None
    return found


def _steps_are_one(box: indexing.BoxIndex) -> bool:
    return all(not isinstance(part, slice) or part.step in (None, 1) for part in box.rest)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _reopen(checkpoint: Checkpoint, name: str) -> Tensor:
    return checkpoint[name]
