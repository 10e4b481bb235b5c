# SPDX-License-Identifier: Apache-2.0
"""Variables of Keras, of other graphs and of functions that create them."""

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
    """Creates a layer whose kernel is named dense/kernel."""

    def make() -> Any:
        made = tf.keras.layers.Dense(4, name="dense")
        with tf.name_scope("dense"):
            made.build((None, 3))
        return made

    return make


@pytest.fixture
def mixed() -> Any:
    """Keras creates variables that report float16 but are float32."""
    before = tf.keras.mixed_precision.global_policy() if hasattr(
        tf.keras.mixed_precision, "global_policy"
    ) else tf.keras.mixed_precision.dtype_policy()  # fmt: skip
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy(before)


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "itself": lambda variable: variable,
    "in a list": lambda variable: [variable],
    "in a tuple": lambda variable: (variable,),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_variables_of_keras(prefix: str, layer: Callable[[], Any], how: str) -> None:
    made = layer()
    report = tb.init_from_checkpoint(prefix, {"w": WRAPPED[how](made.kernel)})
    np.testing.assert_array_equal(np.asarray(made.get_weights()[0]), VALUE)
    assert list(report.loaded.values()) == ["w"]


def test_warm_starts_of_keras(prefix: str, layer: Callable[[], Any]) -> None:
    made = layer()
    report = tb.warm_start(prefix, [made.kernel])
    np.testing.assert_array_equal(made.get_weights()[0], VALUE + 1)
    assert report.loaded == {"dense/kernel": "dense/kernel"}
    tb.warm_start(prefix, [made.kernel], None, {"dense/kernel": "w"})
    np.testing.assert_array_equal(made.get_weights()[0], VALUE)


def test_mixed_precision_keeps_its_own_type(
    prefix: str, layer: Callable[[], Any], mixed: Any
) -> None:
    made = layer()
    tb.init_from_checkpoint(prefix, {"w": made.kernel})
    np.testing.assert_array_equal(made.get_weights()[0], VALUE)

    @tf.function
    def load(x: Any) -> Any:
        tb.init_from_checkpoint(prefix, {"dense/kernel": made.kernel})
        return made(x)

    assert load(tf.ones([1, 3])).dtype == tf.float16
    np.testing.assert_array_equal(made.get_weights()[0], VALUE + 1)


def test_keras_in_a_graph(prefix: str, layer: Callable[[], Any], mixed: Any) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        kernel = layer().kernel
        inner = getattr(kernel, "_variable", None)
        inner = kernel.value if inner is None else inner
        tb.init_from_checkpoint(prefix, {"w": kernel})
        session.run(tf1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(inner), VALUE)


def test_variables_of_another_backend(prefix: str) -> None:
    keras = pytest.importorskip("keras")
    if not hasattr(keras, "Variable"):
        pytest.skip("Keras 2 has TensorFlow's variables alone")
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


def test_variables_of_keras_without_a_value(prefix: str) -> None:
    keras = pytest.importorskip("keras")
    if not hasattr(keras, "Variable"):
        pytest.skip("Keras 2 has TensorFlow's variables alone")
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
OURS = (tb.init_from_checkpoint, tb.warm_start)
THEIRS = (tf1.train.init_from_checkpoint, tf1.train.warm_start)


def variable(resource: bool) -> Any:
    return tf1.get_variable("x", [3, 4], use_resource=resource)


@pytest.mark.parametrize("call", CALLS)
def test_a_variable_of_another_graph(prefix: str, resource: bool, call: str) -> None:
    with tf.Graph().as_default():
        foreign = variable(resource)
        before = foreign.initializer
    with tf.Graph().as_default() as graph:
        for functions in (THEIRS, OURS):
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
def test_a_graphs_variable_in_eager_mode(prefix: str, resource: bool, call: str) -> None:
    with tf.Graph().as_default():
        foreign = variable(resource)
    for functions in (THEIRS, OURS):
        with pytest.raises(ValueError):
            CALLS[call](*functions, prefix, foreign)

    def in_a_function() -> None:
        CALLS[call](*OURS, prefix, foreign)

    with pytest.raises(TypeError):
        tf.function(in_a_function)()


