# SPDX-License-Identifier: Apache-2.0
"""The graph that a variable belongs to, and functions that are traced while a call is made."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


def check_graph(variable: Any) -> None:
    """Refuses a variable for which nothing can be made where the call is made.

    Raises:
        RuntimeError: An eager variable in a graph that is no function's, as TensorFlow answers.
        ValueError: A variable of another graph, or a graph's in eager mode, as TensorFlow answers.
        TypeError: Likewise, in a function that eager code traces.
    """
    import tensorflow as tf
    from tensorflow.python.framework import func_graph, ops

    graph = getattr(variable, "graph", None)  # None: an eager variable has none.
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


def is_lost(variable: Any) -> bool:
    """Whether a variable is being made by the function that is being traced.

    Its value then comes from an initializer that TensorFlow lifts out of the trace, whatever else
    is assigned to it there.
    """
    import tensorflow as tf

    handle = _handle_from_outside(variable)
    if handle is None:
        return False
    with tf.init_scope():
        return not tf.raw_ops.VarIsInitializedOp(resource=handle)


def check_not_lost(variable: Any) -> None:
    """Refuses a variable whose new initializer TensorFlow would drop without a word.

    TensorFlow traces a function that makes its variables twice, and runs the second trace alone.
    What assigns to a variable in both is run; what does so in the first alone is dropped, and is an
    error after the second.

    Raises:
        ValueError: It is being made by the function that is being traced, and nobody can see
            whether the function is traced again.
    """
    watch = _watches.get(id(variable))
    if not is_lost(variable):
        if watch is not None:
            watch.variables.pop(id(variable), None)
        return
    function = _function_that_makes(variable)
    if function is None:
        raise ValueError(_dropped(variable))
    if watch is None:
        watch = next((each for each in _watches.values() if each.function is function), None)
        _watches[id(variable)] = watch = watch or _Watch(function)
    watch.variables[id(variable)] = variable


def is_left_out(variable: Any) -> bool:
    """Whether nothing would run what a graph function assigns to a variable from outside of it.

    So it is under ``wrap_function``, which keeps just what the results need.
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
    """Sees to it that the second trace of a function initializes what the first one did.

    Attributes:
        function: The ``tf.function``.
        variables: Those that the next trace has still to initialize.
    """

    def __init__(self, function: Any) -> None:
        """Lets the function's second trace go through this; it is the next one to be made."""
        from tensorflow.python.util import tf_decorator

        self.function = function
        self.variables: dict[int, Any] = {}
        original = function._python_function

        def traced(*args: Any, **kwargs: Any) -> Any:
            # As TensorFlow's own decorators do, so that AutoGraph can convert what they wrap.
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


# By the id of a variable that is being made. It goes when the function's second trace ends.
_watches: dict[int, _Watch] = {}


def _function_that_makes(variable: Any) -> Any:
    """The ``tf.function`` whose first trace is being made, and makes the variable; or None."""
    from tensorflow.python.eager.polymorphic_function import polymorphic_function

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_initialize":
            owner = frame.f_locals.get("self")
            if isinstance(owner, polymorphic_function.Function):
                made = getattr(owner, "_created_variables", None) or []
                return owner if any(each() is variable for each in made) else None
        frame = frame.f_back
    return None


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
