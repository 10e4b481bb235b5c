# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's variables, as far as plans need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensorbundle.assignment import Slice, StaticShape, Target, Variable


def is_variable(thing: Any) -> bool:
    """Whether TensorFlow counts something as a variable: any kind, also one that acts as one."""
    import tensorflow as tf
    from tensorflow.python.ops import resource_variable_ops

    return isinstance(thing, tf.Variable) or bool(resource_variable_ops.is_resource_variable(thing))


def of_variable(variable: Any) -> Variable:
    """The facts of a single variable: whole, a piece, or distributed."""
    return Variable(variable.name, _static_shape(variable.shape), _slice_of(variable), variable)


def pieces_of(thing: Any) -> list[Variable] | None:
    """The facts of a PartitionedVariable's or ShardedVariable's pieces; None of anything else."""
    from tensorflow.python.distribute import sharded_variable
    from tensorflow.python.ops import variables

    if isinstance(thing, variables.PartitionedVariable):
        return [of_variable(piece) for piece in thing]
    if isinstance(thing, sharded_variable.ShardedVariableMixin):
        return _shards_of(thing)
    return None


def target_of(value: Any) -> Target:
    """What a value of an assignment map stands for.

    Raises:
        TypeError: It is no variable, no list or tuple of variables, and no name.
    """
    pieces = pieces_of(value)
    if pieces is not None:
        return pieces
    if is_variable(value):
        return of_variable(value)
    if isinstance(value, (list, tuple)):
        if len(value) == 1 and (pieces := pieces_of(value[0])) is not None:
            return pieces
        if all(is_variable(each) and pieces_of(each) is None for each in value):
            return [of_variable(each) for each in value]
        kinds = sorted({type(each).__name__ for each in value})
        raise TypeError(f"a list in an assignment map holds variables, not {', '.join(kinds)}")
    if isinstance(value, str):
        return value
    raise TypeError(
        "a value of an assignment map is a variable, a list of the pieces of one, or the name of a "
        f"variable or scope, not {type(value).__name__}: {value!r}"
    )


class VariableStore(Mapping[str, Variable]):
    """What ``get_variable`` made in the current graph, by full name; facts are found when asked."""

    def __init__(self) -> None:
        from tensorflow.python.ops import variable_scope

        self._variables: dict[str, Any] = variable_scope._get_default_variable_store()._vars

    def __getitem__(self, name: str) -> Variable:
        return of_variable(self._variables[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __contains__(self, name: object) -> bool:
        return name in self._variables


def job_of(variable: Any) -> str | None:
    """The job that a variable is placed on, or None where its device names none."""
    import tensorflow as tf

    job: str | None = tf.DeviceSpec.from_string(variable.device or "").job
    return job


def on_another_job(variable: Any) -> bool:
    """Whether a variable lives in another process, as far as its device says."""
    return job_of(variable) not in (None, "", "localhost")


def is_lost_in_function(variable: Any) -> bool:
    """Whether a variable is being made by the function that is being traced.

    Its value then comes from an initializer that TensorFlow lifts out of the trace, whatever else
    is assigned to it.
    """
    import tensorflow as tf

    handle = _handle_from_outside(variable)
    if handle is None:
        return False
    with tf.init_scope():
        return not tf.raw_ops.VarIsInitializedOp(resource=handle)


def check_not_lost_in_function(variable: Any) -> None:
    """Refuses a variable whose new initializer TensorFlow would drop without a word.

    Raises:
        ValueError: It is being made by the function that is being traced.
    """
    if is_lost_in_function(variable):
        raise ValueError(
            f"variable {variable.name!r} is being created by the function that is traced: "
            "TensorFlow takes its first value from its own initializer, whatever is assigned "
            "here. Create it before the function, or call this outside of it"
        )


def is_left_out_of_function(variable: Any) -> bool:
    """Whether nothing would run what a graph function assigns to a variable from outside of it.

    So it is under ``wrap_function``, which keeps just what the results need.
    """
    from tensorflow.python.framework import ops

    runs_everything = getattr(ops.get_default_graph(), "_add_control_dependencies", True)
    return not runs_everything and _handle_from_outside(variable) is not None


def carriers_of(variable: Any) -> list[Any]:
    """The objects whose initializer a session runs for this variable.

    An AggregatingVariable's is that of the variable which it wraps.
    """
    from tensorflow.python.distribute import ps_values

    if isinstance(variable, ps_values.AggregatingVariable):
        return [variable, *carriers_of(variable._v)]
    return [variable]


def _handle_from_outside(variable: Any) -> Any:
    """The handle of an eager variable that is met while a function is traced, else None."""
    import tensorflow as tf
    from tensorflow.python.framework import func_graph, ops

    if tf.executing_eagerly() or not isinstance(ops.get_default_graph(), func_graph.FuncGraph):
        return None
    if isinstance(variable, tf.distribute.DistributedValues):
        # Outside of replicas it has no handle of its own.
        variable = variable._primary
    handle = getattr(variable, "handle", None)
    return handle if isinstance(handle, tf.__internal__.EagerTensor) else None


def _static_shape(shape: Any) -> StaticShape:
    return None if shape.rank is None else tuple(shape.as_list())


def _slice_of(variable: Any) -> Slice | None:
    info = getattr(variable, "_save_slice_info", None)
    if info is None:
        return None
    return Slice(
        info.full_name,
        tuple(map(int, info.full_shape)),
        tuple(map(int, info.var_offset)),
        tuple(map(int, info.var_shape)),
    )


def _shards_of(sharded: Any) -> list[Variable]:
    """Shards say nothing of where they lie: it follows from their order, along the first axis."""
    full_shape = tuple(sharded.shape.as_list())
    found: list[Variable] = []
    row = 0
    for shard in sharded.variables:
        extent = tuple(shard.shape.as_list())
        offset = (row, *[0] * (len(extent) - 1))
        part = Slice(sharded.name, full_shape, offset, extent)
        found.append(Variable(shard.name, extent, part, shard))
        row += extent[0]
    return found
