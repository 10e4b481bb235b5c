# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's own code builds graphs with our initializers while tensorbundle is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tensorflow.python.eager import context  # noqa: E402

from tensorbundle.tf import installation, op_library, options  # noqa: E402

v1 = tf.compat.v1
needs_op = pytest.mark.skipif(op_library.load() is None, reason="the op library cannot be loaded")

OLD = ["apple", "pear", "plum", "fig"]
NEW = ["fig", "apple", "quince", "plum"]
TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
ONES = np.ones(3, np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a checkpoint with an embedding table, and two vocabularies; returns the folder."""
    folder = tmp_path_factory.mktemp("model")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("fruit/table", initializer=TABLE)
        v1.get_variable("bias", initializer=tf.constant([1.0, 2.0, 3.0]))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    (folder / "old.txt").write_text("\n".join(OLD) + "\n")
    (folder / "new.txt").write_text("\n".join(NEW) + "\n")
    return folder


def run(build: Callable[[], Any]) -> tuple[Any, set[str]]:
    """Returns the values of a graph after initialization, and the types of its ops."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        outputs = build()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        return session.run(outputs), {operation.type for operation in graph.get_operations()}


def check_graphs(build: Callable[[], Any], name: str, expected: Any) -> None:
    """Compares the values of TensorFlow's graph and of ours, which calls `name` once."""
    original, _ = run(build)
    with installation.installed():
        patched, _ = run(build)
        assert installation.calls()[name] == 1
    np.testing.assert_array_equal(original, expected)
    np.testing.assert_array_equal(patched, expected)


def embedding_columns(model: Path) -> dict[str, Callable[[], Any]]:
    """Returns functions that build a layer with an embedding initialized from a checkpoint."""
    keys = ["plum", "apple", "fig"]

    def column(module: Any, **more: Any) -> Any:
        categorical = module.categorical_column_with_vocabulary_list("fruit", OLD)
        return module.embedding_column(
            categorical, 3, ckpt_to_load_from=str(model), tensor_name_in_ckpt="fruit/table", **more
        )

    def input_layer() -> Any:
        feature_column = v1.feature_column
        return feature_column.input_layer({"fruit": tf.constant(keys)}, [column(feature_column)])

    def fixed_input_layer() -> Any:
        feature_column = v1.feature_column
        fixed = column(feature_column, trainable=False)
        return feature_column.input_layer({"fruit": tf.constant(keys)}, [fixed])

    def shared() -> Any:
        feature_column = v1.feature_column
        categorical = feature_column.categorical_column_with_vocabulary_list("fruit", OLD)
        columns = feature_column.shared_embedding_columns(
            [categorical], 3, ckpt_to_load_from=str(model), tensor_name_in_ckpt="fruit/table"
        )
        return feature_column.input_layer({"fruit": tf.constant(keys)}, columns)

    return {"embedding": input_layer, "not trained": fixed_input_layer, "shared": shared}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["embedding", "not trained", "shared"])
def test_feature_column_gets_tensorflows_values(model: Path, kind: str) -> None:
    check_graphs(embedding_columns(model)[kind], "init_from_checkpoint", TABLE[[2, 0, 3]])


def start_by_name(model: Path) -> Any:
    new = v1.get_variable("new", [3])
    v1.train.init_from_checkpoint(str(model), {"bias": "new"})
    return new


def start_partitioned(model: Path) -> Any:
    with v1.variable_scope("fruit", partitioner=v1.fixed_size_partitioner(2)):
        table = v1.get_variable("table", [4, 3])
    v1.train.init_from_checkpoint(str(model), {"fruit/": "fruit/"})
    return table.as_tensor()


def start_by_vocabulary(model: Path) -> Any:
    with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(2)):
        table = v1.get_variable("fruit/table", [5, 3])
    info = v1.train.VocabInfo(
        str(model / "new.txt"), 4, 1, str(model / "old.txt"), -1, v1.ones_initializer()
    )
    v1.train.warm_start(str(model), var_name_to_vocab_info={"fruit/table": info})
    return table.as_tensor()


