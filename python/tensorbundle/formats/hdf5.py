# SPDX-License-Identifier: Apache-2.0
"""HDF5: a dataset for each tensor, in groups by the slashes of its name.

Some names are no paths of HDF5: a tensor and a group cannot have the same path (``w`` and
``w/Adam``), and a part of a path cannot be empty or a dot. Such a tensor is stored under an escaped
path, and its name in the attribute ``name``. HDF5 has no types for ml_dtypes': their elements are
opaque bytes (``V1``, ``V2`` in h5py), with the type in the attribute ``dtype``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tensorbundle.errors import CheckpointNotFoundError, IOFailure
from tensorbundle.formats import tensors
from tensorbundle.formats.new_files import NewFiles, errno_in
from tensorbundle.formats.tensors import (
    Advance,
    ForeignFile,
    ForeignTensor,
    SourceTensor,
    is_extension,
)

SUFFIXES = (".h5", ".hdf5")

_KINDS = frozenset("biufc")
_NAME, _TYPE = "name", "dtype"
# The last part of an escaped path. No other part has a percent sign followed by these letters.
_VALUE = "%value"


def import_h5py() -> Any:
    """Imports h5py, which is an optional dependency.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 files need h5py: pip install 'tensorbundle[convert]' or pip install h5py"
        ) from error
    return h5py


def unsupported_reason(name: str, dtype: np.dtype[Any]) -> str | None:
    """Returns why the format cannot store a tensor, or None."""
    del dtype  # it stores the bytes of every type
    if "\0" in name:
        return "its name has a zero byte"
    return tensors.invalid_utf8_reason(name)


