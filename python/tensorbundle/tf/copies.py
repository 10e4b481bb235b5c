# SPDX-License-Identifier: Apache-2.0
"""Independent copies of tensors that depend on seeded random ops.

A seeded random op advances its generator each time it runs. Computing a variable's
``initial_value`` must not consume the first numbers: they belong to the variable's initializer.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

_REPEATABLE = "_tensorbundle_repeatable"  # an attribute that TensorFlow ignores
_OURS = "Tensorbundle"  # what the types of our ops begin with: they read the checkpoint alone
# Stateful to TensorFlow, and yet the same each time: they read files or variables, or check values.
_READS = frozenset(
    {
        "Assert",
        "GenerateVocabRemapping",
        "LoadAndRemapMatrix",
        "ReadFile",
        "ReadVariableOp",
        "Restore",
        "RestoreSlice",
        "RestoreV2",
    }
)


def version() -> int:
    """Returns the version of the graph that is being built: the id of its latest op."""
    import tensorflow as tf

    return int(tf.compat.v1.get_default_graph().version)


def independent(value: Any, since: int) -> Any | None:
    """Returns a tensor that is computed like `value`, from the same seeds.

    Args:
        value: A tensor of the graph that is being built.
        since: A version of the graph. Ops created before it are shared and not copied.

    Returns:
        `value` itself if it depends on no seeded op created since. None if there can be no such
        tensor: an op has a state that a second op would share or lack (a Python function, a
        ``tf.random.Generator``, a graph function that draws random numbers), or an op to copy is in
        a loop or branch of control flow v1, which cannot be copied in part.
    """
    ops = _made_for(value.op, since)
    if any(_has_own_state(op) for op in ops):
        return None
    path = _path_from_random(ops)
    if any(op._get_control_flow_context() is not None for op in path):
        return None
    copies: dict[Any, Any] = {}
    for op in sorted(path, key=lambda each: each._id):
        copies[op] = _copy(op, copies)
    return copies[value.op].outputs[value.value_index] if copies else value


def _made_for(end: Any, since: int) -> list[Any]:
    """Returns the ops that `end` depends on and that were created since, with `end`."""
    order: list[Any] = []
    seen = {end}
    open_ops = [end]
    while open_ops:
        op = open_ops.pop()
        order.append(op)
        for before in _sources(op):
            if before not in seen and before._id > since:
                seen.add(before)
                open_ops.append(before)
    return order


def _path_from_random(ops: list[Any]) -> set[Any]:
    """The seeded ops among those that lead to one op, and all between them and it."""
    path: set[Any] = set()
    for op in sorted(ops, key=lambda each: each._id):
        if _is_seeded(op) or any(before in path for before in _sources(op)):
            path.add(op)
    return path


def _sources(op: Any) -> list[Any]:
    return [*(tensor.op for tensor in op.inputs), *op.control_inputs]


def _is_seeded(op: Any) -> bool:
    """Whether an op is random and has a seed."""
    return _is_random(op.type) and bool(op.get_attr("seed") or op.get_attr("seed2"))


def _has_own_state(op: Any) -> bool:
    """Whether a second op of the kind would give other values, or change those of the first."""
    if not _is_stateful(op.type) or _is_random(op.type):
        return False
    if op.type in _READS or op.type.startswith(_OURS):
        return False
    return _REPEATABLE not in op.node_def.attr


def mark_repeatable(op: Any) -> None:
    """Marks a Python function of ours, which gives the same values whenever it runs."""
    from tensorflow.core.framework import attr_value_pb2

    op._set_attr(_REPEATABLE, attr_value_pb2.AttrValue(b=True))


@functools.cache
def _is_stateful(kind: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(kind)
    return definition is not None and bool(definition.is_stateful)


@functools.cache
def _is_random(kind: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(kind)
    if definition is None or not definition.is_stateful:
        return False
    return {"seed", "seed2"} <= {attribute.name for attribute in definition.attr}


def _copy(op: Any, copies: dict[Any, Any]) -> Any:
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    inputs = [
        copies[tensor.op].outputs[tensor.value_index] if tensor.op in copies else tensor
        for tensor in op.inputs
    ]
    waits = [copies.get(before, before) for before in op.control_inputs]
    with (
        tf.control_dependencies(None),
        tf.control_dependencies(waits),
        tf.compat.v1.device(op.device) if op.device else contextlib.nullcontext(),
    ):
        copy = graph._create_op_internal(
            op.type,
            inputs,
            [tensor.dtype for tensor in op.outputs],
            name=f"{op.name}_again/",
            attrs=dict(op.node_def.attr),
        )
    for old, new in zip(op.outputs, copy.outputs, strict=True):
        new.set_shape(old.shape)
    return copy
