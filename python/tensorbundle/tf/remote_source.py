# SPDX-License-Identifier: Apache-2.0
"""A checkpoint on a remote file system, opened by TensorFlow's own reader."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorbundle import assignment
from tensorbundle.load_plan import Stored
from tensorbundle.tf import remote

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


class RemoteSource:
    """The checkpoint of one call, with the interface of `Source`.

    Attributes:
        label: Its name in messages and the log.
        prefix: The prefix that ops get.
        shapes: By key.
        dtypes: ``tf.DType``s by key.
    """

    is_remote = True

    def __init__(
        self,
        label: str,
        prefix: bytes,
        shapes: Mapping[str, list[int]],
        dtypes: Mapping[str, Any],
    ) -> None:
        """Stores what TensorFlow's reader reports."""
        self.label = label
        self.prefix = prefix
        self.shapes = shapes
        self.dtypes = dtypes

    @functools.cached_property
    def _keys(self) -> Mapping[str, str]:
        """Keys by full name, of an object-based checkpoint."""
        from tensorflow.python.training import saver

        if _OBJECT_GRAPH not in self.shapes:
            return {}
        keys: Mapping[str, str] = saver.object_graph_key_mapping(os.fsdecode(self.prefix))
        return keys

    def find(self, name: Any) -> Stored | None:
        """Returns the tensor of that key, else of that full name in the object graph, or None."""
        if not isinstance(name, str):
            return None
        key = name if name in self.shapes else self._keys.get(name)
        if key is None or key not in self.shapes:
            return None
        return Stored(key, tuple(self.shapes[key]), self.dtypes[key].as_datatype_enum)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Returns the shape of the tensor of that name, or None."""
        stored = self.find(name)
        return None if stored is None else stored.shape

    def is_object_based(self) -> bool:
        """Whether the checkpoint has an object graph."""
        return _OBJECT_GRAPH in self.shapes

    def unused(self, used: Iterable[str]) -> tuple[str, ...]:
        """Returns the keys that are not in `used`, without the object graph's."""
        taken = {*used, _OBJECT_GRAPH}
        return tuple(sorted(name for name in self.shapes if name not in taken))

    def for_plans(self) -> assignment.Source:
        """Returns the interface that plans use."""
        return assignment.Source(self.label, self.find, self._names)

    def unmappable_reason(self, *_: Any) -> str:
        """Returns why its tensors cannot be mapped."""
        return "the checkpoint is not on a local file system"

    def is_always_copied(self, *_: Any) -> bool:
        """Returns False: mapping is refused for another reason."""
        return False

    def close(self) -> None:
        """Does nothing: TensorFlow's reader is closed already."""

    def _names(self) -> Sequence[str]:
        return sorted(self.shapes)


def open_remote(path: Any) -> RemoteSource:
    """Opens a checkpoint with TensorFlow's own reader, and raises its exceptions."""
    from tensorflow.python.training import checkpoint_utils

    reader = remote.original_function("load_checkpoint")(path)
    return RemoteSource(
        str(path),
        os.fsencode(checkpoint_utils._get_checkpoint_filename(path)),
        reader.get_variable_to_shape_map(),
        reader.get_variable_to_dtype_map(),
    )