def paths_of(names: Sequence[str]) -> dict[str, str]:
    """Returns the path of the dataset for each name."""
    groups = {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    found = {}
    for name in names:
        parts = name.split("/")
        if name not in groups and not {"", "."} & set(parts) and "%" not in name:
            found[name] = name
        else:
            found[name] = "/".join(map(_escape, parts)) + f"/{_VALUE}"
    return found


def _escape(part: str) -> str:
    """Escapes a part of a path, so that it differs from all parts that need no escape."""
    return {"": "%", ".": "%2E"}.get(part, part.replace("%", "%25"))


def write(
    path: str, source: Sequence[SourceTensor], *, overwrite: bool, advance: Advance
) -> tuple[str, ...]:
    """Writes tensors to contiguous datasets."""
    h5py = import_h5py()
    paths = paths_of([tensor.name for tensor in source])
    with NewFiles(path, overwrite=overwrite) as files:
        with files.failures(), _new_file(h5py, files.temporary()) as (file, sink):
            for tensor in source:
                _write_tensor(file, paths[tensor.name], tensor, advance)
                sink.raise_error()
        files.sync()
        files.publish()
    return (path,)


@contextlib.contextmanager
def _new_file(h5py: Any, path: str) -> Iterator[tuple[Any, _Sink]]:
    with contextlib.closing(_Sink(path)) as sink:
        file = h5py.File(sink, "w")
        try:
            yield file, sink
        finally:
            file.close()
        sink.raise_error()


class _Sink:
    """A new file for the HDF5 library, whose operations do not fail.

    The library crashes if it cannot write a file while it closes it. The first error of the system
    is kept, and ``raise_error`` raises it. After an error nothing more is written.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115
        self._position = self._size = 0
        self._error: OSError | None = None

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int) -> int:
        def cut(_: int) -> int:
            os.ftruncate(self._file.fileno(), size)
            return 1

        self._move(cut, 1)
        self._size = size
        return size

    def flush(self) -> None:
        """Does nothing: there is no buffer."""

    def read(self, count: int) -> bytes:
        """Makes h5py take this object for a file; it calls ``readinto``."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]
        start, number = self._position, self._file.fileno()
        self._move(lambda done: os.preadv(number, [view[done:]], start + done), len(view))
        self._position += len(view)
        return len(view)

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, number = self._position, self._file.fileno()
        self._move(lambda done: os.pwrite(number, view[done:], start + done), len(view))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def _move(self, call: Callable[[int], int], size: int) -> None:
        """Calls the system until `size` bytes have been moved, the file ends or a call fails."""
        done = 0
        while done < size and self._error is None:
            try:
                count = call(done)
            except InterruptedError:
                continue  # Python does not repeat ftruncate()
            except OSError as error:
                self._error = error
                return
            if count == 0:
                return
            done += count


def _write_tensor(file: Any, path: str, tensor: SourceTensor, advance: Advance) -> None:
    dtype = tensor.dtype
    stored = np.dtype(f"V{dtype.itemsize}") if is_extension(dtype) else dtype
    dataset = file.create_dataset(path, tensor.shape, stored)
    if path != tensor.name:
        dataset.attrs[_NAME] = tensor.name
    if stored is not dtype:
        dataset.attrs[_TYPE] = dtype.name
    done = 0
    for block in tensor.blocks(splits_rows=True):
        array = tensors.raw(block)
        if array.size:
            start = np.unravel_index(done, tensor.shape)
            box = (slice(i, i + n) for i, n in zip(start, array.shape, strict=True))
            dataset[tuple(box)] = array
        done += array.size
        advance(array.nbytes)


class _Dataset(ForeignTensor):
    """A dataset of an open file."""

    def __init__(self, name: str, dataset: Any, stored: np.dtype[Any]) -> None:
        super().__init__(name, dataset.shape, tensors.native(stored))
        self._dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            found = self._dataset[index]
        except OSError as error:
            name = self._dataset.file.filename
            number = error.errno or errno_in(str(error))
            raise IOFailure(
                f"cannot read {self.name!r} in {name!r}: {error}", number, name
            ) from error
        array = np.asarray(found)
        if is_extension(self.dtype):
            array = array.view(self.dtype)
        return array.astype(self.dtype, copy=False)

    def chunks(self, rows: int | None = None) -> Any:
        """Yields blocks of rows in order, of whole chunks of the file if they are small enough."""
        stored = self._dataset.chunks
        if rows is None and stored is not None and self.size:
            row_bytes = self.nbytes // self.shape[0]
            rows = max(1, tensors.BLOCK_BYTES // row_bytes)
            if rows > stored[0]:
                rows -= rows % stored[0]
            elif 4 * rows >= stored[0]:
                rows = stored[0]
        return super().chunks(rows)


def read(path: str) -> ForeignFile:
    """Opens a file. Strings, references, records and links to other files are left out.

    Raises:
        CheckpointNotFoundError: The file does not exist.
        IOFailure: It is not an HDF5 file, or the system failed a read.
    """
    h5py = import_h5py()
    try:
        file = _open(h5py, path)
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"{path!r} does not exist", path) from None
    except OSError as error:
        number = error.errno or errno_in(str(error))
        raise IOFailure(f"cannot read {path!r} as an HDF5 file: {error}", number, path) from error
    found: dict[str, ForeignTensor] = {}
    left_out: dict[str, str] = {}

    def visit(path_in_file: str, thing: Any) -> None:
        if not isinstance(thing, h5py.Dataset):
            return
        name = thing.attrs.get(_NAME) if path_in_file.endswith(f"/{_VALUE}") else None
        if not isinstance(name, str) or name in found:
            name = path_in_file
        dtype = _tensor_type(thing)
        if isinstance(dtype, str):
            left_out[name] = dtype
        else:
            found[name] = _Dataset(name, thing, dtype)

    try:
        file.visititems(visit)
    except (RuntimeError, KeyError, OSError) as error:  # h5py's, when the system fails a read
        _close(file)
        number = errno_in(str(error))
        raise IOFailure(f"cannot read {path!r} as an HDF5 file: {error}", number, path) from error
    except BaseException:
        _close(file)
        raise
    return ForeignFile(path, found, left_out, close=lambda: _close(file))


def _open(h5py: Any, path: str) -> Any:
    while True:
        try:
            return h5py.File(path, "r")
        except InterruptedError:
            continue  # the library does not repeat open()


def _close(file: Any) -> None:
    """Closes a file that was only read, whatever the system reports."""
    with contextlib.suppress(OSError, RuntimeError):
        file.close()


def _tensor_type(dataset: Any) -> np.dtype[Any] | str:
    """Returns the type of a dataset's elements, or why it is not a tensor."""
    if dataset.shape is None:
        return "it has no elements and no shape"
    try:
        dtype: np.dtype[Any] = dataset.dtype
    except TypeError as error:
        return f"its type cannot be read: {error}"
    name = dataset.attrs.get(_TYPE)
    if dtype.kind == "V" and isinstance(name, str):
        extension = tensors.extension_type(name, dtype.itemsize)
        if extension is not None:
            return extension
    if dtype.kind in _KINDS:
        return dtype
    return "strings" if dtype.kind in "SO" else f"elements of type {dtype}"
