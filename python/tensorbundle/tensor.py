# SPDX-License-Identifier: Apache-2.0
"""A lazy handle to one stored tensor."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from tensorbundle import _core, dlpack, dtypes, explain, gather, indexing, streaming
from tensorbundle.arguments import check_out
from tensorbundle.errors import UnsupportedError

# What could be meant as the value of a tensor.
_VALUES = (numbers.Number, np.ndarray, np.generic, str, bytes, bytearray, list, tuple)


class _Handle(Protocol):
    """What the conversions need of a ``Tensor``."""

    _core: _core.Tensor

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def size(self) -> int: ...
    @property
    def stored_dtype(self) -> str: ...
    def read(self) -> Any: ...


class ScalarConversions:
    """The part of ``Tensor`` that converts one element, by NumPy's rules for arrays.

    Comparing is not converting. A handle names a tensor: two handles are equal when they name the
    same tensor of the same open checkpoint, and equal handles have equal hashes, so that handles
    can be keys of a dict. If ``handle == 1000`` compared the element, a handle would equal objects
    with other hashes, and every dict and set with both in it would give wrong answers; if it
    compared identity, it would silently be False. So comparing with a value raises TypeError, as
    ``<`` does.
    """

    __slots__ = ()

    def item(self: _Handle) -> Any:
        """The only element, as a Python object: int, float, complex, bool, or ``bytes``.

        Raises:
            ValueError: The tensor has more or fewer elements than one.
            CorruptionError: As ``read``.
        """
        if self.size != 1:
            raise ValueError(
                f"tensor {self.name!r} has {self.size} elements: item() needs exactly one"
            )
        return _element(self)

    def __int__(self: _Handle) -> int:
        """The only element as an int; TypeError for other sizes, and for complex numbers."""
        return int(_only_element(self, "int"))

    def __float__(self: _Handle) -> float:
        """The only element as a float; TypeError for other sizes, and for complex numbers."""
        return float(_only_element(self, "float"))

    def __complex__(self: _Handle) -> complex:
        """The only element as a complex number; TypeError for other sizes."""
        return complex(_only_element(self, "complex"))

    def __index__(self: _Handle) -> int:
        """The element of a scalar of an integer type; TypeError for every other tensor."""
        if self.shape or not _is_integer(self.dtype):
            raise TypeError(
                f"only a scalar of an integer type can be used as an index, not tensor "
                f"{self.name!r} of dtype {self.stored_dtype} and shape {self.shape}"
            )
        return operator.index(_element(self))

    def __bool__(self: _Handle) -> bool:
        """Whether the only element is true, as of a NumPy array; not whether there is a tensor.

        Raises:
            ValueError: The tensor has more or fewer elements than one.
        """
        if self.size != 1:
            raise ValueError(
                f"tensor {self.name!r} has {self.size} elements, so its truth value is ambiguous; "
                "to ask whether a checkpoint holds a tensor, write 'name in checkpoint' or "
                "'checkpoint.get(name) is not None'"
            )
        return bool(_element(self))

    def __eq__(self: _Handle, other: object) -> bool:
        """Whether both are handles of the same tensor of the same open checkpoint.

        Raises:
            TypeError: `other` is a number, an array, a string or a sequence: the element was meant,
                and ``int(t)``, ``t.item()`` or ``t.read()`` gives it.
        """
        if isinstance(other, ScalarConversions):
            return _identity(self) == _identity(cast(_Handle, other))
        if isinstance(other, _VALUES):
            raise TypeError(
                f"tensor {self.name!r} is a handle and cannot be compared with a value of type "
                f"{type(other).__name__}: read it first, with int(t), t.item() or t.read()"
            )
        return NotImplemented

    def __hash__(self: _Handle) -> int:
        """Equal for handles of the same tensor of the same open checkpoint."""
        return hash(_identity(self))


def _identity(tensor: _Handle) -> tuple[int, int]:
    return tensor._core.checkpoint_id, tensor._core.index


def _only_element(tensor: _Handle, wanted: str) -> Any:
    if tensor.size != 1:
        raise TypeError(
            f"only a tensor of one element can be converted to {wanted}, not tensor "
            f"{tensor.name!r} of shape {tensor.shape}"
        )
    return _element(tensor)


def _element(tensor: _Handle) -> Any:
    element = tensor.read()
    # NumPy would cut the zero bytes off the end of a string.
    return element if isinstance(element, bytes) else np.asarray(element).item()


def _is_integer(dtype: np.dtype[Any]) -> bool:
    # The small integers of ml_dtypes are of a kind of their own.
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2", "int1", "uint1")


Array = np.ndarray[Any, Any]

# Tensors that enter TensorFlow, JAX or PyTorch without a copy must start at a multiple of this.
_ALIGNMENT = 64

# Arrays of this size are allocated only for elements that are known to be stored.
_LARGE = 1 << 20


class StoredSlice(NamedTuple):
    """A slice of a tensor, as the checkpoint stores it.

    A tensor that was saved whole has one slice, a partitioned variable one per partition.

    Attributes:
        offset: The first element of the slice in the tensor, per axis.
        shape: Elements per axis.
        file: The data file's path.
        file_offset: The first byte in that file.
        nbytes: Bytes in that file.
        crc32c: The stored CRC-32C of these bytes; None in V1 checkpoints, which have checksums of
            blocks.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    file_offset: int
    nbytes: int
    crc32c: int | None


