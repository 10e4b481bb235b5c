# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's checkpoint reader by TensorFlow's names, without TensorFlow.

Behaviour follows ``tf.train.load_checkpoint`` and its kin, except where those are wrong: paths are
names and not glob patterns, V1 tensors stored in slices are assembled, and a failed read spoils no
later one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tensorbundle import dtypes
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import AmbiguousNameError

PathLike = str | bytes | os.PathLike[Any]


class CheckpointReader:
    """Reads one checkpoint, as the object that ``tf.train.load_checkpoint`` returns does."""

    def __init__(self, filepattern: PathLike) -> None:
        """Opens the checkpoint.

        Args:
            filepattern: As for ``tensorbundle.open``.

        Raises:
            CheckpointNotFoundError: There is no checkpoint there.
            CorruptionError: Its index is damaged.
        """
        self._checkpoint = Checkpoint(filepattern)

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Whether ``get_tensor`` finds a tensor of that name.

        A full name of the object graph counts, unless several tensors have it. (TensorFlow's reader
        knows keys only.)
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
            TensorNotFoundError: There is no tensor of that name, or (AmbiguousNameError) several
                have that full name.
            CorruptionError: The stored bytes are damaged.
        """
        checkpoint = self._checkpoint
        found = checkpoint._core.get_tensor(tensor_str)
        return checkpoint[tensor_str].read() if found is None else found

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """A new dict from the name of every tensor to its shape."""
        return self._checkpoint._core.shape_map(self._checkpoint._names)

    def get_variable_to_dtype_map(self) -> dict[str, np.dtype[Any]]:
        """A new dict from the name of every tensor to the dtype that ``get_tensor`` returns."""
        checkpoint = self._checkpoint
        return checkpoint._core.type_map(checkpoint._names)

    def debug_string(self) -> bytes:
        """One line per tensor: its name, its type as TensorFlow's enum spells it, its shape."""
        lines = [
            f"{name} ({dtypes.enum_name(number)}) [{','.join(map(str, shape))}]\n"
            for name, shape, number in self._checkpoint._core.listing(self._checkpoint._names)
        ]
        return "".join(lines).encode("utf-8", "surrogateescape")


def NewCheckpointReader(filepattern: PathLike) -> CheckpointReader:
    """Opens a checkpoint, as ``tf.compat.v1.train.NewCheckpointReader`` does.

    Args:
        filepattern: As for ``tensorbundle.open``.
    """
    return CheckpointReader(filepattern)


def load_checkpoint(ckpt_dir_or_file: PathLike) -> CheckpointReader:
    """Opens a checkpoint, as ``tf.train.load_checkpoint`` does.

    Args:
        ckpt_dir_or_file: A directory, or anything else that ``tensorbundle.open`` takes.

    Raises:
        ValueError: A directory without a checkpoint.
        CheckpointNotFoundError: There is no checkpoint there.
    """
    return CheckpointReader(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: PathLike) -> list[tuple[str, list[int]]]:
    """The name and shape of every tensor, sorted by name, as ``tf.train.list_variables`` does."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: PathLike, name: str | bytes) -> Any:
    """Reads one tensor, as ``tf.train.load_variable`` does.

    Args:
        ckpt_dir_or_file: As for ``load_checkpoint``.
        name: A key, or the full name of a variable in the object graph; one trailing ``":0"`` is
            ignored.

    Raises:
        TensorNotFoundError: There is no tensor of that name, or (AmbiguousNameError) several have
            that full name.
    """
    if isinstance(name, str):
        name = name.removesuffix(":0")
    elif isinstance(name, bytes):
        name = name.removesuffix(b":0")
    else:
        raise TypeError(f"name must be a str or bytes, not {type(name).__name__}")
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name)