@pytest.mark.parametrize("call", CALLS)
def test_an_eager_variable_in_a_graph(prefix: str, call: str) -> None:
    eager = tf.Variable(tf.zeros([3, 4]), name="x")
    with tf.Graph().as_default():
        for functions in (THEIRS, OURS):
            with pytest.raises(RuntimeError):
                CALLS[call](*functions, prefix, eager)

            def in_a_function(functions: Any = functions) -> None:
                CALLS[call](*functions, prefix, eager)

            with pytest.raises(RuntimeError):
                tf.function(in_a_function)()
    assert not eager.numpy().any()


def test_partitions_of_another_graph(prefix: str) -> None:
    with tf.Graph().as_default():
        table = tf1.get_variable("x", [3, 4], partitioner=tf1.fixed_size_partitioner(3))
    with tf.Graph().as_default():
        for target in (table, list(table)):
            with pytest.raises(ValueError, match="another graph"):
                tb.init_from_checkpoint(prefix, {"w": target})


def test_a_variable_from_around_a_branch(prefix: str) -> None:
    """A function of the same graph may use its variables."""
    with tf.Graph().as_default():
        outer = tf1.get_variable("x", [3, 4], use_resource=True)

        def branch() -> Any:
            tb.init_from_checkpoint(prefix, {"w": outer})
            return tf.constant(1)

        tf.cond(tf1.placeholder_with_default(True, []), branch, lambda: tf.constant(2))


# -- Functions that create their variables in the first of two traces


def creating(call: Callable[[Any], Any], every: bool, **options: Any) -> tuple[Any, list[Any]]:
    """A function that creates a variable in its first trace, and the variable."""
    made: list[Any] = []

    @tf.function(**options)
    def function(factor: Any = 1.0) -> Any:
        is_first = not made
        if is_first:
            made.append(tf.Variable(tf.zeros([3, 4]), name="x"))
        if is_first or every:
            call(made[0])
        return made[0] * factor

    return function, made


@pytest.mark.parametrize("autograph", [True, False])
def test_an_initialization_in_every_trace_takes_effect(prefix: str, autograph: bool) -> None:
    for init in (tf1.train.init_from_checkpoint, tb.init_from_checkpoint):
        function, made = creating(
            lambda v, init=init: init(prefix, {"w": v}), True, autograph=autograph
        )
        np.testing.assert_array_equal(function(), VALUE)
        np.testing.assert_array_equal(made[0], VALUE)
        made[0].assign(tf.zeros([3, 4]))
        np.testing.assert_array_equal(function(tf.constant(2.0)), VALUE * 2)  # traced once more


def test_an_initialization_in_the_first_trace_only_is_rejected(prefix: str) -> None:
    """TensorFlow silently drops it."""
    original, made = creating(lambda v: tf1.train.init_from_checkpoint(prefix, {"w": v}), False)
    assert not original().numpy().any() and not made[0].numpy().any()
    ours, _ = creating(lambda v: tb.init_from_checkpoint(prefix, {"w": v}), False)
    with pytest.raises(ValueError, match="is being created by the function"):
        ours()


def test_a_concrete_function_is_traced_twice_too(prefix: str) -> None:
    function, made = creating(lambda v: tb.init_from_checkpoint(prefix, {"w": v}), True)
    concrete = function.get_concrete_function()
    np.testing.assert_array_equal(concrete(), VALUE)
    function, _ = creating(lambda v: tb.init_from_checkpoint(prefix, {"w": v}), False)
    with pytest.raises(ValueError, match="is being created by the function"):
        function.get_concrete_function()
    assert made


def test_several_variables_of_one_function(prefix: str) -> None:
    made: list[Any] = []

    @tf.function
    def function() -> Any:
        if not made:
            made.extend(tf.Variable(tf.zeros([3, 4]), name=f"v{i}") for i in range(2))
            tb.init_from_checkpoint(prefix, {"w": made[1]})
        tb.init_from_checkpoint(prefix, {"w": made[0]})
        return made[0] + made[1]

    with pytest.raises(ValueError, match=r"'v1:0' is being created"):
        function()


def test_an_inner_function_is_rejected(prefix: str) -> None:
    """It is unknown whether it will be traced again."""
    made: list[Any] = []

    @tf.function
    def inner() -> None:
        tb.init_from_checkpoint(prefix, {"w": made[0]})

    @tf.function
    def outer() -> Any:
        if not made:
            made.append(tf.Variable(tf.zeros([3, 4])))
        inner()
        return made[0] + 0

    with pytest.raises(ValueError, match="is being created by the function"):
        outer()
