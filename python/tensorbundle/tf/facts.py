# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's variables, as far as plans need them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from tensorbundle.assignment import Target
from tensorbundle.load_plan import StaticShape
from tensorbundle.tf import tracing
from tensorbundle.variables import Slice, Variable


def is_variable(thing: Any) -> bool:
    """Whether TensorFlow counts something as a variable: any kind, also one that acts as one."""
    import tensorflow as tf
    from tensorflow.python.ops import resource_variable_ops

    return isinstance(thing, tf.Variable) or bool(resource_variable_ops.is_resource_variable(thing))


def plain(thing: Any) -> Any:
    """The ``tf.Variable`` inside a variable of Keras; anything else as it is.

    Raises:
        TypeError: A variable of another backend of Keras.
        ValueError: A variable of Keras that has no value yet.
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
    """Which of Keras's classes that wrap a variable something is of; None: of none of them."""
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if base.__name__ == "AutoCastVariable":
            return "AutoCastVariable"
        if package == "keras" and base.__name__ in ("KerasVariable", "Variable"):
            return "Variable"
    return None


def of_variable(variable: Any) -> Variable:
    """The facts of a single variable: whole, a piece, or distributed; or of Keras.

    Raises:
        RuntimeError, TypeError, ValueError: It belongs to another graph; or as ``plain``.
    """
    handle = plain(variable)
    tracing.check_graph(handle)
    # Keras calls many variables alike, and tells them apart by their paths.
    name = handle.name if handle is variable else getattr(variable, "path", handle.name)
    return Variable(
        name,
        _static_shape(handle.shape),
        _slice_of(handle),
        handle,
        handle.dtype.base_dtype.as_datatype_enum,
    )


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
        RuntimeError, ValueError: As ``of_variable``.
    """
    pieces = pieces_of(value)
    if pieces is not None:
        return pieces
    if is_variable(plain(value)):
        return of_variable(value)
    # An empty tuple is no list of variables to TensorFlow, and an empty list is.
    if isinstance(value, list) or (isinstance(value, tuple) and value):
        if len(value) == 1 and (pieces := pieces_of(value[0])) is not None:
            return pieces
        if all(is_variable(plain(each)) and pieces_of(each) is None for each in value):
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


def whole_name(variable: Any) -> str:
    """The name of a variable, or of the one that it is a piece of, without ``:0``."""
    part = _slice_of(variable)
    if part is not None:
        return part.full_name
    name = str(variable.name)
    return name.rpartition(":")[0] or name


def job_of(variable: Any) -> str | None:
    """The job that a variable is placed on, or None where its device names none."""
    import tensorflow as tf

    job: str | None = tf.DeviceSpec.from_string(variable.device or "").job
    return job


def on_another_job(variable: Any) -> bool:
    """Whether a variable lives in another process, as far as its device says."""
    return job_of(variable) not in (None, "", "localhost")


def carriers_of(variable: Any) -> list[Any]:
    """The objects whose initializer a session runs for this variable.

    An AggregatingVariable's is that of the variable which it wraps.
    """
    from tensorflow.python.distribute import ps_values

    if isinstance(variable, ps_values.AggregatingVariable):
        return [variable, *carriers_of(variable._v)]
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
    """Shards say nothing of where they lie: it follows from their order, along the first axis."""
    full_shape = tuple(sharded.shape.as_list())
    found: list[Variable] = []
    row = 0
    for shard in sharded.variables:
        extent = tuple(shard.shape.as_list())
        offset = (row, *[0] * (len(extent) - 1))
        part = Slice(sharded.name, full_shape, offset, extent)
        tracing.check_graph(shard)
        dtype = shard.dtype.base_dtype.as_datatype_enum
        found.append(Variable(shard.name, extent, part, shard, dtype))
        row += extent[0]
    return found
