# SPDX-License-Identifier: Apache-2.0
"""Files that get their names together, when all of them are complete.

::

    claim    <path>.tempstate<n>-tb, locked by flock(2) while the writer lives
    write    <other path>.tempstate<n>-tb
    publish  sync every file; name it; sync the directory

A killed writer leaves only files with temporary names. The next writer for the same path recognizes
them by their names and the free lock, and removes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import IO, Any

import numpy as np

from tensorbundle import _core, arguments
from tensorbundle.errors import DestinationExistsError, Error, IOFailure
from tensorbundle.filenames import names_in
from tensorbundle.formats import tensors
from tensorbundle.tensor import Tensor

_TEMPORARY = re.compile(r"(?P<name>.+)\.tempstate(?P<number>\d+)-tb", re.DOTALL)
# The errors of link(2) on file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


class NewFiles:
    """The new files of one writer, all in one directory; a context manager.

    An exception in the body of the ``with`` statement, or an end without ``publish``, removes them.
    """

    def __init__(
        self,
        path: str,
        *,
        overwrite: bool,
        belongs: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Claims a path, and removes what killed writers for it left.

        Args:
            path: The main file. Its directory is created if the parent of that exists.
            overwrite: Whether files that exist are replaced.
            belongs: Says whether another file name in the directory belongs to the same output.

        Raises:
            DestinationExistsError: A file of the output exists, and `overwrite` is false.
            IOFailure: The directory cannot be written.
        """
        self.path = path
        self._overwrite = overwrite
        self._directory, base = os.path.split(path)
        self._temporary: dict[str, str] = {}  # by final path, in the order of publication
        self._published: list[str] = []
        self._done = False
        self._made_directory = False
        self._claim: int | None = None

        def is_ours(name: str) -> bool:
            return name == base or belongs(name)

        names = names_in(self._directory)
        self._old = [os.path.join(self._directory, name) for name in names if is_ours(name)]
        for old in self._old:
            if os.path.isdir(old):
                raise IOFailure(f"{old!r} is a directory", errno.EISDIR, old)
            if not overwrite:
                raise DestinationExistsError(f"cannot create {old!r}", errno.EEXIST, old)
        with self._system_errors("create"):
            self._create_directory()
            try:
                self._remove_leftovers(names, base, is_ours)
                self._number = self._take_claim()
            except BaseException:
                self._remove_directory()
                raise

    def _create_directory(self) -> None:
        if self._directory:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory)
                self._made_directory = True

    def _remove_directory(self) -> None:
        if self._made_directory:
            with contextlib.suppress(OSError):
                os.rmdir(self._directory)

    def _remove_leftovers(
        self, names: list[str], base: str, is_ours: Callable[[str], bool]
    ) -> None:
        found: dict[str, list[str]] = {}
        for name in names:
            match = _TEMPORARY.fullmatch(name)
            if match and is_ours(match["name"]):
                found.setdefault(match["number"], []).append(name)
        for number, leftovers in found.items():
            claim = os.path.join(self._directory, f"{base}.tempstate{number}-tb")
            if not _is_locked(claim):
                for name in leftovers:
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self._directory, name))

    def _take_claim(self) -> int:
        while True:
            number = secrets.randbits(63)
            name = f"{self.path}.tempstate{number}-tb"
            claim = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                is_ours = os.fstat(claim).st_nlink > 0
            except OSError:
                os.close(claim)
                os.unlink(name)
                raise
            if is_ours:
                self._claim = claim
                return number
            os.close(claim)  # another writer has taken it for a leftover

    def temporary(self, path: str | None = None) -> str:
        """Returns the temporary name of a file, for a library that opens it itself.

        Files are published in the order of the first calls.
        """
        path = self.path if path is None else path
        return self._temporary.setdefault(path, f"{path}.tempstate{self._number}-tb")

    @contextlib.contextmanager
    def open(self, path: str | None = None) -> Iterator[IO[bytes]]:
        """Opens a new file, and syncs it at the end of the ``with`` statement."""
        with self.failures(path), _synced(self.temporary(path)) as file:
            yield file

    def sync(self, path: str | None = None) -> None:
        """Syncs a file that a library has written and closed."""
        with self.failures(path):
            _sync(self.temporary(path))

    @contextlib.contextmanager
    def failures(self, path: str | None = None) -> Iterator[None]:
        """Raises IOFailure in place of an OSError in the body of the ``with`` statement."""
        with self._system_errors("write", path):
            yield

    @contextlib.contextmanager
    def _system_errors(self, verb: str, path: str | None = None) -> Iterator[None]:
        try:
            yield
        except Error:
            raise
        except OSError as error:
            path = self.path if path is None else path
            number = error.errno or tensors.errno_in(error) or errno.EIO
            raise IOFailure(f"cannot {verb} {path!r}", number, path) from error

    def replaces(self, path: str) -> bool:
        """Returns whether the old output has a file of that name."""
        return path in self._old

    def publish(self, finish: Callable[[], Iterable[str]] = tuple) -> None:
        """Names all files, in the order of their creation, and removes old ones of the output.

        The last file is named when the others are on the disk. With it the new output is complete.

        Args:
            finish: Called after that, before old files are removed. It returns the paths to keep
                if they are not those of the new files.

        Raises:
            DestinationExistsError: Another writer has created a file meanwhile.
            IOFailure: The system failed an operation.
        """
        with self._system_errors("create"):
            for number, (path, temporary) in enumerate(self._temporary.items(), 1):
                if 1 < number == len(self._temporary):
                    self._sync_directory()
                self._name(temporary, path)
            if self._overwrite:  # the old output is gone, so the new one must stay
                self._published.clear()
            self._sync_directory()
            keep = {*finish()} or {*self._temporary}
            for path in {*self._old, *self._temporary} - keep:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        self._done = True

    def link(self, path: str, other: str) -> bool:
        """Gives a new file a second name, also that of an old file.

        Returns:
            False if the file system has no hard links.
        """
        temporary = f"{other}.tempstate{self._number}-tb"
        try:
            os.link(path, temporary)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        self._replace(temporary, other)
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Replaces a file at once, when all names that were given before are on the disk."""
        temporary = f"{path}.tempstate{self._number}-tb"
        with self.failures(path), _synced(temporary) as file:
            file.write(data)
        self._sync_directory()
        self._replace(temporary, path)
        self._sync_directory()

    def _replace(self, temporary: str, path: str) -> None:
        try:
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _name(self, temporary: str, path: str) -> None:
        if not self._overwrite:
            # Unlike rename(), link() replaces no file.
            try:
                os.link(temporary, path)
            except FileExistsError:
                message = f"cannot create {path!r}"
                raise DestinationExistsError(message, errno.EEXIST, path) from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if _exists(path):
                    message = f"cannot create {path!r}"
                    raise DestinationExistsError(message, errno.EEXIST, path) from None
            else:
                self._published.append(path)
                os.unlink(temporary)
                return
        os.rename(temporary, path)
        if not self.replaces(path):
            self._published.append(path)

    def _sync_directory(self) -> None:
        _sync(self._directory or os.curdir)

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leftovers = [self.temporary(), *self._temporary.values()]
        if not self._done:
            leftovers += self._published
        for path in leftovers:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if self._claim is not None:
            with contextlib.suppress(OSError):  # it is closed even then, and holds no data
                os.close(self._claim)
        if not self._done:
            self._remove_directory()


@contextlib.contextmanager
def _synced(path: str) -> Iterator[IO[bytes]]:
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_array(file: IO[bytes], array: np.ndarray[Any, Any]) -> int:
    """Writes the bytes of an array in row-major order, and returns their number."""
    if not array.size:
        return 0
    # Arrays of ml_dtypes' types have no buffer.
    return file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _exists(path: str) -> bool:
    """Unlike os.path.lexists, raises OSError if the system does not tell."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def copy_rows(
    file: IO[bytes],
    path: str,
    copies: Sequence[tuple[Tensor, int]],
    advance: Callable[[int], None],
) -> None:
    """Writes the stored rows of tensors at offsets of a file, on all threads.

    Args:
        file: The file. Its position does not change.
        path: Its final path, for messages.
        copies: Tensors for which ``_core.can_copy_rows`` is true, and their offsets.
        advance: Called with the number of bytes that were written.

    Raises:
        CorruptionError: Stored bytes do not match their checksum.
        IOFailure: The system failed a read or a write.
    """
    done = 0

    def report(now: int, _: int) -> None:
        nonlocal done
        advance(now - done)
        done = now

    file.flush()
    _core.copy_rows(
        os.fsencode(path),
        file.fileno(),
        [(tensor._core, offset) for tensor, offset in copies],
        arguments.num_threads(None),
        report,
    )


def _is_locked(path: str) -> bool:
    """Returns whether a living writer has locked a claim."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
