# SPDX-License-Identifier: Apache-2.0
"""The reader behind TensorFlow's names: what it returns and raises is TensorFlow's.

It differs from ``tensorbundle.CheckpointReader`` in four things only: it accepts the paths that
TensorFlow's reader accepts; ``has_tensor`` knows keys, and the empty name of the index's header,
but no full names; dtypes are ``tf.DType``; and exceptions are also ``tf.errors``', with the words
that TensorFlow's own code and tests look for.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

from tensorbundle import compat, paths
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    Error,
    TensorNotFoundError,
)
from tensorbundle.filenames import path_text, printable
from tensorbundle.tf import errors


class CheckpointReader(compat.CheckpointReader):
    """A checkpoint reader for code that was written for TensorFlow's."""

    def __init__(self, filepattern: compat.PathLike) -> None:
        """Opens the checkpoint.

        Raises:
            tf.errors.NotFoundError: There is none; a directory without one is a ``ValueError``.
            tf.errors.DataLossError: The file is no checkpoint, or a damaged one.
        """
        with _opening(filepattern):
            location = paths.resolve(filepattern, as_tensorflow=True)
            self._checkpoint = Checkpoint(location)

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Whether there is a tensor with that key; the empty one is the V2 header's."""
        if tensor_str in ("", b""):
            return self._checkpoint.format == 2
        return self._checkpoint._core.has(tensor_str)

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Reads a tensor whole and compares its checksum.

        Raises:
            tf.errors.NotFoundError: There is no tensor of that name, or its data file is missing.
            tf.errors.DataLossError: The stored bytes are damaged. Where they end early it is an
                ``IndexError`` too, as which TensorFlow's reader reports that.
        """
        try:
            return super().get_tensor(tensor_str)
        except TensorNotFoundError as error:
            raise errors.translated(self._in_tensorflows_words(error, tensor_str)) from error
        except CorruptionError as error:
            if self._ends_early(tensor_str):
                raise _truncation()(f"Read less bytes than requested: {error}") from error
            raise errors.translated(error) from error
        except Error as error:
            raise errors.translated(error) from error

    def get_variable_to_dtype_map(self) -> dict[str, Any]:
        """A new dict from the name of every tensor to its ``tf.DType``."""
        import tensorflow as tf

        rows = self._checkpoint._core.listing(self._checkpoint._names)
        return {name: tf.as_dtype(number) for name, _, number in rows}

    def _in_tensorflows_words(
        self, error: TensorNotFoundError, name: str | bytes
    ) -> TensorNotFoundError:
        key = printable(name if isinstance(name, str) else os.fsdecode(name))
        kind = "" if self._checkpoint.format == 2 else " file"
        return type(error)(lambda: f"Key {key} not found in checkpoint{kind}: {error}")

    def _ends_early(self, name: str | bytes) -> bool:
        """Whether a data file ends before a piece of the tensor does."""
        if self._checkpoint.format != 2:
            return False
        slices = self._checkpoint[name].slices
        return any(os.path.getsize(each.file) < each.file_offset + each.nbytes for each in slices)


def NewCheckpointReader(filepattern: compat.PathLike) -> CheckpointReader:
    """As ``tensorbundle.NewCheckpointReader``, for TensorFlow's callers.

    Raises:
        tf.errors.DataLossError: Among others, a directory without a checkpoint: TensorFlow's
            function knows no directories, and its callers take this for "not a checkpoint".
    """
    if os.path.isdir(path_text(filepattern)):
        why = "it is a directory; load_checkpoint reads the checkpoint that its state file names"
        raise errors.translated(
            CorruptionError(f"Unable to open table file {filepattern!s}: {why}")
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
    """Puts TensorFlow's words before ours, by which it and its users tell errors apart."""
    try:
        yield
    except CheckpointNotFoundError as error:
        if isinstance(error, ValueError):
            raise  # a directory, and TensorFlow's words already
        words = (
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
            f"{os.fsdecode(path)}: {error}"
        )
        raise errors.translated(CheckpointNotFoundError(words, error.filename)) from error
    except CorruptionError as error:
        raise errors.translated(CorruptionError(_unable(path, error))) from error
    except Error as error:
        raise errors.translated(error) from error


def _unable(path: compat.PathLike, error: Error) -> str:
    return f"Unable to open table file {os.fsdecode(path)}: {error}"


@functools.cache
def _truncation() -> type[Exception]:
    """A ``DataLossError`` that is an ``IndexError`` too; made late, as its base is TensorFlow's."""
    return type("DataLossError", (errors.DataLossError, IndexError), {"__module__": __name__})
