# SPDX-License-Identifier: Apache-2.0
"""The exceptions that the stand-in raises: ours, and also those of its ``tf.errors``.

An error of a file is also an ``OSError`` with its number, and maps to the status code to which
TensorFlow maps the number.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from tensorbundle.error_classes import ErrorClasses
from tensorbundle.errors import Error, IOFailure, UnsupportedError, _MissingFileError
from tensorbundle.tensorflow_api import errors

CLASSES = ErrorClasses(errors, __name__)

# Pickles refer to the classes by these names.
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

NotFoundError = CLASSES.create("NotFoundError", _MissingFileError, errors.NotFoundError)
AlreadyExistsError = CLASSES.create("AlreadyExistsError", IOFailure, errors.AlreadyExistsError)
FailedPreconditionError = CLASSES.create(
    "FailedPreconditionError", IOFailure, errors.FailedPreconditionError
)
InvalidArgumentError = CLASSES.create(
    "InvalidArgumentError", IOFailure, errors.InvalidArgumentError
)
OutOfRangeError = CLASSES.create("OutOfRangeError", IOFailure, errors.OutOfRangeError)
ResourceExhaustedError = CLASSES.create(
    "ResourceExhaustedError", IOFailure, errors.ResourceExhaustedError
)
UnknownError = CLASSES.create("UnknownError", IOFailure, errors.UnknownError)

_BY_ERRNO = {
    number: kind
    for kind, numbers in {
        NotFoundError: [errno.ENOENT, errno.ENODEV, errno.ENXIO],
        AlreadyExistsError: [errno.EEXIST],
        InvalidArgumentError: [errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.ESPIPE],
        PermissionDeniedError: [errno.EACCES, errno.EPERM, errno.EROFS],
        FailedPreconditionError: [
            *(errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY),
            *(errno.EBUSY, errno.EBADF, errno.ETXTBSY, errno.EPIPE),
        ],
        ResourceExhaustedError: [
            *(errno.ENOSPC, errno.EDQUOT, errno.ENOMEM),
            *(errno.EMFILE, errno.ENFILE, errno.EMLINK),
        ],
        OutOfRangeError: [errno.EFBIG, errno.EOVERFLOW],
        UnimplementedError: [errno.ENOSYS, errno.ENOTSUP, errno.EXDEV],
    }.items()
    for number in numbers
}


def file_error(number: int, path: str) -> Exception:
    """Returns the exception for the system's error number, with TensorFlow's message."""
    kind = _BY_ERRNO.get(number, UnknownError)
    message = f"{path}; {os.strerror(number)}"
    return kind(message, path, number)


@contextlib.contextmanager
def as_tensorflow_raises(path: str) -> Iterator[None]:
    """Converts ``OSError`` and our exceptions to those of this module.

    Args:
        path: The path for the message.
    """
    try:
        yield
    except (errors.OpError, MemoryError):
        raise
    except UnsupportedError as error:
        raise CLASSES.translated(error) from error
    except Error:
        raise
    except OSError as error:
        raise file_error(error.errno or errno.EIO, path) from None
