# SPDX-License-Identifier: Apache-2.0
"""Checks of a variable's graph, and of calls inside functions that are being traced."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


def check_graph(variable: Any) -> None:
    """Checks that ops for a variable can be created in the current graph or eager context.

    Raises:
        RuntimeError: An eager variable in a graph that is not a function's, as in TensorFlow.
        ValueError: A variable of another graph, or of a graph in eager mode, as in TensorFlow.
        TypeError: Likewise, in a function that eager code traces.
    """
    import tensorflow as tf
    from tensorflow.python.framework import func_graph, ops

    graph = getattr(variable, "graph", None)  # None for an eager variable
    here = ops.get_default_graph()
    if tf.executing_eagerly():
        if graph is not None:
            raise ValueError(
                f"variable {variable.name} belongs to a graph, and this is eager mode: call this "
                "where its graph is the default graph"
            )
        return
    if graph is here:
        return
    if not isinstance(here, func_graph.FuncGraph):
        if graph is None:
            raise RuntimeError(
                f"variable {variable.name} is an eager variable, and a graph is being built: call "
                "this in eager mode, or with a variable of the graph"
            )
        raise _foreign(variable, ValueError)
    _check_in_function(variable, graph, here)


def _check_in_function(variable: Any, graph: Any, here: Any) -> None:
    import tensorflow as tf
    from tensorflow.python.framework import ops

    with tf.init_scope():
        eager, outside = tf.executing_eagerly(), ops.get_default_graph()
    if graph is None:
        if not eager:
            raise RuntimeError(
                f"variable {variable.name} is an eager variable, and the function is traced for a "
                "graph: call this in eager mode, or with a variable of the graph"
            )
        return
    around = here
    while around is not None and around is not outside:
        if around is graph:
            return
        around = getattr(around, "outer_graph", None)
    if eager or graph is not outside:
        raise _foreign(variable, TypeError if eager else ValueError)


def _foreign(variable: Any, kind: type[Exception]) -> Exception:
    return kind(
        f"variable {variable.name} belongs to another graph than the one in which its initializer "
        "would be made: call this where its graph is the default graph"
    )


def initializer_dropped_by_tracing(variable: Any) -> bool:
    """Whether a variable is being created by the function that is being traced.

    TensorFlow then lifts the variable's own initializer out of the trace, and drops other
    assignments in the trace.
    """
    import tensorflow as tf

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
    watch = _watches.get(id(variable))
    if not initializer_dropped_by_tracing(variable):
        if watch is not None:
            watch.variables.pop(id(variable), None)
        return
    function = _function_that_creates(variable)
    if function is None:
        raise ValueError(_dropped(variable))
    if watch is None:
        watch = next((each for each in _watches.values() if each.function is function), None)
        _watches[id(variable)] = watch = watch or _Watch(function)
    watch.variables[id(variable)] = variable


def is_assignment_pruned(variable: Any) -> bool:
    """Whether a function's assignment to a variable from outside of it would be pruned.

    This is so under ``wrap_function``, which keeps only the ops that its results depend on.
    """
    from tensorflow.python.framework import ops

    runs_everything = getattr(ops.get_default_graph(), "_add_control_dependencies", True)
    return not runs_everything and _handle_from_outside(variable) is not None


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
        variables: The variables that the next trace must still initialize.
    """

    def __init__(self, function: Any) -> None:
        """Hooks into the function's next trace, which is the second."""
        from tensorflow.python.util import tf_decorator

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

    def _end(self) -> None:
        for key in [key for key, watch in _watches.items() if watch is self]:
            del _watches[key]
        if self.function is not None:
            self.function._python_function = self._original
            self.function = None
        left, self.variables = self.variables, {}
        for variable in left.values():
            raise ValueError(_dropped(variable))


# By the id of a variable that is being created. Removed when the function's second trace ends.
_watches: dict[int, _Watch] = {}


def _function_that_creates(variable: Any) -> Any:
    """Returns the ``tf.function`` whose first trace is creating the variable, or None."""
    from tensorflow.python.eager.polymorphic_function import polymorphic_function

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
    import tensorflow as tf
    from tensorflow.python.framework import func_graph, ops

    if tf.executing_eagerly() or not isinstance(ops.get_default_graph(), func_graph.FuncGraph):
        return None
    if isinstance(variable, tf.distribute.DistributedValues):
        # A distributed variable has no handle outside of replica context.
        variable = variable._primary
    handle = getattr(variable, "handle", None)
    return handle if isinstance(handle, tf.__internal__.EagerTensor) else None
