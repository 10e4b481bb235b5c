# SPDX-License-Identifier: Apache-2.0
"""HDF5: a dataset for each tensor, in groups by the slashes of its name.

Some names are no paths of HDF5: a tensor and a group cannot have the same path (``w`` and
``w/Adam``), and a part of a path cannot be empty or a dot. Such a tensor is stored under an escaped
path, and its name in the attribute ``name``. HDF5 has no types for ml_dtypes': their elements are
opaque bytes (``V1``, ``V2`` in h5py), with the type in the attribute ``dtype``.

The reader walks through the links itself, because the library opens the files that external links,
virtual datasets and external storage name. A dataset has the names of all hard and soft links to
it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tensorbundle.errors import UnsupportedError
from tensorbundle.formats import tensors
from tensorbundle.formats.new_files import NewFiles
from tensorbundle.formats.tensors import (
    Advance,
    ForeignFile,
    ForeignTensor,
    SourceTensor,
    is_extension,
    require,
)

SUFFIXES = (".h5", ".hdf5")

_KINDS = frozenset("biufc")
_NAME, _TYPE = "name", "dtype"
# The last part of an escaped path. No other part has a percent sign followed by these letters.
_VALUE = "%value"
# The most axes that the library has.
MAX_RANK = 32
# An attribute has at most 64 KiB.
_MAX_NAME = 60_000
# Hard links can lead to a group by exponentially many paths.
_MAX_PATHS = 1_000_000
_MAX_DEPTH = 1000
_MAX_SOFT_LINKS = 16


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


def unsupported_reason(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    """Returns why the format cannot store a tensor, or None."""
    del dtype  # it stores the bytes of every type
    if "\0" in name:
        return "its name has a zero byte"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME:
        return "its name is too long"
    if name.count("/") >= _MAX_DEPTH:
        return "its name has too many slashes"
    reason = tensors.invalid_utf8_reason(name)
    if reason is None and len(shape) > MAX_RANK:
        reason = f"its rank is {len(shape)}, and HDF5 has {MAX_RANK} axes"
    return reason


def paths_of(names: Sequence[str]) -> dict[str, str]:
    """Returns the path of the dataset for each name."""
    groups = {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    found = {}
    for name in names:
        parts = name.split("/")
        if name not in groups and not {"", "."} & set(parts) and "%" not in name:
            found[name] = name
        else:
            found[name] = _escaped(name)
    return found


def _escaped(name: str) -> str:
    return "/".join(map(_escape, name.split("/"))) + f"/{_VALUE}"


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

    def __init__(self, name: str, dataset: Any, stored: np.dtype[Any], path: str) -> None:
        super().__init__(name, dataset.shape, tensors.native(stored))
        self._dataset, self._path = dataset, path

    def __getitem__(self, index: Any) -> Any:
        with tensors.library_errors(self._path, f"tensor {self.name!r} in {self._path!r}"):
            array = np.asarray(self._dataset[index])
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
    """Opens a file. What is not a tensor in this file is left out.

    Raises:
        CheckpointNotFoundError: The file does not exist.
        CorruptionError: It is not a valid HDF5 file.
        IOFailure: The system failed a read.
        UnsupportedError: Its links lead to too many paths.
    """
    h5py = import_h5py()
    with tensors.library_errors(path, f"{path!r} as an HDF5 file"):
        file = _open(h5py, path)

    def close() -> None:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # nothing was written
            file.close()

    found: dict[str, ForeignTensor] = {}
    left_out: dict[str, str] = {}
    try:
        walk = _Walk(h5py, path, file.id)
        for path_in_file, thing in walk.objects():
            name, reason = path_in_file, thing if isinstance(thing, str) else None
            dtype = None
            if reason is None:
                with tensors.library_errors(path, f"dataset {path_in_file!r} in {path!r}"):
                    reason = _other_files(h5py, thing)
                    if reason is None:
                        thing = h5py.Dataset(thing)
                        name = _name_of(path_in_file, thing)
                        dtype = _tensor_type(thing)
            require(name not in found and name not in left_out, path, f"has {name!r} twice")
            if dtype is None or isinstance(dtype, str):
                left_out[name] = reason or str(dtype)
            else:
                found[name] = _Dataset(name, thing, dtype, path)
    except BaseException:
        close()
        raise
    return ForeignFile(path, found, left_out, close=close)


def _open(h5py: Any, path: str) -> Any:
    while True:
        try:
            return h5py.File(path, "r")
        except InterruptedError:
            continue  # the library does not repeat open()


class _Walk:
    """The links of a file, followed by its own rules: never into another file."""

    def __init__(self, h5py: Any, path: str, root: Any) -> None:
        self._h5py, self._path, self._root = h5py, path, root
        self._left = _MAX_PATHS

    def objects(self) -> Iterator[tuple[str, Any]]:
        """Yields (path, dataset) in order, or (path, reason) for a link that is not followed."""
        # Groups that are open, from the root to the current one: (path, address, links).
        stack = [("", self._address(self._root), iter(self._links(self._root)))]
        while stack:
            prefix, _, links = stack[-1]
            link = next(links, None)
            if link is None:
                stack.pop()
                continue
            group, name = link
            path = prefix + name.decode("utf-8", "surrogateescape")
            self._count(path)
            with tensors.library_errors(self._path, f"link {path!r} in {self._path!r}"):
                thing = self._open(group, name, _MAX_SOFT_LINKS)
                if isinstance(thing, self._h5py.h5g.GroupID):
                    address = self._address(thing)
                    if any(address == outer for _, outer, _ in stack):
                        thing = "a link to a group that contains it"
                    elif len(stack) > _MAX_DEPTH:
                        raise UnsupportedError(
                            f"{self._path!r} has groups within {_MAX_DEPTH} others"
                        )
                    else:
                        stack.append((f"{path}/", address, iter(self._links(thing))))
                        continue
            if isinstance(thing, (str, self._h5py.h5d.DatasetID)):
                yield path, thing

    def _count(self, path: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise UnsupportedError(f"{self._path!r} has more than {_MAX_PATHS} paths, as {path!r}")

    def _links(self, group: Any) -> list[tuple[Any, bytes]]:
        with tensors.library_errors(self._path, f"a group in {self._path!r}"):
            return [(group, name) for name in group]

    def _address(self, group: Any) -> int:
        with tensors.library_errors(self._path, f"a group in {self._path!r}"):
            return int(self._h5py.h5o.get_info(group).addr)

    def _open(self, group: Any, name: bytes, left: int) -> Any:
        """Returns the object of a link, or why it is not followed."""
        h5l = self._h5py.h5l
        kind = group.links.get_info(name).type
        if kind == h5l.TYPE_HARD:
            return self._h5py.h5o.open(group, name)
        if kind == h5l.TYPE_SOFT:
            target = group.links.get_val(name)
            found = self._resolve(group, target, left) if left else "a circle of soft links"
            return _dangling(target) if found is None else found
        if kind == h5l.TYPE_EXTERNAL:
            file, target = (_text(part) for part in group.links.get_val(name))
            return f"a link to {target!r} in another file, {file!r}"
        return "a link of an unknown kind"

    def _resolve(self, group: Any, target: bytes, left: int) -> Any:
        """Returns the object at a path, why it is not followed, or None if it does not exist."""
        found = self._root if target.startswith(b"/") else group
        for part in target.split(b"/"):
            if part in (b"", b"."):
                continue
            if not isinstance(found, self._h5py.h5g.GroupID) or part not in found:
                return None
            found = self._open(found, part, left - 1)
            if isinstance(found, str):
                return found
        return found


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def _dangling(target: bytes) -> str:
    return f"a link to {_text(target)!r}, which does not exist"


def _name_of(path: str, dataset: Any) -> str:
    """Returns the name of the tensor in a dataset: the path, or the attribute if it is escaped."""
    if path.endswith(f"/{_VALUE}"):
        name = dataset.attrs.get(_NAME)
        if isinstance(name, str) and _escaped(name) == path:
            return name
    return path


def _other_files(h5py: Any, dataset: Any) -> str | None:
    """Returns which other files a dataset has its elements in, or None."""
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual dataset, whose elements are in other datasets"
    if properties.get_external_count():
        file = _text(properties.get_external(0)[0])
        return f"a dataset with external storage, whose elements are in another file, {file!r}"
    return None


def _tensor_type(dataset: Any) -> np.dtype[Any] | str:
    """Returns the type of a dataset's elements, or why it is not a tensor."""
    if dataset.shape is None:
        return "it has no elements and no shape"
    try:
        dtype: np.dtype[Any] = dataset.dtype
    except TypeError as error:
        return f"its type cannot be read: {error}"
    reason = tensors.shape_reason(dataset.shape, dtype.itemsize)
    if reason is not None:
        return reason
    name = dataset.attrs.get(_TYPE) if dtype.kind == "V" else None
    if isinstance(name, str):
        extension = tensors.extension_type(name, dtype.itemsize)
        if extension is not None:
            return extension
    if dtype.kind in _KINDS:
        return dtype
    return "strings" if dtype.kind in "SO" else f"elements of type {dtype}"
