# SPDX-License-Identifier: Apache-2.0
"""The exception classes of tensorbundle, which the extension module raises too.

Each class also derives from the matching built-in exception, so ``except FileNotFoundError`` and
``except tb.NotFoundError`` both work.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Error(Exception):
    """Root of all tensorbundle exceptions."""


class NotFoundError(Error):
    """A tensor or file of the given name does not exist."""


class TensorNotFoundError(NotFoundError, KeyError):
    """The checkpoint has no tensor of that name; the message lists the nearest names.

    The message is composed on first use (``str``, ``repr``, ``args``, a traceback, a pickle),
    because the search for the nearest names is slow.
    """

    _source: str | Callable[[], str]

    def __init__(self, message: str | Callable[[], str] = "") -> None:
        """Stores the message, or a function that composes it."""
        super().__init__()
        self._source = message

    @property
    def _message(self) -> str:
        if not isinstance(self._source, str):
            self._source = self._source()
        return self._source

    @_message.setter
    def _message(self, source: str | Callable[[], str]) -> None:
        self._source = source

    @property
    def args(self) -> tuple[Any, ...]:
        """The message, as the only element."""
        return (self._message,)

    @args.setter
    def args(self, values: tuple[Any, ...]) -> None:
        (self._message,) = values

    # KeyError.__str__ returns the repr of the message.
    def __str__(self) -> str:
        return self._message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        notes = {name: value for name, value in vars(self).items() if name != "_source"}
        return type(self), (self._message,), notes


class AmbiguousNameError(TensorNotFoundError, ValueError):
    """Several tensors have that full name in the object graph; the message lists their keys."""


class _MissingFileError(NotFoundError, FileNotFoundError):
    """A file does not exist.

    Attributes:
        filename: The path of the file.
    """

    def __init__(self, message: str, filename: str | None = None) -> None:
        super().__init__(_errno.ENOENT, message, filename)
        self._message = message

    def __str__(self) -> str:
        return self._message

    def __reduce__(self) -> tuple[type[_MissingFileError], tuple[str, str | None]]:
        return type(self), (self._message, self.filename)


class CheckpointNotFoundError(_MissingFileError):
    """The checkpoint, index file or data shard does not exist."""


class VocabularyNotFoundError(_MissingFileError):
    """The vocabulary file does not exist."""


class CorruptionError(Error, ValueError):
    """The bytes violate the format or do not match their checksum."""


class ProblemsError(Error, ValueError):
    """A request has problems, all of which were found before anything was changed.

    Attributes:
        path: The checkpoint.
        problems: All problems, one sentence each.
    """

    MAX_LISTED = 50  # problems that the message lists

    def __init__(self, path: str, problems: Sequence[str]) -> None:
        """Composes the message."""
        self.path = path
        self.problems = tuple(problems)
        text = self._text(self.problems[: self.MAX_LISTED])
        more = len(self.problems) - self.MAX_LISTED
        super().__init__(f"{text}\n  and {more} more" if more > 0 else text)

    def _text(self, listed: Sequence[str]) -> str:
        """Returns the message about the first problems."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.problems)


class ShapeMismatchError(Error, ValueError):
    """A tensor and its destination differ in shape."""


class UnsupportedError(Error, NotImplementedError):
    """The file is valid but uses a feature that tensorbundle does not read."""


class LeftOutError(UnsupportedError):
    """A conversion with ``strict=True`` would leave something out. Nothing has been written.

    Attributes:
        left_out: Why each tensor or other object would be left out, by name.
    """

    def __init__(self, message: str, left_out: Mapping[str, str]) -> None:
        super().__init__(message)
        self.left_out = dict(left_out)

    def __reduce__(self) -> tuple[type[LeftOutError], tuple[str, dict[str, str]]]:
        return type(self), (str(self), self.left_out)


class IOFailure(Error, OSError):
    """The operating system failed a read or a write.

    Attributes:
        errno: The system's error number.
        filename: The file of the failed operation.
    """

    def __init__(self, message: str, errno: int = _errno.EIO, filename: str | None = None) -> None:
        super().__init__(errno, message, filename)
        self._message = message

    def __str__(self) -> str:
        if self.errno is None:
            return self._message
        return f"{self._message}: {os.strerror(self.errno)}"

    def __reduce__(self) -> tuple[type[IOFailure], tuple[str, int | None, str | None]]:
        return type(self), (self._message, self.errno, self.filename)


class DestinationExistsError(IOFailure, FileExistsError):
    """The destination already has a checkpoint, or a file of one."""


class OutOfMemoryError(IOFailure, MemoryError):
    """The operating system has no memory or address space for a read or a mapping."""
