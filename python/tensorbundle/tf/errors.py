# SPDX-License-Identifier: Apache-2.0
"""Exceptions that are both ours and TensorFlow's.

Every class inherits from one of our exceptions and from the class of ``tf.errors`` that TensorFlow
raises for the same error, so that either ``except`` works. The classes are created at first use,
because that imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from tensorbundle import errors

# Name of the class: (our base, name of the base in tf.errors, other bases).
_BASES: dict[str, tuple[type[errors.Error], str, tuple[type[Exception], ...]]] = {
    "CheckpointNotFoundError": (errors.CheckpointNotFoundError, "NotFoundError", ()),
    "VocabularyNotFoundError": (errors.VocabularyNotFoundError, "NotFoundError", ()),
    "TensorNotFoundError": (errors.TensorNotFoundError, "NotFoundError", ()),
    "AmbiguousNameError": (errors.AmbiguousNameError, "NotFoundError", ()),
    "DataLossError": (errors.CorruptionError, "DataLossError", ()),
    "ShapeMismatchError": (errors.ShapeMismatchError, "InvalidArgumentError", ()),
    "InvalidArgumentError": (errors.Error, "InvalidArgumentError", (ValueError,)),
    "PathError": (errors.CheckpointNotFoundError, "NotFoundError", (ValueError,)),
    "UnimplementedError": (errors.UnsupportedError, "UnimplementedError", ()),
    # Not UnavailableError: MonitoredSession would retry forever.
    "InternalError": (errors.IOFailure, "InternalError", ()),
    "PermissionDeniedError": (errors.IOFailure, "PermissionDeniedError", ()),
}


def __getattr__(name: str) -> Any:
    """Creates a class at first use. Unpickling uses this too."""
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    created = globals()[name] = _create(name)
    return created


def translated(error: errors.Error) -> Exception:
    """Returns the exception of this module for `error`, or `error` if there is none."""
    if isinstance(error, errors.TensorNotFoundError):
        is_ambiguous = isinstance(error, errors.AmbiguousNameError)
        name = "AmbiguousNameError" if is_ambiguous else "TensorNotFoundError"
        return _new(name, error._source)  # the message is formatted when it is shown
    message = str(error)
    if isinstance(error, errors.CheckpointNotFoundError):
        # For a directory without a checkpoint TensorFlow raises ValueError, not OpError.
        if isinstance(error, ValueError):
            return error
        return _new("CheckpointNotFoundError", message, error.filename)
    if isinstance(error, errors.VocabularyNotFoundError):
        return _new("VocabularyNotFoundError", message, error.filename)
    if isinstance(error, errors.OutOfMemoryError):
        return error
    if isinstance(error, errors.IOFailure):
        refused = error.errno in (errno.EACCES, errno.EPERM)
        name = "PermissionDeniedError" if refused else "InternalError"
        return _new(name, message, error.filename, error.errno)
    for name in ("DataLossError", "ShapeMismatchError"):
        if isinstance(error, _BASES[name][0]):
            return _new(name, message)
    if isinstance(error, errors.UnsupportedError):
        return _new("UnimplementedError", message)
    return error


@contextlib.contextmanager
def as_tensorflow_raises() -> Iterator[None]:
    """Converts our exceptions to those of this module."""
    try:
        yield
    except errors.Error as error:
        other = translated(error)
        if other is error or _is_translated(error):
            raise
        raise other from error


def shape_mismatch(message: str) -> Exception:
    """Returns a ShapeMismatchError that is a ValueError and an InvalidArgumentError."""
    return _new("ShapeMismatchError", message)


def invalid_argument(message: str) -> Exception:
    """Returns an Error that is a ValueError and an InvalidArgumentError."""
    return _new("InvalidArgumentError", message)


def path_with_nul(path: str) -> Exception:
    """Returns the exception for a path with a NUL byte: NotFoundError and ValueError."""
    return _new("PathError", f"a path cannot hold a NUL byte: {path!r}", path)


def _is_translated(error: Exception) -> bool:
    return type(error).__module__ == __name__


def _create(name: str) -> type[Exception]:
    import tensorflow as tf

    own, original, more = _BASES[name]
    base = getattr(tf.errors, original)

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
        "__doc__": f"{own.__name__}, and ``tf.errors.{original}``.",
    }
    return type(name, (own, *more, base), members)


def _new(name: str, *args: Any) -> Exception:
    error: Exception = (globals().get(name) or __getattr__(name))(*args)
    return error
