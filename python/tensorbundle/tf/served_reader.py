# SPDX-License-Identifier: Apache-2.0
"""The reader behind TensorFlow's names: what it returns and raises is TensorFlow's.

It differs from ``tensorbundle.CheckpointReader`` in three things only: dtypes are ``tf.DType``,
exceptions are also ``tf.errors``', with the words that TensorFlow's own code and tests look for,
and the empty name is known, as TensorFlow's reader knows it from the index's header.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from tensorbundle import compat
from tensorbundle.errors import CheckpointNotFoundError, Error, TensorNotFoundError
from tensorbundle.tf import errors

Result = TypeVar("Result")


class CheckpointReader(compat.CheckpointReader):
    """A checkpoint reader for code that was written for TensorFlow's."""

    def __init__(self, filepattern: compat.PathLike) -> None:
        """Opens the checkpoint.

        Raises:
            tf.errors.NotFoundError: There is none; a directory without one is a ``ValueError``.
            tf.errors.DataLossError: The file is no checkpoint, or a damaged one.
        """
        _raising_theirs(super().__init__, filepattern)

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Whether there is a tensor of that name; the empty one is the V2 header's."""
        if tensor_str in ("", b""):
            return self._checkpoint.format == 2
        return super().has_tensor(tensor_str)

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Reads a tensor whole and compares its checksum.

        Raises:
            tf.errors.NotFoundError: There is no tensor of that name.
            tf.errors.DataLossError: The stored bytes are damaged.
            IndexError: They end early; it is a ``DataLossError`` too.
        """
        return _raising_theirs(super().get_tensor, tensor_str)

    def get_variable_to_dtype_map(self) -> dict[str, Any]:
        """A new dict from the name of every tensor to its ``tf.DType``."""
        import tensorflow as tf

        rows = self._checkpoint._opened.listing(self._checkpoint._names)
        return {name: tf.as_dtype(number) for name, _, number in rows}


def load_checkpoint(ckpt_dir_or_file: compat.PathLike) -> CheckpointReader:
    """As ``tensorbundle.load_checkpoint``, for TensorFlow's callers."""
    return CheckpointReader(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: compat.PathLike) -> list[tuple[str, list[int]]]:
    """As ``tensorbundle.list_variables``, for TensorFlow's callers."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: compat.PathLike, name: str) -> Any:
    """As ``tensorbundle.load_variable``, for TensorFlow's callers."""
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name.removesuffix(":0"))


def _raising_theirs(function: Callable[[Any], Result], argument: Any) -> Result:
    """Calls, and says a missing name or file in TensorFlow's words before our own.

    TensorFlow itself classifies its reader's errors by those words, and so do its users.
    """
    try:
        return function(argument)
    except TensorNotFoundError as error:
        key = argument if isinstance(argument, str) else argument.decode("utf-8", "replace")
        raise errors.translated(
            TensorNotFoundError(f"Key {key} not found in checkpoint: {error}")
        ) from error
    except CheckpointNotFoundError as error:
        if isinstance(error, ValueError):
            raise
        path = os.fsdecode(argument)
        raise errors.translated(
            CheckpointNotFoundError(
                "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
                f"{path}: {error}",
                error.filename,
            )
        ) from error
    except Error as error:
        raise errors.translated(error) from error
