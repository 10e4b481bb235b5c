# SPDX-License-Identifier: Apache-2.0
"""Our exceptions, as TensorFlow raises them.

Every class here inherits one of ours and the class of ``tf.errors`` that TensorFlow raises in the
same place, so that either ``except`` works. They are made when they are first needed, because their
bases are TensorFlow's.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from tensorbundle import errors

# Class of ours here: (base of ours, name in tf.errors, other bases).
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
    # Not UnavailableError, for which a monitored session tries again, for ever.
    "InternalError": (errors.IOFailure, "InternalError", ()),
    "PermissionDeniedError": (errors.IOFailure, "PermissionDeniedError", ()),
}


def __getattr__(name: str) -> Any:
    """Makes a class when it is first asked for; pickles find it by this way too."""
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _make(name)
    return made


def translated(error: errors.Error) -> Exception:
    """The exception of this module that says what `error` says; `error` itself where none does."""
    if isinstance(error, errors.TensorNotFoundError):
        is_ambiguous = isinstance(error, errors.AmbiguousNameError)
        name = "AmbiguousNameError" if is_ambiguous else "TensorNotFoundError"
        return _new(name, error._source)  # the message is composed when it is shown
    message = str(error)
    if isinstance(error, errors.CheckpointNotFoundError):
        # A directory without a checkpoint is a ValueError in both worlds, and never an OpError.
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
    """Raises our own exceptions from inside as TensorFlow's, which they stay as well."""
    try:
        yield
    except errors.Error as error:
        other = translated(error)
        if other is error or _is_translated(error):
            raise
        raise other from error


def shape_mismatch(message: str) -> Exception:
    """A ShapeMismatchError that is a ValueError and an InvalidArgumentError."""
    return _new("ShapeMismatchError", message)


def invalid_argument(message: str) -> Exception:
    """An Error that is a ValueError and an InvalidArgumentError."""
    return _new("InvalidArgumentError", message)


def path_with_nul(path: str) -> Exception:
    """What TensorFlow calls not found, and what is a ValueError to the system."""
    return _new("PathError", f"a path cannot hold a NUL byte: {path!r}", path)


def _is_translated(error: Exception) -> bool:
    return type(error).__module__ == __name__


def _make(name: str) -> type[Exception]:
    import tensorflow as tf

    ours, theirs, more = _BASES[name]
    base = getattr(tf.errors, theirs)

    def __init__(
        self: Any, message: str, filename: str | None = None, number: int | None = None
    ) -> None:
        # TensorFlow's constructor first: it sets up what its properties read.
        base.__init__(self, None, None, message)
        if issubclass(ours, errors.IOFailure):
            OSError.__init__(self, number, message, filename)
        elif issubclass(ours, OSError):
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
        "__doc__": f"{ours.__name__}, and ``tf.errors.{theirs}``.",
    }
    return type(name, (ours, *more, base), members)


def _new(name: str, *args: Any) -> Exception:
    made: Exception = (globals().get(name) or __getattr__(name))(*args)
    return made
