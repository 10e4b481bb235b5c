# SPDX-License-Identifier: Apache-2.0
"""Values from a checkpoint, made into variables' initializers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorbundle.assignment import Assignment
from tensorbundle.tf import facts, nodes, tracing, values
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import AnySource


def plan_readings(source: AnySource, planned: Assignment, options: Options) -> list[values.Reading]:
    """Decides how each variable of an assignment is read. Changes nothing.

    Raises:
        ValueError: ``mode="map"``, and a piece cannot be mapped; or TensorFlow would drop the new
            initializer without a word.
    """
    for variable, _ in planned.pieces:
        tracing.check_not_lost(variable.handle)
    return [
        values.plan_reading(source, planned, variable, part, options)
        for variable, part in planned.pieces
    ]


def assign(readings: Sequence[values.Reading]) -> None:
    """Makes the variables of one assignment start from the checkpoint.

    Each read happens on the CPU of the task that its variable lives in. Damage in the tensor leaves
    all of its variables as they were.

    Raises:
        OpError: In eager mode, whatever goes wrong while reading.
    """
    import tensorflow as tf

    if not readings:
        return
    if all(tracing.is_left_out(reading.variable) for reading in readings):
        with tf.init_scope():
            assign(readings)
        return
    for reading, value in zip(readings, values.values(readings), strict=True):
        set_initializer(reading.variable, value, value)


def set_initializer(variable: Any, value: Any, initial: Any | None) -> None:
    """Replaces a variable's initializer by an assignment of a value, as TensorFlow's function does.

    In eager mode the value is assigned now; inside a function, whenever it runs.

    Args:
        variable: Of any kind, distributed ones included.
        value: A tensor, on the CPU of the variable's task.
        initial: What its ``initial_value`` becomes; None: it stays as it is.

    Raises:
        ValueError: The shapes are known to differ.
    """
    import tensorflow as tf

    initializer = _assignment(variable, value)
    if tf.executing_eagerly():
        # Whoever keeps the value makes TensorFlow copy the variable at its first update.
        return
    value.set_shape(variable.shape)
    for carrier in facts.carriers_of(variable):
        carrier._initializer_op = initializer
        if initial is not None:
            carrier._initial_value = initial


def _assignment(variable: Any, value: Any) -> Any:
    """The op that gives a variable a value; in eager mode, having done so."""
    if _is_simple(variable, value):
        # What the saver would do in the end, without asking it, and without a copy in between: a
        # graph with fewer nodes is built and first run in less time. The copy's name is taken, so
        # that nodes which are made later are called what they always were.
        import tensorflow as tf

        tf.compat.v1.get_default_graph().unique_name("Identity")
        with tf.compat.v1.device(variable.device):
            return nodes.make("AssignVariableOp", [variable.handle, value], [], "AssignVariableOp")
    return _saveable(variable).restore([value], restored_shapes=None)


def _is_simple(variable: Any, value: Any) -> bool:
    """Whether it is a resource variable and nothing more, of the graph that is being built."""
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
    """What TensorFlow's saver sees in a variable.

    Raises:
        ValueError: It sees none, or several.
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
