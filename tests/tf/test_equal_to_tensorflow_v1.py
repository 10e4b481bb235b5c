# SPDX-License-Identifier: Apache-2.0
"""V1 checkpoints read as by TensorFlow, or equal the saved values where TensorFlow cannot read."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from craft.v1 import FIELDS, V1File

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

# tf.train.load_checkpoint does not read the other types from a V1 file.
READABLE = {1, 2, 3, 4, 5, 6, 9, 10}
# quint16 has a field in the format, but TensorFlow cannot save it.
SAVABLE = [number for number in FIELDS if KINDS[number].label != "quint16"]


def as_tensor(number: int, array: np.ndarray) -> Any:
    if KINDS[number].label.startswith("q"):
        return tf.bitcast(tf.constant(array), tf.as_dtype(number))
    return tf.constant(array)


@pytest.mark.parametrize("number", SAVABLE, ids=lambda n: KINDS[n].label)
@pytest.mark.parametrize("shape", [(), (0,), (7, 3)], ids=str)
def test_every_dtype_reads_the_same(
    tmp_path: Path, number: int, shape: tuple[int, ...], compare: Callable[..., None]
) -> None:
    source = sample(KINDS[number], shape)
    path = str(tmp_path / "v1")
    tf.raw_ops.Save(
        filename=path,
        tensor_names=["x", "s"],
        data=[as_tensor(number, source), tf.constant([b"", b"a\0b", b"\xff" * 200])],
    )
    compare(path, saved={"x": source}, unreadable=() if number in READABLE else ("x",))


@pytest.mark.parametrize("number", [1, 3, 9, 10, 18, 19], ids=lambda n: KINDS[n].label)
def test_slices_read_the_same(tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    shape = (9, 7)
    source = sample(KINDS[number], shape)
    boxes = tilings.guillotine(shape, 5, rng)

    def slice_spec(box: tilings.Box) -> str:
        return "9 7 " + ":".join(f"{start},{length}" for start, length in box)

    path = str(tmp_path / "v1")
    tf.raw_ops.SaveSlices(
        filename=path,
        tensor_names=["t"] * len(boxes),
        shapes_and_slices=[slice_spec(box) for box in boxes],
        data=[
            as_tensor(number, np.ascontiguousarray(source[tilings.slices(box)])) for box in boxes
        ],
    )
    with tb.open(path) as ck:
        assert same_bits(ck["t"], source)
        for box in tilings.guillotine(shape, 8, rng):
            original = tf.raw_ops.RestoreSlice(
                file_pattern=path,
                tensor_name="t",
                shape_and_slice=slice_spec(box),
                dt=tf.as_dtype(source.dtype),
            )
            assert same_bits(ck["t"][tilings.slices(box)], original.numpy())


@pytest.mark.parametrize("sharded", [False, True])
def test_saver_checkpoint_reads_the_same(
    tmp_path: Path, sharded: bool, compare: Callable[..., None]
) -> None:
    v1 = tf.compat.v1
    source = np.random.default_rng(3).normal(size=(10, 4)).astype(np.float32)
    with tf.Graph().as_default():
        with tf.device("/cpu:0"):
            v1.get_variable("whole", initializer=source, use_resource=True)
        with tf.device("/cpu:1"):
            v1.get_variable("step", initializer=np.int64(7), use_resource=True)
            v1.get_variable("scalar", initializer=np.float64(1.5), use_resource=True)
        saver = v1.train.Saver(sharded=sharded, write_version=v1.train.SaverDef.V1)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            path = saver.save(session, str(tmp_path / "model.ckpt"))
    assert ("-?????-of-00002" in path) == sharded
    compare(path, saved={"whole": source})
    compare(tmp_path, saved={"whole": source})


def partition_initializer(source: np.ndarray) -> Callable[..., Any]:
    """Returns an initializer that returns the partition's box of ``source``."""

    def initialize(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        ranges = zip(partition_info.var_offset, shape, strict=True)
        return tf.constant(source[tuple(slice(o, o + n) for o, n in ranges)], dtype)

    return initialize


@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_saver_checkpoint_reads_the_same(tmp_path: Path, sharded: bool) -> None:
    v1 = tf.compat.v1
    source = np.random.default_rng(3).normal(size=(10, 4)).astype(np.float32)
    with tf.Graph().as_default():
        for axis, name in enumerate(("rows", "columns")):
            with tf.device(f"/cpu:{axis}"):
                partitioner = v1.fixed_size_partitioner(3, axis=axis)
                v1.get_variable(
                    name,
                    (10, 4),
                    initializer=partition_initializer(source),
                    partitioner=partitioner,
                )
        saver = v1.train.Saver(sharded=sharded, write_version=v1.train.SaverDef.V1)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            path = saver.save(session, str(tmp_path / "model.ckpt"))
    with tb.open(path) as ck:
        assert set(ck) == {"rows", "columns"}
        for name in ck:
            (original,) = tf.raw_ops.RestoreV2(
                prefix=path, tensor_names=[name], shape_and_slices=[""], dtypes=[tf.float32]
            )
            assert same_bits(ck[name], original.numpy())
            assert same_bits(ck[name], source)


def test_files_of_the_test_writer_read_the_same(
    tmp_path: Path, compare: Callable[..., None]
) -> None:
    file = V1File()
    saved = {}
    for number in FIELDS:
        name = KINDS[number].label
        saved[name] = sample(KINDS[number], (3, 2), seed=4)
        file.add(name, number, saved[name], packed=number % 2 == 0)
    path = file.write(tmp_path / "v1", block_size=200)
    unreadable = tuple(KINDS[n].label for n in FIELDS if n not in READABLE)
    compare(path, saved=saved, unreadable=unreadable)
