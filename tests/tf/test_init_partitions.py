# SPDX-License-Identifier: Apache-2.0
"""Initializes partitioned variables from tensors with one stored slice, or with other slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits
from side_by_side import both, require_same

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

Save = Callable[..., str]
TABLE = np.random.default_rng(1).standard_normal((13, 6)).astype(np.float32)


def save_rows(save: Save, prefix: Path, array: np.ndarray, rows: list[int]) -> str:
    """Saves an array in slices along its first axis."""
    starts = np.cumsum([0, *rows[:-1]])
    dims = " ".join(map(str, array.shape))
    rest = "".join(":-" for _ in array.shape[1:])
    return save(
        prefix,
        [("t", array[a : a + n]) for a, n in zip(starts, rows, strict=True)],
        [f"{dims} {a},{n}{rest}" for a, n in zip(starts, rows, strict=True)],
    )


def builder(
    dtype: Any, shape: tuple[int, ...], shards: int, axis: int, resource: bool
) -> Callable[[], list[Any]]:
    def create() -> list[Any]:
        split = tf1.fixed_size_partitioner(shards, axis=axis) if shards else None
        zeros = tf1.zeros_initializer() if dtype != tf.bool else tf1.ones_initializer()
        table = tf1.get_variable("t", shape, dtype, zeros, partitioner=split, use_resource=resource)
        return [list(table)] if shards else [table]

    return create


STORED = {"whole": [13], "same": [5, 4, 4], "other": [2, 9, 1, 1]}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(("shards", "axis"), [(0, 0), (1, 0), (3, 0), (4, 1)])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_partitions_equal_tensorflow(
    tmp_path: Path, save: Save, stored: str, shards: int, axis: int, resource: bool
) -> None:
    prefix = save_rows(save, tmp_path / "m", TABLE, STORED[stored])
    build = builder(tf.float32, TABLE.shape, shards, axis, resource)
    result, original = both(prefix, build, lambda vs: {"t": vs[0]})
    require_same(result, original)
    assert same_bits(np.concatenate(result.values, axis), TABLE)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int64", "bool", "complex64", "qint8"])
def test_partitions_of_sliceable_dtype_equal_tensorflow(
    tmp_path: Path, save: Save, dtype: str
) -> None:
    kind = tf.as_dtype(dtype)
    numbers = tf.constant(np.arange(24).reshape(12, 2) % 120, tf.int8)
    value = tf.bitcast(numbers, kind) if kind.is_quantized else tf.cast(numbers, kind)
    prefix = save(tmp_path / "m", {"t": value})

    def build() -> list[Any]:
        start = value.numpy() * 0 if not kind.is_quantized else value.numpy()
        return [
            [
                _partition(tf1.Variable(start[a:b], dtype=kind, use_resource=True), a, (12, 2))
                for a, b in [(0, 5), (5, 12)]
            ]
        ]

    require_same(*both(prefix, build, lambda vs: {"t": vs[0]}))


@pytest.mark.parametrize("dtype", ["float16", "uint16", "uint32", "uint64"])
def test_partitions_of_unsliceable_dtype_are_initialized(
    tmp_path: Path, save: Save, dtype: str, backend_name: str
) -> None:
    if backend_name == "stock":
        pytest.skip("not supported by TensorFlow's op")
    value = np.arange(24, dtype=dtype).reshape(12, 2)
    prefix = save(tmp_path / "m", {"t": value})
    result, _ = both(prefix, lambda: _halves(value.shape, dtype), lambda vs: {"t": vs[0]})
    assert result.error is None
    assert same_bits(np.concatenate(result.values), value)


def test_partitions_with_10_dimensions_are_initialized(
    tmp_path: Path, save: Save, backend_name: str
) -> None:
    if backend_name == "stock":
        pytest.skip("TensorFlow's op aborts the process")
    value = np.arange(2048, dtype=np.float32).reshape((4, *[2] * 9))
    prefix = save(tmp_path / "m", {"t": value})
    with tf.Graph().as_default(), tf1.Session() as session:
        partitions = _halves(value.shape, "float32")[0]
        tb.init_from_checkpoint(prefix, {"t": partitions})
        session.run([partition.initializer for partition in partitions])
        assert same_bits(np.concatenate(session.run([p.value() for p in partitions])), value)


def _halves(shape: tuple[int, ...], dtype: str) -> list[Any]:
    half = (shape[0] // 2, *shape[1:])
    return [
        [
            _partition(tf1.Variable(np.zeros(half, dtype), use_resource=True), start, shape)
            for start in (0, half[0])
        ]
    ]


def _partition(variable: Any, start: int, full_shape: tuple[int, ...]) -> Any:
    shape = variable.shape.as_list()
    offset = [start, *[0] * (len(shape) - 1)]
    info = tf.Variable.SaveSliceInfo("t", list(full_shape), offset, shape)
    variable._set_save_slice_info(info)
    return variable


def test_empty_partition_is_initialized(tmp_path: Path, save: Save, backend_name: str) -> None:
    """TensorFlow's slice format cannot express an empty slice."""
    prefix = save(tmp_path / "m", {"t": TABLE})

    def build() -> list[Any]:
        sizes = [(0, 5), (5, 0), (5, 8)]
        return [[_partition(tf1.Variable(np.zeros((n, 6), "f")), a, TABLE.shape) for a, n in sizes]]

    result, original = both(prefix, build, lambda vs: {"t": vs[0]})
    assert original.error is not None
    assert result.error is None
    assert same_bits(np.concatenate(result.values), TABLE)


