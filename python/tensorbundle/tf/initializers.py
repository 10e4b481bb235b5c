# SPDX-License-Identifier: Apache-2.0
"""Initializers that assign values of a checkpoint to variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorbundle.assignment import Assignment
from tensorbundle.tf import op_library, read_backends
from tensorbundle.tf.checkpoint_index import AnySource
from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import (
    check_initializer_is_kept,
    is_assignment_pruned,
    wrapped_variables,
)


def plan_reads(
    source: AnySource, planned: Assignment, options: Options
) -> list[read_backends.ReadRequest]:
    """Plans how each variable of an assignment is read, without changing anything.

    Raises:
        ValueError: ``mode="map"``, and a partition cannot be mapped; or TensorFlow would silently
            drop the new initializer.
    """
    for variable, _ in planned.partitions:
        check_initializer_is_kept(variable.handle)
    return [
        read_backends.plan_read(source, planned, variable, part, options)
        for variable, part in planned.partitions
    ]


def set_initializers(requests: Sequence[read_backends.ReadRequest]) -> None:
    """Replaces the initializers of one assignment's variables by reads of the checkpoint.

    Each read runs on the CPU of its variable's task. If the tensor is corrupt, none of its
    variables changes.

    Raises:
        OpError: In eager mode, a read failed.
    """
    import tensorflow as tf

    if not requests:
        return
    if all(is_assignment_pruned(request.variable) for request in requests):
        with tf.init_scope():
            set_initializers(requests)
        return
    for request, value in zip(requests, read_backends.build_read_ops(requests), strict=True):
        set_initializer(request.variable, value, value)


def set_initializer(variable: Any, value: Any, initial: Any | None) -> None:
    """Replaces a variable's initializer by an assignment of a value, as TensorFlow's function does.

    In eager mode the value is assigned immediately; inside a function, each time the function runs.

    Args:
        variable: A variable of any kind, including distributed ones.
        value: A tensor on the CPU of the variable's task.
        initial: The new ``initial_value``; None leaves it as it is.

    Raises:
        ValueError: The shapes are known to differ.
    """
    import tensorflow as tf

    initializer = _assignment(variable, value)
    if tf.executing_eagerly():
        # Do not keep the value: TensorFlow would copy the variable at its first update.
        return
    value.set_shape(variable.shape)
    for each in wrapped_variables(variable):
        each._initializer_op = initializer
        if initial is not None:
            each._initial_value = initial


def _assignment(variable: Any, value: Any) -> Any:
    """Returns the op that assigns a value to a variable; in eager mode, assigns it."""
    if _is_simple(variable, value):
        # The op that the saver would create, without its Identity op in between: a smaller graph
        # takes less time to build and to start. The name of the Identity op is still reserved, so
        # that the names of later ops do not change.
        import tensorflow as tf

        tf.compat.v1.get_default_graph().unique_name("Identity")
        with tf.compat.v1.device(variable.device):
            return op_library.create_op(
                "AssignVariableOp", [variable.handle, value], [], "AssignVariableOp"
            )
    return _saveable(variable).restore([value], restored_shapes=None)


def _is_simple(variable: Any, value: Any) -> bool:
    """Whether a variable is a plain ResourceVariable of the graph that is being built."""
    import tensorflow as tf
    from tensorflow.python.framework import func_graph, ops
    from tensorflow.python.ops.resource_variable_ops import ResourceVariable

    graph = ops.get_default_graph()
    return (
        type(variable) is ResourceVariable
        and not tf.executing_eagerly()
        and not isinstance(graph, func_graph.FuncGraph)
        and variable.shape.is_compatible_with(value.shape)
    )


def _saveable(variable: Any) -> Any:
    """Returns the saveable object that TensorFlow's saver creates for a variable.

    Raises:
        ValueError: There is not exactly one.
    """
    from tensorflow.python.training.saving import saveable_object_util

    saveables = [
        saveable
        for name, op in saveable_object_util.op_list_to_dict([variable]).items()
        for saveable in saveable_object_util.saveable_objects_for_op(op, name)
    ]
    if len(saveables) != 1:
        raise ValueError(f"{variable.name} is {len(saveables)} variables to TensorFlow's saver")
    return saveables[0]
