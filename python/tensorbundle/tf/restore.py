# SPDX-License-Identifier: Apache-2.0
"""Values from a checkpoint, made into variables' initializers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorbundle.assignment import Assignment
from tensorbundle.tf import facts, values
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import Source


def plan_readings(source: Source, planned: Assignment, options: Options) -> list[values.Reading]:
    """Decides how each variable of an assignment is read. Changes nothing.

    Raises:
        ValueError: ``mode="map"``, and a piece cannot be mapped; or TensorFlow would drop the new
            initializer without a word.
    """
    for variable, _ in planned.pieces:
        facts.check_not_lost_in_function(variable.handle)
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
    if all(facts.is_left_out_of_function(reading.variable) for reading in readings):
        with tf.init_scope():
            assign(readings)
        return
    for reading, value in zip(readings, values.values(readings), strict=True):
        set_initializer(reading.variable, value)


def set_initializer(variable: Any, value: Any, *, keep_initial_value: bool = False) -> None:
    """Replaces a variable's initializer by an assignment of a value, as TensorFlow's function does.

    In eager mode the value is assigned now; inside a function, whenever it runs.

    Args:
        variable: Of any kind, distributed ones included.
        value: A tensor, on the CPU of the variable's task.
        keep_initial_value: Leaves ``initial_value`` as it was.

    Raises:
        ValueError: The shapes are known to differ.
    """
    import tensorflow as tf
    from tensorflow.python.training.saving import saveable_object_util

    saveables = [
        saveable
        for name, op in saveable_object_util.op_list_to_dict([variable]).items()
        for saveable in saveable_object_util.saveable_objects_for_op(op, name)
    ]
    if len(saveables) != 1:
        raise ValueError(f"{variable.name} is {len(saveables)} variables to TensorFlow's saver")
    initializer = saveables[0].restore([value], restored_shapes=None)
    if tf.executing_eagerly():
        # Whoever keeps the value makes TensorFlow copy the variable at its first update.
        return
    value.set_shape(variable.shape)
    for carrier in facts.carriers_of(variable):
        carrier._initializer_op = initializer
        if not keep_initial_value:
            carrier._initial_value = value
