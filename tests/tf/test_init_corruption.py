# SPDX-License-Identifier: Apache-2.0
"""Corrupt, truncated, removed and rewritten files raise and leave the session usable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

Save = Callable[..., str]
# "big" exceeds the read sizes of TensorFlow and of tensorbundle.
SHAPES = {"small": (8, 4), "big": (3000, 257)}


def array(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def data_file(prefix: str) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


def flip(prefix: str, position: int) -> None:
    path = data_file(prefix)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


class Model:
    """A table, with or without partitions, another variable, and a session."""

    def __init__(self, prefix: str, shape: tuple[int, ...], shards: int, resource: bool) -> None:
        with tf.Graph().as_default() as graph:
            split = tf1.fixed_size_partitioner(shards) if shards else None
            table = tf1.get_variable("t", shape, partitioner=split, use_resource=resource)
            self.partitions = list(table) if shards else [table]
            self.other = tf1.get_variable("other", [2], use_resource=resource)
            # Two calls: one op reads all that a call needs, and fails as a whole.
            tb.init_from_checkpoint(prefix, {"t": "t"})
            tb.init_from_checkpoint(prefix, {"other": "other"})
            self.initializers = [partition.initializer for partition in self.partitions]
            self.initialized = [
                tf1.is_variable_initialized(partition) for partition in self.partitions
            ]
            self.session = tf1.Session(graph=graph)

    def require_usable(self) -> None:
        """Requires that no partition is initialized and the session can read other tensors."""
        assert not any(self.session.run(self.initialized))
        self.session.run(self.other.initializer)
        assert self.session.run(self.other).tolist() == [1, 2]


@pytest.fixture(params=SHAPES)
def saved(request: pytest.FixtureRequest, tmp_path: Path, save: Save) -> tuple[str, np.ndarray]:
    value = array(SHAPES[request.param])
    arrays = {"other": np.float32([1, 2]), "t": value}
    return save(tmp_path / "m", arrays), value


def model(saved: tuple[str, np.ndarray], shards: int, resource: bool = True) -> Model:
    return Model(saved[0], saved[1].shape, shards, resource)


@pytest.mark.parametrize("shards", [0, 1, 3])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_bit_flip_raises_and_initializes_no_partition(
    saved: tuple[str, np.ndarray], shards: int, resource: bool, backend_name: str
) -> None:
    if backend_name == "stock" and shards > 1:
        pytest.skip("TensorFlow's partitions are verified separately")
    built = model(saved, shards, resource)
    for position in (-1, -saved[1].nbytes):
        flip(saved[0], position)
        for initializer in built.initializers:
            with pytest.raises(tf.errors.DataLossError):
                built.session.run(initializer)
        with pytest.raises(tf.errors.DataLossError):
            built.session.run(built.initializers)
        built.require_usable()
        flip(saved[0], position)
    built.session.run(built.initializers)
    assert np.array_equal(np.concatenate(built.session.run(built.partitions)), saved[1])


@pytest.mark.parametrize("verify", ["lazy", "none"])
def test_verify_option_disables_verification(
    saved: tuple[str, np.ndarray], verify: str, backend_name: str
) -> None:
    if backend_name == "stock":
        pytest.skip("TensorFlow's op always verifies")
    flip(saved[0], -1)
    with tb.tf.options(verify=verify):
        whole, partitions = model(saved, 0), model(saved, 3)
    partitions.session.run(partitions.initializers)
    if verify == "none":
        whole.session.run(whole.initializers)
    else:
        with pytest.raises(tf.errors.DataLossError):
            whole.session.run(whole.initializers)


@pytest.mark.parametrize("shards", [0, 3])
@pytest.mark.parametrize("kept", [0, 0.5, -1], ids=["empty", "half", "without last byte"])
def test_shard_truncated_after_graph_construction_raises(
    saved: tuple[str, np.ndarray], shards: int, kept: float
) -> None:
    built = model(saved, shards)
    path = data_file(saved[0])
    whole = path.read_bytes()
    size = len(whole) - 1 if kept == -1 else int(len(whole) * kept)
    os.truncate(path, size)
    with pytest.raises(tf.errors.OpError):
        built.session.run(built.initializers)
    assert not all(built.session.run(built.initialized))
    path.write_bytes(whole)
    built.session.run(built.initializers)
    built.session.run(built.other.initializer)
    assert np.array_equal(np.concatenate(built.session.run(built.partitions)), saved[1])


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_file_removed_after_graph_construction_raises(
    saved: tuple[str, np.ndarray], suffix: str
) -> None:
    built = model(saved, 0)
    hidden = Path(saved[0] + ".hidden")
    Path(saved[0] + suffix).rename(hidden)
    with pytest.raises(tf.errors.OpError):
        built.session.run(built.initializers)
    assert not any(built.session.run(built.initialized))
    hidden.rename(saved[0] + suffix)
    built.session.run(built.initializers)
    assert np.array_equal(built.session.run(built.partitions[0]), saved[1])


@pytest.mark.parametrize("shards", [0, 3])
def test_file_rewritten_after_graph_construction_is_read(
    saved: tuple[str, np.ndarray], save: Save, shards: int
) -> None:
    """The initializer reads the file when it runs."""
    built = model(saved, shards)
    other = saved[1] + 1
    # Changes the offset of the table.
    save(Path(saved[0]), {"a": np.zeros(5, "f"), "t": other, "other": np.float32([3, 4])})
    built.session.run(built.initializers)
    assert np.array_equal(np.concatenate(built.session.run(built.partitions)), other)


@pytest.mark.parametrize("shards", [0, 3])
def test_file_rewritten_with_other_shape_raises(
    saved: tuple[str, np.ndarray], save: Save, shards: int, backend_name: str
) -> None:
    if backend_name == "stock" and shards == 0:
        pytest.skip("TensorFlow assigns the other shape")
    built = model(saved, shards)
    save(Path(saved[0]), {"t": saved[1][:-1], "other": np.float32([1, 2])})
    with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
        built.session.run(built.initializers)
    built.require_usable()


def test_file_rewritten_without_the_tensor_raises(
    saved: tuple[str, np.ndarray], save: Save
) -> None:
    built = model(saved, 0)
    save(Path(saved[0]), {"other": np.float32([1, 2])})
    with pytest.raises(tf.errors.NotFoundError, match="t"):
        built.session.run(built.initializers)
    built.require_usable()


def test_corruption_changes_no_eager_variable(saved: tuple[str, np.ndarray]) -> None:
    flip(saved[0], -1)
    variable = tf.Variable(tf.zeros(saved[1].shape))
    with pytest.raises(tf.errors.DataLossError):
        tb.init_from_checkpoint(saved[0], {"t": variable})
    assert not variable.numpy().any()


def test_corrupt_index_raises_at_the_call(saved: tuple[str, np.ndarray]) -> None:
    index = Path(saved[0] + ".index")
    content = bytearray(index.read_bytes())
    content[3] ^= 0xFF
    index.write_bytes(content)
    with tf.Graph().as_default():
        variable = tf1.get_variable("t", saved[1].shape)
        before = variable.initializer
        for function in (tb.init_from_checkpoint, tf1.train.init_from_checkpoint):
            with pytest.raises(tf.errors.OpError):
                function(saved[0], {"t": variable})
        with pytest.raises(tb.CorruptionError):
            tb.init_from_checkpoint(saved[0], {"t": variable})
        assert variable.initializer is before


def test_corrupt_tensor_fails_all_reads_of_its_op(
    saved: tuple[str, np.ndarray], backend_name: str
) -> None:
    """TensorFlow's op, which reads all that a call needs, has no output then; our ops do."""
    flip(saved[0], -1)
    with tf.Graph().as_default(), tf1.Session() as session:
        table, other = tf1.get_variable("t", saved[1].shape), tf1.get_variable("other", [2])
        tb.init_from_checkpoint(saved[0], {"t": table, "other": other})
        if backend_name == "native":
            session.run(other.initializer)
        else:
            with pytest.raises(tf.errors.DataLossError):
                session.run(other.initializer)


def test_invalid_map_changes_nothing(saved: tuple[str, np.ndarray]) -> None:
    with tf.Graph().as_default() as graph:
        variable = tf1.get_variable("t", saved[1].shape)
        before, size = variable.initializer, len(graph.get_operations())
        with pytest.raises(ValueError, match="is not found"):
            tb.init_from_checkpoint(saved[0], [("t", variable), ("zzz", variable)])
        assert variable.initializer is before
        assert len(graph.get_operations()) == size
