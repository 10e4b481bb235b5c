# SPDX-License-Identifier: Apache-2.0
"""Lazy handles of stored tensors, and their conversions to Python scalars."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast, overload

import numpy as np

from tensorbundle import _core, dlpack, dtypes, explain, gather, indexing, streaming, tables
from tensorbundle.arguments import check_out
from tensorbundle.errors import UnsupportedError

if TYPE_CHECKING:
    from tensorbundle.torch_tensors import TorchDevice, TorchDtype, TorchTensor

Array = np.ndarray[Any, Any]
Out = TypeVar("Out", bound=Array)
_Method = TypeVar("_Method", bound=Callable[..., Any])

# Types with which the value of a tensor might be compared.
_VALUES = (numbers.Number, np.ndarray, np.generic, str, bytes, bytearray, list, tuple)

# The alignment that TensorFlow, JAX and PyTorch require for use without a copy.
_ALIGNMENT = 64

# From this size on, arrays are allocated only after checking that their elements are stored.
_LARGE = 1 << 20


class _Handle(Protocol):
    """The attributes of ``Tensor`` that the conversions use."""

    @property
    def _core(self) -> _core.Tensor: ...
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
    """Conversions of a one-element ``Tensor`` by NumPy's rules, and comparison of handles.

    Comparison does not convert. Two handles are equal if they refer to the same tensor of the same
    open checkpoint, and equal handles have equal hashes, so handles can be keys of a dict. If
    ``handle == 1000`` compared the element, a handle would equal objects with other hashes, which
    breaks dicts and sets; if it compared identity, it would silently be False. Therefore
    comparison with a value raises TypeError, as ``<`` does.
    """

    __slots__ = ()

    def item(self: _Handle) -> Any:
        """Returns the only element as a Python object: int, float, complex, bool, or ``bytes``.

        Raises:
            ValueError: The tensor does not have exactly one element.
            CorruptionError: The stored bytes are corrupted.
        """
        if self.size != 1:
            raise ValueError(
                f"tensor {self.name!r} has {self.size} elements: item() requires exactly one"
            )
        return _element(self)

    def __int__(self: _Handle) -> int:
        """Returns the only element as an int; TypeError for other sizes and complex numbers."""
        return int(_only_element(self, "int"))

    def __float__(self: _Handle) -> float:
        """Returns the only element as a float; TypeError for other sizes and complex numbers."""
        return float(_only_element(self, "float"))

    def __complex__(self: _Handle) -> complex:
        """Returns the only element as a complex number; TypeError for other sizes."""
        return complex(_only_element(self, "complex"))

    def __index__(self: _Handle) -> int:
        """Returns the element of a scalar of an integer type; TypeError for other tensors."""
        if self.shape or not _is_integer(self.dtype):
            raise TypeError(
                f"only a scalar of an integer type can be used as an index, not tensor "
                f"{self.name!r} of dtype {self.stored_dtype} and shape {self.shape}"
            )
        return operator.index(_element(self))

    def __bool__(self: _Handle) -> bool:
        """Returns whether the only element is true, as for a NumPy array.

        Raises:
            ValueError: The tensor does not have exactly one element.
        """
        if self.size != 1:
            raise ValueError(
                f"tensor {self.name!r} has {self.size} elements, so its truth value is ambiguous; "
                "to test whether a checkpoint has a tensor, use 'name in checkpoint' or "
                "'checkpoint.get(name) is not None'"
            )
        return bool(_element(self))

    def __eq__(self: _Handle, other: object) -> bool:
        """Returns whether both are handles of the same tensor of the same open checkpoint.

        Raises:
            TypeError: `other` is a number, an array, a string or a sequence. Compare ``int(t)``,
                ``t.item()`` or ``t.read()`` instead.
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
        """Returns the same hash for all handles of a tensor of one open checkpoint."""
        return hash(_identity(self))


def _identity(tensor: _Handle) -> tuple[int, int]:
    return tensor._core.checkpoint_id, tensor._core.index


