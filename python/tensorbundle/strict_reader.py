# SPDX-License-Identifier: Apache-2.0
"""The base of the readers that return and raise what TensorFlow's reader does.

They differ from ``tensorbundle.CheckpointReader`` in four ways: they accept the paths that
TensorFlow's reader accepts; ``has_tensor`` accepts keys, and the empty name of the index's header,
but not full names; dtypes are ``tf.DType``; exceptions are also ``tf.errors``, with the words that
TensorFlow's code and tests match. A subclass says whose types these are: TensorFlow's
(``tf/tf_reader.py``), or those of the stand-in (``tensorflow_api/reader.py``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar

from tensorbundle import compat, paths
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.error_classes import ErrorClasses
from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    Error,
    TensorNotFoundError,
)
from tensorbundle.filenames import path_text, printable


class StrictReader(compat.CheckpointReader):
    """A drop-in replacement for TensorFlow's checkpoint reader."""

    _errors: ClassVar[ErrorClasses]

    @staticmethod
    def _as_dtype(number: int) -> Any:
        """Returns the ``tf.DType`` of a number."""
        raise NotImplementedError

    def __init__(self, filepattern: compat.PathLike) -> None:
        """Opens the checkpoint.

        Raises:
            tf.errors.NotFoundError: There is no checkpoint. For a directory it is ``ValueError``.
            tf.errors.DataLossError: The file is not a checkpoint, or is corrupt.
        """
        with self._opening(filepattern):
            location = paths.resolve(filepattern, as_tensorflow=True)
            self._checkpoint = Checkpoint(location)

    @classmethod
    def refuse_directory(cls, filepattern: compat.PathLike) -> None:
        """Raises what ``NewCheckpointReader`` raises for a directory; ignores other paths.

        Raises:
            tf.errors.DataLossError: The path is a directory. TensorFlow's function does not accept
                them, and its callers take the exception for "not a checkpoint".
        """
        if os.path.isdir(path_text(filepattern)):
            reason = "it is a directory; load_checkpoint reads what its state file names"
            raise cls._errors.translated(CorruptionError(_unable(filepattern, reason)))

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Whether there is a tensor with that key. The empty key is the V2 header."""
        if tensor_str in ("", b""):
            return self._checkpoint.format == 2
        return self._checkpoint._core.has(tensor_str)

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Reads a tensor whole and compares its checksum.

        Raises:
            tf.errors.NotFoundError: There is no tensor of that name, or its data file is missing.
            tf.errors.DataLossError: The stored bytes are corrupt. If the file is truncated, the
                exception is also an ``IndexError``, which TensorFlow's reader raises.
        """
        try:
            return super().get_tensor(tensor_str)
        except TensorNotFoundError as error:
            words = self._as_tensorflow_words(error, tensor_str)
            raise self._errors.translated(words) from error
        except CorruptionError as error:
            if self._ends_early(tensor_str):
                message = f"Read less bytes than requested: {error}"
                raise self._errors.TruncationError(message) from error
            raise self._errors.translated(error) from error
        except Error as error:
            raise self._errors.translated(error) from error

    def get_variable_to_dtype_map(self) -> dict[str, Any]:
        """Returns a new dict from the name of every tensor to its ``tf.DType``."""
        rows = self._checkpoint._core.handles(self._checkpoint._names)
        return {name: self._as_dtype(number) for name, *_, number in rows}

    def _as_tensorflow_words(
        self, error: TensorNotFoundError, name: str | bytes
    ) -> TensorNotFoundError:
        key = printable(name if isinstance(name, str) else os.fsdecode(name))
        kind = "" if self._checkpoint.format == 2 else " file"
        return type(error)(lambda: f"Key {key} not found in checkpoint{kind}: {error}")

    def _ends_early(self, name: str | bytes) -> bool:
        """Whether a data file is shorter than the end of one of the tensor's slices."""
        if self._checkpoint.format != 2:
            return False
        slices = self._checkpoint[name].slices
        return any(os.path.getsize(each.file) < each.file_offset + each.nbytes for each in slices)

    @classmethod
    @contextlib.contextmanager
    def _opening(cls, path: compat.PathLike) -> Iterator[None]:
        """Prefixes error messages with TensorFlow's words, which callers match."""
        try:
            yield
        except CheckpointNotFoundError as error:
            if isinstance(error, ValueError):
                raise  # a directory; the message has TensorFlow's words
            words = (
                "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
                f"{os.fsdecode(path)}: {error}"
            )
            other = CheckpointNotFoundError(words, error.filename)
            raise cls._errors.translated(other) from error
        except CorruptionError as error:
            other_error = CorruptionError(_unable(path, error))
            raise cls._errors.translated(other_error) from error
        except Error as error:
            raise cls._errors.translated(error) from error


def _unable(path: compat.PathLike, reason: Error | str) -> str:
    return f"Unable to open table file {os.fsdecode(path)}: {reason}"
