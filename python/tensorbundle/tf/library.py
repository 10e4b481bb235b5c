# SPDX-License-Identifier: Apache-2.0
"""The op library: where it is, and how it gets into TensorFlow once and not twice.

Two copies of it in one process would register every kernel twice, after which TensorFlow can run
none of them. So before anything is loaded, the ops that TensorFlow knows are compared with the
files that the process has mapped.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from tensorbundle import plugin

OPS = (
    "TensorbundleReadV1",
    "TensorbundleMapV1",
    "TensorbundleVerifyV1",
    "TensorbundleMissingV1",
    "TensorbundleRemapV1",
)
_WRAPPER = "tensorbundle_read_v1"

_lock = threading.RLock()
_module: ModuleType | None = None
_reason: str | None = None


def find() -> Path | None:
    """The library of this package, or None where it was built without."""
    return plugin.find_library()


def load_op_library() -> ModuleType:
    """Loads the ops into TensorFlow. For the script of a parameter server, before its `Server`.

    Calling it again does nothing. Imports TensorFlow.

    Returns:
        A module with a function for each op, as ``tf.load_op_library`` makes it.

    Raises:
        RuntimeError: The ops cannot be loaded; the message says why.
    """
    module = load()
    if module is None:
        raise RuntimeError(f"the op library of tensorbundle cannot be loaded: {_reason}")
    return module


def load() -> ModuleType | None:
    """The same, but None instead of an exception; `why_not` then says why.

    A failure is remembered: nothing that the process can do later makes a library fit.
    """
    global _module, _reason
    with _lock:
        if _module is None and _reason is None:
            try:
                _module = _load()
            except _CannotLoadError as error:
                _reason = str(error)
        return _module


def why_not() -> str | None:
    """Why the ops are not there, in one line, or None when they are."""
    load()
    return _reason


def state() -> str:
    """In a few words, for reports; loads nothing."""
    if _module is not None:
        return "loaded"
    return "not loaded" if _reason is None else f"cannot be loaded: {_reason}"


class _CannotLoadError(Exception):
    """Carries the reason from where it is found to where it is kept."""


def _load() -> ModuleType:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise _CannotLoadError(f"TensorFlow cannot be imported: {error}") from error
    path = find()
    if path is None:
        raise _CannotLoadError("this installation of tensorbundle was built without it")
    _check_only_copy(path)
    try:
        module: ModuleType = tf.load_op_library(str(path))
        if not hasattr(module, _WRAPPER):
            module = _wrap_registered()
    except (tf.errors.OpError, OSError, ImportError, AttributeError) as error:
        raise _CannotLoadError(f"{path}: {' '.join(str(error).split())}") from error
    if not hasattr(module, _WRAPPER):
        raise _CannotLoadError(f"{path}: {_problem(path) or 'it registered nothing'}")
    return module


def _wrap_registered() -> ModuleType:
    """Functions for the ops that TensorFlow knows already.

    It remembers which ops came with which path. Where the same file came by another one, the link
    of the plugin for instance, it has nothing to say about ours.
    """
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.framework import _pywrap_python_op_gen, op_def_registry

    known = [op for name in OPS if (op := op_def_registry.get(name)) is not None]
    source = _pywrap_python_op_gen.GetPythonWrappers(
        op_def_pb2.OpList(op=known).SerializeToString()
    )
    module = ModuleType("tensorbundle_ops")
    exec(source, module.__dict__)  # as tf.load_op_library does
    return module


def _check_only_copy(path: Path) -> None:
    """Raises when the ops are in the process already, but from another file than `path`."""
    others = [other for other in loaded_copies() if not _same_file(other, path)]
    if others:
        raise _CannotLoadError(
            f"another copy of it is loaded already, {others[0]}, and a second one ({path}) would "
            "break both; if it came from tensorflow-plugins, `tensorbundle plugin status` says more"
        )


def loaded_copies() -> list[str]:
    """The files named like the op library that this process has mapped, on Linux."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    # address perms offset dev inode path, and " (deleted)" after a file that is gone
    paths = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(
        p for p in paths if os.path.basename(p).removesuffix(" (deleted)") == plugin.LIBRARY
    )


def _same_file(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _problem(path: Path) -> str:
    """What the library itself says is wrong."""
    library: Any = ctypes.CDLL(str(path))  # loaded already: the same handle
    library.tensorbundle_tf_error.restype = ctypes.c_char_p
    text: bytes = library.tensorbundle_tf_error()
    return text.decode(errors="replace")
