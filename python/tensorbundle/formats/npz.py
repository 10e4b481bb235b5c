# SPDX-License-Identifier: Apache-2.0
"""NumPy's npz format: a ZIP archive with a member ``<name>.npy`` for each array.

The npy format knows only the size of ml_dtypes' types. ``numpy.load`` returns such arrays as
``V1`` or ``V2``, and ``array.view(ml_dtypes.bfloat16)`` restores them. Their type is in the
comment of the member, which ``read`` uses.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from tensorbundle.errors import (
    CorruptionError,
    Error,
    IOFailure,
    UnsupportedError,
)
from tensorbundle.formats import tensors
from tensorbundle.formats.new_files import NewFiles, write_array
from tensorbundle.formats.tensors import (
    Advance,
    Array,
    ForeignFile,
    ForeignTensor,
    SourceTensor,
    is_extension,
    require,
)

SUFFIX = ".npz"

_MEMBER_SUFFIX = ".npy"
_KINDS = frozenset("biufc")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
# The size of the buffer through which a compressed member is read.
_INFLATED = 1 << 20


def unsupported_reason(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    """Returns why the format cannot store a tensor, or None."""
    del dtype, shape  # it stores the bytes of every type
    if "\0" in name:
        return "its name has a zero byte"
    if len(name.encode("utf-8", "surrogateescape")) + len(_MEMBER_SUFFIX) >= 1 << 16:
        return "its name is too long"
    return tensors.invalid_utf8_reason(name)


def write(
    path: str, source: Sequence[SourceTensor], *, overwrite: bool, advance: Advance
) -> tuple[str, ...]:
    """Writes tensors to an archive without compression, as ``numpy.savez`` does."""
    with NewFiles(path, overwrite=overwrite) as files:
        with (
            files.open() as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            for tensor in source:
                info = zipfile.ZipInfo(tensor.name + _MEMBER_SUFFIX)
                # ZipInfo replaces characters that paths of some systems have.
                info.filename = tensor.name + _MEMBER_SUFFIX
                if is_extension(tensor.dtype):
                    info.comment = tensor.dtype.name.encode()
                with archive.open(info, "w", force_zip64=True) as member:
                    _write_header(member, tensor)
                    for block in tensor.blocks(splits_rows=True):
                        advance(write_array(member, block))
        files.publish()
    return (path,)


def _write_header(file: IO[bytes], tensor: SourceTensor) -> None:
    dtype = tensor.dtype
    if is_extension(dtype):
        dtype = np.dtype(f"V{dtype.itemsize}")
    header = {"shape": tensor.shape, "fortran_order": False, "descr": npy.dtype_to_descr(dtype)}
    npy.write_array_header_1_0(file, header)


class _Member(ForeignTensor):
    """An array of an archive. Its checksum is compared when it is read as a whole."""

    def __init__(self, archive: _Archive, info: zipfile.ZipInfo, header: _Header) -> None:
        super().__init__(info.filename.removesuffix(_MEMBER_SUFFIX), header.shape, header.dtype)
        self._archive, self._info, self._header = archive, info, header
        self._array: Array | None = None
        self._file: _Reader | None = None  # of the stream
        self._next = 0  # its next element

    def __getitem__(self, index: Any) -> Any:
        """Returns elements by a basic index.

        Blocks in row-major order, from the first element to the last, are streamed, and the
        checksum is compared at the end. Otherwise the whole array is compared first. It is then
        mapped; a compressed one from a temporary file.
        """
        if self._array is None:
            elements = self._range_of(index)
            if elements is not None and elements[0] in (0, self._next):
                return self._stream(*elements)
            data = self._archive.whole(self._info)[self._header.size :]
            header = self._header
            self._array = tensors.array_over(data, header.stored, self.shape, header.order)
        found = self._array[index]
        return found if found.dtype == self.dtype else found.astype(self.dtype)

    def _range_of(self, index: Any) -> tuple[int, int, tuple[int, ...]] | None:
        """Returns the first element, the end and the shape of a box without gaps, or None."""
        parts = index if isinstance(index, tuple) else (index,)
        if not self.size or self._header.order != "C" or len(parts) > self.ndim or not parts:
            return None
        if any(not isinstance(part, slice) or part.step not in (None, 1) for part in parts):
            return None
        parts += (slice(None),) * (self.ndim - len(parts))
        bounds = [part.indices(n)[:2] for part, n in zip(parts, self.shape, strict=True)]
        shape = tuple(end - start for start, end in bounds)
        first = next((axis for axis, n in enumerate(shape) if n != 1), self.ndim - 1)
        if shape[first + 1 :] != self.shape[first + 1 :] or min(shape) < 1:
            return None
        start = int(np.ravel_multi_index([start for start, _ in bounds], self.shape))
        return start, start + math.prod(shape), shape

    def _stream(self, start: int, end: int, shape: tuple[int, ...]) -> Array:
        if start == 0:
            self._file = self._archive.open(self._info)
            _read_exactly(self._file, self._header.size)
        assert self._file is not None
        buffer = np.empty((end - start) * self.dtype.itemsize, np.uint8)
        _read_into(self._file, buffer)
        self._next = end
        if end == self.size:
            self._file.read(1)  # compares the checksum
            self._file, self._next = None, 0
        array = buffer.view(self._header.stored).reshape(shape)
        return array.astype(self.dtype, copy=False)


class _Header:
    """The header of a member.

    Attributes:
        size: Its number of bytes.
        stored: The type in the file.
        dtype: The type in native byte order, or of ml_dtypes.
        shape: The number of elements per axis.
        order: "C" or "F".
    """

    def __init__(self, file: _Reader, info: zipfile.ZipInfo) -> None:
        start = io.BytesIO(file.read(1 << 17))
        version = npy.read_magic(start)
        readers: dict[tuple[int, int], Callable[..., Any]] = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"version {version} of the npy format is not supported")
        self.shape, fortran, stored = readers[version](start)
        if any(type(n) is not int or n < 0 for n in self.shape):
            raise ValueError(f"its shape is {self.shape}")
        self.size = start.tell()
        self.order = "F" if fortran and len(self.shape) > 1 else "C"
        comment = info.comment.decode("utf-8", "replace")
        extension = tensors.extension_type(comment, stored.itemsize) if stored.kind == "V" else None
        self.stored = stored if extension is None else extension
        self.dtype = tensors.native(self.stored)

    @property
    def is_tensor(self) -> bool:
        return self.stored.kind in _KINDS or is_extension(self.stored)

    @property
    def nbytes(self) -> int:
        nbytes: int = math.prod(self.shape) * self.stored.itemsize
        return nbytes


class _Archive:
    """An open archive."""

    def __init__(self, path: str) -> None:
        self._path = path
        with tensors.library_errors(path, f"{path!r} as an npz file"):
            self._zip = zipfile.ZipFile(path)
        self._readers: list[_Reader] = []

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        with contextlib.suppress(OSError):  # the file is closed even then, and was only read
            self._zip.close()

    def members(self) -> list[zipfile.ZipInfo]:
        return [info for info in self._zip.infolist() if info.filename[-1:] != "/"]

    def open(self, info: zipfile.ZipInfo) -> _Reader:
        """Opens a member; only the last one that was opened can be read."""
        for reader in self._readers:
            reader.close()
        self._readers = [_Reader(self._path, self._zip, info)]
        return self._readers[0]

    def whole(self, info: zipfile.ZipInfo) -> Array:
        """Returns the bytes of a member: mapped, or inflated if it is compressed."""
        if info.compress_type != zipfile.ZIP_STORED:
            return self._inflated(info)
        data = tensors.map_file(self._path)
        start = info.header_offset
        header = data[start : start + _LOCAL_HEADER.size].tobytes()
        require(len(header) == _LOCAL_HEADER.size, self._path, "is truncated")
        *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        start += _LOCAL_HEADER.size + name_size + extra_size
        data = data[start : start + info.file_size]
        require(data.size == info.file_size, self._path, "is truncated")
        checksum = 0
        for at in range(0, data.size, tensors.BLOCK_BYTES):
            checksum = zlib.crc32(data[at : at + tensors.BLOCK_BYTES].data, checksum)
        if checksum != info.CRC:
            raise CorruptionError(f"{self._path!r}: member {info.filename!r} has a wrong checksum")
        return data

    def _inflated(self, info: zipfile.ZipInfo) -> Array:
        """Inflates a member to a mapped file that has no name."""
        file = self.open(info)
        folder = tempfile.gettempdir()
        try:
            with tempfile.TemporaryFile(dir=folder) as copy:
                left = info.file_size
                while left:
                    data = file.read(min(left, _INFLATED))
                    if not data:
                        file.fail()
                    copy.write(data)
                    left -= len(data)
                file.read(1)  # compares the checksum
                copy.flush()
                return np.asarray(np.memmap(copy, np.uint8, "r"))
        except OSError as error:
            if isinstance(error, Error):
                raise
            message = f"cannot inflate {info.filename!r} of {self._path!r} in {folder!r}"
            raise IOFailure(message, error.errno or errno.EIO, folder) from error


class _Reader:
    """A member that is read in order. Its errors are ours."""

    def __init__(self, path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._what = f"{path!r}: member {info.filename!r}"
        self._path = path
        if info.flag_bits & 1:
            raise UnsupportedError(f"{self._what} is encrypted")
        with tensors.library_errors(path, self._what):
            self._file = archive.open(info)

    def read(self, count: int) -> bytes:
        with tensors.library_errors(self._path, self._what):
            return self._file.read(count)

    def close(self) -> None:
        self._file.close()

    def fail(self) -> None:
        raise CorruptionError(f"{self._what} ends too early")


def _read_exactly(file: _Reader, count: int) -> None:
    while count:
        found = len(file.read(count))
        if not found:
            file.fail()
        count -= found


def _read_into(file: _Reader, buffer: Array) -> None:
    done = 0
    while done < buffer.size:
        data = file.read(min(buffer.size - done, _INFLATED))
        if not data:
            file.fail()
        buffer[done : done + len(data)] = np.frombuffer(data, np.uint8)
        done += len(data)


def read(path: str) -> ForeignFile:
    """Opens an archive. Arrays of Python objects, of text and of records are left out.

    Raises:
        CorruptionError: It is not a valid archive, or a member is not an array.
        CheckpointNotFoundError: The file does not exist.
        IOFailure: The system failed a read.
    """
    archive = _Archive(path)
    found: dict[str, ForeignTensor] = {}
    left_out: dict[str, str] = {}
    try:
        for info in archive.members():
            name = info.filename.removesuffix(_MEMBER_SUFFIX)
            require(name not in found and name not in left_out, path, f"has {name!r} twice")
            if not info.filename.endswith(_MEMBER_SUFFIX):
                left_out[name] = "not an array"
                continue
            with tensors.library_errors(path, f"{path!r}: the header of {info.filename!r}"):
                header = _Header(archive.open(info), info)
            if not header.is_tensor:
                left_out[name] = _left_out_reason(header.stored)
                continue
            require(
                header.size + header.nbytes == info.file_size,
                path,
                f"has {info.file_size - header.size} bytes for array {name!r}, which needs "
                f"{header.nbytes}",
            )
            reason = tensors.shape_reason(header.shape, header.stored.itemsize)
            if reason is not None:
                left_out[name] = reason
                continue
            found[name] = _Member(archive, info, header)
    except BaseException:
        archive.close()
        raise
    return ForeignFile(path, found, left_out, close=archive.close)


def _left_out_reason(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "O":
        return "Python objects"
    if dtype.kind in "SU":
        return "strings"
    if dtype.kind == "V" and dtype.names is None:
        return f"elements of {dtype.itemsize} bytes without a type"
    return f"elements of type {dtype}"
