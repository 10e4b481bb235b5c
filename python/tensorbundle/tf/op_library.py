# SPDX-License-Identifier: Apache-2.0
"""Loading of the op library: our ops, and our kernels for ops of TensorFlow.

A process may have several copies of the library, for example one from ``tensorflow-plugins``. The
first one serves the process; a later one registers nothing (``cpp/tensorflow_op/library.cc``), and
this module then uses the ops of the first one.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import _pywrap_python_op_gen, op_def_registry

from tensorbundle import plugin
from tensorbundle.errors import Error
from tensorbundle.vocab_diagnosis import JoinResult

OPS = (
    "TensorbundleReadV1",
    "TensorbundleMapV1",
    "TensorbundleVerifyV1",
    "TensorbundleMissingV1",
    "TensorbundleRemapV1",
)
_WRAPPER = "tensorbundle_read_v1"

_MESSAGE_BYTES = 8192

_lock = threading.RLock()
_module: ModuleType | None = None
_reason: str | None = None


def find() -> Path | None:
    """Returns the library of this package, or None if it was built without one."""
    return plugin.find_library()


def load_op_library() -> ModuleType:
    """Loads our ops, and our kernels for ops of TensorFlow. Further calls do nothing.

    The kernels serve ``RestoreV2``, ``GenerateVocabRemapping`` and ``LoadAndRemapMatrix`` in the
    whole process until it ends: every restore by TensorFlow's own functions, with the same results.
    Eager ops, ``tf.function``s and sessions use them from their next call on, except for the ops
    that a session has run before. In a parameter server's script, call it before ``Server``.

    Returns:
        A module with a function for each of our ops, as ``tf.load_op_library`` returns.

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


@functools.cache
def warn_once(text: str) -> None:
    """Warns that the library is missing, once for each text."""
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def kernels_unavailable_reason() -> str | None:
    """Returns in one line why our kernels do not serve all of ``plugin.SERVED_OPS``, or None."""
    load()
    try:
        missing = ", ".join(op for op, count in _counts().items() if count < 0)
    except OSError:
        return _reason and f"the op library cannot be loaded: {_reason}"
    owner = _library_error() or "another library has registered its kernels first"
    return f"{owner}, so other kernels run {missing}" if missing else None


def kernel_calls() -> collections.Counter[str]:
    """Returns how often our kernels have run, by op. Loads nothing."""
    try:
        return +collections.Counter(_counts())  # the positive counts
    except OSError:
        return collections.Counter()


def state() -> str:
    """Returns a short description for reports. Loads nothing."""
    if _module is not None:
        served = ", ".join(op for op, count in _counts().items() if count >= 0)
        return f"loaded, serves {served or 'no op of TensorFlow'}"
    return "not loaded" if _reason is None else f"cannot be loaded: {_reason}"


def _counts() -> dict[str, int]:
    """Returns how often each kernel has run; -1 for those that are not registered."""
    count = c_library().tensorbundle_tf_op_calls
    return {op: count(op.encode()) for op in plugin.SERVED_OPS}


@functools.cache
def c_library() -> Any:
    """Returns the C functions of this package's library. Raises OSError if it is not loaded."""
    library = ctypes.CDLL(str(find()), os.RTLD_NOLOAD)
    library.tensorbundle_tf_error.restype = ctypes.c_char_p
    library.tensorbundle_tf_op_calls.restype = ctypes.c_int64
    text, number = ctypes.c_char_p, ctypes.c_int64
    arguments = (text, text, number, number, number, ctypes.POINTER(number), text, ctypes.c_size_t)
    library.tensorbundle_tf_join.argtypes = arguments
    return library


def join(new: bytes, old: bytes, old_size: int, wanted: int, table_rows: int) -> JoinResult:
    """Returns statistics of the join that our ops in this process will use.

    Raises:
        Error: The join failed.
    """
    summary = (ctypes.c_int64 * len(JoinResult._fields))()
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    code = c_library().tensorbundle_tf_join(
        new, old, old_size, wanted, table_rows, summary, message, _MESSAGE_BYTES
    )
    if code != 0:
        raise Error(message.value.decode("utf-8", "replace"))
    return JoinResult(*summary)


class _CannotLoadError(Exception):
    """The library cannot be loaded; the message is the reason."""


def _load() -> ModuleType:
    path = find()
    if path is None:
        raise _CannotLoadError("this installation of tensorbundle was built without it")
    try:
        module: ModuleType = tf.load_op_library(str(path))
        c_library()  # keeps this file, should another one take its path
    except (tf.errors.OpError, OSError, ImportError) as error:
        raise _CannotLoadError(f"{path}: {' '.join(str(error).split())}") from error
    # Eager ops and functions that ran before keep TensorFlow's kernels until then.
    context.context().clear_kernel_cache()
    registered = {name: op_def_registry.get(name) for name in OPS}
    missing = ", ".join(name for name, op in registered.items() if op is None)
    if missing:
        raise _CannotLoadError(
            f"{path} has registered no ops: {_library_error()}, and the process has no {missing}. "
            "`tensorbundle plugin status` shows which copy `import tensorflow` loads"
        )
    return module if hasattr(module, _WRAPPER) else _wrap(registered.values())


def _wrap(ops: Iterable[Any]) -> ModuleType:
    """Returns functions for ops that are registered already.

    ``tf.load_op_library`` returns none for a library that was loaded by another path before, for
    example by the link of the plugin, and for a copy that has registered nothing.
    """
    source = _pywrap_python_op_gen.GetPythonWrappers(op_def_pb2.OpList(op=ops).SerializeToString())
    module = ModuleType("tensorbundle_ops")
    exec(source, module.__dict__)  # as tf.load_op_library does
    return module


def _library_error() -> str:
    """Returns why the library has not registered its ops, or an empty string."""
    text: bytes = c_library().tensorbundle_tf_error()
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
    graph = tf.compat.v1.get_default_graph()
    attrs = {key: encoded(value) for key, value in (attributes or {}).items()}
    return graph._create_op_internal(kind, inputs, dtypes, name=name, attrs=attrs)


def create_constant(
    values: Sequence[bytes] | Sequence[int], shape: Sequence[int], name: str
) -> Any:
    """Creates a constant of strings or of int64 as ``create_op`` does.

    ``tf.constant`` takes several times as long. Requires graph mode, and at least one value.

    Args:
        values: In row-major order.
        shape: Its shape.
        name: As for ``create_op``.

    Returns:
        The ``tf.Tensor``.
    """
    dtype = tf.string if isinstance(values[0], bytes) else tf.int64
    encoded = tf.compat.v1.AttrValue()
    proto = encoded.tensor
    proto.dtype = dtype.as_datatype_enum
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    (proto.string_val if dtype == tf.string else proto.int64_val).extend(values)
    return create_op("Const", [], [dtype], name, {"dtype": dtype, "value": encoded}).outputs[0]


def encoded(value: Any) -> Any:
    """Returns the value of an op's attribute as a message."""
    if isinstance(value, tf.compat.v1.AttrValue):
        return value
    message = tf.compat.v1.AttrValue()
    if isinstance(value, tf.DType):
        message.type = value.as_datatype_enum
    elif isinstance(value, list) and isinstance(value[0], tf.DType):
        message.list.type.extend([dtype.as_datatype_enum for dtype in value])
    elif isinstance(value, list):
        message.list.s.extend(value)
    elif isinstance(value, int):
        message.i = value
    else:
        message.s = value if isinstance(value, bytes) else value.encode()
    return message
