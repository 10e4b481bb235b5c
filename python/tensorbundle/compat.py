# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's checkpoint-reading functions under TensorFlow's names, without TensorFlow.

The functions behave as ``tf.train.load_checkpoint`` and its relatives do, with three corrections:
paths are not glob patterns, V1 tensors stored in slices are assembled, and reads after a failed one
succeed.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import AmbiguousNameError

PathLike = str | bytes | os.PathLike[Any]


class CheckpointReader:
    """A reader of one checkpoint, like the object that ``tf.train.load_checkpoint`` returns."""

    def __init__(self, filepattern: PathLike) -> None:
        """Opens the checkpoint.

        Args:
            filepattern: As for ``tensorbundle.open``.

        Raises:
            CheckpointNotFoundError: The checkpoint does not exist.
            CorruptionError: The index is corrupted.
        """
        self._checkpoint = Checkpoint(filepattern)

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Returns whether ``get_tensor`` finds a tensor by this name.

        Accepts full names of the object graph, unless several tensors have the name. (TensorFlow's
        reader accepts only keys.)
        """
        try:
            return self._checkpoint._find(tensor_str) is not None
        except AmbiguousNameError:
            return False

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Reads a tensor whole and compares its checksum.

        Args:
            tensor_str: A key, or the full name of a variable in the object graph.

        Returns:
            An array that the caller owns and may write to. Rank 0: a NumPy scalar, or ``bytes``.
            Strings are an object array of ``bytes``.

        Raises:
            TensorNotFoundError: The checkpoint has no such tensor, or (AmbiguousNameError) several
                tensors have this full name.
            CorruptionError: The stored bytes are corrupted.
        """
        checkpoint = self._checkpoint
        value = checkpoint._core.get_tensor(tensor_str)
        return checkpoint[tensor_str].read() if value is None else value

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Returns a new dict from the name of every tensor to its shape."""
        return self._checkpoint._core.shape_map(self._checkpoint._names)

    def get_variable_to_dtype_map(self) -> dict[str, np.dtype[Any]]:
        """Returns a new dict from the name of every tensor to the dtype of ``get_tensor``."""
        checkpoint = self._checkpoint
        return checkpoint._core.type_map(checkpoint._names)

    def debug_string(self) -> bytes:
        """Returns one line per tensor: its name, its type in TensorFlow's enum, its shape."""
        return self._checkpoint._core.debug_string()


def NewCheckpointReader(filepattern: PathLike) -> CheckpointReader:
    """Opens a checkpoint, as ``tf.compat.v1.train.NewCheckpointReader`` does.

    Args:
        filepattern: As for ``tensorbundle.open``.
    """
    return CheckpointReader(filepattern)


def load_checkpoint(ckpt_dir_or_file: PathLike) -> CheckpointReader:
    """Opens a checkpoint, as ``tf.train.load_checkpoint`` does.

    Args:
        ckpt_dir_or_file: A directory, or any other path that ``tensorbundle.open`` accepts.

    Raises:
        ValueError: The directory has no checkpoint.
        CheckpointNotFoundError: The checkpoint does not exist.
    """
    return CheckpointReader(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: PathLike) -> list[tuple[str, list[int]]]:
    """Returns (name, shape) of every tensor by name, as ``tf.train.list_variables`` does."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: PathLike, name: str | bytes) -> Any:
    """Reads one tensor, as ``tf.train.load_variable`` does.

    Args:
        ckpt_dir_or_file: As for ``load_checkpoint``.
        name: A key, or the full name of a variable in the object graph; one trailing ``":0"`` is
            ignored.

    Raises:
        TensorNotFoundError: The checkpoint has no such tensor, or (AmbiguousNameError) several
            tensors have this full name.
    """
    if isinstance(name, str):
        name = name.removesuffix(":0")
    elif isinstance(name, bytes):
        name = name.removesuffix(b":0")
    else:
        raise TypeError(f"name must be a str or bytes, not {type(name).__name__}")
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name)
