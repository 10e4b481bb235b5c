# SPDX-License-Identifier: Apache-2.0
"""Independent copies of tensors that depend on seeded random ops.

A seeded random op advances its generator each time it runs. Computing a variable's
``initial_value`` must not consume the first numbers: they belong to the variable's initializer.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any


def version() -> int:
    """Returns the version of the graph that is being built: the id of its latest op."""
    import tensorflow as tf

    return int(tf.compat.v1.get_default_graph().version)


def independent(value: Any, since: int) -> Any:
    """Returns a tensor that is computed like `value`, from the same seeds.

    Args:
        value: A tensor of the graph that is being built.
        since: A version of the graph. Ops created before it are shared and not copied.

    Returns:
        `value` itself if it depends on no seeded op created since.
    """
    path = _path_from_random(value.op, since)
    copies: dict[Any, Any] = {}
    for op in sorted(path, key=lambda each: each._id):
        copies[op] = _copy(op, copies)
    return copies[value.op].outputs[value.value_index] if copies else value


def _path_from_random(end: Any, since: int) -> set[Any]:
    """Returns the seeded ops that `end` depends on, and all ops on the paths from them to `end`."""
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
    path: set[Any] = set()
    for op in sorted(order, key=lambda each: each._id):
        if _is_seeded(op) or any(before in path for before in _sources(op)):
            path.add(op)
    return path


def _sources(op: Any) -> list[Any]:
    return [*(tensor.op for tensor in op.inputs), *op.control_inputs]


def _is_seeded(op: Any) -> bool:
    """Whether an op is random and has a seed."""
    return _is_random(op.type) and bool(op.get_attr("seed") or op.get_attr("seed2"))


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
