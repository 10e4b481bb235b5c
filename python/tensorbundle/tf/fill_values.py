# SPDX-License-Identifier: Apache-2.0
"""Fill values: the values of a remapped table's cells that are not in the checkpoint.

A backup initializer is called as TensorFlow calls it: per partition, first with shape
[missing cells, 1], then for the out-of-vocabulary block. So seeded values equal TensorFlow's. If
the initializer needs the real shape, it is called once for the whole partition, and each missing
cell takes the value at its position.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry
from tensorflow.python.ops import init_ops, init_ops_v2, op_selector

from tensorbundle.tf.op_library import create_op
from tensorbundle.warm_plan import PartitionRemap

_OURS = "Tensorbundle"  # what the types of our ops begin with: they read the checkpoint alone
# Stateful to TensorFlow, and yet the same each time: they read files or variables, check or print.
_READS = frozenset(
    {
        "Assert",
        "GenerateVocabRemapping",
        "LoadAndRemapMatrix",
        "Print",
        "ReadFile",
        "ReadVariableOp",
        "Restore",
        "RestoreSlice",
        "RestoreV2",
    }
)


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
    ops = op_selector.get_backward_walk_ops(
        [value.op], control_inputs=True, within_ops_fn=lambda op: op._id > since
    )
    if any(_kind(op.type) == "stateful" for op in ops):
        return None
    # The seeded ops, and all between them and the value. A dict keeps their order.
    path: dict[Any, None] = {}
    for op in sorted(ops, key=lambda each: each._id):
        is_seeded = _kind(op.type) == "random" and (op.get_attr("seed") or op.get_attr("seed2"))
        sources = [*(tensor.op for tensor in op.inputs), *op.control_inputs]
        if is_seeded or any(before in path for before in sources):
            path[op] = None
    if any(op._get_control_flow_context() is not None for op in path):
        return None
    copies: dict[Any, Any] = {}
    for op in path:
        copies[op] = _copy(op, copies)
    return copies[value.op].outputs[value.value_index] if copies else value


@functools.cache
def _kind(op_type: str) -> str:
    """Returns ``"random"``; ``"stateful"``, if a second op would give other values; or ``""``."""
    definition = op_def_registry.get(op_type)
    if definition is None or not definition.is_stateful:
        return ""
    if op_type in _READS or op_type.startswith(_OURS):
        return ""
    has_seeds = {"seed", "seed2"} <= {attribute.name for attribute in definition.attr}
    return "random" if has_seeds else "stateful"


def _copy(op: Any, copies: dict[Any, Any]) -> Any:
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
        dtypes = [tensor.dtype for tensor in op.outputs]
        copy = create_op(op.type, inputs, dtypes, f"{op.name}_again/", dict(op.node_def.attr))
    for old, new in zip(op.outputs, copy.outputs, strict=True):
        new.set_shape(old.shape)
    return copy


# What initializers raise if the shape is a tensor or is not the expected one.
_SHAPE_ERRORS = (TypeError, ValueError, NotImplementedError)


class FillValues(NamedTuple):
    """The fill values of one partition.

    Attributes:
        layout: ``"zero"``: zeros; no tensors. ``"cells"``: a tensor with a value for each missing
            cell, in row-major order, then a tensor with the out-of-vocabulary block, if there is
            one. ``"full"``: a tensor of shape `remapped_shape`; each missing cell takes the value
            at its position.
        tensors: The tensors of the layout.
    """

    layout: str
    tensors: tuple[Any, ...]


def build_fill_values(
    initializer: Any, partition: PartitionRemap, dtype: Any, count: Callable[[], Any]
) -> FillValues:
    """Calls a backup initializer for the missing cells of a partition.

    Args:
        initializer: None means zeros. A class is instantiated without arguments first, as
            ``get_variable`` does.
        partition: The partition.
        dtype: Its ``tf.DType``.
        count: Returns a scalar tensor: the number of missing cells.

    Raises:
        TypeError: The initializer is not callable, or returns values of another type.
        ValueError: It returns another shape; or an exception of the initializer.
    """
    if initializer is None:
        return FillValues("zero", ())
    call = _callable(initializer)
    if _is_zeros(call, dtype):
        return FillValues("zero", ())
    if isinstance(call, (init_ops.Constant, init_ops_v2.Constant)) and np.ndim(call.value) == 0:
        # It would create a constant as large as the table, which stays in the graph.
        call = _filler(call.value, dtype)
    if partition.is_window:
        return from_whole_partition(_called(call, list(partition.shape), dtype), partition)
    try:
        cells = [_called(call, [count(), 1], dtype)]
        if partition.num_oov:
            cells.append(_called(call, list(partition.oov_shape), dtype))
    except _SHAPE_ERRORS:
        return from_whole_partition(_called(call, list(partition.shape), dtype), partition)
    return FillValues("cells", tuple(cells))


def build_partition(initializer: Any, partition: PartitionRemap, dtype: Any) -> Any:
    """Returns the values of a partition that takes nothing from the table.

    Raises:
        TypeError: As ``build_fill_values``.
    """
    if initializer is None:
        return tf.zeros(partition.shape, dtype)
    return _called(_callable(initializer), list(partition.shape), dtype)


def from_whole_partition(value: Any, partition: PartitionRemap) -> FillValues:
    """Returns fill values from a tensor with a value for every cell of the partition.

    Raises:
        ValueError: The tensor has another shape.
    """
    if not value.shape.is_compatible_with(partition.shape):
        raise ValueError(
            f"the initial values have shape {value.shape}, the variable {list(partition.shape)}"
        )
    if partition.is_window:
        # The remap produces all columns, and those outside the partition are sliced off.
        paddings = [
            [offset, extent - offset - size]
            for offset, extent, size in zip(
                partition.window_offset, partition.remapped_shape, partition.shape, strict=True
            )
        ]
        value = tf.pad(value, paddings)
    return FillValues("full", (value,))


def initial_value(variable: Any) -> Any:
    """Returns a variable's initial value; in eager mode, its current value.

    Raises:
        ValueError: The initial value is unknown.
    """
    if tf.executing_eagerly():
        return tf.identity(variable)
    value = getattr(variable, "_initial_value", None)
    if value is None and hasattr(variable, "values"):
        value = getattr(variable.values[0], "_initial_value", None)
    if value is None:
        raise ValueError(f"{variable.name} does not say what it starts from")
    return value


def may_be_seeded(initializer: Any) -> bool:
    """Whether an initializer may produce seeded random numbers in a graph."""
    if initializer is None or tf.executing_eagerly():
        return False
    kind = initializer if inspect.isclass(initializer) else type(initializer)
    v1 = (init_ops.Zeros, init_ops.Ones, init_ops.Constant)
    v2 = (init_ops_v2.Zeros, init_ops_v2.Ones, init_ops_v2.Constant)
    if issubclass(kind, v1 + v2):
        return False
    seed = getattr(initializer, "seed", 0)
    return seed is not None or tf.compat.v1.get_default_graph().seed is not None


def check_callable(initializer: Any) -> None:
    """Raises TensorFlow's TypeError unless a backup initializer can be called."""
    if not callable(initializer):
        raise TypeError(
            f"initializer must be callable, instead of being {initializer} of type "
            f"{type(initializer)}."
        )


