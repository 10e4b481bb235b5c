# SPDX-License-Identifier: Apache-2.0
"""The open checkpoint of one call, used while the graph is built.

The package's reader opens local paths, TensorFlow's reader opens remote ones.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.training import checkpoint_utils, saver

from tensorbundle import assignment, paths, warm_plan
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import CheckpointNotFoundError
from tensorbundle.filenames import AnyPath, path_text
from tensorbundle.load_plan import Stored
from tensorbundle.naming import OBJECT_GRAPH
from tensorbundle.tf.errors import as_tensorflow_raises, path_with_nul
from tensorbundle.variables import Slice

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")

# The alignment that TensorFlow requires of a buffer.
ALIGNMENT = 64


def is_remote(path: Any) -> bool:
    """Whether a path is on a remote file system: ``gs://``, ``hdfs://``, ``ram://``.

    ``file://`` is local. Returns False for anything that is not a path.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        return False
    found = _SCHEME.match(text)
    return found is not None and found["scheme"].lower() != "file"


class CheckpointIndex:
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
        """Whether the checkpoint has an object graph.

        Raises:
            DataLossError: The object graph is corrupt.
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

    def for_plans(self) -> assignment.Source:
        """Returns the interface that plans use."""
        return assignment.Source(self.label, self.find, self.names)


def open_index(
    path: AnyPath, *, as_tensorflow: bool = False, must_exist: bool = True
) -> CheckpointIndex:
    """Opens a checkpoint for the plans of one call.

    Args:
        path: The checkpoint.
        as_tensorflow: Accept only the paths that TensorFlow's functions accept.
        must_exist: Whether a local checkpoint that does not exist, but might later, is an error.

    Raises:
        CheckpointNotFoundError, DataLossError, ...: As ``tensorbundle.open``, and as TensorFlow.
        ValueError: A directory without a checkpoint, or a NUL byte in the path.
        TypeError: Not a path.
    """
    if is_remote(path):
        return _RemoteIndex(path)
    text = path_text(path)
    if "\0" in text:
        raise path_with_nul(text)
    try:
        with as_tensorflow_raises():
            where = paths.resolve(path, as_tensorflow=as_tensorflow)
            # Used for the index only: maps no data file.
            return _LocalIndex(str(path), Checkpoint(where, verify="none", io="pread"))
    except CheckpointNotFoundError as error:
        if must_exist or isinstance(error, ValueError):  # the path can never become a checkpoint's
            raise
        return CheckpointIndex(str(path), os.fsencode(path), error)


class _LocalIndex(CheckpointIndex):
    """A checkpoint that our reader has opened."""

    def __init__(self, label: str, checkpoint: Checkpoint) -> None:
        super().__init__(label, os.fsencode(checkpoint.path))
        self._checkpoint = checkpoint

    def find(self, name: Any) -> Stored | None:
        # Names are never bytes here.
        if not isinstance(name, str):
            return None
        found = self._checkpoint._find(name)
        return None if found is None else Stored(found.name, found.shape, found.type_number)

    def names(self) -> Sequence[str]:
        return list(self._checkpoint)

    def unmappable_reason(self, key: str, part: Slice | None) -> str | None:
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
        tensor = self._checkpoint._require(key)
        return math.prod(extent) == 0 or not extent or tensor.dtype == object

    def is_object_based(self) -> bool:
        with as_tensorflow_raises():
            return warm_plan.is_object_based(self._checkpoint)

    def close(self) -> None:
        self._checkpoint.close()


class _RemoteIndex(CheckpointIndex):
    """What TensorFlow's own reader reports, with its exceptions."""

    is_remote = True

    def __init__(self, path: Any) -> None:
        reader = tf.train.load_checkpoint(path)
        super().__init__(str(path), os.fsencode(checkpoint_utils._get_checkpoint_filename(path)))
        self._shapes: Mapping[str, list[int]] = reader.get_variable_to_shape_map()
        self._dtypes: Mapping[str, Any] = reader.get_variable_to_dtype_map()

    @functools.cached_property
    def _keys(self) -> Mapping[str, str]:
        """Keys by full name, of an object-based checkpoint."""
        if not self.is_object_based():
            return {}
        keys: Mapping[str, str] = saver.object_graph_key_mapping(os.fsdecode(self.prefix))
        return keys

    def find(self, name: Any) -> Stored | None:
        if not isinstance(name, str):
            return None
        key = name if name in self._shapes else self._keys.get(name)
        if key is None or key not in self._shapes:
            return None
        return Stored(key, tuple(self._shapes[key]), self._dtypes[key].as_datatype_enum)

    def names(self) -> Sequence[str]:
        return sorted(self._shapes)
