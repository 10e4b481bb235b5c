# SPDX-License-Identifier: Apache-2.0
"""Choice of the backend that reads a variable's value.

``"op"``: our op. ``"numpy"``: our reader in this process. ``"stock"``: TensorFlow's own op.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import on_another_job

_remote_ops_allowed = True


def may_use_ops(device: str) -> bool:
    """Whether our ops may be placed on the device of a variable.

    Args:
        device: The variable's ``device``: ``""``, ``"/job:ps/task:1"``,
            ``"/job:localhost/replica:0/task:0/device:CPU:0"``.
    """
    return _remote_ops_allowed or is_here(device)


def allow_remote_ops(allowed: bool) -> None:
    """Sets whether our ops may be placed on tasks of other processes."""
    global _remote_ops_allowed
    _remote_ops_allowed = allowed


def is_here(device: str) -> bool:
    """Whether a device belongs to this process, as far as that can be determined.

    True if the device names no job, if the job is ``localhost``, and if it is the task of this
    process in an eager cluster. The task of a TF1 server in this process is not recognized.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    try:
        spec = tf.DeviceSpec.from_string(device or "")
    except ValueError:
        return False  # a composite device
    if spec.job is None or spec.job == "localhost":
        return True
    server = context.get_server_def()
    if server is None or server.job_name != spec.job:
        return False
    return spec.task is None or spec.task == server.task_index


_CLUSTER = "TF_CONFIG"

_warned: set[str] = set()


def backend_for(variable: Any, options: Options) -> str:
    """Returns ``"op"``, ``"numpy"`` or ``"stock"``.

    Warns, once per reason, if the op library cannot be used.
    """
    if unsupported_reason(variable, options) is not None:
        return "stock"
    missing = library_unavailable_reason()
    if missing is None:
        return "op"
    backend = "numpy" if _is_in_this_process(variable) else "stock"
    _warn_once(missing)
    return backend


def op_unsupported_reason(variable: Any, options: Options) -> str | None:
    """Returns why our op does not read a variable, or None if it does."""
    return unsupported_reason(variable, options) or library_unavailable_reason()


def unsupported_reason(variable: Any, options: Options) -> str | None:
    """Returns why only TensorFlow's own op may read a variable, or None if ours may."""
    if options.op == "stock":
        return "op='stock' is in effect, and TensorFlow's own op does not map"
    if not may_use_ops(variable.device):
        return (
            f"it is on {variable.device}, whose process may not have our op: "
            "install(remote=True) says that it has"
        )
    return None


def library_unavailable_reason() -> str | None:
    """Returns why the op library cannot be used, or None if it can."""
    from tensorbundle.tf import op_library

    if op_library.load() is not None:
        return None
    return f"the op library is not there: {op_library.unavailable_reason()}"


def _is_in_this_process(variable: Any) -> bool:
    """Whether a variable's ops run in this process, as far as known while the graph is built.

    A NumPy function can run only in the process that registered it. NumPy has no quantized types.
    """
    import tensorflow as tf

    if tf.executing_eagerly():
        return True
    if on_another_job(variable) or "cluster" in os.environ.get(_CLUSTER, ""):
        return False
    return not variable.dtype.base_dtype.is_quantized


def _warn_once(reason: str) -> None:
    if reason in _warned:
        return
    _warned.add(reason)
    warnings.warn(
        f"tensorbundle reads checkpoints the slow way, because {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