@pytest.mark.parametrize(
    ("start", "name", "expected"),
    [
        (start_by_name, "init_from_checkpoint", [1, 2, 3]),
        (start_partitioned, "init_from_checkpoint", TABLE),
        (start_by_vocabulary, "warm_start", [TABLE[3], TABLE[0], ONES, TABLE[2], ONES]),
    ],
)
def test_variables_get_tensorflows_values(
    model: Path, start: Callable[[Path], Any], name: str, expected: Any
) -> None:
    check_graphs(lambda: start(model), name, expected)


@needs_op
@pytest.mark.parametrize("start", [start_by_name, start_partitioned, start_by_vocabulary])
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("device", ["/job:ps/task:0", "/job:localhost/task:0", ""])
def test_remote_devices_get_our_ops_only_with_remote(
    model: Path, start: Callable[[Path], Any], remote: bool, device: str
) -> None:
    """A server without the op library would reject the whole graph."""
    with installation.installed(remote=remote), tf.Graph().as_default() as graph:
        with tf.device(device):
            start(model)
        our_devices = {
            each.device for each in graph.get_operations() if each.type.startswith("Tensorbundle")
        }
        counted = installation.calls()
        assert counted["init_from_checkpoint"] + counted["warm_start"] == 1
        reads = [each for each in graph.get_operations() if each.type == "RestoreV2"]
        expect_our_ops = remote and "ps" in device
        assert bool(our_devices) is expect_our_ops
        if not expect_our_ops and start is not start_by_vocabulary:
            assert reads
        for each in reads:
            assert each.device.startswith(device)


@needs_op
def test_backend_depends_on_task_of_each_variable(model: Path) -> None:
    with installation.installed(remote=True), tf.Graph().as_default() as graph:
        with tf.device("/job:ps/task:1"):
            v1.get_variable("fruit/table", [4, 3])
        v1.get_variable("bias", [3])
        v1.train.init_from_checkpoint(str(model), {"/": "/"})
        readers = {
            each.type: tf.DeviceSpec.from_string(each.device).job
            for each in graph.get_operations()
            if each.type in ("RestoreV2", "TensorbundleReadV1")
        }
    assert readers == {"RestoreV2": None, "TensorbundleReadV1": "ps"}


@needs_op
@pytest.mark.parametrize(("op", "kind"), [("auto", "RestoreV2"), ("native", "TensorbundleReadV1")])
def test_direct_call_reads_on_the_task_of_the_variable(model: Path, op: str, kind: str) -> None:
    import tensorbundle.tf.functions as direct

    with options(op=op), tf.Graph().as_default() as graph:
        with tf.device("/job:ps/task:1"):
            table = v1.get_variable("fruit/table", [4, 3])
        direct.init_from_checkpoint(str(model), {"fruit/table": table})
        (read,) = [each for each in graph.get_operations() if each.type == kind]
        assert read.device.startswith("/job:ps/task:1")


def test_eager_variable_is_initialized(model: Path) -> None:
    with context.eager_mode():
        variable = tf.Variable(tf.zeros([4, 3]))
        with installation.installed():
            v1.train.init_from_checkpoint(str(model), {"fruit/table": variable})
            assert installation.calls()["init_from_checkpoint"] == 1
        np.testing.assert_array_equal(variable.numpy(), TABLE)


def test_mirrored_variable_gets_tensorflows_value(model: Path) -> None:
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])

    def build() -> Any:
        with strategy.scope():
            variable = v1.get_variable("bias", [3])
            v1.train.init_from_checkpoint(str(model), {"bias": variable})
        return variable.read_value()

    check_graphs(build, "init_from_checkpoint", [1, 2, 3])


def test_autograph_does_not_convert_our_code(model: Path) -> None:
    with context.eager_mode():
        variable = tf.Variable(tf.zeros([3]))

        @tf.function
        def start() -> Any:
            v1.train.init_from_checkpoint(str(model), {"bias": variable})
            return tf.train.load_variable(str(model), "fruit/table")[0]

        with installation.installed():
            np.testing.assert_array_equal(start(), TABLE[0])
            assert installation.calls()["init_from_checkpoint"] == 1
            assert installation.calls()["load_variable"] == 1
        np.testing.assert_array_equal(variable.numpy(), [1.0, 2.0, 3.0])