def _only_element(tensor: _Handle, target: str) -> Any:
    if tensor.size != 1:
        raise TypeError(
            f"only a tensor of one element can be converted to {target}, not tensor "
            f"{tensor.name!r} of shape {tensor.shape}"
        )
    return _element(tensor)


def _element(tensor: _Handle) -> Any:
    element = tensor.read()
    # NumPy removes trailing zero bytes of strings.
    return element if isinstance(element, bytes) else np.asarray(element).item()


def _is_integer(dtype: np.dtype[Any]) -> bool:
    # The small integers of ml_dtypes have another kind.
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2", "int1", "uint1")


class StoredSlice(NamedTuple):
    """A slice of a tensor, as the checkpoint stores it.

    A tensor that was saved whole has one slice, a partitioned variable one per partition.

    Attributes:
        offset: The first element of the slice in the tensor, per axis.
        shape: The number of elements per axis.
        file: The path of the data file.
        file_offset: The offset of the first byte in that file.
        nbytes: The number of bytes in that file.
        crc32c: The stored CRC-32C of these bytes; None in V1 checkpoints, whose checksums are per
            block.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    file_offset: int
    nbytes: int
    crc32c: int | None


def _iterable(method: _Method) -> _Method:
    return cast(_Method, streaming.IterableMethod(method))


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
    def verify(self, names: list[str], /) -> Any: ...


class Tensor(ScalarConversions):
    """A lazy handle of a tensor in an open checkpoint, whose data are read on access.

    Handles are cheap, immutable and thread-safe, and pickle as the checkpoint's path and the
    tensor's name. After the checkpoint's ``close()`` they raise ValueError; arrays created from
    them stay valid.

    Attributes:
        name: The stored name. Bytes that are not UTF-8 are lone surrogates (``surrogateescape``).
        shape: The number of elements per axis.
        dtype: The type of the elements; ``object`` (of ``bytes``) for strings and variants.
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
        """The number of axes."""
        return len(self._core.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._core.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the tensor in its files."""
        return self._core.nbytes

    @property
    def stored_dtype(self) -> str:
        """TensorFlow's name of the stored type: ``"bfloat16"``, ``"qint8"``, ``"int2"``."""
        return dtypes.stored_name(self._core.type_number)

    @property
    def slices(self) -> tuple[StoredSlice, ...]:
        """The stored slices, in the checkpoint's order."""
        return tuple(StoredSlice(*row) for row in self._core.slices())

    @property
    def aligned(self) -> bool:
        """Whether the stored bytes can be used without a copy at 64-byte alignment."""
        view = self._core.view()
        return view is not None and _core.address_of(view) % _ALIGNMENT == 0

    @property
    def error(self) -> str | None:
        """The reason why the tensor cannot be read whole, or None. Checksums are not compared."""
        error = self._core.error()
        return None if error is None else error[1]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<tensorbundle.Tensor {self.name!r} {self.stored_dtype} {self.shape}>"

    def _repr_html_(self) -> str:
        if self._checkpoint._core.closed:
            return tables.html_table(repr(self), (), ())
        header = ("slice at", "shape", "bytes", "offset", "file")
        rows = [
            (str(offset), tables.shape_text(shape), f"{nbytes:,}", f"{file_offset:,}", file)
            for offset, shape, file, file_offset, nbytes, _ in self._core.slices()
        ]
        return tables.html_table(f"{self!r}: {tables.size_text(self.nbytes)}", header, rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._checkpoint, self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Returns the whole tensor as an array.

        If the stored slices are contiguous in one file, the result is a read-only view of the
        mapped file, which stays valid after ``close()``. Otherwise it is a copy that the caller
        owns. The bytes of a view are not compared with their checksum.

        Raises:
            ValueError: ``copy=False``, and the tensor cannot be viewed.
        """
        result_dtype = None if dtype is None else _as_dtype(dtype)
        if copy is not True:
            view = (self._bound or self._core).view()
            if view is not None and result_dtype in (None, view.dtype):
                return view
            if copy is False:
                reason = explain.view_obstacle(self._core) or f"it must be cast to {result_dtype}"
                raise ValueError(f"tensor {self.name!r} cannot be viewed without a copy: {reason}")
        array = self._read_box(indexing.to_box(..., self.shape), None)
        return array if result_dtype in (None, self.dtype) else array.astype(result_dtype)

    @overload
    def __getitem__(self, index: slice | list[int] | Array) -> Array: ...
    @overload
    def __getitem__(self, index: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        """Returns elements by NumPy's basic indexing, or rows by number.

        For a basic index (integers, slices, ``...`` and ``None``), the result is a read-only view
        if the elements are in one stored slice or the whole tensor can be viewed, else a copy of
        only those elements. For a list, a range or an array of integers, also of another library,
        the result is a copy of those rows, as by ``take``; negative numbers count from the end.
        Such row numbers may be followed by a basic index of the other axes, ``t[ids, :16]``: whole
        rows are copied, and the result is a view of them. For a few columns of many rows,
        ``load_and_remap(t, rows=ids, columns=range(16))`` takes memory for the columns only.

        Raises:
            IndexError: An index is out of bounds, or there are too many indices.
            TypeError: The index is of another type.
        """
        core = self._bound or self._core
        row = core.view_row(index)
        if row is not None:
            return row
        if gather.is_row_index(index):
            return self.take(index)
        if isinstance(index, tuple) and index and gather.is_row_index(index[0]):
            return gather.take_part(core, index[0], index[1:])
        indexing.require_basic(index, self.name)
        view = core.view()
        if view is not None:
            return view[index]
        box = indexing.to_box(index, self.shape)
        array = core.view_box(box.offset, box.shape)
        return (self._read_box(box, None) if array is None else array)[box.rest]

    @overload
    def read(self, index: Any = ..., *, out: Out) -> Out: ...
    @overload
    def read(self, index: slice, *, out: None = None) -> Array: ...
    @overload
    def read(self, index: Any = ..., *, out: None = None) -> Any: ...
    def read(self, index: Any = ..., *, out: Array | None = None) -> Any:
        """Copies elements out of the checkpoint.

        Args:
            index: A basic index; default: all elements.
            out: The destination: a writable C-contiguous array of the result's shape and this
                tensor's dtype.

        Returns:
            An array that the caller owns and may write to (`out` if given); for a single element, a
            NumPy scalar or ``bytes``.

        Raises:
            CorruptionError: A stored slice that was read whole does not match its stored checksum
                (unless the checkpoint was opened with ``verify="none"``), the file is too short, or
                an element is stored nowhere or twice.
            ShapeMismatchError: `out` has another shape.
            TypeError: `out` has another dtype.
        """
        if out is None:
            core = self._bound or self._core
            result = core.read_whole() if index is ... else core.read_row(index)
            if result is not None:
                return result
        indexing.require_basic(index, self._core.name)
        box = indexing.to_box(index, self.shape)
        if out is None:
            result = self._read_box(box, None)[box.rest]
            return (
                result
                if box.is_trivial or np.isscalar(result) or isinstance(result, bytes)
                else result.copy()
            )
        # NumPy computes the shape from a broadcast array, which takes no memory.
        shape = np.broadcast_to(np.empty((), np.bool_), box.shape)[(*box.rest, ...)].shape
        check_out(out, shape, self._core)
        same_order = out.flags.c_contiguous and all(
            part != slice(None, None, -1) for part in box.rest
        )
        if same_order and math.prod(shape) == math.prod(box.shape) and box.has_unit_steps:
            self._read_box(box, out.reshape(box.shape))
        else:
            out[...] = self._read_box(box, None)[(*box.rest, ...)]
        return out

    @overload
    def take(self, ids: Any, *, out: Out, fill: Any = None) -> Out: ...
    @overload
    def take(self, ids: Any, *, out: None = None, fill: Any = None) -> Array: ...
    def take(self, ids: Any, *, out: Array | None = None, fill: Any = None) -> Array:
        """Gathers rows of axis 0 by number, in any order, across stored slices.

        Args:
            ids: Integers of any shape. Without `fill`, negative ids count from the end, as in
                NumPy. With `fill`, -1 is a missing row, and other negative ids raise IndexError.
            out: The destination, of shape ``ids.shape + shape[1:]`` and this tensor's dtype.
            fill: The values of missing rows: one element, one row, or one row per missing row, in
                order. Arrays must have this tensor's dtype.

        Returns:
            An array of shape ``ids.shape + shape[1:]`` that the caller owns (`out` if given).
            Checksums are not compared, because most rows are not read.

        Raises:
            IndexError: An id is out of bounds; `out` is unchanged.
            ShapeMismatchError: `out` or `fill` has the wrong shape.
            TypeError: `ids` is a mask or has floats, `out` or `fill` has another dtype, or the
                tensor is a scalar.
        """
        return gather.take(self._core, ids, out, fill)

    @_iterable
    def chunks(
        self, rows: int | None = None, *, out: Array | Sequence[Array] | None = None
    ) -> streaming.Stream[tuple[int, Array]]:
        """Streams the tensor along axis 0, in order, with read-ahead on other threads.

        Peak memory is two chunks plus a few megabytes if the consumer releases each array before it
        requests the second one after it. Arrays that the consumer keeps stay valid, and the stream
        allocates more. Strings, and V1 slices that must be decoded, also take the memory of the
        slices that intersect a chunk.

        Args:
            rows: The number of rows per chunk; the last chunk may be shorter. Default: about 8 MB.
            out: One or more arrays of shape ``(rows, *shape[1:])``, which are filled in turn and
                returned. Each is valid until the next one is requested. With a single array, the
                stream does not read ahead.

        Returns:
            An iterator of (first row, writable array), and a context manager that stops it.

        Raises:
            CorruptionError: Raised by the iterator in place of the chunk with the last bytes of a
                stored slice that does not match its checksum (not with ``verify="none"``).
            ShapeMismatchError, TypeError: `out` has another shape or dtype.
            ValueError: The tensor is a scalar, or `rows` is less than 1.
        """
        return streaming.chunks(self._core, rows, out)

    def byte_ranges(self, index: Any = ...) -> list[tuple[str, int, int]]:
        """Returns the byte ranges of a read: (file, offset, nbytes), ascending and merged.

        `index` is a basic index, whose whole box is read even if it has steps, or selects rows by
        number. Slices that must be decoded (strings, some V1 slices) are read whole. This function
        reads no data.
        """
        return explain.byte_ranges(self._core, index)

    def explain(self, index: Any = ...) -> explain.ReadPlan:
        """Returns the plan of a read: method, slices, bytes, residency. ``print`` formats it."""
        return explain.explain(self._core, index)

    def copy_on_write(self, index: Any = ...) -> Array:
        """Returns elements as a writable array over a private mapping of the file.

        A page is copied on the first write to it, and the file never changes. Memory is not
        reserved for unwritten pages. The bytes are not compared with their checksum.

        Args:
            index: A basic index; default: all elements. Its elements must be in one stored slice,
                unless the whole tensor can be mapped.

        Returns:
            An array with this tensor's dtype, also for a single element, which then has rank 0. It
            has a mapping of its own, which stays valid after ``close()``, and may not be aligned.

        Raises:
            IndexError: The index is out of bounds.
            IOFailure: The system refuses the mapping.
            TypeError: The index is not basic.
            ValueError: The stored bytes are not the elements in order, so they cannot be mapped.
        """
        array = self._map_privately(index)
        if array is None:
            reason = explain.view_obstacle(self._core)
            raise ValueError(f"tensor {self.name!r} cannot be mapped: {reason}")
        return array

    def _map_privately(self, index: Any) -> Array | None:
        """Returns the array of `copy_on_write`; None if the bytes cannot be mapped."""
        core = self._core
        indexing.require_basic(index, self.name)
        box = indexing.to_box(index, self.shape)
        array = None
        if box.shape != self.shape:
            array = core.copy_on_write_box(box.offset, box.shape)
            if array is None and core.view() is None:  # the rest of the tensor may be missing
                return None
        if array is None:
            array = core.copy_on_write()
            if array is None:
                return None
            part: Any = [slice(i, i + n) for i, n in zip(box.offset, box.shape, strict=True)]
            array = array[(*part, ...)]
        return array if index is ... else array[(*box.rest, ...)]

    def torch(
        self,
        index: Any = ...,
        *,
        dtype: TorchDtype | None = None,
        device: TorchDevice | None = None,
    ) -> TorchTensor:
        """Returns elements as a PyTorch tensor that the caller may write to and train.

        If the stored bytes can be mapped, the tensor uses a private mapping of its own. Then no
        bytes are read, a page is copied on the first write to it, and the file never changes; the
        bytes are not compared with their checksum. Otherwise it owns a copy, as by ``read``:
        if the elements are not at a multiple of their size in the file (``tensorbundle.align``
        writes a checkpoint in which they are), if they are stored in several slices or encoded, if
        a step is negative, if the checkpoint is remote or was opened with ``io="pread"`` or
        ``io="direct"``, or if they are converted by `dtype` or copied to a `device`.

        Args:
            index: A basic index, as for ``read``; default: all elements.
            dtype: A ``torch.dtype``, to which the elements are converted as by
                ``torch.Tensor.to``; default: the stored type. Quantized types are plain integers.
            device: A device of PyTorch, as for ``torch.Tensor.to``; default: main memory.

        Returns:
            A ``torch.Tensor`` of the shape of ``read(index)``, of rank 0 for a single element. It
            stays valid after ``close()``.

        Raises:
            CorruptionError: As by ``read``, if the elements are copied.
            ImportError: PyTorch is not installed (``pip install 'tensorbundle[torch]'``).
            IndexError: The index is out of bounds.
            TypeError: The index is not basic, `dtype` is not a ``torch.dtype``, or PyTorch has no
                such type: strings, narrow integers such as int4, and in old versions uint16.
            ValueError: The checkpoint is closed.

        Examples:
            >>> table = torch.nn.Embedding.from_pretrained(ck["embedding"].torch(), freeze=False)
            >>> kernel = ck["dense/kernel"].torch(dtype=torch.bfloat16, device="cuda").T
        """
        from tensorbundle import torch_tensors

        return torch_tensors.to_torch(self, index, dtype, device)

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
        """Returns the whole tensor as a DLPack capsule.

        The capsule is a read-only view if the consumer supports DLPack 1.0 and the bytes start at a
        multiple of 64. Otherwise it is an aligned copy, because older consumers have no read-only
        flag and some abort on unaligned addresses. The view has its own private mapping: if the
        consumer ignores the flag and writes, the page is copied, and neither the file nor other
        arrays change.

        Raises:
            BufferError: ``copy=False`` but a copy is needed, the device is not the CPU, or DLPack
                does not have the type.
        """
        return dlpack.export(self._core, self.read, stream, max_version, dl_device, copy)

    def _read_box(self, box: indexing.BoxIndex, out: Array | None) -> Array:
        """Reads a box into an array of its shape."""
        core = self._core
        if core.type_number in dtypes.VARIABLE_SIZE:
            return core.read_string_box(box.offset, box.shape)
        if out is None:
            out = self._empty(box)
        core.read(box.offset, box.shape, out)
        dtypes.sign_extend(core.type_number, out)
        return out

    def _empty(self, box: indexing.BoxIndex) -> Array:
        """Allocates the array of a box. Checks first that a large box is stored."""
        if self.dtype == object:
            raise UnsupportedError(
                f"tensor {self.name!r} has a type that this version of tensorbundle does not "
                f"support: {self.stored_dtype}"
            )
        if math.prod(box.shape) * self.dtype.itemsize >= _LARGE:
            self._core.check_box(box.offset, box.shape)
        return np.empty(box.shape, self.dtype)


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        result: np.dtype[Any] = np.dtype(dtype)
    except UnicodeEncodeError:
        raise TypeError(f"{dtype!r} is not the name of a dtype") from None
    return result


def _reopen(checkpoint: _Owner, name: str) -> Tensor:
    return checkpoint[name]
