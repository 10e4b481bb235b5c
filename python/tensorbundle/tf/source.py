# SPDX-License-Identifier: Apache-2.0
"""The open checkpoint of one call, used while the graph is built."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tensorbundle import assignment, paths
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.filenames import AnyPath, path_text
from tensorbundle.load_plan import Stored
from tensorbundle.tensor import Tensor
from tensorbundle.tf import remote
from tensorbundle.tf.errors import as_tensorflow_raises, path_with_nul
from tensorbundle.variables import Slice

# The alignment that TensorFlow requires of a buffer.
ALIGNMENT = 64
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


class Source:
    """An open checkpoint. Only its index is read.

    Attributes:
        label: Its name in messages and the log.
        checkpoint: Our reader.
    """

    __slots__ = ("checkpoint", "label")

    def __init__(self, label: str, checkpoint: Checkpoint) -> None:
        """Keeps both."""
        self.label = label
        self.checkpoint = checkpoint

    @property
    def is_remote(self) -> bool:
        """Whether only TensorFlow's own reader and op can read it."""
        return False

    @property
    def prefix(self) -> bytes:
        """The prefix that ops get. Relative if the caller's path is."""
        return os.fsencode(self.checkpoint.path)

    @property
    def format(self) -> int:
        """2 or 1: the version of the checkpoint format."""
        return self.checkpoint.format

    def find(self, name: Any) -> Stored | None:
        """Returns the tensor with that key, else with that full name in the object graph, or None.

        Raises:
            TensorNotFoundError: Several variables have that full name.
        """
        # Names are never bytes here.
        if not isinstance(name, str):
            return None
        found = self.checkpoint._find(name)
        return None if found is None else Stored(found.name, found.shape, found.type_number)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Returns the shape of the tensor of that name, or None."""
        stored = self.find(name)
        return None if stored is None else stored.shape

    def tensor(self, key: str) -> Tensor:
        """Returns the tensor with that key.

        Raises:
            KeyError: There is no such key.
        """
        found = self.checkpoint._core.find(key)
        if found is None:
            raise KeyError(key)
        return Tensor(self.checkpoint, found)

    def unmappable_reason(self, key: str, part: Slice | None) -> str | None:
        """Returns why a tensor, or a box of it, cannot be mapped, or None if it can.

        Scalars, empty tensors and strings are copied in every mode; the result for them is None.
        """
        handle = self.tensor(key)
        offset = (0,) * handle.ndim if part is None else part.offset
        extent = handle.shape if part is None else part.extent
        if self.is_always_copied(key, extent):
            return None
        file, start, reason = handle._core.locate_box(offset, extent)
        if reason:
            return reason
        if start % ALIGNMENT:
            return (
                f"it is at offset {start} of {file!r}, which is not a multiple of {ALIGNMENT}; "
                "rewrite the checkpoint with 'tensorbundle align'"
            )
        return None

    def is_always_copied(self, key: str, extent: Sequence[int]) -> bool:
        """Whether a tensor is never mapped: scalars, empty tensors, elements of variable size."""
        return not extent or math.prod(extent) == 0 or self.tensor(key).dtype == object

    def is_object_based(self) -> bool:
        """Whether the checkpoint has an object graph.

        Raises:
            DataLossError: The object graph is corrupt.
        """
        from tensorbundle import warm_plan

        with as_tensorflow_raises():
            return warm_plan.is_object_based(self.checkpoint)

    def close(self) -> None:
        """Closes the checkpoint."""
        self.checkpoint.close()

    def for_plans(self) -> assignment.Source:
        """Returns the interface that plans use."""
        return assignment.Source(self.label, self.find, self._names)

    def unused(self, used: Iterable[str]) -> tuple[str, ...]:
        """Returns the keys that are not in `used`, without the object graph's."""
        taken = {*used, _OBJECT_GRAPH}
        return tuple(name for name in self.checkpoint._core.names() if name not in taken)

    def _names(self) -> Sequence[str]:
        return list(self.checkpoint)


def key_of(tensor: str) -> bytes:
    """Encodes a tensor's name as in checkpoints and in op attributes: bytes, not always UTF-8."""
    return tensor.encode("utf-8", "surrogateescape")


if TYPE_CHECKING:
    from tensorbundle.tf.remote_source import RemoteSource

# Both have the same interface.
AnySource: TypeAlias = "Source | RemoteSource"


def open_source(path: AnyPath, *, as_tensorflow: bool = False) -> AnySource:
    """Opens a checkpoint for the plans of one call.

    Args:
        path: The checkpoint.
        as_tensorflow: Accept only the paths that TensorFlow's functions accept.

    Raises:
        CheckpointNotFoundError, DataLossError, ...: As ``tensorbundle.open``, and as TensorFlow.
        ValueError: A directory without a checkpoint, or a NUL byte in the path.
        TypeError: Not a path.
    """
    if remote.is_remote(path):
        from tensorbundle.tf import remote_source

        return remote_source.open_remote(path)
    text = path_text(path)
    if "\0" in text:
        raise path_with_nul(text)
    with as_tensorflow_raises():
        where = paths.resolve(path, as_tensorflow=as_tensorflow)
        # Used for the index only: maps no data file.
        return Source(str(path), Checkpoint(where, verify="none", io="pread"))
