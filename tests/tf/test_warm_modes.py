# SPDX-License-Identifier: Apache-2.0
"""Warm starts in functions, recovered sessions, exported graphs and distribution strategies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

STORED = np.arange(20, dtype=np.float32).reshape(5, 4)
EXPECTED = np.stack([STORED[4], np.zeros(4, np.float32), STORED[0]])


@pytest.fixture
def prefix(tmp_path: Path, save: Callable[..., str]) -> str:
    return save(tmp_path / "model", {"emb": STORED, "w": np.float32([1, 2])})


@pytest.fixture
def info(tmp_path: Path) -> tb.VocabInfo:
    old = write_vocabulary(tmp_path / "old.txt", "abcde")
    return tb.VocabInfo(write_vocabulary(tmp_path / "new.txt", "exa"), 3, 0, old)


def table(**more: Any) -> Any:
    return tf1.get_variable("emb", (3, 4), initializer=tf1.ones_initializer(), **more)


def test_function_warm_starts_at_each_call(prefix: str, info: tb.VocabInfo) -> None:
    variable = tf.Variable(tf.ones([3, 4]), name="emb")

    @tf.function
    def start() -> None:
        tb.warm_start(prefix, [variable], {"emb": info})

    for _ in range(2):
        variable.assign(tf.ones([3, 4]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            start()
        np.testing.assert_array_equal(variable, EXPECTED)


@pytest.mark.parametrize("every", [True, False], ids=["each trace", "first trace"])
def test_variable_created_by_function_needs_every_trace(
    prefix: str, info: tb.VocabInfo, every: bool
) -> None:
    """TensorFlow runs only the second trace, and drops assignments of the first."""
    created: list[Any] = []

    @tf.function
    def start() -> Any:
        is_first = not created
        if is_first:
            created.append(tf.Variable(tf.ones([3, 4]), name="emb"))
        if is_first or every:
            tb.warm_start(prefix, [created[0]], {"emb": info})
        return created[0].read_value()

    if every:
        np.testing.assert_array_equal(start(), EXPECTED)
        np.testing.assert_array_equal(created[0], EXPECTED)
    else:
        with pytest.raises(ValueError, match="being created by the function"):
            start()


def test_imported_graph_reads_the_checkpoint(prefix: str, info: tb.VocabInfo) -> None:
    with tf.Graph().as_default():
        table(use_resource=True)
        tb.warm_start(prefix, var_name_to_vocab_info={"emb": info})
        exported = tf1.train.export_meta_graph()
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.train.import_meta_graph(exported)
        session.run(tf1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(tf1.global_variables()[0]), EXPECTED)


def test_recovered_session_is_not_warm_started(
    prefix: str, info: tb.VocabInfo, tmp_path: Path
) -> None:
    for step in range(2):
        with tf.Graph().as_default():
            variable = table(partitioner=tf1.fixed_size_partitioner(2))
            other = tf1.get_variable("w", [2])
            count = tf1.assign_add(tf1.train.get_or_create_global_step(), 1)
            update = tf1.group(
                *[tf1.assign_add(partition, tf.ones_like(partition)) for partition in variable]
            )
            whole = tf.convert_to_tensor(variable)
            tb.warm_start(prefix, var_name_to_vocab_info={"emb": info})
            with tf1.train.MonitoredTrainingSession(
                checkpoint_dir=str(tmp_path / "run"), log_step_count_steps=None
            ) as session:
                # The session restores after the initializers.
                np.testing.assert_array_equal(session.run(whole), EXPECTED + step)
                np.testing.assert_array_equal(session.run(other), [1, 2])
                session.run([update, count])


@pytest.mark.parametrize("vocabulary", [True, False])
def test_sharded_variable_is_warm_started(
    prefix: str, info: tb.VocabInfo, vocabulary: bool
) -> None:
    from tensorflow.python.distribute import sharded_variable

    rows = [2, 1] if vocabulary else [2, 3]
    shards = [
        tf.Variable(tf.ones([count, 4]), name=f"emb/part_{number}")
        for number, count in enumerate(rows)
    ]
    sharded = sharded_variable.ShardedVariable(shards, name="emb")
    tb.warm_start(prefix, [sharded], {"emb": info} if vocabulary else None)
    value = np.concatenate([shard.numpy() for shard in sharded.variables])
    np.testing.assert_array_equal(value, EXPECTED if vocabulary else STORED)


def test_central_storage_variable_is_warm_started(prefix: str, info: tb.VocabInfo) -> None:
    """TensorFlow sets the initializer of a wrapper, which does not run."""
    strategy = tf.distribute.experimental.CentralStorageStrategy(["/cpu:0", "/cpu:1"], "/cpu:0")
    config = tf1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), strategy.scope(), tf1.Session(config=config) as session:
        variable = table()
        tb.warm_start(prefix, None, {"emb": info})
        session.run(tf1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(variable), EXPECTED)


def test_remote_path_is_passed_to_tensorflow(
    info: tb.VocabInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tf1.train, "warm_start", lambda *args: calls.append(args))
    tb.warm_start("gs://bucket/model", None, {"emb": info}, {"emb": "e"})
    tb.warm_start("hdfs://host/model")
    assert calls == [
        ("gs://bucket/model", None, {"emb": info}, {"emb": "e"}),
        ("hdfs://host/model", ".*", None, None),
    ]


def test_remote_vocabulary_is_read_by_stock_op(
    prefix: str, info: tb.VocabInfo, backend_name: str
) -> None:
    paths = []
    for name in ("new", "old"):
        text = Path(getattr(info, f"{name}_vocab")).read_text()
        paths.append(f"ram://vocabularies-{backend_name}/{name}.txt")
        with tf.io.gfile.GFile(paths[-1], "w") as file:
            file.write(text)
    remote = info._replace(new_vocab=paths[0], old_vocab=paths[1])
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = table()
        tb.warm_start(prefix, var_name_to_vocab_info={"emb": remote})
        session.run(tf1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(variable), EXPECTED)
