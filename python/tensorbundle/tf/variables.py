# SPDX-License-Identifier: Apache-2.0
"""TensorFlow variables: their metadata, the selected ones, and their new initializers."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.ps_values import AggregatingVariable
from tensorflow.python.distribute.sharded_variable import ShardedVariableMixin
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import get_default_graph
from tensorflow.python.ops import variable_scope
from tensorflow.python.ops.resource_variable_ops import ResourceVariable, is_resource_variable
from tensorflow.python.ops.variables import PartitionedVariable
from tensorflow.python.training.saving import saveable_object_util
from tensorflow.python.util import tf_decorator

from tensorbundle.assignment import Target
from tensorbundle.tf.op_library import create_op
from tensorbundle.variables import Slice, Variable
from tensorbundle.warm_plan import Group, select_variables


def check_graph(variable: Any) -> None:
    """Checks that ops for a variable can be created in the current graph or eager context.

    Raises:
        RuntimeError: An eager variable in a graph that is not a function's, as in TensorFlow.
        ValueError: A variable of another graph, or of a graph in eager mode, as in TensorFlow.
        TypeError: Likewise, in a function that eager code traces.
    """
    graph = getattr(variable, "graph", None)  # None for an eager variable
    here = get_default_graph()
    if tf.executing_eagerly():
        if graph is not None:
            raise ValueError(
                f"variable {variable.name} belongs to a graph, and this is eager mode: call this "
                "where its graph is the default graph"
            )
        return
    if graph is here:
        return
    with tf.init_scope():
        eager, outside = tf.executing_eagerly(), get_default_graph()
    if graph is None:
        if not eager:
            is_function = isinstance(here, FuncGraph)
            what = "the function is traced for a graph" if is_function else "a graph is being built"
            raise RuntimeError(
                f"variable {variable.name} is an eager variable, and {what}: call this in eager "
                "mode, or with a variable of the graph"
            )
        return
    around = here
    while around is not None and around is not outside:
        if around is graph:
            return
        around = getattr(around, "outer_graph", None)
    if eager or graph is not outside:
        kind = TypeError if eager else ValueError
        raise kind(
            f"variable {variable.name} belongs to another graph than the one in which its "
            "initializer would be made: call this where its graph is the default graph"
        )


def initializer_dropped_by_tracing(variable: Any) -> bool:
    """Whether a variable is being created by the function that is being traced.

    TensorFlow then lifts the variable's own initializer out of the trace, and drops other
    assignments in the trace.
    """
    handle = _handle_from_outside(variable)
    if handle is None:
        return False
    with tf.init_scope():
        return not tf.raw_ops.VarIsInitializedOp(resource=handle)


def check_initializer_is_kept(variable: Any) -> None:
    """Checks that TensorFlow will not silently drop a variable's new initializer.

    TensorFlow traces a function that creates variables twice, and runs only the second trace. An
    assignment in both traces is run. An assignment only in the first trace would be dropped; it is
    reported after the second trace.

    Raises:
        ValueError: The variable is being created by the function that is being traced, and it is
            unknown whether the function will be traced again.
    """
    if not initializer_dropped_by_tracing(variable):
        for watch in _watches:
            watch.variables.pop(id(variable), None)
        return
    function = _function_that_creates(variable)
    if function is None:
        raise ValueError(_dropped(variable))
    known = next((watch for watch in _watches if watch.function is function), None)
    (known or _Watch(function)).variables[id(variable)] = variable


def are_pruned(variables: Sequence[Any]) -> bool:
    """Whether a function's assignments to variables from outside of it would be pruned.

    This is so under ``wrap_function``, which keeps only the ops that its results depend on.
    """
    runs_everything = getattr(get_default_graph(), "_add_control_dependencies", True)
    return not runs_everything and all(_handle_from_outside(each) is not None for each in variables)


def outside_if_pruned(variables: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which assignments to the variables are not pruned."""
    if variables and are_pruned(variables):
        return tf.init_scope()  # type: ignore[no-any-return]
    return contextlib.nullcontext()


def _dropped(variable: Any) -> str:
    return (
        f"variable {variable.name!r} is being created by the function that is traced: "
        "TensorFlow takes its first value from its own initializer, whatever is assigned "
        "here. Create it before the function, or call this outside of it, or each time that the "
        "function is traced"
    )


