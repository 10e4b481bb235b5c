# SPDX-License-Identifier: Apache-2.0
"""Exceptions that are both ours and TensorFlow's.

Every class inherits from one of our exceptions and from the class of ``tf.errors`` that TensorFlow
raises for the same error, so that either ``except`` works.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tensorbundle import errors


def _create(
    name: str, own: type[errors.Error], base: Any, *more: type[Exception]
) -> type[Exception]:
    """Returns a class of the name, which inherits from all of these."""

    def __init__(
        self: Any, message: str, filename: str | None = None, number: int | None = None
    ) -> None:
        # TensorFlow's constructor first: it sets the attributes that its properties read.
        base.__init__(self, None, None, message)
        if issubclass(own, errors.IOFailure):
            OSError.__init__(self, number, message, filename)
        elif issubclass(own, OSError):
            OSError.__init__(self, errno.ENOENT, message, filename)
        else:
            self.args = (message,)

    def __str__(self: Any) -> str:
        return str(self._message)

    def __reduce__(self: Any) -> tuple[Any, ...]:
        extra = (self.filename, self.errno) if isinstance(self, OSError) else ()
        return _new, (name, self._message, *extra)

    members = {
        "__init__": __init__,
        "__str__": __str__,
        "__reduce__": __reduce__,
        "__module__": __name__,
        "__doc__": f"{own.__name__}, and ``tf.errors.{base.__name__}``.",
    }
    return type(name, (own, *more, base), members)


def _new(name: str, *args: Any) -> Exception:
    error: Exception = globals()[name](*args)
    return error


CheckpointNotFoundError = _create(
    "CheckpointNotFoundError", errors.CheckpointNotFoundError, tf.errors.NotFoundError
)
VocabularyNotFoundError = _create(
    "VocabularyNotFoundError", errors.VocabularyNotFoundError, tf.errors.NotFoundError
)
TensorNotFoundError = _create(
    "TensorNotFoundError", errors.TensorNotFoundError, tf.errors.NotFoundError
)
AmbiguousNameError = _create(
    "AmbiguousNameError", errors.AmbiguousNameError, tf.errors.NotFoundError
)
PathError = _create(
    "PathError", errors.CheckpointNotFoundError, tf.errors.NotFoundError, ValueError
)
DataLossError = _create("DataLossError", errors.CorruptionError, tf.errors.DataLossError)
ShapeMismatchError = _create(
    "ShapeMismatchError", errors.ShapeMismatchError, tf.errors.InvalidArgumentError
)
InvalidArgumentError = _create(
    "InvalidArgumentError", errors.Error, tf.errors.InvalidArgumentError, ValueError
)
UnimplementedError = _create(
    "UnimplementedError", errors.UnsupportedError, tf.errors.UnimplementedError
)
# Not UnavailableError: MonitoredSession would retry forever.
InternalError = _create("InternalError", errors.IOFailure, tf.errors.InternalError)
PermissionDeniedError = _create(
    "PermissionDeniedError", errors.IOFailure, tf.errors.PermissionDeniedError
)


def translated(error: errors.Error) -> Exception:
    """Converts an exception to its class in this module; returns others unchanged."""
    if type(error).__module__ == __name__:
        return error
    if isinstance(error, errors.TensorNotFoundError):
        is_ambiguous = isinstance(error, errors.AmbiguousNameError)
        kind = AmbiguousNameError if is_ambiguous else TensorNotFoundError
        return kind(error._source)  # formatted when it is shown
    # For a directory without a checkpoint TensorFlow raises ValueError, not OpError.
    is_directory = isinstance(error, ValueError) and isinstance(error, FileNotFoundError)
    if is_directory or isinstance(error, errors.OutOfMemoryError):
        return error
    filename, number = getattr(error, "filename", None), getattr(error, "errno", None)
    is_refused = number in (errno.EACCES, errno.EPERM)
    for own, kind in (
        (errors.CheckpointNotFoundError, CheckpointNotFoundError),
        (errors.VocabularyNotFoundError, VocabularyNotFoundError),
        (errors.IOFailure, PermissionDeniedError if is_refused else InternalError),
        (errors.CorruptionError, DataLossError),
        (errors.ShapeMismatchError, ShapeMismatchError),
        (errors.UnsupportedError, UnimplementedError),
    ):
        if isinstance(error, own):
            return kind(str(error), filename, number)
    return error


@contextlib.contextmanager
def as_tensorflow_raises() -> Iterator[None]:
    """Converts our exceptions to those of this module."""
    try:
        yield
    except errors.Error as error:
        other = translated(error)
        if other is error:
            raise
        raise other from error


def path_with_nul(path: str) -> Exception:
    """Returns the exception for a path with a NUL byte: NotFoundError and ValueError."""
    return PathError(f"a path cannot hold a NUL byte: {path!r}", path)
