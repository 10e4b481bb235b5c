# SPDX-License-Identifier: Apache-2.0
"""Warm starts of tables that fill new memory, and what TensorFlow then does not compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

from tensorbundle.tf import op_library  # noqa: E402

OLD, NEW, DIM = 30_000, 40_000, 37
"""A partition of half of the new table has 3 MB, and its rows do not end at pages."""
FILLS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "zeros": lambda: tf1.zeros_initializer(),
    "zeros of version 2": lambda: tf.zeros_initializer(),
    "constant": lambda: tf1.constant_initializer(2.0),
}
needs_library = pytest.mark.skipif(op_library.load() is None, reason="no op library")


@pytest.fixture
def folder(tmp_path: Path, save: Callable[..., str]) -> Path:
    save(tmp_path / "model", {"emb": table()})
    write_vocabulary(tmp_path / "old.txt", range(OLD))
    write_vocabulary(tmp_path / "new.txt", tokens())
    return tmp_path


def table() -> Any:
    return np.arange(OLD * DIM, dtype=np.float32).reshape(OLD, DIM)


def tokens() -> Any:
    """A quarter of them is not in the old vocabulary."""
    return np.random.default_rng(1).permutation(NEW)


def expected(fill: float) -> Any:
    known = tokens() < OLD
    values = np.full((NEW, DIM), fill, np.float32)
    values[known] = table()[tokens()[known]]
    return values


def build(train: Any, folder: Path, partitions: int, initializer: Any, oov: int = 0) -> Any:
    variable = tf1.get_variable(
        "emb",
        (NEW + oov, DIM),
        use_resource=True,
        partitioner=tf1.fixed_size_partitioner(partitions),
    )
    info = train.VocabInfo(
        str(folder / "new.txt"), NEW, oov, str(folder / "old.txt"), backup_initializer=initializer
    )
    train.warm_start(str(folder / "model"), "emb", {"emb": info})
    return variable


@pytest.mark.usefixtures("backend_name")
@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("fill", FILLS)
def test_every_row_has_its_values(folder: Path, fill: str, partitions: int) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = build(tb, folder, partitions, FILLS[fill](), oov=3)
        session.run(tf1.global_variables_initializer())
        values = session.run(tf.convert_to_tensor(variable))
    filled = 2.0 if fill == "constant" else 0.0
    assert np.array_equal(values[:NEW], expected(filled))
    assert np.array_equal(values[NEW:], np.full((3, DIM), filled))


@needs_library
@pytest.mark.parametrize(("fill", "count"), [("zeros", 0), ("constant", (NEW - OLD) * DIM)])
def test_our_kernels_read_no_zeros(folder: Path, fill: str, count: int) -> None:
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        build(tb, folder, 1, FILLS[fill]())
        (remap,) = [op for op in graph.get_operations() if op.type == "LoadAndRemapMatrix"]
        assert session.run(remap.inputs[4]).size == count


@needs_library
def test_ids_that_a_graph_changes_are_not_those_of_the_next_start(folder: Path) -> None:
    """A fetched array and the tensor of a slice may be changed in place; the join is shared."""
    for _ in range(2):
        with tf.Graph().as_default() as graph, tf1.Session() as session:
            variable = build(tb, folder, 1, FILLS["zeros"]())
            (remap,) = [op for op in graph.get_operations() if op.type == "LoadAndRemapMatrix"]
            ids = remap.inputs[2]
            session.run((ids[8:] + 1)[1:] + 1)
            fetched = session.run(ids)
            assert np.array_equal(fetched, np.where(tokens() < OLD, tokens(), -1))
            fetched[:] = 0
            session.run(tf1.global_variables_initializer())
            values = session.run(tf.convert_to_tensor(variable))
            assert np.array_equal(values, expected(0.0))


@needs_library
def test_zeros_of_another_type_are_an_error_as_before(folder: Path) -> None:
    wrong = tf1.zeros_initializer(tf.float64)
    with tf.Graph().as_default(), pytest.raises(TypeError, match="float64"):
        build(tb, folder, 1, wrong)


@needs_library
def test_tensorflows_graph_keeps_no_ids_and_fill_values_as_constants(folder: Path) -> None:
    """TensorFlow's own ``warm_start``: its graph is a function of constants."""
    op_library.load_op_library()
    options = tf1.RunOptions(output_partition_graphs=True)
    metadata = tf1.RunMetadata()
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = build(tf1.train, folder, 2, tf1.zeros_initializer())
        session.run(tf1.global_variables_initializer(), None, options, metadata)
        values = session.run(tf.convert_to_tensor(variable))
    assert np.array_equal(values, expected(0.0))
    kinds = [node.op for graph in metadata.partition_graphs for node in graph.node]
    assert kinds.count("GenerateVocabRemapping") == 2
    assert sum(graph.ByteSize() for graph in metadata.partition_graphs) < 100_000
