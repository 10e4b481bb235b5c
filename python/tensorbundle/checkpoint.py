# SPDX-License-Identifier: Apache-2.0
"""Opening a checkpoint and finding tensors in it."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from tensorbundle import _core, naming, paths, streaming
from tensorbundle.arguments import check_threads
from tensorbundle.errors import (
    AmbiguousNameError,
    CorruptionError,
    Error,
    IOFailure,
    TensorNotFoundError,
)
from tensorbundle.tensor import Tensor, row_of


@dataclass(frozen=True)
class Damage:
    """Something that is wrong with a tensor, mostly with a stored slice of it.

    Attributes:
        tensor: The tensor's name.
        file: The file that it lies in.
        offset: Where its bytes begin in that file.
        nbytes: How many there are; 0 where the tensor as a whole is at fault, stored in part or
            partly stored twice. The file is the index then.
        message: What is wrong with it.
        cause: What is wrong with the file, where that is the reason; else ``""``. The same for all
            tensors in the file.
        errno: The system's error number, where it failed a read; else 0.
    """

    tensor: str
    file: str
    offset: int
    nbytes: int
    message: str
    cause: str = ""
    errno: int = 0


@dataclass(frozen=True)
class VerifyReport:
    """The result of ``Checkpoint.verify``.

    Attributes:
        path: The checkpoint.
        checked_bytes: Bytes that were read and compared.
        damaged: What is damaged, in the order of files and offsets.
        unreadable: What the system failed to read, so that nothing is known of it: no permission,
            too many open files, a failing disk. That is not damage, and may be gone next time.
        warnings: What is unusual but not an error.
    """

    path: str
    checked_bytes: int
    damaged: tuple[Damage, ...]
    unreadable: tuple[Damage, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte was read, and is as it was written."""
        return not (self.damaged or self.unreadable)

    def raise_for_damage(self) -> None:
        """Raises CorruptionError if anything is damaged, IOFailure if the system failed a read.

        The message has the first few findings; what many tensors share is said once.
        """
        if self.damaged:
            count = len(self.damaged)
            raise CorruptionError(
                f"{self.path!r} is damaged in {count} place{'s' * (count > 1)}: "
                + "; ".join(summarized(self.damaged))
            )
        if self.unreadable:
            first = self.unreadable[0]
            raise IOFailure(
                f"{self.path!r} cannot be read whole: " + "; ".join(summarized(self.unreadable)),
                first.errno,
                first.file,
            )


def by_cause(findings: Sequence[Damage]) -> dict[str, list[Damage]]:
    """The findings that several tensors share, by their cause; a finding of its own by its message.

    In the order of the first of each.
    """
    groups: dict[str, list[Damage]] = {}
    for finding in findings:
        groups.setdefault(finding.cause or finding.message, []).append(finding)
    return {
        text if len({finding.tensor for finding in group}) > 1 else group[0].message: group
        for text, group in groups.items()
    }


