# SPDX-License-Identifier: Apache-2.0
"""Files that are not local (``ram://``, ``gs://``), read with ``tf.io.gfile`` for the op library.

The op library calls functions of this module by ctypes: open, read, close, glob. It calls them
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
    """A file, the bytes that the op library copies, and the offset of the byte after them."""

    __slots__ = ("data", "file", "position")

    def __init__(self, path: bytes) -> None:
        self.file = tf.io.gfile.GFile(path, "rb")
        self.position = 0
        self.data = b""


# The functions write a number to `result`, or for an error its negative TF_Code. They return
# nothing: the return value of a ctypes callback is undefined if a signal handler raises in it.


def _open(number: int, path: bytes, max_whole: int, result: int, reply: int) -> None:
    try:
        size = tf.io.gfile.stat(path).length
        opened = _OpenFile(path)
        if size > max_whole:
            _files[number] = opened
        elif size >= 0:
            with opened.file:
                whole = opened.file.read(size)
            size = len(whole)
            _append(reply, whole)
        _set(result, size if size >= 0 else -_UNKNOWN)
    except BaseException as error:
        _fail(error, result, reply)


def _read(number: int, offset: int, size: int, data: int, result: int, reply: int) -> None:
    try:
        opened = _files[number]
        if opened.position != offset:
            opened.file.seek(offset)
        opened.position = -1  # unknown, should read() fail
        opened.data = b""  # its memory is in the cache, and can be used again
        opened.data = opened.file.read(size)
        count = min(len(opened.data), size)
        _pointer.from_address(data).value = _address_of(opened.data)
        opened.position = offset + count
        _set(result, count)
    except BaseException as error:
        _fail(error, result, reply)


def _close(number: int) -> None:
    with contextlib.suppress(BaseException):  # the file was only read: nothing is lost
        _files.pop(number).file.close()


def _glob(pattern: bytes, result: int, reply: int) -> None:
    try:
        for path in tf.io.gfile.glob([pattern]):  # a list, because the pattern is bytes
            _append(reply, path.encode() + b"\0")
        _set(result, 0)
    except BaseException as error:
        _fail(error, result, reply)


def _fail(error: BaseException, result: int, reply: int) -> None:
    code = _UNKNOWN
    if isinstance(error, tf.errors.OpError):
        code = int(error.error_code) or _UNKNOWN
        _append(reply, str(error.message).encode(errors="replace"))
    elif isinstance(error, KeyboardInterrupt):
        return  # the op library calls again, and repeats the interrupt after the op
    else:
        _append(reply, f"{type(error).__name__}: {error}".encode(errors="replace"))
    _set(result, -code)


def _set(result: int, value: int) -> None:
    ctypes.c_int64.from_address(result).value = value


def _append(reply: int, data: bytes) -> None:
    _library.tensorbundle_tf_append(
        ctypes.c_void_p(reply), ctypes.c_char_p(data), ctypes.c_size_t(len(data))
    )


_int64, _pointer = ctypes.c_int64, ctypes.c_void_p
_address_of = ctypes.pythonapi["PyBytes_AsString"]
_address_of.argtypes, _address_of.restype = (ctypes.py_object,), _pointer
# ctypes keeps no reference to them.
_FUNCTIONS = (
    ctypes.CFUNCTYPE(None, _int64, ctypes.c_char_p, _int64, _pointer, _pointer)(_open),
    ctypes.CFUNCTYPE(None, _int64, _int64, _int64, _pointer, _pointer, _pointer)(_read),
    ctypes.CFUNCTYPE(None, _int64)(_close),
    ctypes.CFUNCTYPE(None, ctypes.c_char_p, _pointer, _pointer)(_glob),
    ctypes.pythonapi["PyErr_SetInterrupt"],
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
            # While the interpreter ends, an op may still copy the bytes of a file.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_files))
            _library = library
            library.tensorbundle_tf_set_remote_files(*_FUNCTIONS)
