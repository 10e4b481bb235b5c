# SPDX-License-Identifier: Apache-2.0
"""Metadata of TensorFlow variables: name, shape, type and the partition that they are."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from tensorbundle.assignment import Target
from tensorbundle.load_plan import StaticShape
from tensorbundle.tf import tracing
from tensorbundle.variables import Slice, Variable


def is_variable(thing: Any) -> bool:
    """Whether something is a TensorFlow variable of any kind, or behaves like one."""
    import tensorflow as tf
    from tensorflow.python.ops import resource_variable_ops

    return isinstance(thing, tf.Variable) or bool(resource_variable_ops.is_resource_variable(thing))


def plain(thing: Any) -> Any:
    """Returns the ``tf.Variable`` inside a Keras variable, and anything else unchanged.

    Raises:
        TypeError: A variable of another Keras backend.
        ValueError: A Keras variable that has no value yet.
    """
    kind = _kind_in_keras(type(thing))  # type: ignore[arg-type]
    if kind is None:
        return thing
    if kind == "AutoCastVariable":
        return plain(thing._variable)
    value = getattr(thing, "_value", None)
    if value is None:
        raise ValueError(f"Keras variable {thing.path!r} has no value yet: build its layer first")
    if not is_variable(value):
        raise TypeError(
            f"Keras variable {thing.path!r} is not TensorFlow's: Keras runs on another backend, "
            f"which keeps it as {type(value).__module__}.{type(value).__name__}"
        )
    return value


@functools.lru_cache(maxsize=64)
def _kind_in_keras(kind: type) -> str | None:
    """Returns the name of the Keras class that wraps a variable, or None for other types."""
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if base.__name__ == "AutoCastVariable":
            return "AutoCastVariable"
        if package == "keras" and base.__name__ in ("KerasVariable", "Variable"):
            return "Variable"
    return None


def of_variable(variable: Any) -> Variable:
    """Returns the metadata of one variable: unpartitioned, a partition, distributed, or of Keras.

    Raises:
        RuntimeError, TypeError, ValueError: It belongs to another graph; or as ``plain``.
    """
    handle = plain(variable)
    tracing.check_graph(handle)
    # Names of Keras variables are not unique; their paths are.
    name = handle.name if handle is variable else getattr(variable, "path", handle.name)
    return Variable(
        name,
        _static_shape(handle.shape),
        _slice_of(handle),
        handle,
        handle.dtype.base_dtype.as_datatype_enum,
    )


def partitions_of(thing: Any) -> list[Variable] | None:
    """Returns the partitions of a PartitionedVariable or ShardedVariable; None for other types."""
    from tensorflow.python.distribute import sharded_variable
    from tensorflow.python.ops import variables

    if isinstance(thing, variables.PartitionedVariable):
        return [of_variable(partition) for partition in thing]
    if isinstance(thing, sharded_variable.ShardedVariableMixin):
        return _shards_of(thing)
    return None


def target_of(value: Any) -> Target:
    """Resolves a value of an assignment map.

    Raises:
        TypeError: It is not a variable, a list or tuple of variables, or a name.
        RuntimeError, ValueError: As ``of_variable``.
    """
    partitions = partitions_of(value)
    if partitions is not None:
        return partitions
    if is_variable(plain(value)):
        return of_variable(value)
    # TensorFlow accepts an empty list, but not an empty tuple.
    if isinstance(value, list) or (isinstance(value, tuple) and value):
        if len(value) == 1 and (partitions := partitions_of(value[0])) is not None:
            return partitions
        if all(is_variable(plain(each)) and partitions_of(each) is None for each in value):
            return [of_variable(each) for each in value]
        kinds = sorted({type(each).__name__ for each in value})
        raise TypeError(f"a list in an assignment map holds variables, not {', '.join(kinds)}")
    if isinstance(value, str):
        return value
    raise TypeError(
        "a value of an assignment map is a variable, a list of the partitions of one, or the name "
        f"of a variable or scope, not {type(value).__name__}: {value!r}"
    )


class VariableStore(Mapping[str, Variable]):
    """The variables that ``get_variable`` created in the current graph, by full name.

    The metadata of a variable is collected when it is looked up.
    """

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


def whole_name(variable: Any) -> str:
    """Returns a variable's name without ``:0``; for a partition, the name of the whole variable."""
    slice_info = _slice_of(variable)
    if slice_info is not None:
        return slice_info.full_name
    name = str(variable.name)
    return name.rpartition(":")[0] or name


def job_of(variable: Any) -> str | None:
    """Returns the job of a variable's device, or None if the device names no job."""
    import tensorflow as tf

    job: str | None = tf.DeviceSpec.from_string(variable.device or "").job
    return job


def on_another_job(variable: Any) -> bool:
    """Whether a variable's device names a job other than this process."""
    return job_of(variable) not in (None, "", "localhost")


def wrapped_variables(variable: Any) -> list[Any]:
    """Returns the objects whose initializers a session runs for this variable.

    For an AggregatingVariable this includes the variable that it wraps.
    """
    from tensorflow.python.distribute import ps_values

    if isinstance(variable, ps_values.AggregatingVariable):
        return [variable, *wrapped_variables(variable._v)]
    return [variable]


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
    """Derives each shard's offset from the order of the shards along axis 0."""
    full_shape = tuple(sharded.shape.as_list())
    found: list[Variable] = []
    row = 0
    for shard in sharded.variables:
        extent = tuple(shard.shape.as_list())
        offset = (row, *[0] * (len(extent) - 1))
        slice_info = Slice(sharded.name, full_shape, offset, extent)
        tracing.check_graph(shard)
        dtype = shard.dtype.base_dtype.as_datatype_enum
        found.append(Variable(shard.name, extent, slice_info, shard, dtype))
        row += extent[0]
    return found