class _Watch:
    """Checks that the second trace of a function initializes the same variables as the first.

    Attributes:
        function: The ``tf.function``.
        variables: The variables that the next trace must still initialize, by id.
    """

    def __init__(self, function: Any) -> None:
        """Hooks into the function's next trace, which is the second."""
        self.function = function
        self.variables: dict[int, Any] = {}
        original = function._python_function

        def traced(*args: Any, **kwargs: Any) -> Any:
            # As in TensorFlow's own decorators, so that AutoGraph can convert the wrapped function.
            result = decorated.__wrapped__(*args, **kwargs)
            self._end()
            return result

        decorated = tf_decorator.make_decorator(original, traced)
        function._python_function = decorated
        self._original = original
        _watches.append(self)

    def _end(self) -> None:
        if self not in _watches:  # a later trace
            return
        _watches.remove(self)
        self.function._python_function = self._original
        for variable in self.variables.values():
            raise ValueError(_dropped(variable))


# Of functions whose second trace has not ended.
_watches: list[_Watch] = []


def _function_that_creates(variable: Any) -> Any:
    """Returns the ``tf.function`` whose first trace is creating the variable, or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_initialize":
            owner = frame.f_locals.get("self")
            if isinstance(owner, polymorphic_function.Function):
                created = getattr(owner, "_created_variables", None) or []
                return owner if any(each() is variable for each in created) else None
        frame = frame.f_back
    return None


def _handle_from_outside(variable: Any) -> Any:
    """Returns the handle of an eager variable if a function is being traced, else None."""
    if tf.executing_eagerly() or not isinstance(get_default_graph(), FuncGraph):
        return None
    if isinstance(variable, tf.distribute.DistributedValues):
        # A distributed variable has no handle outside of replica context.
        variable = variable._primary
    handle = getattr(variable, "handle", None)
    return handle if isinstance(handle, tf.__internal__.EagerTensor) else None


def is_variable(thing: Any) -> bool:
    """Whether something is a TensorFlow variable of any kind, or behaves like one."""
    return isinstance(thing, tf.Variable) or bool(is_resource_variable(thing))


def plain(thing: Any) -> Any:
    """Returns the ``tf.Variable`` inside a Keras variable, and anything else unchanged.

    Raises:
        TypeError: A variable of another Keras backend.
        ValueError: A Keras variable that has no value yet.
    """
    attribute = _wrapping_attribute(type(thing))  # type: ignore[arg-type]
    if attribute is None:
        return thing
    value = plain(getattr(thing, attribute, None))
    if value is None:
        raise ValueError(f"Keras variable {thing.path!r} has no value yet: build its layer first")
    if not is_variable(value):
        raise TypeError(
            f"Keras variable {thing.path!r} is not TensorFlow's: Keras runs on another backend, "
            f"which keeps it as {type(value).__module__}.{type(value).__name__}"
        )
    return value


@functools.lru_cache(maxsize=64)
def _wrapping_attribute(kind: type) -> str | None:
    """Returns the attribute of a Keras class that is the wrapped variable; None for other types."""
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if base.__name__ == "AutoCastVariable":
            return "_variable"
        if package == "keras" and base.__name__ in ("KerasVariable", "Variable"):
            return "_value"
    return None


def of_variable(variable: Any) -> Variable:
    """Returns the metadata of one variable: unpartitioned, a partition, distributed, or of Keras.

    Raises:
        RuntimeError, TypeError, ValueError: It belongs to another graph; or as ``plain``.
    """
    handle = plain(variable)
    check_graph(handle)
    # Names of Keras variables are not unique; their paths are.
    name = handle.name if handle is variable else getattr(variable, "path", handle.name)
    return Variable(
        name,
        None if handle.shape.rank is None else tuple(handle.shape.as_list()),
        _slice_of(handle),
        handle,
        handle.dtype.base_dtype.as_datatype_enum,
    )


def partitions_of(thing: Any) -> list[Variable] | None:
    """Returns the partitions of a PartitionedVariable or ShardedVariable; None for other types."""
    if isinstance(thing, PartitionedVariable):
        return [of_variable(partition) for partition in thing]
    if isinstance(thing, ShardedVariableMixin):
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


def wrapped_variables(variable: Any) -> list[Any]:
    """Returns the objects whose initializers a session runs for this variable.

    For an AggregatingVariable this includes the variable that it wraps.
    """
    if isinstance(variable, AggregatingVariable):
        return [variable, *wrapped_variables(variable._v)]
    return [variable]


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
    shards = [of_variable(shard) for shard in sharded.variables]
    row = 0
    for shard in shards:
        extent = tuple(shard.handle.shape.as_list())
        shard.slice = Slice(sharded.name, full_shape, (row, *[0] * (len(extent) - 1)), extent)
        row += extent[0]
    return shards


def grouped(wanted: Any) -> tuple[dict[str, Group], bool]:
    """Returns the selected variables by name, in the order of selection.

    Returns:
        The groups; whether the selection is limited to trainable variables.
    """

    def collection(key: str, scope: str | None) -> list[Any]:
        return list(tf.compat.v1.get_collection(key, scope=scope))

    def is_variable_or_partitions(thing: Any) -> bool:
        return is_variable(plain(thing)) or partitions_of(thing) is not None

    found, from_trainable = select_variables(wanted, collection, is_variable_or_partitions)
    groups: dict[str, Group] = {}
    for variable in found:
        partitions = partitions_of(variable) or [of_variable(variable)]
        name = name_of(partitions[0])
        before = groups.get(name, Group((), not isinstance(wanted, list)))
        groups[name] = Group(
            (*before.partitions, *partitions),
            before.trainable or any(partition.handle.trainable for partition in partitions),
            [*before.given, variable],
        )
    return groups, from_trainable


def name_of(partition: Variable) -> str:
    """Returns the name that TensorFlow's saver uses: without ``:0``, of the whole variable."""
    if partition.slice is not None:
        return partition.slice.full_name
    if partition.name != partition.handle.name:  # the path of a Keras variable
        return partition.name
    names = list(saveable_object_util.op_list_to_dict([partition.handle]))
    return str(names[0])


