# SPDX-License-Identifier: Apache-2.0
"""The reader that replaces TensorFlow's: it returns and raises what TensorFlow's reader does.

It differs from ``tensorbundle.CheckpointReader`` in four ways: it accepts the paths that
TensorFlow's reader accepts; ``has_tensor`` accepts keys, and the empty name of the index's header,
but not full names; dtypes are ``tf.DType``; exceptions are also ``tf.errors``, with the words that
TensorFlow's code and tests match.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tensorbundle import compat, paths
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    Error,
    TensorNotFoundError,
)
from tensorbundle.filenames import INDEX_SUFFIX, path_text, printable, v1_pattern_parts
from tensorbundle.tf import errors


class CheckpointReader(compat.CheckpointReader):
    """A drop-in replacement for TensorFlow's checkpoint reader."""

    def __init__(self, filepattern: compat.PathLike) -> None:
        """Opens the checkpoint.

        Raises:
            tf.errors.NotFoundError: There is no checkpoint. For a directory it is ``ValueError``.
            tf.errors.DataLossError: The file is not a checkpoint, or is corrupt.
        """
        with _opening(filepattern):
            location = paths.resolve(filepattern, as_tensorflow=True)
            self._checkpoint = Checkpoint(location)

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
            raise errors.translated(self._as_tensorflow_words(error, tensor_str)) from error
        except CorruptionError as error:
            if self._ends_early(tensor_str):
                raise _TruncationError(f"Read less bytes than requested: {error}") from error
            raise errors.translated(error) from error
        except Error as error:
            raise errors.translated(error) from error

    def get_variable_to_dtype_map(self) -> dict[str, Any]:
        """Returns a new dict from the name of every tensor to its ``tf.DType``."""
        rows = self._checkpoint._core.handles(self._checkpoint._names)
        return {name: tf.as_dtype(number) for name, *_, number in rows}

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


def NewCheckpointReader(filepattern: compat.PathLike) -> CheckpointReader:
    """As ``tensorbundle.NewCheckpointReader``, for TensorFlow's callers.

    Raises:
        tf.errors.DataLossError: Among others, a directory without a checkpoint: TensorFlow's
            function does not accept directories, and its callers take this for "not a checkpoint".
    """
    if os.path.isdir(path_text(filepattern)):
        reason = "it is a directory; load_checkpoint reads the checkpoint that its state file names"
        raise errors.translated(
            CorruptionError(f"Unable to open table file {filepattern!s}: {reason}")
        )
    return CheckpointReader(filepattern)


def load_checkpoint(ckpt_dir_or_file: compat.PathLike) -> CheckpointReader:
    """As ``tensorbundle.load_checkpoint``, for TensorFlow's callers."""
    return CheckpointReader(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: compat.PathLike) -> list[tuple[str, list[int]]]:
    """As ``tensorbundle.list_variables``, for TensorFlow's callers."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: compat.PathLike, name: str) -> Any:
    """As ``tensorbundle.load_variable``, for TensorFlow's callers."""
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name.removesuffix(":0"))


@contextlib.contextmanager
def _opening(path: compat.PathLike) -> Iterator[None]:
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
        raise errors.translated(CheckpointNotFoundError(words, error.filename)) from error
    except CorruptionError as error:
        words = f"Unable to open table file {os.fsdecode(path)}: {error}"
        raise errors.translated(CorruptionError(words)) from error
    except Error as error:
        raise errors.translated(error) from error


# A ``DataLossError`` that is also an ``IndexError``.
_TruncationError = type(
    "DataLossError", (errors.DataLossError, IndexError), {"__module__": __name__}
)

_SPECIAL = frozenset("*?[\\")
_FILE = "file://"


def is_handled_by_tensorflow(function: str, path: Any) -> bool:
    """Whether a call must be passed on to TensorFlow's original function.

    Args:
        function: The name of TensorFlow's function.
        path: Its checkpoint argument.
    """
    is_reader = function == "NewCheckpointReader"
    if not isinstance(path, (str, bytes)):
        return is_reader and isinstance(path, os.PathLike)
    text = os.fsdecode(path).removeprefix(_FILE)
    if "\0" in text:
        return False  # TensorFlow would read another path.
    pattern = v1_pattern_parts(text)
    if _SPECIAL & set(text if pattern is None else pattern[0]):
        return True
    if isinstance(path, str) and text.encode(errors="replace").decode() != text:  # not UTF-8
        return True
    if os.path.isdir(text):
        # A prefix and a directory may have the same name.
        return os.path.exists(text + INDEX_SUFFIX) if is_reader else isinstance(path, bytes)
    return text.endswith(INDEX_SUFFIX) and os.path.exists(text)
