# SPDX-License-Identifier: Apache-2.0
"""Opening a checkpoint and finding tensors in it."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import partial
from itertools import starmap
from types import TracebackType
from typing import Any, TypeVar

from tensorbundle import _core, naming, paths, streaming
from tensorbundle import threads as thread_count
from tensorbundle.errors import (
    AmbiguousNameError,
    CorruptionError,
    Error,
    IOFailure,
    TensorNotFoundError,
)
from tensorbundle.tensor import Tensor
from tensorbundle.verification import VerifyReport, verify_tensors

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VERIFY = ("none", "lazy", "full")
_IO = ("auto", "mmap", "pread", "direct")

Default = TypeVar("Default")


def open(
    path: str | bytes | os.PathLike[Any],
    *,
    verify: str = "lazy",
    io: str = "auto",
    threads: int | None = None,
) -> Checkpoint:
    """Opens a checkpoint. Reads its index.

    Of data files that are newer than the index, some small stored slices are compared with their
    checksums: another process may be replacing the checkpoint. If so, it is opened again.

    Args:
        path: A prefix; a directory, which means what its ``checkpoint`` file says, a SavedModel's
            variables or the only checkpoint in it; a ``.index`` or ``.data-...`` file; or a V1
            file, also sharded.
        verify: When checksums are compared. ``"none"``: never. ``"lazy"``: for every stored piece
            that one call reads whole, once; not for views and slices. ``"full"``: for everything,
            now.
        io: ``"auto"``; ``"mmap"``; ``"pread"``, which never maps, so that a file cut off meanwhile
            is an exception and nothing worse; ``"direct"``, which does not map and reads past the
            page cache.
        threads: For reads and checksums. By default as many as the process may use: see
            ``set_num_threads``.

    Returns:
        A mapping from names to tensors, to be used in a ``with`` statement or closed.

    Raises:
        CheckpointNotFoundError: There is no checkpoint there.
        CorruptionError: The index is damaged; with ``verify="full"``, or the data.
        UnsupportedError: A newer format, or a path that is not local.
        IOFailure: The system failed a read.
        ValueError: A directory without a checkpoint, or with several; or a bad option.
    """
    return Checkpoint(path, verify=verify, io=io, threads=threads)


class Checkpoint(Mapping[str, Tensor]):
    """An open checkpoint: a read-only mapping of names to tensors, in the order of their bytes.

    Made by ``open``. Safe to share between threads. Pickles as the absolute path and the index's
    checksum. A missing or short data file concerns the tensors in it alone: they are listed, and
    raise when read.

    Attributes:
        path: The prefix, or the V1 file, that was found.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[Any] | paths.Location,
        *,
        verify: str = "lazy",
        io: str = "auto",
        threads: int | None = None,
    ) -> None:
        _check_option("verify", verify, _VERIFY)
        _check_option("io", io, _IO)
        location = path if isinstance(path, paths.Location) else paths.resolve(path)
        self.path: str = location.prefix
        self._absolute_path = _absolute(location.prefix)  # the process may change its directory
        self._location = location
        self._verify = verify
        self._io = io
        self._threads = None if threads is None else thread_count.checked(threads)
        # Asking the system takes longer than a small gather.
        self._processors = _core.available_processors()
        self._name_list: list[str] | None = None
        self._graph_names: naming.FullNames | None = None
        self._row_tables: dict[int, _core.Rows] = {}
        self._handle: _core.Checkpoint | None = _open_core(location, io)
        if verify == "full":
            self.verify().raise_for_damage()

    @property
    def threads(self) -> int:
        """How many threads a call on this checkpoint uses."""
        return thread_count.current(self._threads, self._processors)

    @property
    def format(self) -> int:
        """2 for an index with data files, 1 for the older single table."""
        return self._location.format

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._handle is None

    def close(self) -> None:
        """Lets go of the files. Arrays live on; handles raise ValueError from now on."""
        self._handle = None
        self._row_tables.clear()

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
        return len(self._opened)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def values(self) -> ValuesView[Tensor]:
        """A view of all tensors, in the order of the names."""
        return _Tensors(self)

    def items(self) -> ItemsView[str, Tensor]:
        """A view of all names with their tensors."""
        return _NamedTensors(self)

    def __contains__(self, name: object) -> bool:
        """Whether ``self[name]`` succeeds: False for a full name that several tensors have."""
        try:
            return isinstance(name, (str, bytes)) and self._find(name) is not None
        except AmbiguousNameError:
            return False

    def __getitem__(self, name: str | bytes) -> Tensor:
        """The tensor with that key, else the one with that full name in the object graph.

        Raises:
            TensorNotFoundError: There is no such tensor.
            AmbiguousNameError: Several tensors have that full name (``tensorbundle.errors``; it is
                a TensorNotFoundError and a ValueError).
            ValueError: The checkpoint is closed.
        """
        return self._tensor(self._require(name))

    def get(  # type: ignore[override]
        self, name: str | bytes, default: Default | None = None
    ) -> Tensor | Default | None:
        """The tensor that ``self[name]`` returns, or `default` if there is no such tensor.

        Raises:
            AmbiguousNameError: Several tensors have that full name: there is no single answer.
            ValueError: The checkpoint is closed.
        """
        index = self._find(name)
        return default if index is None else self._tensor(index)

    @property
    def full_names(self) -> Mapping[str, str]:
        """Key to full name, of the tensors that the object graph names; empty without a graph.

        A full name is what a variable was called in the program that saved it. Several tensors may
        have the same one.

        Raises:
            CorruptionError: The object graph is damaged.
            CheckpointNotFoundError: The data file that holds it is missing.
            ValueError: The checkpoint is closed.
        """
        found = self._names_of_graph()
        if found.problem is not None:
            self._read_graph()  # raises the reason, where the graph cannot be read at all
            raise CorruptionError(f"{self.path!r}: {found.problem}")
        return found.by_key

    def verify(
        self,
        names: Iterable[str] | None = None,
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> VerifyReport:
        """Reads every byte of the tensors and compares checksums, by all threads.

        Args:
            names: Which tensors; all by default.
            progress: Called now and then with (bytes done, bytes in all).

        Returns:
            A report: ``.ok``, ``.damaged``, ``.raise_for_damage()``.

        Raises:
            TensorNotFoundError: A name is not in the checkpoint.
        """
        return verify_tensors(self, names, progress)

    def stream(
        self, names: Iterable[str] | None = None, *, max_bytes: int = 256 << 20
    ) -> streaming.Stream[tuple[str, Any]]:
        """Reads whole tensors in the order of their bytes, ahead of the consumer, on other threads.

        Args:
            names: Which tensors; all by default.
            max_bytes: How many bytes may be in flight besides the array that the consumer has. A
                tensor larger than that comes alone. Nothing new is begun while the consumer has
                more than one array, unless it keeps them and asks for more.

        Returns:
            An iterator of (name, array), and a context manager that ends the reading. Arrays are
            the consumer's, to write to and to keep. Strings are read when their turn comes.

        Raises:
            TensorNotFoundError: A name is not in the checkpoint.
            Error: From the iterator, in place of a tensor that cannot be read: as ``Tensor.read``
                does. The next tensors can still be asked for.
        """
        return streaming.stream(self, names, max_bytes)

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"{len(self)} tensors"
        return f"<tensorbundle.Checkpoint {self.path!r} ({state})>"

    # A mapping compares its items by default, which here would compare handles.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        checksum = self._opened.index_checksum
        return _reopen, (self._absolute_path, checksum, self._verify, self._io, self._threads)

    @property
    def _opened(self) -> _core.Checkpoint:
        if self._handle is None:
            raise ValueError(f"the checkpoint {self.path!r} is closed")
        return self._handle

    @property
    def _names(self) -> list[str]:
        core = self._opened
        if self._name_list is None:
            self._name_list = core.names()
        return self._name_list

    def _tensor(self, index: int) -> Tensor:
        core = self._opened
        return Tensor(self, index, core.name(index), core.shape(index), core.type_number(index))

    def _rows(self, index: int) -> _core.Rows:
        """Where a tensor's rows lie, found once per tensor.

        What was found wrong with some of them is not kept: a missing file may come back.
        """
        core = self._opened
        table = self._row_tables.get(index)
        if table is None:
            table = _core.Rows.of(core, index)
            if not table.has_faults:
                self._row_tables[index] = table
        return table

    def _tensors(self) -> Iterator[Tensor]:
        return starmap(partial(Tensor, self), self._opened.listing(self._names))

    @property
    def _verifies(self) -> bool:
        return self._verify != "none"

    def _find(self, name: str | bytes) -> int | None:
        """The index of the tensor that a name means: a stored key, else a full name.

        Raises:
            AmbiguousNameError: Several tensors have that full name.
            TypeError: It is neither a str nor bytes.
        """
        index = self._find_key(name)
        if index is None:
            text = naming.as_text(name)
            keys = self._names_of_graph().keys.get(text)
            if keys is not None:
                if len(keys) > 1:
                    raise naming.ambiguous(text, keys, self.path)
                index = self._find_key(keys[0])
        return index

    def _find_key(self, name: str | bytes) -> int | None:
        """The index of the tensor with exactly that key; full names do not count."""
        key = naming.as_key(name)
        return None if key is None else self._opened.find(key)

    def _require(self, name: str | bytes) -> int:
        """As `_find`; an absent name raises TensorNotFoundError."""
        index = self._find(name)
        if index is None:
            raise TensorNotFoundError(self._not_found(name))
        return index

    def _full_names(self) -> dict[str, str]:
        """Full name to key. Of a name that several tensors have, the first key in the graph."""
        return {name: keys[0] for name, keys in self._names_of_graph().keys.items()}

    def _names_of_graph(self) -> naming.FullNames:
        """The full names in the object graph, read once."""
        core = self._opened
        if self._graph_names is None:
            try:
                graph = self._read_graph()
            except IOFailure:
                raise
            except Error as error:  # not remembered: the next attempt may succeed
                return naming.FullNames(problem=f"the object graph cannot be read: {error}")
            else:
                rows, complete = _core.full_names(core, graph)
                malformed = None if complete else "parts of the object graph are malformed"
                self._graph_names = naming.full_names(rows, malformed)
        return self._graph_names

    def _read_graph(self) -> bytes:
        """The serialized object graph; empty where there is none."""
        index = self._find_key(_OBJECT_GRAPH)
        graph = None if index is None else self._tensor(index)
        if graph is None or graph.stored_dtype != "string" or graph.shape != ():
            return b""
        content: bytes = graph.read()
        return content

    def _not_found(self, name: str | bytes) -> Callable[[], str]:
        """A function that composes the message about an absent name, for TensorNotFoundError.

        It holds names and no open file.
        """
        text = naming.as_text(name)
        return naming.not_found(text, self._names, self._names_of_graph(), self.path)


class _Tensors(ValuesView[Tensor]):
    """All tensors, made from one listing and not looked up one by one."""

    _mapping: Checkpoint

    def __iter__(self) -> Iterator[Tensor]:
        return self._mapping._tensors()


class _NamedTensors(ItemsView[str, Tensor]):
    """All names with their tensors, likewise."""

    _mapping: Checkpoint

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return zip(self._mapping._names, self._mapping._tensors(), strict=True)


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


def _open_core(location: paths.Location, io: str) -> _core.Checkpoint:
    if location.format == 2:
        return _core.Checkpoint.open_bundle(os.fsencode(location.prefix), io)
    return _core.Checkpoint.open_v1([os.fsencode(file) for file in location.files], io)


def _reopen(path: str, checksum: int, verify: str, io: str, threads: int | None) -> Checkpoint:
    """Unpickles a checkpoint, and makes sure that it is the one that was pickled."""
    checkpoint = Checkpoint(path, verify=verify, io=io, threads=threads)
    found = checkpoint._opened.index_checksum
    if found != checksum:
        raise CorruptionError(
            f"{path!r} is not the checkpoint that was pickled: its index had the checksum "
            f"{checksum:#010x}, now it has {found:#010x}"
        )
    return checkpoint