def test_repeated_partition_equals_tensorflow(tmp_path: Path, save: Save) -> None:
    prefix = save(tmp_path / "m", {"t": TABLE})
    build = builder(tf.float32, TABLE.shape, 3, 0, True)
    require_same(*both(prefix, build, lambda vs: {"t": [*vs[0], vs[0][1]]}))


def test_partitions_of_different_variables_are_rejected(tmp_path: Path, save: Save) -> None:
    prefix = save(tmp_path / "m", {"t": TABLE})

    def build() -> list[Any]:
        split = tf1.fixed_size_partitioner(2)
        return [list(tf1.get_variable(name, TABLE.shape, partitioner=split)) for name in ("t", "u")]

    result, original = both(prefix, build, lambda vs: {"t": [vs[0][0], vs[1][1]]})
    require_same(result, original)
    assert str(result.error) == str(original.error)


def test_sharded_variable_is_initialized(tmp_path: Path, save: Save) -> None:
    from tensorflow.python.distribute import sharded_variable

    prefix = save(tmp_path / "m", {"t": TABLE})
    shards = [tf.Variable(tf.zeros([n, 6]), name=f"t/part_{i}") for i, n in enumerate((5, 4, 4))]
    sharded = sharded_variable.ShardedVariable(shards)
    with pytest.raises(AttributeError):
        tf1.train.init_from_checkpoint(prefix, {"t": sharded})
    tb.init_from_checkpoint(prefix, {"t": sharded})
    assert same_bits(np.concatenate([shard.numpy() for shard in shards]), TABLE)


def test_partitioned_embedding_column_is_initialized(tmp_path: Path, save: Save) -> None:
    if not hasattr(tf, "estimator"):
        pytest.skip("no feature columns of Estimator")
    from tensorflow.python.training import checkpoint_utils

    prefix = save(tmp_path / "m", {"emb": TABLE})
    column = tf.feature_column.embedding_column(
        tf.feature_column.categorical_column_with_identity("id", 13), 6,
        ckpt_to_load_from=prefix, tensor_name_in_ckpt="emb",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default(), tf1.Session() as session:
        patch.setattr(checkpoint_utils, "init_from_checkpoint", tb.init_from_checkpoint)
        with tf1.variable_scope("", partitioner=tf1.fixed_size_partitioner(2)):
            looked_up = tf1.feature_column.input_layer({"id": tf.constant([[12], [0]])}, [column])
        session.run(tf1.global_variables_initializer())
        assert same_bits(session.run(looked_up), TABLE[[12, 0]])


@pytest.mark.parametrize("shards", [0, 3])
def test_partitions_from_v1_checkpoint_equal_tensorflow(tmp_path: Path, shards: int) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        split = tf1.fixed_size_partitioner(2)
        start = tf1.random_normal_initializer(seed=7)
        stored = tf1.get_variable("t", TABLE.shape, initializer=start, partitioner=split)
        session.run([partition.initializer for partition in stored])
        value = session.run(stored.as_tensor())
        saver = tf1.train.Saver({"t": list(stored)}, write_version=tf1.train.SaverDef.V1)
        prefix = saver.save(session, str(tmp_path / "m"), write_meta_graph=False)
    result, original = both(
        prefix, builder(tf.float32, TABLE.shape, shards, 0, True), lambda vs: {"t": vs[0]}
    )
    require_same(result, original)
    assert same_bits(np.concatenate(result.values), value)
