# SPDX-License-Identifier: Apache-2.0
"""Whether our ops may be placed on the task of a variable.

A process that has not loaded our op library rejects every graph that contains our ops, and this
process cannot check that. If our functions are called by their own names, the caller is trusted to
have loaded the library everywhere. The patched TensorFlow functions call ``may_use_ops`` for every
variable.
"""

from __future__ import annotations

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
