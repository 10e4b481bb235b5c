# SPDX-License-Identifier: Apache-2.0
"""On whose task a variable lies, and whether our ops may be asked for there.

A process that has not loaded our op library rejects every graph that names our ops, and nobody can
see that from here. Called by its own name, our code trusts its caller to have loaded it; behind
TensorFlow's names it has no caller who could know, so it asks ``allows`` for every variable.
"""

from __future__ import annotations

_other_tasks = True


def allows(device: str) -> bool:
    """Whether an op of ours may be placed with a variable.

    Args:
        device: The variable's ``device``: ``""``, ``"/job:ps/task:1"``,
            ``"/job:localhost/replica:0/task:0/device:CPU:0"``.
    """
    return _other_tasks or is_here(device)


def set_other_tasks(allowed: bool) -> None:
    """Says whether tasks of other processes may be given our ops; the installation does."""
    global _other_tasks
    _other_tasks = allowed


def is_here(device: str) -> bool:
    """Whether a device is one of this process, as far as that can be known.

    It is where no job is named, where the job is ``localhost``, and where it is the task as which
    this process joined an eager cluster. A TF1 server's own task cannot be told from others.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    try:
        spec = tf.DeviceSpec.from_string(device or "")
    except ValueError:
        return False  # a composite device, of a device set of its own
    if spec.job is None or spec.job == "localhost":
        return True
    server = context.get_server_def()
    if server is None or server.job_name != spec.job:
        return False
    return spec.task is None or spec.task == server.task_index
