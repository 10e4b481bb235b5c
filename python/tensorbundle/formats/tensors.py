# SPDX-License-Identifier: Apache-2.0
"""Tensors as the writers take them, and tensors of files in other formats.

A reader of a format returns a ``ForeignFile``, a mapping of names to tensors whose attributes and
methods have the meaning of ``Tensor``'s. Its data are read when they are used.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from tensorbundle import dtypes
from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    Error,
    IOFailure,
    OutOfMemoryError,
    UnsupportedError,
)
from tensorbundle.naming import FullNames
from tensorbundle.tensor import StoredSlice, Tensor

Array = np.ndarray[Any, Any]
Advance = Callable[[int], None]  # called with the number of bytes that were written

BLOCK_BYTES = 8 << 20
"""The size of the blocks that are copied at a time."""

_MAX_RANK = 64 if int(np.__version__.partition(".")[0]) >= 2 else 32


class SourceTensor(Protocol):
    """A tensor to write."""

    @property
    def name(self) -> str:
        """The name in the file."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of elements per axis."""

    @property
    def stored_rows(self) -> Tensor | None:
        """The tensor of a checkpoint whose stored rows are the elements; None: use `blocks`."""

    def blocks(self, max_bytes: int = BLOCK_BYTES, *, splits_rows: bool = False) -> Iterator[Array]:
        """Yields blocks of rows in order, or parts of large rows; one array for a scalar."""