def summarized(findings: Sequence[Damage], limit: int = 3) -> list[str]:
    """The first few findings in words: those of one cause as one, which names the cause."""
    groups = by_cause(findings)
    shown = []
    for text, group in list(groups.items())[:limit]:
        count = len({finding.tensor for finding in group})
        shown.append(f"{text} (this concerns {count} tensors)" if count > 1 else text)
    more = len(groups) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def verify_tensors(
    core: _core.Checkpoint,
    path: str,
    tensors: list[_core.Tensor] | None,
    progress: Callable[[int, int], object] | None,
) -> VerifyReport:
    """Implements ``Checkpoint.verify``. `tensors` are all if None."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    checked_bytes, rows = core.verify(tensors, progress=progress)
    found = [Damage(*row) for row in rows]
    return VerifyReport(
        path=path,
        checked_bytes=checked_bytes,
        damaged=tuple(finding for finding in found if not finding.errno),
        unreadable=tuple(finding for finding in found if finding.errno),
        warnings=tuple(core.warnings),
    )


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
        self._threads = None if threads is None else check_threads(threads)
        self._name_list: list[str] | None = None
        self._graph_names: naming.FullNames | None = None
        self._core = self._open_core()
        if verify == "full":
            self.verify().raise_for_damage()

    def _open_core(self) -> _core.Checkpoint:
        location, name, verify = self._location, repr(self.path), self._verify != "none"
        threads = self._threads or 0
        if location.format == 2:
            prefix = os.fsencode(location.prefix)
            return _core.Checkpoint.open_bundle(
                prefix, io=self._io, name=name, verify=verify, threads=threads
            )
        files = [os.fsencode(file) for file in location.files]
        return _core.Checkpoint.open_v1(
            files, io=self._io, name=name, verify=verify, threads=threads
        )

    @property
    def threads(self) -> int:
        """How many threads a call on this checkpoint uses."""
        return self._core.threads

    @property
    def format(self) -> int:
        """2 for an index with data files, 1 for the older single table."""
        return self._location.format

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._core.closed

    def close(self) -> None:
        """Releases the files. Arrays stay valid; handles raise ValueError from now on."""
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
        """A view of all tensors, in the order of the names."""
        return _Tensors(self)

    def items(self) -> ItemsView[str, Tensor]:
        """A view of all names with their tensors."""
        return _NamedTensors(self)

    def __contains__(self, name: object) -> bool:
        """Whether ``self[name]`` succeeds: False for a full name that several tensors have."""
        try:
            return isinstance(name, (str, bytes)) and (
                self._core.has(name) or self._find(name) is not None
            )
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
        row = self._core.find_handle(name)
        return Tensor(self, row_of(self._require(name)) if row is None else row)

    def get(  # type: ignore[override]
        self, name: str | bytes, default: Default | None = None
    ) -> Tensor | Default | None:
        """The tensor that ``self[name]`` returns, or `default` if there is no such tensor.

        Raises:
            AmbiguousNameError: Several tensors have that full name: there is no single answer.
            ValueError: The checkpoint is closed.
        """
        found = self._find(name)
        return default if found is None else Tensor(self, row_of(found))

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
        tensors = None if names is None else [tensor for _, tensor in self._several(names)]
        return verify_tensors(self._core, self.path, tensors, progress)

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
        if names is None:
            tensors = self._core.tensors()
            shown = {tensor.index: tensor.name for tensor in tensors}
        else:
            several = self._several(names)
            tensors = [tensor for _, tensor in several]
            shown = {tensor.index: name for name, tensor in several}
        return streaming.stream(self._core, shown, tensors, max_bytes)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self)} tensors"
        return f"<tensorbundle.Checkpoint {self.path!r} ({state})>"

    # A mapping compares its items by default, which here would compare handles.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        checksum = self._core.index_checksum
        return _reopen, (self._absolute_path, checksum, self._verify, self._io, self._threads)

    @property
    def _names(self) -> list[str]:
        if self._name_list is None or self.closed:
            self._name_list = self._core.names()
        return self._name_list

    def _several(self, names: Iterable[str]) -> list[tuple[Any, _core.Tensor]]:
        """The tensors of several names, once each, with the last name that was given for each."""
        found = {}
        for name in naming.several(names):
            tensor = self._require(name)
            found[tensor.index] = (name, tensor)
        return list(found.values())

    def _find(self, name: str | bytes) -> _core.Tensor | None:
        """The tensor that a name means: a stored key, else a full name.

        Raises:
            AmbiguousNameError: Several tensors have that full name.
            TypeError: It is neither a str nor bytes.
        """
        found = self._core.find(name)
        if found is None:
            text = naming.as_text(name)
            keys = self._names_of_graph().keys.get(text)
            if keys is not None:
                if len(keys) > 1:
                    raise naming.ambiguous(text, keys, self.path)
                found = self._core.find(keys[0])
        return found

    def _require(self, name: str | bytes) -> _core.Tensor:
        """As `_find`; an absent name raises TensorNotFoundError."""
        found = self._find(name)
        if found is None:
            raise TensorNotFoundError(self._not_found(name))
        return found

    def _names_of_graph(self) -> naming.FullNames:
        """The full names in the object graph, read once."""
        if self._graph_names is None or self.closed:
            try:
                graph = self._read_graph()
            except IOFailure:
                raise
            except Error as error:  # not remembered: the next attempt may succeed
                return naming.FullNames(problem=f"the object graph cannot be read: {error}")
            else:
                rows, complete = self._core.full_names(graph)
                malformed = None if complete else "parts of the object graph are malformed"
                self._graph_names = naming.full_names(rows, malformed)
        return self._graph_names

    def _read_graph(self) -> bytes:
        """The serialized object graph; empty where there is none."""
        found = self._core.find(_OBJECT_GRAPH)
        graph = None if found is None else Tensor(self, row_of(found))
        if graph is None or graph.stored_dtype != "string" or graph.shape != ():
            return b""
        content: bytes = graph.read()
        return content

    def _not_found(self, name: str | bytes) -> Callable[[], str]:
        """A function that composes the message about an absent name, for TensorNotFoundError.

        It holds names and no open file.
        """
        text = naming.as_text(name)
        names = self._core.detached_names()  # listing them takes milliseconds
        return naming.not_found(text, names, self._names_of_graph(), self.path)


class _Tensors(ValuesView[Tensor]):
    """All tensors, created from one listing and not looked up one by one."""

    _mapping: Checkpoint

    def __iter__(self) -> Iterator[Tensor]:
        checkpoint = self._mapping
        rows = checkpoint._core.handles(checkpoint._names)
        return map(partial(Tensor, checkpoint), rows)


class _NamedTensors(ItemsView[str, Tensor]):
    """All names with their tensors, likewise."""

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


def _reopen(path: str, checksum: int, verify: str, io: str, threads: int | None) -> Checkpoint:
    """Unpickles a checkpoint, and makes sure that it is the one that was pickled."""
    checkpoint = Checkpoint(path, verify=verify, io=io, threads=threads)
    found = checkpoint._core.index_checksum
    if found != checksum:
        raise CorruptionError(
            f"{path!r} is not the checkpoint that was pickled: its index had the checksum "
            f"{checksum:#010x}, now it has {found:#010x}"
        )
    return checkpoint
