# SPDX-License-Identifier: Apache-2.0
"""Exceptions that are both ours and those of a ``tf.errors`` module.

Every class inherits from one of our exceptions and from the class that TensorFlow raises for the
same error, so that either ``except`` works. The module is TensorFlow's own (``tf/errors.py``), or
that of the stand-in (``tensorflow_api/errors.py``).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Iterator
from typing import Any

from tensorbundle import errors


class ErrorClasses:
    """The classes for one ``tf.errors`` module."""

    def __init__(self, tf_errors: Any, module: str) -> None:
        """Creates the classes.

        Args:
            tf_errors: The module that has TensorFlow's classes.
            module: The name of the module in which the new classes are globals, by their names, so
                that they can be pickled.
        """
        self._module = module
        self.CheckpointNotFoundError = self.create(
            "CheckpointNotFoundError", errors.CheckpointNotFoundError, tf_errors.NotFoundError
        )
        self.VocabularyNotFoundError = self.create(
            "VocabularyNotFoundError", errors.VocabularyNotFoundError, tf_errors.NotFoundError
        )
        self.TensorNotFoundError = self.create(
            "TensorNotFoundError", errors.TensorNotFoundError, tf_errors.NotFoundError
        )
        self.AmbiguousNameError = self.create(
            "AmbiguousNameError", errors.AmbiguousNameError, tf_errors.NotFoundError
        )
        self.DataLossError = self.create(
            "DataLossError", errors.CorruptionError, tf_errors.DataLossError
        )
        # TensorFlow's reader raises IndexError for a truncated data file.
        self.TruncationError = self.create(
            "TruncationError", self.DataLossError, tf_errors.DataLossError, IndexError
        )
        self.ShapeMismatchError = self.create(
            "ShapeMismatchError", errors.ShapeMismatchError, tf_errors.InvalidArgumentError
        )
        self.UnimplementedError = self.create(
            "UnimplementedError", errors.UnsupportedError, tf_errors.UnimplementedError
        )
        # Not UnavailableError: MonitoredSession would retry forever.
        self.InternalError = self.create("InternalError", errors.IOFailure, tf_errors.InternalError)
        self.PermissionDeniedError = self.create(
            "PermissionDeniedError", errors.IOFailure, tf_errors.PermissionDeniedError
        )

    def create(
        self, name: str, own: type[Exception], base: Any, *more: type[Exception]
    ) -> type[Exception]:
        """Returns a new class of that name, which inherits from all of these."""
        module = self._module

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
            return _new, (module, name, self._message, *extra)

        bases = (own, *more) if issubclass(own, base) else (own, *more, base)
        members = {
            "__init__": __init__,
            "__str__": __str__,
            "__reduce__": __reduce__,
            "__module__": module,
            "__doc__": f"{own.__name__}, and ``tf.errors.{base.__name__}``.",
        }
        return type(name, bases, members)

    def translated(self, error: errors.Error) -> Exception:
        """Converts one of our exceptions to its class here; returns others unchanged."""
        if type(error).__module__ == self._module:
            return error
        if isinstance(error, errors.TensorNotFoundError):
            is_ambiguous = isinstance(error, errors.AmbiguousNameError)
            kind = self.AmbiguousNameError if is_ambiguous else self.TensorNotFoundError
            return kind(error._source)  # formatted when it is shown
        # For a directory without a checkpoint TensorFlow raises ValueError, not OpError.
        is_directory = isinstance(error, ValueError) and isinstance(error, FileNotFoundError)
        if is_directory or isinstance(error, errors.OutOfMemoryError):
            return error
        filename, number = getattr(error, "filename", None), getattr(error, "errno", None)
        is_refused = number in (errno.EACCES, errno.EPERM)
        for own, kind in (
            (errors.CheckpointNotFoundError, self.CheckpointNotFoundError),
            (errors.VocabularyNotFoundError, self.VocabularyNotFoundError),
            (errors.IOFailure, self.PermissionDeniedError if is_refused else self.InternalError),
            (errors.CorruptionError, self.DataLossError),
            (errors.ShapeMismatchError, self.ShapeMismatchError),
            (errors.UnsupportedError, self.UnimplementedError),
        ):
            if isinstance(error, own):
                return kind(str(error), filename, number)
        return error

    @contextlib.contextmanager
    def as_tensorflow_raises(self) -> Iterator[None]:
        """Converts our exceptions to the classes here."""
        try:
            yield
        except errors.Error as error:
            other = self.translated(error)
            if other is error:
                raise
            raise other from error


def _new(module: str, name: str, *args: Any) -> Exception:
    error: Exception = getattr(importlib.import_module(module), name)(*args)
    return error
