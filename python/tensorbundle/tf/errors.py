# SPDX-License-Identifier: Apache-2.0
"""Exceptions that are both ours and TensorFlow's (``error_classes``)."""

from __future__ import annotations

import tensorflow as tf

from tensorbundle import errors
from tensorbundle.error_classes import ErrorClasses

CLASSES = ErrorClasses(tf.errors, __name__)

CheckpointNotFoundError = CLASSES.CheckpointNotFoundError
VocabularyNotFoundError = CLASSES.VocabularyNotFoundError
TensorNotFoundError = CLASSES.TensorNotFoundError
AmbiguousNameError = CLASSES.AmbiguousNameError
DataLossError = CLASSES.DataLossError
TruncationError = CLASSES.TruncationError
ShapeMismatchError = CLASSES.ShapeMismatchError
UnimplementedError = CLASSES.UnimplementedError
InternalError = CLASSES.InternalError
PermissionDeniedError = CLASSES.PermissionDeniedError

PathError = CLASSES.create(
    "PathError", errors.CheckpointNotFoundError, tf.errors.NotFoundError, ValueError
)
InvalidArgumentError = CLASSES.create(
    "InvalidArgumentError", errors.Error, tf.errors.InvalidArgumentError, ValueError
)

translated = CLASSES.translated
as_tensorflow_raises = CLASSES.as_tensorflow_raises


def path_with_nul(path: str) -> Exception:
    """Returns the exception for a path with a NUL byte: NotFoundError and ValueError."""
    return PathError(f"a path cannot hold a NUL byte: {path!r}", path)
