# SPDX-License-Identifier: Apache-2.0
"""Initializes variables of Keras, of other graphs, and of functions that create them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

VALUE = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> str:
    return save(tmp_path_factory.mktemp("targets") / "m", {"w": VALUE, "dense/kernel": VALUE + 1})


# -- Keras


@pytest.fixture
def layer() -> Callable[[], Any]:
    """Returns a function that creates a layer with a kernel named dense/kernel."""

    def create() -> Any:
        dense = tf.keras.layers.Dense(4, name="dense")
        with tf.name_scope("dense"):
            dense.build((None, 3))
        return dense

    return create


@pytest.fixture
def mixed_float16_policy() -> Any:
    """Enables a policy under which variables report float16 but are float32."""
    before = tf.keras.mixed_precision.global_policy() if hasattr(
        tf.keras.mixed_precision, "global_policy"
    ) else tf.keras.mixed_precision.dtype_policy()  # fmt: skip
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy(before)


TARGETS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda variable: variable,
    "in a list": lambda variable: [variable],
    "in a tuple": lambda variable: (variable,),
}


@pytest.mark.parametrize("target", TARGETS)
def test_keras_variable_is_initialized(prefix: str, layer: Callable[[], Any], target: str) -> None:
    dense = layer()
    report = tb.init_from_checkpoint(prefix, {"w": TARGETS[target](dense.kernel)})
    np.testing.assert_array_equal(np.asarray(dense.get_weights()[0]), VALUE)
    assert list(report.loaded.values()) == ["w"]


def test_keras_variable_is_warm_started(prefix: str, layer: Callable[[], Any]) -> None:
    dense = layer()
    report = tb.warm_start(prefix, [dense.kernel])
    np.testing.assert_array_equal(dense.get_weights()[0], VALUE + 1)
    assert report.loaded == {"dense/kernel": "dense/kernel"}
    tb.warm_start(prefix, [dense.kernel], None, {"dense/kernel": "w"})
    np.testing.assert_array_equal(dense.get_weights()[0], VALUE)


def test_mixed_precision_variable_keeps_float32(
    prefix: str, layer: Callable[[], Any], mixed_float16_policy: Any
) -> None:
    dense = layer()
    tb.init_from_checkpoint(prefix, {"w": dense.kernel})
    np.testing.assert_array_equal(dense.get_weights()[0], VALUE)

    @tf.function
    def load(x: Any) -> Any:
        tb.init_from_checkpoint(prefix, {"dense/kernel": dense.kernel})
        return dense(x)

    assert load(tf.ones([1, 3])).dtype == tf.float16
    np.testing.assert_array_equal(dense.get_weights()[0], VALUE + 1)


def test_keras_variable_in_graph_is_initialized(
    prefix: str, layer: Callable[[], Any], mixed_float16_policy: Any
) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        kernel = layer().kernel
        inner = getattr(kernel, "_variable", None)
        inner = kernel.value if inner is None else inner
        tb.init_from_checkpoint(prefix, {"w": kernel})
        session.run(tf1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(inner), VALUE)


def test_keras_variable_of_other_backend_is_rejected(prefix: str) -> None:
    keras = pytest.importorskip("keras")
    if not hasattr(keras, "Variable"):
        pytest.skip("Keras 2 has no variable class")
    kernel = keras.Variable(np.zeros((3, 4)), name="kernel")
    kernel._value = np.zeros((3, 4))  # as in another backend
    calls: list[Callable[[], Any]] = [
        lambda: tb.init_from_checkpoint(prefix, {"w": kernel}),
        lambda: tb.init_from_checkpoint(prefix, {"w": [kernel]}),
        lambda: tb.warm_start(prefix, [kernel]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="Keras runs on another backend"):
            call()


def test_keras_variable_without_value_is_rejected(prefix: str) -> None:
    keras = pytest.importorskip("keras")
    if not hasattr(keras, "Variable"):
        pytest.skip("Keras 2 has no variable class")
    with keras.StatelessScope():
        variable = keras.Variable(initializer="zeros", shape=(3, 4), name="late")
        with pytest.raises(ValueError, match="has no value yet"):
            tb.init_from_checkpoint(prefix, {"w": variable})


# -- Graphs


@pytest.fixture(params=["ref", "resource"])
def resource(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "resource")


CALLS: dict[str, Callable[..., Any]] = {
    "init": lambda init, warm, prefix, v: init(prefix, {"w": v}),
    "warm": lambda init, warm, prefix, v: warm(prefix, [v], None, {"x": "w"}),
}
OUR_FUNCTIONS = (tb.init_from_checkpoint, tb.warm_start)
ORIGINAL_FUNCTIONS = (tf1.train.init_from_checkpoint, tf1.train.warm_start)


def variable(resource: bool) -> Any:
    return tf1.get_variable("x", [3, 4], use_resource=resource)


@pytest.mark.parametrize("call", CALLS)
def test_variable_of_other_graph_is_rejected(prefix: str, resource: bool, call: str) -> None:
    with tf.Graph().as_default():
        foreign = variable(resource)
        before = foreign.initializer
    with tf.Graph().as_default() as graph:
        for functions in (ORIGINAL_FUNCTIONS, OUR_FUNCTIONS):
            with pytest.raises(ValueError):
                CALLS[call](*functions, prefix, foreign)
        with pytest.raises(ValueError, match="another graph"):
            tb.init_from_checkpoint(prefix, {"w": [foreign]})
        own = tf1.get_variable("own", [3, 4])
        count = len(graph.get_operations())
        with pytest.raises(ValueError, match="another graph"):
            tb.init_from_checkpoint(prefix, [("dense/kernel", own), ("w", foreign)])
        assert len(graph.get_operations()) == count
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
    assert foreign.initializer is before


@pytest.mark.parametrize("call", CALLS)
def test_graph_variable_in_eager_mode_is_rejected(prefix: str, resource: bool, call: str) -> None:
    with tf.Graph().as_default():
        foreign = variable(resource)
    for functions in (ORIGINAL_FUNCTIONS, OUR_FUNCTIONS):
        with pytest.raises(ValueError):
            CALLS[call](*functions, prefix, foreign)

    def in_a_function() -> None:
        CALLS[call](*OUR_FUNCTIONS, prefix, foreign)

    with pytest.raises(TypeError):
        tf.function(in_a_function)()


@pytest.mark.parametrize("call", CALLS)
def test_eager_variable_in_graph_is_rejected(prefix: str, call: str) -> None:
    eager = tf.Variable(tf.zeros([3, 4]), name="x")
    with tf.Graph().as_default():
        for functions in (ORIGINAL_FUNCTIONS, OUR_FUNCTIONS):
            with pytest.raises(RuntimeError):
                CALLS[call](*functions, prefix, eager)

            def in_a_function(functions: Any = functions) -> None:
                CALLS[call](*functions, prefix, eager)

            with pytest.raises(RuntimeError):
                tf.function(in_a_function)()
    assert not eager.numpy().any()


def test_partitions_of_other_graph_are_rejected(prefix: str) -> None:
    with tf.Graph().as_default():
        table = tf1.get_variable("x", [3, 4], partitioner=tf1.fixed_size_partitioner(3))
    with tf.Graph().as_default():
        for target in (table, list(table)):
            with pytest.raises(ValueError, match="another graph"):
                tb.init_from_checkpoint(prefix, {"w": target})


def test_branch_can_initialize_variable_of_its_graph(prefix: str) -> None:
    with tf.Graph().as_default():
        outer = tf1.get_variable("x", [3, 4], use_resource=True)

        def branch() -> Any:
            tb.init_from_checkpoint(prefix, {"w": outer})
            return tf.constant(1)

        tf.cond(tf1.placeholder_with_default(True, []), branch, lambda: tf.constant(2))


# -- Functions that create their variables in the first of two traces


def creating_function(
    call: Callable[[Any], Any], every: bool, **options: Any
) -> tuple[Any, list[Any]]:
    """Returns a function that creates a variable in its first trace, and that variable."""
    created: list[Any] = []

    @tf.function(**options)
    def function(factor: Any = 1.0) -> Any:
        is_first = not created
        if is_first:
            created.append(tf.Variable(tf.zeros([3, 4]), name="x"))
        if is_first or every:
            call(created[0])
        return created[0] * factor

    return function, created


@pytest.mark.parametrize("autograph", [True, False])
def test_initialization_in_every_trace_takes_effect(prefix: str, autograph: bool) -> None:
    for init in (tf1.train.init_from_checkpoint, tb.init_from_checkpoint):
        function, created = creating_function(
            lambda v, init=init: init(prefix, {"w": v}), True, autograph=autograph
        )
        np.testing.assert_array_equal(function(), VALUE)
        np.testing.assert_array_equal(created[0], VALUE)
        created[0].assign(tf.zeros([3, 4]))
        np.testing.assert_array_equal(function(tf.constant(2.0)), VALUE * 2)  # a second trace


def test_initialization_in_first_trace_only_is_rejected(prefix: str) -> None:
    """TensorFlow drops it without an error."""
    original, created = creating_function(
        lambda v: tf1.train.init_from_checkpoint(prefix, {"w": v}), False
    )
    assert not original().numpy().any() and not created[0].numpy().any()
    function, _ = creating_function(lambda v: tb.init_from_checkpoint(prefix, {"w": v}), False)
    with pytest.raises(ValueError, match="is being created by the function"):
        function()


def test_concrete_function_is_also_traced_twice(prefix: str) -> None:
    function, created = creating_function(lambda v: tb.init_from_checkpoint(prefix, {"w": v}), True)
    concrete = function.get_concrete_function()
    np.testing.assert_array_equal(concrete(), VALUE)
    function, _ = creating_function(lambda v: tb.init_from_checkpoint(prefix, {"w": v}), False)
    with pytest.raises(ValueError, match="is being created by the function"):
        function.get_concrete_function()
    assert created


def test_error_names_the_variable_initialized_once(prefix: str) -> None:
    created: list[Any] = []

    @tf.function
    def function() -> Any:
        if not created:
            created.extend(tf.Variable(tf.zeros([3, 4]), name=f"v{i}") for i in range(2))
            tb.init_from_checkpoint(prefix, {"w": created[1]})
        tb.init_from_checkpoint(prefix, {"w": created[0]})
        return created[0] + created[1]

    with pytest.raises(ValueError, match=r"'v1:0' is being created"):
        function()


def test_initialization_in_inner_function_is_rejected(prefix: str) -> None:
    """The inner function might not be traced a second time."""
    created: list[Any] = []

    @tf.function
    def inner() -> None:
        tb.init_from_checkpoint(prefix, {"w": created[0]})

    @tf.function
    def outer() -> Any:
        if not created:
            created.append(tf.Variable(tf.zeros([3, 4])))
        inner()
        return created[0] + 0

    with pytest.raises(ValueError, match="is being created by the function"):
        outer()
