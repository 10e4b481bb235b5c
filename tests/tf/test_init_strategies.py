# SPDX-License-Identifier: Apache-2.0
"""Distributed variables: all components get the value of one read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

CPUS = ["/cpu:0", "/cpu:1"]
VALUE = np.arange(6, dtype=np.float32) + 1

# TensorFlow counts the devices once per process, so this runs at import.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

FUNCTIONS = (tb.init_from_checkpoint, tf1.train.init_from_checkpoint)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> str:
    return save(tmp_path_factory.mktemp("strategies") / "m", {"v": VALUE})


def components(variable: Any) -> list[Any]:
    return list(getattr(variable, "values", None) or [variable])


def run(strategy: Any, build: Callable[[], Any], call: Callable[[Any], None]) -> dict[str, Any]:
    """Builds in the strategy's scope; returns the components' values and the number of reads."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        with strategy.scope():
            variable = build()
            call(variable)
        session.run(variable.initializer)
        values = [session.run(each).tolist() for each in components(variable)]
        types = [op.type for op in graph.get_operations() if "checkpoint_init" in op.name]
    return {"values": values, "reads": len([t for t in types if t in READS])}


READS = ("RestoreV2", "TensorbundleReadV1")
FORMS = {"object": lambda v: {"v": v}, "name": lambda v: {"v": "v"}, "scope": lambda v: {"/": "/"}}


@pytest.mark.parametrize("form", FORMS)
def test_mirrored_variable_in_scope_is_read_once(prefix: str, form: str) -> None:
    results = [
        run(
            tf.distribute.MirroredStrategy(CPUS),
            lambda: tf1.get_variable("v", [6], initializer=tf1.zeros_initializer()),
            lambda v, function=function: function(prefix, FORMS[form](v)),
        )
        for function in FUNCTIONS
    ]
    assert results[0] == results[1] == {"values": [VALUE.tolist()] * 2, "reads": 1}


def test_mirrored_variable_in_replica_is_read_once(prefix: str) -> None:
    results = []
    for function in FUNCTIONS:
        strategy = tf.distribute.MirroredStrategy(CPUS)
        with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:

            def model(function: Any = function) -> Any:
                variable = tf1.get_variable("v", [6], initializer=tf1.zeros_initializer())
                function(prefix, {"v": variable})
                return variable.read_value()

            with strategy.scope():
                strategy.extended.call_for_each_replica(model)
                variable = tf1.global_variables()[0]
            session.run(tf1.global_variables_initializer())
            types = [op.type for op in graph.get_operations() if op.type in READS]
            values = [session.run(each).tolist() for each in tf1.global_variables()]
            results.append((values, len(types), type(variable.initializer)))
    assert results[0] == results[1]
    assert results[0][:2] == ([VALUE.tolist()] * len(results[0][0]), 1)


def test_options_apply_to_a_call_in_a_replica(prefix: str) -> None:
    with tf.Graph().as_default() as graph, tf.distribute.MirroredStrategy(CPUS).scope():

        def model() -> None:
            variable = tf1.get_variable("v", [6], initializer=tf1.zeros_initializer())
            with tb.tf.options(op="stock"):
                tb.init_from_checkpoint(prefix, {"v": variable})

        tf.distribute.get_strategy().extended.call_for_each_replica(model)
        types = {op.type for op in graph.get_operations()}
    assert types & set(READS) == {"RestoreV2"}


def test_sum_aggregation_divides_by_replicas(prefix: str) -> None:
    def build() -> Any:
        return tf1.get_variable(
            "v", [6], initializer=tf1.zeros_initializer(), trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf1.VariableAggregation.SUM,
        )  # fmt: skip

    results = [
        run(
            tf.distribute.MirroredStrategy(CPUS),
            build,
            lambda v, function=function: function(prefix, {"v": v}),
        )
        for function in FUNCTIONS
    ]
    assert results[0] == results[1]
    assert results[0]["values"] == [(VALUE / 2).tolist()] * 2


def test_one_component_is_initialized_alone(prefix: str) -> None:
    for function in FUNCTIONS:
        with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
            with tf.distribute.MirroredStrategy(CPUS).scope():
                variable = tf1.get_variable("v", [6], initializer=tf1.zeros_initializer())
                replicas = components(variable)
                function(prefix, {"v": replicas[1]})
            session.run([replica.initializer for replica in replicas])
            values = [session.run(replica).tolist() for replica in replicas]
        assert values == [[0] * 6, VALUE.tolist()]


@pytest.mark.parametrize("context", ["in scope", "outside", "in a replica", "in a function"])
def test_mirrored_eager_variable_is_initialized(prefix: str, context: str) -> None:
    strategy = tf.distribute.MirroredStrategy(CPUS)
    with strategy.scope():
        variable = tf.Variable(tf.zeros([6]))

    def load() -> None:
        tb.init_from_checkpoint(prefix, {"v": variable})

    if context == "in scope":
        with strategy.scope():
            load()
    elif context == "outside":
        load()
    elif context == "in a replica":
        strategy.run(load)
    else:
        tf.function(lambda: strategy.run(load))()
    assert [replica.numpy().tolist() for replica in variable.values] == [VALUE.tolist()] * 2


def test_aggregating_variable_is_initialized(prefix: str) -> None:
    """TensorFlow replaces the initializer of the wrapper, which does not run."""

    def start(function: Any) -> list[float]:
        strategy = tf.distribute.experimental.CentralStorageStrategy(CPUS, "/cpu:0")
        with tf.Graph().as_default(), tf1.Session() as session, strategy.scope():
            variable = tf1.get_variable("v", [6], initializer=tf1.zeros_initializer())
            assert type(variable).__name__ == "AggregatingVariable"
            function(prefix, {"v": variable})
            session.run(tf1.global_variables_initializer())
            value: list[float] = session.run(variable._v).tolist()
            assert session.run(variable.initial_value).tolist() == value
        return value

    assert start(tf1.train.init_from_checkpoint) == [0] * 6
    assert start(tb.init_from_checkpoint) == VALUE.tolist()


def test_strategy_of_one_device_initializes_variable(prefix: str) -> None:
    for strategy in (
        tf.distribute.MirroredStrategy(["/cpu:0"]),
        tf.distribute.OneDeviceStrategy("/cpu:0"),
    ):
        results = [
            run(
                strategy,
                lambda: tf1.get_variable("v", [6], initializer=tf1.zeros_initializer()),
                lambda v, function=function: function(prefix, {"v": v}),
            )["values"]
            for function in FUNCTIONS
        ]
        assert results[0] == results[1] == [VALUE.tolist()]