def _callable(initializer: Any) -> Any:
    check_callable(initializer)
    return initializer() if inspect.isclass(initializer) else initializer


def _is_zeros(initializer: Any, dtype: Any) -> bool:
    """Whether an initializer returns zeros of the type `dtype`, so that it need not be called."""
    if type(initializer) is init_ops.Zeros:
        return bool(dtype != tf.float32 or initializer.dtype == dtype)
    return type(initializer) is init_ops_v2.Zeros


def _filler(element: Any, dtype: Any) -> Callable[[Any], Any]:
    return lambda shape: tf.fill(shape, tf.cast(element, dtype))


def _called(initializer: Any, shape: list[Any], dtype: Any) -> Any:
    """Calls an initializer as TensorFlow does: with dtype only if it is not float32."""
    typed = dtype != tf.float32 and _takes_dtype(initializer)
    value = initializer(shape, dtype=dtype) if typed else initializer(shape)
    if not tf.is_tensor(value):
        return tf.convert_to_tensor(value, dtype=dtype)
    if value.dtype == dtype:
        return value
    if dtype != tf.float32 and value.dtype.is_floating and dtype.is_floating:
        return tf.cast(value, dtype)
    raise TypeError(
        f"the backup initializer made values of type {value.dtype.name} that does not match "
        f"expected type of {dtype.name}"
    )


def _takes_dtype(initializer: Any) -> bool:
    try:
        parameters = inspect.signature(initializer).parameters
    except (TypeError, ValueError):
        return False
    return "dtype" in parameters
