# SPDX-License-Identifier: Apache-2.0
"""Files that are not local (``ram://``, ``gs://``), read with ``tf.io.gfile`` for the op library.

The op library calls four functions of this module by ctypes: open, read, close, glob. It calls them
only in threads that run an op, and holds no lock meanwhile. Each op opens its own files, so that no
op reads an old version of a file that was replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
from typing import Any

import tensorflow as tf

_UNKNOWN = 2  # TF_UNKNOWN

_lock = threading.Lock()
_library: Any = None
_files: dict[int, _OpenFile] = {}  # by the number that the op library chose


class _OpenFile:
    """A file, and the offset of the next byte that it returns."""

    __slots__ = ("file", "position")

    def __init__(self, path: bytes) -> None:
        self.file = tf.io.gfile.GFile(path, "rb")
        self.position = 0


def _open(number: int, path: bytes, size: int, reply: int) -> int:
    try:
        found = tf.io.gfile.stat(path)
        _files[number] = _OpenFile(path)
        ctypes.c_int64.from_address(size).value = found.length
        return 0
    except BaseException as error:  # ctypes would print it and return 0
        return _failed(error, reply)


def _read(number: int, offset: int, size: int, out: int, reply: int) -> int:
    try:
        opened = _files[number]
        if opened.position != offset:
            opened.position = -1  # unknown, should seek() or read() fail
            opened.file.seek(offset)
        data = opened.file.read(size)
        count = min(len(data), size)
        opened.position = offset + count
        ctypes.memmove(out, data, count)
        return count
    except BaseException as error:
        return -_failed(error, reply)


def _close(number: int) -> None:
    with contextlib.suppress(BaseException):  # the file was only read: nothing is lost
        _files.pop(number).file.close()


def _glob(pattern: bytes, reply: int) -> int:
    try:
        for path in tf.io.gfile.glob([pattern]):  # a list, because the pattern is bytes
            _append(reply, path.encode() + b"\0")
        return 0
    except BaseException as error:
        return _failed(error, reply)


def _failed(error: BaseException, reply: int) -> int:
    """Passes the message on. Returns a TF_Code: that of an error of TensorFlow."""
    if isinstance(error, tf.errors.OpError):
        _append(reply, str(error.message).encode(errors="replace"))
        return int(error.error_code) or _UNKNOWN
    _append(reply, f"{type(error).__name__}: {error}".encode(errors="replace"))
    return _UNKNOWN


def _append(reply: int, data: bytes) -> None:
    _library.tensorbundle_tf_append(
        ctypes.c_void_p(reply), ctypes.c_char_p(data), ctypes.c_size_t(len(data))
    )


_int64, _pointer = ctypes.c_int64, ctypes.c_void_p
# ctypes keeps no reference to them.
_FUNCTIONS = (
    ctypes.CFUNCTYPE(ctypes.c_int, _int64, ctypes.c_char_p, _pointer, _pointer)(_open),
    ctypes.CFUNCTYPE(_int64, _int64, _int64, _int64, _pointer, _pointer)(_read),
    ctypes.CFUNCTYPE(None, _int64)(_close),
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, _pointer)(_glob),
)


def register(path: bytes) -> None:
    """Lets an op library read files that are not local, until the interpreter ends.

    The library calls this when it first needs it: the one that serves the process, which need not
    be the library of this package.

    Args:
        path: The library, which is loaded.
    """
    global _library
    with _lock:
        if _library is None:
            library = ctypes.CDLL(os.fsdecode(path), os.RTLD_NOLOAD)
            atexit.register(library.tensorbundle_tf_set_remote_files, *[None] * len(_FUNCTIONS))
            _library = library
            library.tensorbundle_tf_set_remote_files(*_FUNCTIONS)
