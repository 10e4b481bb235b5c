# SPDX-License-Identifier: Apache-2.0
"""`init_from_checkpoint` in eager mode, functions and control flow; shapes and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from side_by_side import both, require_same

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

ARRAYS = {
    "v": np.arange(6, dtype=np.float32),
    "s/row": np.arange(10, dtype=np.float32).reshape(1, 10),
    "scalar": np.float32(2.5),
    "text": np.array([b"a", b"", b"\xff\x00b"], object),
    "whole": np.arange(4, dtype=np.int32),
}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> str:
    return save(tmp_path_factory.mktemp("modes") / "m", ARRAYS)


@pytest.fixture(params=[False, True], ids=["ref", "resource"])
def resource(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# -- Shapes and dtypes


@pytest.mark.parametrize("shape", [[6], [3, 3], [None], None, []], ids=str)
@pytest.mark.parametrize("by", ["name", "object"])
def test_shape_mismatch_is_handled_as_in_tensorflow(
    prefix: str, resource: bool, shape: Any, by: str
) -> None:
    def build() -> list[Any]:
        fixed = shape is not None and None not in shape
        start = tf.zeros(shape if fixed else [2])
        if not fixed:
            start = tf1.placeholder_with_default(start, shape)
        return [
            tf1.get_variable("v", initializer=start, validate_shape=fixed, use_resource=resource)
        ]

    target = (lambda vs: {"v": "v"}) if by == "name" else (lambda vs: {"v": vs[0]})
    require_same(*both(prefix, build, target))


def test_shape_mismatch_in_scope_raises_at_the_call(prefix: str, resource: bool) -> None:
    """TensorFlow raises when the initializer runs; with resource variables, it does not raise."""

    def build() -> list[Any]:
        with tf1.variable_scope("s", use_resource=resource):
            return [tf1.get_variable("row", [10, 1])]

    result, original = both(prefix, build, lambda vs: {"s/": "s/"})
    assert (original.error is None) == resource
    assert result.stage == "call"
    for kind in (tb.ShapeMismatchError, ValueError, tf.errors.InvalidArgumentError):
        assert isinstance(result.error, kind)


def test_dtype_mismatch_raises_at_the_call(prefix: str, resource: bool) -> None:
    """TensorFlow raises when the initializer runs."""

    def build() -> list[Any]:
        return [tf1.get_variable("v", [6], tf.float64, use_resource=resource)]

    result, original = both(prefix, build, lambda vs: {"v": vs[0]})
    assert original.stage == "run" and result.stage == "call"
    assert isinstance(result.error, type(original.error))
    text = "expected dtype double does not equal original dtype float"
    assert text in str(result.error) and text in str(original.error)


@pytest.mark.parametrize("name", ["scalar", "text", "whole"])
def test_scalar_string_and_integer_are_loaded(prefix: str, resource: bool, name: str) -> None:
    value = ARRAYS[name]
    dtype = tf.string if name == "text" else value.dtype

    def build() -> list[Any]:
        start = tf.zeros(np.shape(value), dtype)
        return [tf1.get_variable("x", initializer=start, use_resource=resource)]

    require_same(*both(prefix, build, lambda vs: {name: vs[0]}))


# -- Placement of ops


def test_ops_are_placed_on_the_cpu_of_the_task(prefix: str, resource: bool) -> None:
    def build() -> list[Any]:
        with tf1.device("/job:ps/task:1/device:GPU:0"):
            return [tf1.get_variable("v", [6], use_resource=resource)]

    devices = []
    for function in (tb.init_from_checkpoint, tf1.train.init_from_checkpoint):
        with tf.Graph().as_default(), tf1.device("/job:worker/replica:0"):
            variable = build()[0]
            function(prefix, {"v": variable})
            devices.append((variable._initial_value.device, variable.initializer.device))
    assert devices[0] == devices[1]
    assert devices[0][0] == "/job:ps/replica:0/task:1/device:CPU:0"


def test_control_dependencies_of_the_caller_apply(prefix: str, resource: bool) -> None:
    for function in (tb.init_from_checkpoint, tf1.train.init_from_checkpoint):
        with tf.Graph().as_default(), tf1.Session() as session:
            variable = tf1.get_variable("v", [6], use_resource=resource)
            gate = tf1.placeholder(tf.float32, [])
            with tf1.control_dependencies([gate]):
                function(prefix, {"v": variable})
            with pytest.raises(tf.errors.InvalidArgumentError, match="must feed"):
                session.run(variable.initializer)
            session.run(variable.initializer, {gate: 0})
            assert session.run(variable).tolist() == ARRAYS["v"].tolist()


def test_name_scope_contains_only_initializers(prefix: str) -> None:
    with tf.Graph().as_default() as graph:
        variable = tf1.get_variable("v", [6], use_resource=True)
        with tf1.name_scope("inside"):
            tb.init_from_checkpoint(prefix, {"v": variable})
        for op in graph.get_operations():
            if op.name.startswith("inside/checkpoint_initializer"):
                continue
            assert not op.name.startswith("inside/") or op.type in ("AssignVariableOp", "Identity")


def test_finalized_graph_raises(prefix: str) -> None:
    with tf.Graph().as_default() as graph:
        variable = tf1.get_variable("v", [6])
        graph.finalize()
        with pytest.raises(RuntimeError, match="finalized"):
            tb.init_from_checkpoint(prefix, {"v": variable})


def test_initializer_of_branch_stays_in_branch(prefix: str) -> None:
    for function in (tb.init_from_checkpoint, tf1.train.init_from_checkpoint):
        with tf.Graph().as_default(), tf1.Session() as session:
            variable = tf1.get_variable("v", [6], use_resource=True)

            def branch(function: Any = function, variable: Any = variable) -> Any:
                function(prefix, {"v": variable})
                return tf.constant(1)

            tf1.cond(tf.constant(True), branch, lambda: tf.constant(2))
            with pytest.raises((ValueError, TypeError, tf.errors.OpError)):
                session.run(variable.initializer)


def test_later_restore_overrides_the_value(prefix: str, tmp_path: Path, resource: bool) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable("v", [6], use_resource=resource)
        tb.init_from_checkpoint(prefix, {"v": variable})
        session.run(tf1.global_variables_initializer())
        session.run(tf1.assign(variable, variable * 10))
        saver = tf1.train.Saver()
        path = saver.save(session, str(tmp_path / "later"))
        session.run(variable.initializer)
        saver.restore(session, path)
        assert session.run(variable).tolist() == (ARRAYS["v"] * 10).tolist()


def test_imported_metagraph_reads_the_checkpoint(prefix: str, resource: bool) -> None:
    with tf.Graph().as_default() as graph:
        variable = tf1.get_variable("v", [6], use_resource=resource)
        tb.init_from_checkpoint(prefix, {"v": variable})
        proto = variable.to_proto()
        assert proto.initial_value_name == "checkpoint_initializer:0"
        exported = tf1.train.export_meta_graph(graph=graph)
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.train.import_meta_graph(exported)
        session.run(tf1.global_variables_initializer())
        assert session.run("v:0" if not resource else "v/Read/ReadVariableOp:0").tolist() == (
            ARRAYS["v"].tolist()
        )


# -- Eager mode and functions


@pytest.mark.parametrize("name", ["v", "scalar", "whole", "text"])
def test_eager_variable_is_assigned_immediately(prefix: str, name: str) -> None:
    value = ARRAYS[name]
    dtype = tf.string if name == "text" else value.dtype
    result, original = (tf.Variable(tf.zeros(np.shape(value), dtype)) for _ in range(2))
    tb.init_from_checkpoint(prefix, {name: result})
    tf1.train.init_from_checkpoint(prefix, {name: original})
    assert np.array_equal(result.numpy(), original.numpy())
    assert np.array_equal(result.numpy(), value)


def test_eager_variable_of_unknown_shape_is_assigned(prefix: str) -> None:
    variable = tf.Variable(tf.zeros([2]), shape=tf.TensorShape(None))
    tb.init_from_checkpoint(prefix, {"v": variable})
    assert variable.numpy().tolist() == ARRAYS["v"].tolist()


def test_invalid_eager_call_raises(prefix: str) -> None:
    variable = tf.Variable(tf.zeros([6], tf.float64))
    cases = [
        (tf.errors.InvalidArgumentError, {"v": variable}),
        (ValueError, {"v": "v"}),
        (ValueError, {"missing": variable}),
        (ValueError, {"scalar": variable}),
    ]
    for kind, mapping in cases:
        for function in (tf1.train.init_from_checkpoint, tb.init_from_checkpoint):
            with pytest.raises(kind):
                function(prefix, mapping)
    # TensorFlow does not support this.
    with pytest.raises(ValueError, match="does not match a variable"):
        tb.init_from_checkpoint(prefix, {"/": "/"})
    assert not variable.numpy().any()


def test_names_resolve_in_eager_variable_store(prefix: str) -> None:
    from tensorflow.python.ops import variable_scope

    with variable_scope.EagerVariableStore().as_default():
        variable = tf1.get_variable("v", [6])
        tb.init_from_checkpoint(prefix, {"v": "v"})
    assert variable.numpy().tolist() == ARRAYS["v"].tolist()


def test_function_assigns_at_each_call(prefix: str) -> None:
    variable = tf.Variable(tf.zeros([6]))

    @tf.function
    def load() -> None:
        tb.init_from_checkpoint(prefix, {"v": variable})

    for _ in range(2):
        variable.assign(tf.zeros([6]))
        load()
        assert variable.numpy().tolist() == ARRAYS["v"].tolist()


def test_function_creating_its_variable_is_rejected(prefix: str) -> None:
    """TensorFlow keeps the variable's initializer without an error."""
    created: list[Any] = []

    @tf.function
    def create() -> Any:
        if not created:
            created.append(tf.Variable(tf.zeros([6])))
            tb.init_from_checkpoint(prefix, {"v": created[0]})
        return created[0] + 1

    with pytest.raises(ValueError, match="is being created by the function"):
        create()


def test_wrapped_function_raises_or_initializes(prefix: str) -> None:
    def create() -> Any:
        with tf1.variable_scope("", use_resource=True):
            variable = tf1.get_variable("v", [6], initializer=tf1.zeros_initializer())
        tb.init_from_checkpoint(prefix, {"v": "v"})
        return variable.read_value()

    try:
        value = tf1.wrap_function(create, [])()
    except ValueError as error:
        assert "is being created by the function" in str(error)
    else:
        assert value.numpy().tolist() == ARRAYS["v"].tolist()
