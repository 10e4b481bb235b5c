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

from tensorbundle import dtypes, reader
from tensorbundle.errors import TensorNotFoundError

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
        self._checkpoint = reader.open(filepattern)

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Whether there is a tensor of that name. Names in an object graph do not count."""
        return self._index(tensor_str) is not None

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Reads a tensor whole and compares its checksum.

        Returns:
            An array that the caller owns and may write to. Rank 0: a NumPy scalar, or ``bytes``.
            Strings are an object array of ``bytes``.

        Raises:
            TensorNotFoundError: There is no tensor of that name.
            CorruptionError: The stored bytes are damaged.
        """
        index = self._index(tensor_str)
        if index is None:
            raise TensorNotFoundError(self._checkpoint._not_found(tensor_str))
        return self._checkpoint._tensor(index).read()

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """A new dict from the name of every tensor to its shape."""
        return self._checkpoint._opened.shape_map(self._checkpoint._names)

    def get_variable_to_dtype_map(self) -> dict[str, np.dtype[Any]]:
        """A new dict from the name of every tensor to the dtype that ``get_tensor`` returns."""
        checkpoint = self._checkpoint
        return checkpoint._opened.type_map(checkpoint._names, dtypes.BY_NUMBER)

    def debug_string(self) -> bytes:
        """One line per tensor: its name, its type as TensorFlow's enum spells it, its shape."""
        lines = [
            f"{name} ({dtypes.enum_name(number)}) [{','.join(map(str, shape))}]\n"
            for _, name, shape, number in self._checkpoint._opened.listing(self._checkpoint._names)
        ]
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _index(self, name: str | bytes) -> int | None:
        if not isinstance(name, (str, bytes)):
            raise TypeError(f"a tensor's name is a str or bytes, not {type(name).__name__}")
        key = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
        return self._checkpoint._opened.find(key)


def NewCheckpointReader(filepattern: PathLike) -> CheckpointReader:
    """Opens a checkpoint, as ``tf.compat.v1.train.NewCheckpointReader`` does.

    Args:
        filepattern: As for ``tensorbundle.open``.
    """
    return CheckpointReader(filepattern)


def load_checkpoint(ckpt_dir_or_file: PathLike) -> CheckpointReader:
    """Opens a checkpoint, as ``tf.train.load_checkpoint`` does.

    Args:
        ckpt_dir_or_file: A directory with a ``checkpoint`` file, or anything else that
            ``tensorbundle.open`` takes.

    Raises:
        ValueError: A directory without a checkpoint.
        CheckpointNotFoundError: There is no checkpoint there.
    """
    return CheckpointReader(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: PathLike) -> list[tuple[str, list[int]]]:
    """The name and shape of every tensor, sorted by name, as ``tf.train.list_variables`` does."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: PathLike, name: str) -> Any:
    """Reads one tensor, as ``tf.train.load_variable`` does.

    Args:
        ckpt_dir_or_file: As for ``load_checkpoint``.
        name: The tensor's name; one trailing ``":0"`` is ignored.

    Raises:
        TensorNotFoundError: There is no tensor of that name.
    """
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name.removesuffix(":0"))
