# SPDX-License-Identifier: Apache-2.0
"""Opening a checkpoint and finding tensors in it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import partial
from itertools import starmap
from types import TracebackType
from typing import Any

from tensorbundle import _core, paths, streaming
from tensorbundle import threads as thread_count
from tensorbundle.errors import CorruptionError, TensorNotFoundError
from tensorbundle.tensor import Tensor
from tensorbundle.verification import VerifyReport, verify_tensors

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VERIFY = ("none", "lazy", "full")


def open(
    path: str | bytes | os.PathLike[Any],
    *,
    verify: str = "lazy",
    io: str = "auto",
    threads: int | None = None,
) -> Checkpoint:
    """Opens a checkpoint. Reads its index and nothing else.

    Args:
        path: A prefix; a directory with a ``checkpoint`` file, or a SavedModel; a ``.index`` or
            ``.data-...`` file; or a V1 file, also sharded.
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
        ValueError: A directory without a checkpoint, or a bad option.
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
        path: str | bytes | os.PathLike[Any],
        *,
        verify: str = "lazy",
        io: str = "auto",
        threads: int | None = None,
    ) -> None:
        if verify not in _VERIFY:
            raise ValueError(f"verify must be one of {_VERIFY}, not {verify!r}")
        location = paths.resolve(path)
        self.path: str = location.prefix
        self._location = location
        self._verify = verify
        self._io = io
        self._threads = None if threads is None else thread_count.checked(threads)
        # Asking the system takes longer than a small gather.
        self._processors = _core.available_processors()
        self._name_list: list[str] | None = None
        self._aliases: dict[str, str] | None = None
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
        return isinstance(name, (str, bytes)) and self._find(name) is not None

    def __getitem__(self, name: str | bytes) -> Tensor:
        """The tensor of that name, or of that ``full_name`` in the checkpoint's object graph.

        Raises:
            TensorNotFoundError: There is none.
            ValueError: The checkpoint is closed.
        """
        index = self._find(name)
        if index is None:
            raise TensorNotFoundError(self._not_found(name))
        return self._tensor(index)

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
        absolute = os.path.abspath(self.path)
        return _reopen, (absolute, checksum, self._verify, self._io, self._threads)

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
            table = _core.Rows(core, index)
            if not table.has_faults:
                self._row_tables[index] = table
        return table

    def _tensors(self) -> Iterator[Tensor]:
        return starmap(partial(Tensor, self), self._opened.listing(self._names))

    @property
    def _verifies(self) -> bool:
        return self._verify != "none"

    def _find(self, name: str | bytes) -> int | None:
        if not isinstance(name, (str, bytes)):
            raise TypeError(f"a tensor's name is a str, not {type(name).__name__}")
        key = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
        index = self._opened.find(key)
        if index is None:
            alias = self._full_names().get(key.decode("utf-8", "surrogateescape"))
            index = (
                None
                if alias is None
                else self._opened.find(alias.encode("utf-8", "surrogateescape"))
            )
        return index

    def _full_names(self) -> dict[str, str]:
        """Names that variables had in their program, by the object graph, to keys."""
        if self._aliases is None:
            index = self._opened.find(_OBJECT_GRAPH.encode())
            graph = None if index is None else self._tensor(index)
            aliases: dict[str, str] = {}
            if (
                graph is not None
                and graph.stored_dtype == "string"
                and graph.shape == ()
                and not graph.problem
            ):
                for name, key in _core.full_names(graph.read()).items():
                    aliases[name.decode("utf-8", "surrogateescape")] = key.decode(
                        "utf-8", "surrogateescape"
                    )
            self._aliases = aliases
        return self._aliases

    def _not_found(self, name: str | bytes) -> str:
        text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
        nearest = difflib.get_close_matches(text, [*self, *self._full_names()], n=3)
        hint = f"; the nearest are {', '.join(map(repr, nearest))}" if nearest else ""
        return f"no tensor {text!r} among the {len(self)} of {self.path!r}{hint}"


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
