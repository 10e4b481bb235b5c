# SPDX-License-Identifier: Apache-2.0
"""An open checkpoint as a mapping of names to tensors."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, overload

from tensorbundle import _core, dtypes, naming, paths, streaming, tables
from tensorbundle.arguments import FileAccess, Verify, check_threads
from tensorbundle.errors import (
    AmbiguousNameError,
    CorruptionError,
    Error,
    IOFailure,
    TensorNotFoundError,
)
from tensorbundle.filenames import INDEX_SUFFIX, AnyPath, as_url
from tensorbundle.naming import OBJECT_GRAPH
from tensorbundle.summary import Summary, count_tensors
from tensorbundle.tensor import Tensor, row_of
from tensorbundle.verification import VerifyReport, verify_tensors

_VERIFY: tuple[Verify, ...] = get_args(Verify)
_IO: tuple[FileAccess, ...] = get_args(FileAccess)

Default = TypeVar("Default")

if TYPE_CHECKING:
    from tensorbundle import remote
    from tensorbundle.renaming import Rename
    from tensorbundle.torch_tensors import TorchDtype, TorchTensor


def open(
    path: str | bytes | os.PathLike[Any],
    *,
    verify: Verify = "lazy",
    io: FileAccess = "auto",
    threads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache_dir: AnyPath | None = None,
) -> Checkpoint:
    """Opens a checkpoint and reads its index.

    If a data file is newer than the index, some of its small stored slices are compared with their
    checksums, because another process may be replacing the checkpoint. If they differ, the
    checkpoint is opened again.

    Args:
        path: A prefix; a directory (its ``checkpoint`` file is read; without one, it must contain a
            SavedModel's variables or a single checkpoint); a ``.index`` or ``.data-...`` file; or a
            V1 file or the pattern of its shards. Or the URL of one in a remote store: ``http(s)://``,
            or any that fsspec knows, such as ``s3://`` and ``gs://``. It is read by requests for
            ranges of its files, several at a time, and never viewed: ``np.asarray(t, copy=False)``
            and ``t.copy_on_write()`` raise ValueError.
        verify: When checksums are compared. ``"none"``: never. ``"lazy"``: once for every stored
            slice that a call reads whole, but not for views and partial reads. ``"full"``: for all
            tensors, when the checkpoint is opened.
        io: ``"auto"``; ``"mmap"``; ``"pread"``, which does not map files, so that a file that
            shrinks raises an exception and cannot crash the process; ``"direct"``, which does not
            map files and bypasses the page cache.
        threads: Threads for reads and checksums. Default: as many as the process may use, see
            ``set_num_threads``; 16 for a URL, because they wait for the store.
        storage_options: For a URL: arguments of fsspec's file system. For ``http(s)://``:
            ``headers``, ``auth``, ``cert``, ``proxies`` and ``verify`` as in a
            ``requests.Session``, and ``timeout`` in seconds. They are part of a pickle.
        cache_dir: For a URL: a directory in which blocks of 1 MiB of the files are kept, so that
            the same bytes are read once. They are of one version of a file, and are never removed.

    Returns:
        A mapping from names to tensors. Use it in a ``with`` statement, or close it.

    Raises:
        CheckpointNotFoundError: The checkpoint does not exist.
        CorruptionError: The index, or with ``verify="full"`` the data, is corrupted.
        ImportError: A package is missing that the URL needs.
        UnsupportedError: The format is newer, or the store cannot read a part of a file.
        IOFailure: The system or the store failed a read.
        ValueError: The directory has no checkpoint, or several; or an option is invalid.

    Examples:
        >>> with tb.open("s3://bucket/model.ckpt-1000", storage_options={"anon": True}) as ck:
        ...     rows = ck["embedding"].take([1, 5])
    """
    return Checkpoint(
        path,
        verify=verify,
        io=io,
        threads=threads,
        storage_options=storage_options,
        cache_dir=cache_dir,
    )


def load(
    path: str | bytes | os.PathLike[Any],
    names: Iterable[str] | None = None,
    *,
    verify: Verify = "lazy",
    io: FileAccess = "auto",
    threads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache_dir: AnyPath | None = None,
) -> dict[str, Any]:
    """Opens a checkpoint and reads its tensors: ``open(path).load(names)``.

    Args:
        path: As for ``open``.
        names: The names of the tensors; default: all.
        verify: As for ``open``; ``"lazy"`` compares the checksum of everything that is read.
        io: As for ``open``.
        threads: As for ``open``.
        storage_options: As for ``open``.
        cache_dir: As for ``open``.

    Returns:
        A dict from names to arrays, as by ``Checkpoint.load``.

    Raises:
        TensorNotFoundError: A name is not in the checkpoint.
        Error: As by ``open`` and ``Tensor.read``.
        ValueError: As by ``open``.

    Examples:
        >>> weights = tb.load("model.ckpt-1000")
        >>> weights["dense/kernel"] *= 2
    """
    with open(
        path,
        verify=verify,
        io=io,
        threads=threads,
        storage_options=storage_options,
        cache_dir=cache_dir,
    ) as checkpoint:
        return checkpoint.load(names)


def opened(source: AnyPath | Checkpoint) -> contextlib.AbstractContextManager[Checkpoint]:
    """Opens a path. An open checkpoint stays open afterwards."""
    return contextlib.nullcontext(source) if isinstance(source, Checkpoint) else open(source)


def files_of(source: Checkpoint) -> list[str]:
    """Returns the paths of a checkpoint's index and of the files that hold its slices."""
    stored = {part.file for tensor in source.values() for part in tensor.slices}
    return [source.path + INDEX_SUFFIX, source.path, *sorted(stored)]


class Checkpoint(Mapping[str, Tensor]):
    """An open checkpoint: a read-only mapping of names to tensors, in byte order of the names.

    Created by ``open``. Thread-safe. Pickles as the absolute path and the index's checksum. A
    missing or short data file affects only its own tensors: they are listed, and raise when read.

    Attributes:
        path: The prefix, or the path of the V1 file.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[Any] | paths.Location,
        *,
        verify: Verify = "lazy",
        io: FileAccess = "auto",
        threads: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        cache_dir: AnyPath | None = None,
    ) -> None:
        _check_option("verify", verify, _VERIFY)
        _check_option("io", io, _IO)
        url = as_url(path)
        self._remote: remote.RemoteFiles | None = None
        self._storage = (storage_options, cache_dir)
        if url is not None:
            if io not in ("auto", "pread"):
                raise ValueError(f"{url!r} is remote and cannot be read with io={io!r}")
            from tensorbundle import remote  # takes milliseconds to import

            self._remote = remote.RemoteFiles(url, storage_options, cache_dir)
            location = remote.locate(self._remote, url)
        elif storage_options is not None or cache_dir is not None:
            raise ValueError(f"storage_options and cache_dir are for URLs; {path!r:.100} is local")
        else:
            location = path if isinstance(path, paths.Location) else paths.resolve(path)
        self.path: str = location.prefix
        # The working directory may change. A URL is kept whole: with its query.
        self._absolute_path = url or _absolute(location.prefix)
        self._location = location
        self._verify = verify
        self._io = io
        self._threads = None if threads is None else check_threads(threads)
        self._name_list: list[str] | None = None
        self._graph_names: naming.FullNames | None = None
        self._core = self._open_core()
        if verify == "full":
            self.verify().raise_for_damage()

    def _open_core(self) -> _core.Checkpoint:
        location, name, verify = self._location, repr(self.path), self._verify != "none"
        threads = self._threads or 0
        if self._remote is not None:
            files = [location.prefix] if location.format == 2 else list(location.files)
            opened = _core.Checkpoint.open_remote(
                location.format,
                [os.fsencode(file) for file in files],
                self._remote.open_for_core,
                name,
                verify,
                threads or self._remote.threads,
            )
            self._remote.forget()
            return opened
        if location.format == 2:
            prefix = os.fsencode(location.prefix)
            try:
                return _core.Checkpoint.open_bundle(prefix, self._io, name, verify, threads)
            except CorruptionError:
                paths.describe_wrong_files(location)
                raise
        tables = [os.fsencode(file) for file in location.files]
        return _core.Checkpoint.open_v1(tables, self._io, name, verify, threads)

    @property
    def threads(self) -> int:
        """The number of threads that a call on this checkpoint uses."""
        return self._core.threads

    @property
    def format(self) -> int:
        """2 for an index with data files (V2), 1 for the older table format (V1)."""
        return self._location.format

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._core.closed

    def close(self) -> None:
        """Releases the files. Arrays stay valid; later uses of handles raise ValueError."""
        self._core.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._core)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def values(self) -> ValuesView[Tensor]:
        """Returns a view of all tensors, in the order of the names."""
        return _Tensors(self)

    def items(self) -> ItemsView[str, Tensor]:
        """Returns a view of all (name, tensor) pairs."""
        return _NamedTensors(self)

    def __contains__(self, name: object) -> bool:
        """Returns whether ``self[name]`` succeeds: False for a full name of several tensors."""
        try:
            return isinstance(name, (str, bytes)) and (
                self._core.has(name) or self._find(name) is not None
            )
        except AmbiguousNameError:
            return False

    def __getitem__(self, name: str | bytes) -> Tensor:
        """Returns the tensor with that key, else the one with that full name in the object graph.

        Raises:
            TensorNotFoundError: The checkpoint has no such tensor.
            AmbiguousNameError: Several tensors have that full name (``tensorbundle.errors``; it is
                a TensorNotFoundError and a ValueError).
            ValueError: The checkpoint is closed.
        """
        row = self._core.find_handle(name)
        return Tensor(self, row_of(self._require(name)) if row is None else row)

    @overload
    def get(self, name: str | bytes) -> Tensor | None: ...
    @overload
    def get(self, name: str | bytes, default: Default) -> Tensor | Default: ...
    def get(self, name: str | bytes, default: Default | None = None) -> Tensor | Default | None:
        """Returns ``self[name]``, or `default` if the checkpoint has no such tensor.

        Raises:
            AmbiguousNameError: Several tensors have that full name.
            ValueError: The checkpoint is closed.
        """
        found = self._find(name)
        return default if found is None else Tensor(self, row_of(found))

    @property
    def full_names(self) -> Mapping[str, str]:
        """The full name of each key in the object graph; empty without an object graph.

        A full name is the name of a variable in the program that saved it. Several tensors may have
        the same full name.

        Raises:
            CorruptionError: The object graph is corrupted.
            CheckpointNotFoundError: The data file with the object graph is missing.
            ValueError: The checkpoint is closed.
        """
        full_names = self._read_full_names()
        if full_names.error is not None:
            self._read_graph()  # raises the original error if the graph cannot be read
            raise CorruptionError(f"{self.path!r}: {full_names.error}")
        return full_names.by_key

    def verify(
        self,
        names: Iterable[str] | None = None,
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> VerifyReport:
        """Reads every byte of the tensors and compares checksums, with all threads.

        Args:
            names: The names of the tensors; default: all.
            progress: Called from time to time with (bytes done, total bytes).

        Returns:
            A report with ``.ok``, ``.damaged`` and ``.raise_for_damage()``.

        Raises:
            TensorNotFoundError: A name is not in the checkpoint.
        """
        tensors = None if names is None else [tensor for _, tensor in self._find_all(names)]
        return verify_tensors(self._core, self.path, tensors, progress)

    def load(
        self, names: Iterable[str] | None = None, *, threads: int | None = None
    ) -> dict[str, Any]:
        """Reads whole tensors in parallel, in the order of the files.

        Args:
            names: The names of the tensors; default: all.
            threads: Threads for this call. Default: those of the checkpoint.

        Returns:
            A new dict from each name to what ``Tensor.read`` returns: an array that the caller owns
            and may write to; for rank 0, a NumPy scalar or ``bytes``.

        Raises:
            TensorNotFoundError: A name is not in the checkpoint.
            Error: A tensor cannot be read, as by ``Tensor.read``.
        """
        if names is None:
            tensors = self._core.tensors()
            wanted: list[Any] = self._names
        else:
            wanted = list(dict.fromkeys(naming.check_names(names)))
            tensors = [self._require(name) for name in wanted]
        count = 0 if threads is None else check_threads(threads)
        return dict(zip(wanted, self._read_all(tensors, count), strict=True))

    def _read_all(self, tensors: list[_core.Tensor], threads: int = 0) -> list[Any]:
        """Reads whole tensors in parallel. Returns what `Tensor.read` returns for each."""
        values = self._core.load(tensors, threads)
        return [
            Tensor(self, row_of(tensor)).read() if value is None else value
            for tensor, value in zip(tensors, values, strict=True)
        ]

    def state_dict(
        self,
        names: Iterable[str] | None = None,
        *,
        rename: Rename | None = None,
        dtype: TorchDtype | None = None,
    ) -> dict[str, TorchTensor]:
        """Returns whole tensors as PyTorch tensors, for ``load_state_dict``.

        Each is the result of ``Tensor.torch``: a private mapping where the bytes can be mapped, so
        that nothing is read until it is used, else an owned copy. The copies are read in parallel.
        Because the system limits the mappings of a process, only the largest 16,384 tensors are
        mapped.
        With ``load_state_dict(state, assign=True)`` the parameters of the model are these tensors;
        training changes copies of their pages, never the file.

        Args:
            names: The names of the tensors, keys or full names. Default: all that are not strings
                or variants, so without the object graph.
            rename: New names, as for ``tensorbundle.edit``: a mapping, a sequence of (regular
                expression, replacement), or a callable from str to str. In an object-graph
                checkpoint a mapping may have keys, with or without
                ``/.ATTRIBUTES/VARIABLE_VALUE``, and full names; the others are tried with the full
                name and then with the key, until one of them changes. A tensor without a new name
                keeps its name.
            dtype: A floating-point ``torch.dtype``. Only tensors of floating-point types are
                converted to it, one by one; integers, booleans and complex numbers are not.

        Returns:
            A new dict from each name, as in `names` or as stored, or from its new name, to a
            ``torch.Tensor``, in the order of the names.

        Raises:
            CorruptionError: As by ``Tensor.read``, for tensors that are copied.
            ImportError: PyTorch is not installed (``pip install 'tensorbundle[torch]'``).
            TensorNotFoundError: A name, also one in the mapping `rename`, is not in the checkpoint.
            TypeError: PyTorch has no type for a tensor, which the message names (a string tensor
                only if it is in `names`); or an argument has the wrong type.
            ValueError: Two tensors would have the same new name; or the checkpoint is closed.

        Examples:
            >>> state = ck.state_dict(rename=[("^bert/", ""), ("/", ".")], dtype=torch.bfloat16)
            >>> model.load_state_dict(state, assign=True)
        """
        from tensorbundle import torch_tensors

        if names is None:
            tensors = [
                (name, t) for name, t in self.items() if t._type_number not in dtypes.VARIABLE_SIZE
            ]
        else:
            unique = dict.fromkeys(map(naming.as_text, naming.check_names(names)))
            tensors = [(name, self[name]) for name in unique]
        return torch_tensors.state_dict(self, tensors, rename, dtype)

    def stream(
        self, names: Iterable[str] | None = None, *, max_bytes: int = 256 << 20
    ) -> streaming.Stream[tuple[str, Any]]:
        """Streams whole tensors in file order, with read-ahead on other threads.

        Args:
            names: The names of the tensors; default: all.
            max_bytes: The limit for bytes in flight, without the array that the consumer holds. A
                larger tensor is read alone. Read-ahead pauses while the consumer holds more than
                one array, unless it keeps them and continues to iterate.

        Returns:
            An iterator of (name, array), and a context manager that stops the read-ahead. The
            consumer owns the arrays and may write to them. Strings are not read ahead.

        Raises:
            TensorNotFoundError: A name is not in the checkpoint.
            Error: Raised by the iterator in place of a tensor that cannot be read, as by
                ``Tensor.read``. Iteration can continue with the next tensor.
        """
        if names is None:
            tensors = self._core.tensors()
            names_by_index = {tensor.index: tensor.name for tensor in tensors}
        else:
            found = self._find_all(names)
            tensors = [tensor for _, tensor in found]
            names_by_index = {tensor.index: name for name, tensor in found}
        return streaming.stream(self._core, names_by_index, tensors, max_bytes)

    def summary(self) -> Summary:
        """Counts tensors, parameters and bytes, by type and by scope, from the index.

        Slots of optimizers, which are recognized by their names, are also counted apart.
        """
        return count_tensors(self.path, self._core.tensors())

    def _repr_html_(self) -> str:
        if self.closed:
            return tables.html_table(repr(self), (), ())
        tensors = itertools.islice(self.values(), tables.MAX_HTML_ROWS)
        rows = [
            (each.name, each.stored_dtype, tables.shape_text(each.shape), f"{each.nbytes:,}")
            for each in tensors
        ]
        title = f"{self.path}: {self.summary().line}"
        header = ("tensor", "dtype", "shape", "bytes")
        return tables.html_table(title, header, rows, more=len(self) - len(rows))

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self)} tensors"
        return f"<tensorbundle.Checkpoint {self.path!r} ({state})>"

    # By default, Mapping compares items, which would compare handles.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        checksum = self._core.index_checksum
        options = (self._verify, self._io, self._threads, *self._storage)
        return _reopen, (self._absolute_path, checksum, *options)

    @property
    def _names(self) -> list[str]:
        if self._name_list is None or self.closed:
            self._name_list = self._core.names()
        return self._name_list

    def _find_all(self, names: Iterable[str]) -> list[tuple[Any, _core.Tensor]]:
        """Finds the tensors of `names`, without duplicates, each with the last of its names."""
        found = {}
        for name in naming.check_names(names):
            tensor = self._require(name)
            found[tensor.index] = (name, tensor)
        return list(found.values())

    def _find(self, name: str | bytes) -> _core.Tensor | None:
        """Finds a tensor by its key, else by its full name; returns None if both fail.

        Raises:
            AmbiguousNameError: Several tensors have that full name.
            TypeError: `name` is neither a str nor bytes.
        """
        found = self._core.find(name)
        if found is None:
            text = naming.as_text(name)
            keys = self._read_full_names().keys.get(text)
            if keys is not None:
                if len(keys) > 1:
                    raise naming.ambiguous_name_error(text, keys, self.path)
                found = self._core.find(keys[0])
        return found

    def _require(self, name: str | bytes) -> _core.Tensor:
        """Finds a tensor as `_find` does, and raises TensorNotFoundError instead of None."""
        found = self._find(name)
        if found is None:
            raise TensorNotFoundError(self._not_found(name))
        return found

    def _read_full_names(self) -> naming.FullNames:
        """Returns the full names in the object graph, which is read once."""
        if self._graph_names is None or self.closed:
            try:
                graph = self._read_graph()
            except IOFailure:
                raise
            except Error as error:  # not cached: the next attempt may succeed
                return naming.FullNames(error=f"the object graph cannot be read: {error}")
            else:
                rows, complete = self._core.full_names(graph)
                malformed = None if complete else "parts of the object graph are malformed"
                self._graph_names = naming.full_names(rows, malformed)
        return self._graph_names

    def _read_graph(self) -> bytes:
        """Returns the serialized object graph, or ``b""`` without one."""
        found = self._core.find(OBJECT_GRAPH)
        graph = None if found is None else Tensor(self, row_of(found))
        if graph is None or graph.stored_dtype != "string" or graph.shape != ():
            return b""
        content: bytes = graph.read()
        return content

    def _not_found(self, name: str | bytes) -> Callable[[], str]:
        """Returns a function that composes the message of TensorNotFoundError.

        The function keeps the names alive, but no open file.
        """
        text = naming.as_text(name)
        names = self._core.detached_names()  # listing them takes milliseconds
        return naming.not_found_message(text, names, self._read_full_names(), self.path)


class _Tensors(ValuesView[Tensor]):
    """All tensors, created from one listing instead of one lookup per tensor."""

    _mapping: Checkpoint

    def __iter__(self) -> Iterator[Tensor]:
        checkpoint = self._mapping
        rows = checkpoint._core.handles(checkpoint._names)
        return map(partial(Tensor, checkpoint), rows)


class _NamedTensors(ItemsView[str, Tensor]):
    """All (name, tensor) pairs, created from one listing."""

    _mapping: Checkpoint

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return zip(self._mapping._names, _Tensors(self._mapping), strict=True)


def _check_option(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, not {value[:50]!r}"
        )


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # the current directory was removed
        return path


def _reopen(
    path: str,
    checksum: int,
    verify: Verify,
    io: FileAccess,
    threads: int | None,
    storage_options: Mapping[str, Any] | None = None,
    cache_dir: AnyPath | None = None,
) -> Checkpoint:
    """Unpickles a checkpoint and checks that its index has not changed."""
    checkpoint = Checkpoint(
        path,
        verify=verify,
        io=io,
        threads=threads,
        storage_options=storage_options,
        cache_dir=cache_dir,
    )
    found = checkpoint._core.index_checksum
    if found != checksum:
        raise CorruptionError(
            f"{path!r} is not the checkpoint that was pickled: its index had the checksum "
            f"{checksum:#010x}, now it has {found:#010x}"
        )
    return checkpoint
