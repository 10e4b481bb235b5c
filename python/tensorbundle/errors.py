# SPDX-License-Identifier: Apache-2.0
"""Every exception that tensorbundle raises on its own account.

Each class is also the built-in exception that a caller would guess, so ``except FileNotFoundError``
and ``except tb.NotFoundError`` both work. The extension module raises these very classes.
"""

from __future__ import annotations

import errno as _errno
import os


class Error(Exception):
    """Root of all tensorbundle exceptions."""


class NotFoundError(Error):
    """Something that was asked for by name does not exist."""


class TensorNotFoundError(NotFoundError, KeyError):
    """The checkpoint holds no tensor of that name; the message names the nearest ones."""

    # KeyError.__str__ shows the repr of the message, quotes and escapes included.
    __str__ = Exception.__str__


class CheckpointNotFoundError(NotFoundError, FileNotFoundError):
    """No such checkpoint, index file or data shard.

    Attributes:
        filename: The path that was looked for.
    """

    def __init__(self, message: str, filename: str | None = None) -> None:
        super().__init__(_errno.ENOENT, message, filename)
        self._message = message

    def __str__(self) -> str:
        return self._message

    def __reduce__(self) -> tuple[type[CheckpointNotFoundError], tuple[str, str | None]]:
        return type(self), (self._message, self.filename)


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
