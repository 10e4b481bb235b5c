# SPDX-License-Identifier: Apache-2.0
"""The open checkpoint of one call, used while the graph is built (``load_source``).

The package's reader opens local paths, TensorFlow's reader opens remote ones.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.training import checkpoint_utils, saver

from tensorbundle import paths
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import CheckpointNotFoundError
from tensorbundle.filenames import AnyPath, is_remote, path_text
from tensorbundle.load_plan import Stored
from tensorbundle.load_source import LoadSource, LocalSource
from tensorbundle.tf.errors import as_tensorflow_raises, path_with_nul


def open_index(
    path: AnyPath, *, as_tensorflow: bool = False, must_exist: bool = True
) -> LoadSource:
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
        return _RemoteSource(path)
    text = path_text(path)
    if "\0" in text:
        raise path_with_nul(text)
    try:
        with as_tensorflow_raises():
            where = paths.resolve(path, as_tensorflow=as_tensorflow)
            # Used for the index only: maps no data file.
            return LocalSource(str(path), Checkpoint(where, verify="none", io="pread"))
    except CheckpointNotFoundError as error:
        if must_exist or isinstance(error, ValueError):  # the path can never become a checkpoint's
            raise
        return LoadSource(str(path), os.fsencode(path), error)


class _RemoteSource(LoadSource):
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
