# SPDX-License-Identifier: Apache-2.0
"""The checkpoint of a load plan: its tensors by name, and whether they can be mapped.

No values are read. ``tf`` adds a checkpoint that only TensorFlow's reader can open.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

from tensorbundle.checkpoint import Checkpoint
from tensorbundle.load_plan import Stored
from tensorbundle.naming import OBJECT_GRAPH
from tensorbundle.variables import Slice

# The alignment that TensorFlow requires of a buffer.
ALIGNMENT = 64


class LoadSource:
    """A checkpoint whose index has been read. This class is one that does not exist (yet).

    Attributes:
        label: Its name in messages and the log.
        prefix: The prefix that ops get. Relative if the caller's path is.
        absent: The exception for the missing checkpoint; None if it exists.
        is_remote: Whether only TensorFlow's own reader can read it.
    """

    is_remote = False

    def __init__(self, label: str, prefix: bytes, absent: Exception | None = None) -> None:
        """Stores the attributes."""
        self.label = label
        self.prefix = prefix
        self.absent = absent

    def find(self, _name: Any) -> Stored | None:
        """Returns the tensor with that key, else with that full name in the object graph, or None.

        Raises:
            TensorNotFoundError: Several variables have that full name.
        """
        return None

    def names(self) -> Sequence[str]:
        """Returns the keys of all tensors, sorted."""
        return ()

    def unmappable_reason(self, _key: str, _part: Slice | None) -> str | None:
        """Returns why a tensor, or a box of it, cannot be mapped, or None if it can.

        Requires that it is not always copied.
        """
        return "the checkpoint is not on a local file system"

    def is_always_copied(self, _key: str, _extent: Sequence[int]) -> bool:
        """Whether a tensor is never mapped: scalars, empty tensors, elements of variable size."""
        return False  # mapping is refused for another reason

    def is_object_based(self) -> bool:
        """Whether the checkpoint has an object graph, which names its variables.

        Raises:
            CorruptionError: The object graph is corrupt.
        """
        return OBJECT_GRAPH in self.names()

    def close(self) -> None:
        """Closes the checkpoint."""

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Returns the shape of the tensor of that name, or None."""
        stored = self.find(name)
        return None if stored is None else stored.shape

    def unused(self, used: Iterable[str]) -> tuple[str, ...]:
        """Returns the keys that are not in `used`, without the object graph's."""
        taken = {*used, OBJECT_GRAPH}
        return tuple(name for name in self.names() if name not in taken)


class LocalSource(LoadSource):
    """A checkpoint that this package has opened."""

    def __init__(self, label: str, checkpoint: Checkpoint) -> None:
        """Stores the checkpoint, which ``close`` closes."""
        super().__init__(label, os.fsencode(checkpoint.path))
        self._checkpoint = checkpoint

    def find(self, name: Any) -> Stored | None:
        """Implements `LoadSource`."""
        # Names are never bytes here.
        if not isinstance(name, str):
            return None
        found = self._checkpoint._find(name)
        return None if found is None else Stored(found.name, found.shape, found.type_number)

    def names(self) -> Sequence[str]:
        """Implements `LoadSource`."""
        return list(self._checkpoint)

    def unmappable_reason(self, key: str, part: Slice | None) -> str | None:
        """Implements `LoadSource`."""
        tensor = self._checkpoint._require(key)
        offset = (0,) * len(tensor.shape) if part is None else part.offset
        extent = tensor.shape if part is None else part.shape
        file, start, reason = tensor.locate_box(offset, extent)
        if reason:
            return reason
        if start % ALIGNMENT:
            return (
                f"it is at offset {start} of {file!r}, which is not a multiple of {ALIGNMENT}; "
                "rewrite the checkpoint with 'tensorbundle align'"
            )
        return None

    def is_always_copied(self, key: str, extent: Sequence[int]) -> bool:
        """Implements `LoadSource`."""
        tensor = self._checkpoint._require(key)
        return math.prod(extent) == 0 or not extent or tensor.dtype == object

    def is_object_based(self) -> bool:
        """Implements `LoadSource`."""
        graph = self._checkpoint.get(OBJECT_GRAPH)
        if graph is None:
            return False
        graph.read()  # raises the error of the graph, without which its names would be missing
        return True

    def close(self) -> None:
        """Implements `LoadSource`."""
        self._checkpoint.close()
