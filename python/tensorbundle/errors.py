# SPDX-License-Identifier: Apache-2.0
"""Every exception that tensorbundle raises on its own account.

Each class is also the built-in exception that a caller would guess, so ``except FileNotFoundError``
and ``except tb.NotFoundError`` both work. The extension module raises these very classes.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Callable
from typing import Any


class Error(Exception):
    """Root of all tensorbundle exceptions."""


class NotFoundError(Error):
    """Something that was asked for by name does not exist."""


class TensorNotFoundError(NotFoundError, KeyError):
    """The checkpoint holds no tensor of that name; the message names the nearest ones.

    The nearest names are looked for when the message is first shown (``str``, ``repr``, ``args``, a
    traceback, a pickle): a program that asks for many absent names does not pay for them.
    """

    _source: str | Callable[[], str]

    def __init__(self, message: str | Callable[[], str] = "") -> None:
        """Takes the message, or a function that composes it when it is shown."""
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
        """The message, as the only item."""
        return (self._message,)

    @args.setter
    def args(self, values: tuple[Any, ...]) -> None:
        (self._message,) = values

    # KeyError.__str__ shows the repr of the message, quotes and escapes included.
    def __str__(self) -> str:
        return self._message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        notes = {name: value for name, value in vars(self).items() if name != "_source"}
        return type(self), (self._message,), notes


class AmbiguousNameError(TensorNotFoundError, ValueError):
    """Several tensors have that full name in the object graph; the message names their keys."""


class _MissingFileError(NotFoundError, FileNotFoundError):
    """A file that is not there.

    Attributes:
        filename: The path that was looked for.
    """

    def __init__(self, message: str, filename: str | None = None) -> None:
        super().__init__(_errno.ENOENT, message, filename)
        self._message = message

    def __str__(self) -> str:
        return self._message

    def __reduce__(self) -> tuple[type[_MissingFileError], tuple[str, str | None]]:
        return type(self), (self._message, self.filename)


class CheckpointNotFoundError(_MissingFileError):
    """No such checkpoint, index file or data shard."""


class VocabularyNotFoundError(_MissingFileError):
    """No such vocabulary file."""


class CorruptionError(Error, ValueError):
    """The bytes contradict the format, or their checksum."""


class ShapeMismatchError(Error, ValueError):
    """A tensor and its destination differ in shape."""


class UnsupportedError(Error, NotImplementedError):
    """A valid file that uses something tensorbundle does not read."""


class IOFailure(Error, OSError):
    """The operating system failed a read or a write.

    Attributes:
        errno: The system's error number.
        filename: The file that was being read or written.
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


class OutOfMemoryError(IOFailure, MemoryError):
    """The operating system has no memory, or no address space, for a read or a mapping."""