# (name, shape, dtype, bound tensor, index, type number), as _core.Checkpoint.handles() returns it.
# The bound tensor is None in a listing of all tensors, because most of them are never read.
Row = tuple[str, tuple[int, ...], np.dtype[Any], _core.Tensor | None, int, int]


def row_of(bound: _core.Tensor) -> Row:
    """Returns the row of a bound tensor."""
    return bound.name, bound.shape, bound.dtype, bound, bound.index, bound.type_number


class _Owner(Protocol):
    """The parts of a ``Checkpoint`` that its tensors use."""

    _core: _core.Checkpoint

    def __getitem__(self, name: str, /) -> Tensor: ...


class Tensor(ScalarConversions):
    """A tensor of an open checkpoint. Its data are read when elements are asked for.

    Handles are cheap, immutable, safe to share between threads, and pickle as the checkpoint's path
    and the tensor's name. After the checkpoint's ``close()`` they raise ValueError; arrays made
    from them stay valid.

    Attributes:
        name: The stored name. Bytes that are not UTF-8 are lone surrogates (``surrogateescape``).
        shape: Elements per axis.
        dtype: The type of the elements: ``object``, of ``bytes``, for strings and variants.
    """

    __slots__ = ("_bound", "_checkpoint", "_index", "_type_number", "dtype", "name", "shape")

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, checkpoint: _Owner, row: Row) -> None:
        """Called by the checkpoint."""
        self._checkpoint = checkpoint
        self.name, self.shape, self.dtype, self._bound, self._index, self._type_number = row

    @property
    def _core(self) -> _core.Tensor:
        if self._bound is None:
            core = self._checkpoint._core
            self._bound = core.bind_tensor(self._index, self._type_number, self.name, self.shape)
        return self._bound

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._core.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self._core.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes in its files."""
        return self._core.nbytes

    @property
    def stored_dtype(self) -> str:
        """TensorFlow's name of the stored type: ``"bfloat16"``, ``"qint8"``, ``"int2"``."""
        return dtypes.stored_name(self._core.type_number)

    @property
    def slices(self) -> tuple[StoredSlice, ...]:
        """The stored slices, in the order in which the checkpoint lists them."""
        return tuple(StoredSlice(*row) for row in self._core.slices())

    @property
    def aligned(self) -> bool:
        """Whether the stored bytes can be handed over without a copy at 64-byte alignment."""
        view = self._core.view()
        return view is not None and dlpack.address_of(view) % _ALIGNMENT == 0

    @property
    def error(self) -> str | None:
        """Why the tensor cannot be read whole, or None. ``verify`` compares checksums too."""
        found = self._core.error()
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

        A read-only view of the mapped file if the stored slices are contiguous in one file; it
        keeps the mapping alive, also after ``close()``. Otherwise one copy, which the caller owns.
        A view's bytes are not compared with their checksum.

        Raises:
            ValueError: ``copy=False``, and there can be no view.
        """
        wanted = None if dtype is None else _as_dtype(dtype)
        if copy is not True:
            view = self._core.view()
            if view is not None and wanted in (None, view.dtype):
                return view
            if copy is False:
                why = explain.view_obstacle(self._core) or f"it would have to be cast to {wanted}"
                raise ValueError(f"no view of tensor {self.name!r} without a copy: {why}")
        array = self._read_box(indexing.to_box(..., self.shape), None)
        return array if wanted in (None, self.dtype) else array.astype(wanted)

    def __getitem__(self, index: Any) -> Any:
        """Basic indexing, as in NumPy: integers, slices, ``...`` and ``None``; or rows by number.

        Zero-copy and read-only if the elements are in one stored slice or the whole tensor can be
        viewed; else one copy of just those elements. A list or an array of integers copies those
        rows, as ``take`` does; negative ones count from the end.

        Raises:
            IndexError: An index is out of bounds, or there are too many.
            TypeError: The index is none of the above.
        """
        if gather.is_row_index(index):
            return self.take(index)
        indexing.require_basic(index, self._core.name)
        view = self._core.view()
        if view is not None:
            return view[index]
        box = indexing.to_box(index, self.shape)
        part = self._core.view_box(box.starts, box.lengths)
        return (self._read_box(box, None) if part is None else part)[box.rest]

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
            CorruptionError: A stored slice that was read whole does not have its stored checksum
                (unless the checkpoint was opened with ``verify="none"``), the file ends before it,
                or an element is stored nowhere or twice.
            ShapeMismatchError: `out` has another shape.
            TypeError: `out` has another dtype.
        """
        if index is ... and out is None:
            whole = self._core.read_whole()
            if whole is not None:
                return whole
        indexing.require_basic(index, self._core.name)
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
        check_out(out, shape, self._core)
        same_order = out.flags.c_contiguous and all(
            part != slice(None, None, -1) for part in box.rest
        )
        if same_order and math.prod(shape) == math.prod(box.lengths) and box.has_unit_steps:
            self._read_box(box, out.reshape(box.lengths))
        else:
            out[...] = self._read_box(box, None)[(*box.rest, ...)]
        return out

    def take(self, ids: Any, *, out: Array | None = None, fill: Any = None) -> Array:
        """Gathers rows of axis 0 by number, in any order, across stored slices.

        Args:
            ids: Integers of any shape. Without a `fill`, negative ones count from the end, as in
                NumPy. With one, -1 is a missing row and any other negative number an error.
            out: Where to put the rows: shape ``ids.shape + shape[1:]``, this tensor's dtype.
            fill: The value of a missing row: one element; one row; or as many rows as are missing,
                in order. Arrays must have this tensor's dtype.

        Returns:
            An array of shape ``ids.shape + shape[1:]`` that the caller owns (`out` when given).
            Checksums are not compared: most rows are not read.

        Raises:
            IndexError: The tensor has no such row; nothing has been written then.
            ShapeMismatchError: `out` or `fill` has the wrong shape.
            TypeError: Masks, floats, another dtype, or a scalar tensor.
        """
        return gather.take(self._core, ids, out, fill)

    def chunks(
        self, rows: int | None = None, *, out: Array | Sequence[Array] | None = None
    ) -> streaming.Stream[tuple[int, Array]]:
        """Streams the tensor along axis 0, in order, reading ahead on other threads.

        Uses two chunks and a few megabytes of memory if the consumer releases each array before it
        asks for the next but one. Arrays that the consumer keeps stay valid: the stream then
        allocates more. Strings, and V1 slices that must be decoded, also take the memory of the
        slices that a chunk is in.

        Args:
            rows: Per chunk, the last of which may be shorter. By default about 8 MB.
            out: An array, or several, of shape ``(rows, *shape[1:])``, to be filled in turn and
                handed out: each is valid until the next one is asked for. With a single one nothing
                is read ahead.

        Returns:
            An iterator of (first row, array to read and write), and a context manager that ends it.

        Raises:
            CorruptionError: From the iterator, in place of the chunk with the last bytes of a
                stored slice whose checksum is not the stored one (not with ``verify="none"``).
            ShapeMismatchError, TypeError: `out` has another shape, or another dtype.
            ValueError: A scalar; or fewer than one row.
        """
        return streaming.chunks(self._core, rows, out)

    def byte_ranges(self, index: Any = ...) -> list[tuple[str, int, int]]:
        """The bytes that a read touches: (file, offset, nbytes), ascending, merged where they meet.

        `index` is basic (its box is read whatever its steps) or has rows by number. Slices that
        must be decoded (strings, some V1 slices) are read whole. Nothing is read for the answer.
        """
        return explain.byte_ranges(self._core, index)

    def explain(self, index: Any = ...) -> explain.ReadPlan:
        """What a read would do now: means, slices, bytes, residency. ``print`` it."""
        return explain.explain(self._core, index)

    def copy_on_write(self) -> Array:
        """The whole tensor as a writable array over a private mapping of the file.

        Pages are copied when they are written to, and never reach the file; no memory is reserved
        for the other pages.

        Raises:
            ValueError: The stored bytes are not the tensor's elements in order, so that there is
                nothing to map.
        """
        array = self._core.copy_on_write()
        if array is None:
            why = explain.view_obstacle(self._core)
            raise ValueError(f"tensor {self.name!r} cannot be mapped: {why}")
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

        A view, flagged read-only, if the consumer supports DLPack 1.0 and the bytes begin at a
        multiple of 64; otherwise an aligned copy, because older consumers have no read-only flag
        and some abort on other addresses. The view has a private mapping of its own: what the
        consumer writes to it, whatever the flag says, costs memory for the page and reaches neither
        the file nor any other array.

        Raises:
            BufferError: ``copy=False`` and a copy would be needed; another device is asked for; or
                DLPack has no such type.
        """
        return dlpack.export(self._core, self.read, stream, max_version, dl_device, copy)

    def _read_box(self, box: indexing.BoxIndex, out: Array | None) -> Array:
        """The box's elements as an array of its shape."""
        core = self._core
        if core.type_number in (dtypes.STRING, dtypes.VARIANT):
            return core.read_string_box(box.starts, box.lengths)
        if out is None:
            out = self._empty(box)
        core.read(box.starts, box.lengths, out)
        dtypes.sign_extend(core.type_number, out)
        return out

    def _empty(self, box: indexing.BoxIndex) -> Array:
        """An array for a box; a large one only if its elements are stored."""
        if self.dtype == object:
            raise UnsupportedError(
                f"tensor {self.name!r} has a type that this version of tensorbundle does not know: "
                f"{self.stored_dtype}"
            )
        if math.prod(box.lengths) * self.dtype.itemsize >= _LARGE:
            self._core.check_box(box.starts, box.lengths)
        return np.empty(box.lengths, self.dtype)


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except UnicodeEncodeError:
        raise TypeError(f"{dtype!r} is not the name of a dtype") from None
    return found


def _reopen(checkpoint: _Owner, name: str) -> Tensor:
    return checkpoint[name]
