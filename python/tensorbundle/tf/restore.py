# SPDX-License-Identifier: Apache-2.0
"""A plan's assignments, made into initializer ops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tensorbundle.assignment import Assignment, Slice, Variable
from tensorbundle.tf import facts
from tensorbundle.tf.options import Options


@contextlib.contextmanager
def on_cpu_of(variable: Any) -> Iterator[None]:
    """The CPU of the task that a variable lives in, whatever device the variable is on."""
    import tensorflow as tf

    # Two, so that what the variable's device says nothing about comes from the caller's scope.
    with tf.compat.v1.device(variable.device), tf.compat.v1.device("/cpu:0"):
        yield


def stock_read(prefix: str, tensor: str, spec: str, variable: Any) -> Any:
    """TensorFlow's own read of a tensor or a slice of it, on the CPU of the variable's task."""
    import tensorflow as tf

    with on_cpu_of(variable):
        return tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[tensor],
            shape_and_slices=[spec],
            dtypes=[variable.dtype.base_dtype],
            name="checkpoint_initializer",
        )[0]


def assign_from(
    prefix: str, assignment: Assignment, options: Options, *, stock_on_other_jobs: bool = False
) -> None:
    """Makes an assignment's variables start from the checkpoint."""
    for variable, part in assignment.pieces:
        value = stock_read(prefix, assignment.tensor, "" if part is None else part.spec, variable.handle)
        set_initializer(variable.handle, value)


def set_initializer(variable: Any, value: Any, *, keep_initial_value: bool = False) -> None:
    """Replaces a variable's initializer, as TensorFlow's own function does.

    In eager mode, and inside a function, the value is assigned.

    Args:
        variable: Of any kind, distributed ones included.
        value: A tensor, on the CPU of the variable's task.
        keep_initial_value: Leaves ``initial_value`` as it was.

    Raises:
        ValueError: The shapes are known to differ.
    """
    from tensorflow.python.training.saving import saveable_object_util

    saveables = [
        saveable
        for name, op in saveable_object_util.op_list_to_dict([variable]).items()
        for saveable in saveable_object_util.saveable_objects_for_op(op, name)
    ]
    if len(saveables) != 1:
        raise ValueError(f"{variable.name} is {len(saveables)} variables to TensorFlow's saver")
    initializer = saveables[0].restore([value], restored_shapes=None)
    value.set_shape(variable.shape)
    for carrier in facts.carriers_of(variable):
        carrier._initializer_op = initializer
        if not keep_initial_value:
            carrier._initial_value = value
