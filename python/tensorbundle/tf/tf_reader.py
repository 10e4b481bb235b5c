# SPDX-License-Identifier: Apache-2.0
"""The reader that replaces TensorFlow's, and the paths that are passed on to TensorFlow's."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import tensorflow as tf

from tensorbundle import compat
from tensorbundle.error_classes import ErrorClasses
from tensorbundle.filenames import INDEX_SUFFIX, v1_pattern_parts
from tensorbundle.strict_reader import StrictReader
from tensorbundle.tf import errors


class CheckpointReader(StrictReader):
    """A drop-in replacement for TensorFlow's checkpoint reader."""

    _errors: ClassVar[ErrorClasses] = errors.CLASSES
    _as_dtype = staticmethod(tf.as_dtype)


def NewCheckpointReader(filepattern: compat.PathLike) -> CheckpointReader:
    """As ``tensorbundle.NewCheckpointReader``, for TensorFlow's callers.

    Raises:
        tf.errors.DataLossError: Among others, a directory without a checkpoint: TensorFlow's
            function does not accept directories, and its callers take this for "not a checkpoint".
    """
    CheckpointReader.refuse_directory(filepattern)
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


_SPECIAL = frozenset("*?[\\")
_FILE = "file://"


def is_handled_by_tensorflow(function: str, path: Any) -> bool:
    """Whether a call must be passed on to TensorFlow's original function.

    Args:
        function: The name of TensorFlow's function.
        path: Its checkpoint argument.
    """
    is_reader = function == "NewCheckpointReader"
    if not isinstance(path, (str, bytes)):
        return is_reader and isinstance(path, os.PathLike)
    text = os.fsdecode(path).removeprefix(_FILE)
    if "\0" in text:
        return False  # TensorFlow would read another path.
    pattern = v1_pattern_parts(text)
    if _SPECIAL & set(text if pattern is None else pattern[0]):
        return True
    if isinstance(path, str) and text.encode(errors="replace").decode() != text:  # not UTF-8
        return True
    if os.path.isdir(text):
        # A prefix and a directory may have the same name.
        return os.path.exists(text + INDEX_SUFFIX) if is_reader else isinstance(path, bytes)
    return text.endswith(INDEX_SUFFIX) and os.path.exists(text)
