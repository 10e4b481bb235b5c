# SPDX-License-Identifier: Apache-2.0
"""TensorFlow reads, restores and saves checkpoints written by ``align``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
GOLDEN = sorted(DATA.glob("*/*.index"))
LARGE = np.arange(300_000, dtype=np.float32).reshape(3000, 100)


def read_all(prefix: str) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_equal(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert set(before) == set(after)
    for name, value in before.items():
        assert same_bits(after[name], value), name


@pytest.mark.parametrize("index", GOLDEN, ids=lambda path: path.parent.name)
def test_golden_checkpoint_reads_the_same(
    index: Path, tmp_path: Path, compare: Callable[..., None]
) -> None:
    report = tb.align(index, tmp_path / "aligned")
    compare(report.path)
    assert_equal(read_all(str(index.with_suffix(""))), read_all(report.path))


@pytest.mark.parametrize("alignment", [64, 4096, 1 << 20])
def test_aligned_checkpoint_reads_the_same(
    alignment: int, tmp_path: Path, compare: Callable[..., None]
) -> None:
    tensors = {
        "pad": tf.constant(True),
        "large": tf.constant(LARGE),
        "empty": tf.zeros((0, 3), tf.int64),
        "strings": tf.constant([[b"a", b""], [b"\xff\x00", b"x" * 300_000]]),
        "half": tf.constant([1.5, -2], tf.bfloat16),
        b"\xfe name".decode("latin-1"): tf.constant(7),
    }
    prefix = str(tmp_path / "c")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    report = tb.align(prefix, tmp_path / "aligned", alignment=alignment)
    compare(report.path)
    assert_equal(read_all(prefix), read_all(report.path))


def test_index_of_several_blocks_is_unchanged(tmp_path: Path) -> None:
    names = [f"layer_{i:05d}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for i in range(12_000)]
    prefix = str(tmp_path / "c")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=list(tf.reshape(tf.range(16 * len(names)), (-1, 16))),  # 64 bytes each
    )
    report = tb.align(prefix, tmp_path / "aligned")
    assert report.moved == 0
    original, aligned = (Path(path + ".index").read_bytes() for path in (prefix, report.path))
    assert len(aligned) > 2 * 262_144
    assert aligned == original
    assert_equal(read_all(prefix), read_all(report.path))


def test_checkpoint_of_empty_tensors_reads_the_same(
    tmp_path: Path, compare: Callable[..., None]
) -> None:
    prefix = str(tmp_path / "c")
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=["a", "b"], shape_and_slices=["", ""],
        tensors=[tf.zeros((0, 3)), tf.zeros((2, 0), tf.int8)],
    )  # fmt: skip
    compare(tb.align(prefix, tmp_path / "aligned").path)


def read_slices(prefix: str, name: str, specs: list[str], dtype: Any) -> list[Any]:
    read = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=[name] * len(specs), shape_and_slices=specs,
        dtypes=[dtype] * len(specs),
    )  # fmt: skip
    return [tensor.numpy() for tensor in read]


def test_slices_in_merged_shards_read_the_same(tmp_path: Path) -> None:
    """A sharded save writes the slices of one tensor to several data files."""
    prefixes = []
    for i, (start, end) in enumerate([(0, 2600), (2600, 2601), (2601, 3000)]):
        prefixes.append(str(tmp_path / f"shard{i}"))
        tf.raw_ops.SaveV2(
            prefix=prefixes[-1],
            tensor_names=["table", f"other{i}"],
            shape_and_slices=[f"3000 100 {start},{end - start}:0,100", ""],
            tensors=[tf.constant(LARGE[start:end]), tf.constant([i])],
        )
    prefix = str(tmp_path / "c")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=prefix)
    report = tb.align(prefix, tmp_path / "aligned")
    assert report.slices == 6
    specs = ["", "3000 100 0,2600:0,100", "3000 100 2599,3:5,7", "3000 100 2999,1:-"]
    before = read_slices(prefix, "table", specs, tf.float32)
    for aligned, original in zip(
        read_slices(report.path, "table", specs, tf.float32), before, strict=True
    ):
        assert same_bits(aligned, original)
    with tb.open(report.path, verify="full") as ck:
        assert [s.file[-19:] for s in ck["table"].slices] == [
            f"data-{i:05d}-of-00003" for i in range(3)
        ]


def test_saver_restores_aligned_checkpoint(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        v1.get_variable("pad", initializer=np.int8(3), use_resource=True)
        v1.get_variable("table", initializer=LARGE, use_resource=True)
        partitioner = v1.fixed_size_partitioner(3)
        v1.get_variable("parts", (9, 5), initializer=v1.ones_initializer, partitioner=partitioner)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            saved = saver.save(session, str(tmp_path / "model"), global_step=7)
            report = tb.align(saved, tmp_path / "aligned" / "model-7")
        with v1.Session() as session:
            saver.restore(session, report.path)
            values = session.run({v.name: v for v in v1.global_variables()})
            resaved = saver.save(session, str(tmp_path / "resaved"))
    assert same_bits(values["table:0"], LARGE)
    for i in range(3):
        assert same_bits(values[f"parts/part_{i}:0"], np.ones((3, 5), np.float32))
    assert_equal(read_all(saved), read_all(resaved))


def test_object_checkpoint_restores_aligned_checkpoint(tmp_path: Path) -> None:
    saved = tf.train.Checkpoint(pad=tf.Variable(np.int8(1)), table=tf.Variable(LARGE))
    report = tb.align(saved.save(str(tmp_path / "ckpt")), tmp_path / "aligned")
    fresh = tf.train.Checkpoint(
        pad=tf.Variable(np.int8(0)), table=tf.Variable(np.zeros_like(LARGE))
    )
    fresh.restore(report.path).assert_consumed()
    assert same_bits(fresh.table.numpy(), LARGE)
    assert fresh.pad.numpy() == 1
    with tb.open(report.path) as ck:
        assert ck["table/.ATTRIBUTES/VARIABLE_VALUE"].aligned