def nbytes_of(tensor: SourceTensor) -> int:
    """Returns the number of bytes of the elements."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


class ForeignTensor:
    """A tensor of a file in another format.

    Attributes:
        name: The name in the file.
        shape: The number of elements per axis.
        dtype: The type of the elements, in native byte order.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the elements."""
        return self.size * self.dtype.itemsize

    @property
    def stored_dtype(self) -> str:
        """The name of the type."""
        return self.dtype.name

    @property
    def slices(self) -> tuple[StoredSlice, ...]:
        """One slice: the whole tensor."""
        return (StoredSlice((0,) * self.ndim, self.shape, "", 0, self.nbytes, None),)

    @property
    def error(self) -> None:
        """Like ``Tensor.error``: the readers check sizes when they open a file."""
        return None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Returns elements by a basic index."""
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...] if self.shape else self[()], dtype)

    def read(self) -> Any:
        """Returns all elements as an array, or as a NumPy scalar."""
        return np.asarray(self)[()]

    def chunks(self, rows: int | None = None) -> Iterator[tuple[int, Array]]:
        """Yields (number of the first row, array) for blocks of rows, in order."""
        row_bytes = self.nbytes // max(self.shape[0], 1)
        rows = rows or max(1, BLOCK_BYTES // max(row_bytes, 1))
        for start in range(0, self.shape[0], rows):
            yield start, self[start : start + rows]


class MappedTensor(ForeignTensor):
    """A tensor whose bytes are mapped from the file."""

    def __init__(self, name: str, array: Array, dtype: np.dtype[Any] | None = None) -> None:
        """Takes the array, and the type of its elements if the array has another byte order."""
        super().__init__(name, array.shape, array.dtype if dtype is None else dtype)
        self._array = array

    def __getitem__(self, index: Any) -> Any:
        found = self._array[index]
        return found if found.dtype == self.dtype else found.astype(self.dtype)


class ForeignFile(Mapping[str, ForeignTensor]):
    """The tensors of one or several files in another format; a context manager.

    Attributes:
        path: The path of the file.
        files: The paths of all files that belong to it.
        left_out: Why other objects of the file are not tensors, by name.
    """

    def __init__(
        self,
        path: str,
        tensors: Mapping[str, ForeignTensor],
        left_out: Mapping[str, str] | None = None,
        *,
        files: tuple[str, ...] = (),
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self.path = path
        self.files = files or (path,)
        self.left_out = dict(left_out or {})
        self._tensors = tensors
        self._close = close

    def __getitem__(self, name: str) -> ForeignTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _read_full_names(self) -> FullNames:
        """Returns no names: only checkpoints have an object graph."""
        return FullNames()

    def close(self) -> None:
        """Closes the file."""
        self._close()

    def __enter__(self) -> ForeignFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def map_file(path: str) -> Array:
    """Maps a file, read-only, as an array of bytes.

    Raises:
        CheckpointNotFoundError: The file does not exist.
        IOFailure: It cannot be opened or mapped.
    """
    try:
        if not os.path.getsize(path):
            return np.empty(0, np.uint8)  # an empty file cannot be mapped
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"{path!r} does not exist", path) from None
    except OSError as error:
        raise IOFailure(f"cannot read {path!r}", error.errno or errno.EIO, path) from error


def array_over(
    data: Array, dtype: np.dtype[Any], shape: tuple[int, ...], order: str = "C"
) -> Array:
    """Returns an array over bytes. Requires: their number is that of `dtype` and `shape`."""
    if order == "F":
        return data.view(dtype).reshape(shape[::-1]).T
    return data.view(dtype).reshape(shape)


def is_extension(dtype: np.dtype[Any]) -> bool:
    """Returns whether a dtype comes from ml_dtypes: NumPy's formats know only its size."""
    return dtype.isbuiltin == 2


def extension_type(name: str, itemsize: int) -> np.dtype[Any] | None:
    """Returns the dtype of ml_dtypes of a name and a size, or None."""
    dtype = dtypes.find(name) if name.isidentifier() else None
    valid = dtype is not None and is_extension(dtype) and dtype.itemsize == itemsize
    return dtype if valid else None


def raw(array: Array) -> Array:
    """Returns an array, with elements of ml_dtypes' types as bytes (``V1``, ``V2``)."""
    if not is_extension(array.dtype):
        return array
    return np.ascontiguousarray(array).view(f"V{array.dtype.itemsize}").reshape(array.shape)


def invalid_utf8_reason(name: str) -> str | None:
    """Returns why a format whose names are UTF-8 cannot store a name, or None."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Returns a dtype in native byte order."""
    return dtype.newbyteorder("=") if dtype.isbuiltin == 0 else dtype


def require(condition: bool, path: str, message: str) -> None:
    """Raises CorruptionError about a file unless a condition holds."""
    if not condition:
        raise CorruptionError(f"{path!r} {message}")


@contextlib.contextmanager
def library_errors(path: str, what: str) -> Iterator[None]:
    """Raises errors of this package in place of those of a library that decodes a file.

    The libraries raise nearly any exception for a damaged file.

    Args:
        path: The file.
        what: The file, or the part of it that is read, for the message.

    Raises:
        CheckpointNotFoundError: The file does not exist.
        CorruptionError: The library cannot decode the bytes.
        IOFailure: The system failed a read.
        OutOfMemoryError: There is not enough memory.
        UnsupportedError: The library knows the feature, but does not implement it.
    """
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"cannot read {what}", errno.ENOMEM, path) from error
    except NotImplementedError as error:
        raise UnsupportedError(f"cannot read {what}: {error}") from error
    except Exception as error:
        number = _system_error(error)
        if number == errno.ENOENT:
            raise CheckpointNotFoundError(f"{path!r} does not exist", path) from None
        if number is not None:
            raise IOFailure(f"cannot read {what}", number, path) from error
        text = str(error) or type(error).__name__
        raise CorruptionError(f"{what} is corrupted: {text:.300}") from error


def _system_error(error: Exception) -> int | None:
    """Returns the error number of the system, or None if the bytes are wrong."""
    # zipfile hides the error of a read behind its own.
    hidden = error.__context__ if isinstance(error, zipfile.BadZipFile) else None
    cause = hidden if isinstance(hidden, OSError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    number = errno_in(error) if number is None else number
    # A wrong offset in the file was given to lseek.
    return None if number == errno.EINVAL else number


def errno_in(error: Exception) -> int | None:
    """Returns the error number of the system in a message of the HDF5 library, or None."""
    match = re.search(r"errno = ([1-9]\d*)", str(error))
    return int(match[1]) if match else None


def shape_reason(shape: tuple[int, ...], itemsize: int) -> str | None:
    """Returns why NumPy has no array of a shape, or None."""
    if len(shape) > _MAX_RANK:
        return f"its rank is {len(shape)}, and NumPy has at most {_MAX_RANK} axes"
    if itemsize * math.prod(n for n in shape if n) >= 1 << 63:
        return f"its shape {list(shape)} is too large for NumPy"
    return None