def target(group: Group) -> Target:
    """Returns a variable that was selected alone as such, even if it is a partition."""
    is_single = len(group.partitions) == len(group.given) == 1
    if is_single and partitions_of(group.given[0]) is None:
        return group.partitions[0]
    return group.partitions


def as_given(group: Group) -> Any:
    """Returns one variable, or a list of several, for log lines."""
    return group.given[0] if len(group.given) == 1 else group.given


def nothing_selected(wanted: Any) -> str:
    """Returns the message for an empty selection."""
    what = f"vars_to_warm_start={wanted!r} selects no variable: nothing is warm-started"
    if tf.executing_eagerly() and not (isinstance(wanted, list) and not wanted):
        return f"{what}. In eager mode variables are in no collection: give a list of the variables"
    is_trainable = wanted is None or isinstance(wanted, str)
    known = tf.compat.v1.trainable_variables() if is_trainable else tf.compat.v1.global_variables()
    kind = "trainable" if is_trainable else "global"
    return (
        f"{what}. The graph has {len(known)} {kind} variables; an expression is matched with the "
        "beginnings of their names, which end in ':0'"
    )


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
        get_default_graph().unique_name("Identity")
        with tf.compat.v1.device(variable.device):
            return create_op("AssignVariableOp", [variable.handle, value], [], "AssignVariableOp")
    return _saveable(variable).restore([value], restored_shapes=None)


def _is_simple(variable: Any, value: Any) -> bool:
    """Whether a variable is a plain ResourceVariable of the graph that is being built."""
    graph = get_default_graph()
    return (
        type(variable) is ResourceVariable
        and not tf.executing_eagerly()
        and not isinstance(graph, FuncGraph)
        and variable.shape.is_compatible_with(value.shape)
    )


def _saveable(variable: Any) -> Any:
    """Returns the saveable object that TensorFlow's saver creates for a variable.

    Raises:
        ValueError: There is not exactly one.
    """
    saveables = [
        saveable
        for name, op in saveable_object_util.op_list_to_dict([variable]).items()
        for saveable in saveable_object_util.saveable_objects_for_op(op, name)
    ]
    if len(saveables) != 1:
        raise ValueError(f"{variable.name} is {len(saveables)} variables to TensorFlow's saver")
    return saveables[0]
