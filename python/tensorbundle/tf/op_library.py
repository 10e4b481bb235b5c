# SPDX-License-Identifier: Apache-2.0
"""Loading of the op library into TensorFlow, at most once per process.

Two copies of it in one process would register every kernel twice, and TensorFlow could run none of
them. So the files that the process has mapped are checked before the library is loaded.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Mapping, Sequence
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
STOCK_OPS = ("RestoreV2", "GenerateVocabRemapping", "LoadAndRemapMatrix")
_WRAPPER = "tensorbundle_read_v1"

_lock = threading.RLock()
_module: ModuleType | None = None
_reason: str | None = None


def find() -> Path | None:
    """Returns the library of this package, or None if it was built without one."""
    return plugin.find_library()


def load_op_library() -> ModuleType:
    """Loads the ops into TensorFlow. In a parameter server's script, call it before `Server`.

    Further calls do nothing. Imports TensorFlow.

    Returns:
        A module with a function for each op, as ``tf.load_op_library`` returns.

    Raises:
        RuntimeError: The ops cannot be loaded; the message says why.
    """
    module = load()
    if module is None:
        raise RuntimeError(f"the op library of tensorbundle cannot be loaded: {_reason}")
    return module


def load() -> ModuleType | None:
    """As ``load_op_library``, but returns None on failure; see ``unavailable_reason``.

    A failure is permanent: nothing in the process can change its cause.
    """
    global _module, _reason
    with _lock:
        if _module is None and _reason is None:
            try:
                _module = _load()
            except _CannotLoadError as error:
                _reason = str(error)
        return _module


def unavailable_reason() -> str | None:
    """Returns in one line why the ops cannot be used, or None if they can."""
    load()
    return _reason


def state() -> str:
    """Returns a short description for reports. Loads nothing."""
    if _module is not None:
        return "loaded"
    return "not loaded" if _reason is None else f"cannot be loaded: {_reason}"


class _CannotLoadError(Exception):
    """The library cannot be loaded; the message is the reason."""


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
        raise _CannotLoadError(f"{path}: {_load_error(path) or 'it registered nothing'}")
    return module


def _wrap_registered() -> ModuleType:
    """Returns functions for the ops that are registered already.

    TensorFlow keeps the ops of each library by path. If the same file was loaded by another path,
    for example the link of the plugin, ``tf.load_op_library`` finds no ops.
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
    """Raises _CannotLoadError if the process has loaded the ops from another file than `path`."""
    others = [other for other in loaded_copies() if not _same_file(other, path)]
    if others:
        raise _CannotLoadError(
            f"another copy of it is loaded already, {others[0]}, and a second one ({path}) would "
            "break both; if it came from tensorflow-plugins, `tensorbundle plugin status` says more"
        )


def register_kernels() -> None:
    """Registers kernels for RestoreV2, GenerateVocabRemapping and LoadAndRemapMatrix.

    From now on they serve these ops in the whole process; they cannot be unregistered. Further
    calls do nothing.

    Raises:
        RuntimeError: The op library cannot be loaded, or TensorFlow refuses the kernels.
    """
    from tensorflow.python.eager import context

    load_op_library()
    from tensorbundle.tf import remote_files  # imports TensorFlow

    remote_files.register(c_library())
    message = ctypes.create_string_buffer(4096)
    if c_library().tensorbundle_tf_register_kernels(message, ctypes.c_size_t(len(message))):
        raise RuntimeError(f"cannot register kernels: {message.value.decode(errors='replace')}")
    # Ops that ran before keep TensorFlow's kernels until then.
    context.context().clear_kernel_cache()


def kernel_calls() -> dict[str, int]:
    """Returns how many calls of each op of TensorFlow the registered kernels have served."""
    calls = (ctypes.c_int64 * len(STOCK_OPS))()
    c_library().tensorbundle_tf_kernel_calls(calls)
    return dict(zip(STOCK_OPS, calls, strict=True))


@functools.cache
def c_library() -> Any:
    """Returns the C functions of the op library, which is loaded."""
    return ctypes.CDLL(str(find()))


def loaded_copies() -> list[str]:
    """Returns the files with the op library's name that this process has mapped (Linux only)."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    # address perms offset dev inode path, with " (deleted)" after a deleted file
    paths = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(
        p for p in paths if os.path.basename(p).removesuffix(" (deleted)") == plugin.LIBRARY
    )


def _same_file(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _load_error(path: Path) -> str:
    """Returns the error that the library reports."""
    library: Any = ctypes.CDLL(str(path))  # loaded already: returns the same handle
    library.tensorbundle_tf_error.restype = ctypes.c_char_p
    text: bytes = library.tensorbundle_tf_error()
    return text.decode(errors="replace")


def create_op(
    kind: str,
    inputs: Sequence[Any],
    dtypes: Sequence[Any],
    name: str,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Creates an op on the current device, under the current control dependencies.

    Requires graph mode.

    Args:
        kind: The op's type.
        inputs: Tensors.
        dtypes: The types of the outputs.
        name: Used as is if it ends in ``/``; otherwise made unique inside the current scope.
        attributes: Those that TensorFlow cannot infer from the inputs or the op definition.

    Returns:
        The ``tf.Operation``.
    """
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    encoded = {key: _encoded(value) for key, value in (attributes or {}).items()}
    return graph._create_op_internal(kind, inputs, dtypes, name=name, attrs=encoded)


def _encoded(value: Any) -> Any:
    import tensorflow as tf

    encoded = tf.compat.v1.AttrValue()
    if isinstance(value, tf.DType):
        encoded.type = value.as_datatype_enum
    elif isinstance(value, list):
        encoded.list.s.extend(value)
    elif isinstance(value, int):
        encoded.i = value
    else:
        encoded.s = value if isinstance(value, bytes) else value.encode()
    return encoded
