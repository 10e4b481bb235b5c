# SPDX-License-Identifier: Apache-2.0
"""V2 checkpoints have the names, shapes, dtypes and values of ``tf.train.load_checkpoint``."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import table, tilings
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, Kind, sample
from craft.specimen import TENSORS, specimen

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

VERSION = tuple(int(part) for part in tf.__version__.split(".")[:2])
DATA = Path(__file__).parents[1] / "data" / "checkpoints"
FOLDERS = sorted(path.name for path in DATA.iterdir() if path.is_dir())


def is_supported(number: int) -> bool:
    try:
        return bool(tf.as_dtype(number))
    except TypeError:
        return False


SUPPORTED = [number for number in KINDS if is_supported(number)]


def as_tensor(kind: Kind, array: np.ndarray) -> Any:
    """Returns a tensor with these bytes; quantized types need a bitcast."""
    if kind.label.startswith("q"):
        return tf.bitcast(tf.constant(array), tf.as_dtype(kind.number))
    return tf.constant(array)


def save(prefix: Path, tensors: dict[str | bytes, Any], slices: list[str] | None = None) -> str:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=slices or [""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return str(prefix)


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_file_reads_the_same(folder: str, compare: Callable[..., None]) -> None:
    indexes = sorted((DATA / folder).glob("*.index"))
    assert indexes
    for index in indexes:
        compare(index.with_suffix(""))


def test_golden_directory_with_state_file_reads_the_same(compare: Callable[..., None]) -> None:
    compare(DATA / "mnist_tf1")


def test_all_dtypes_are_covered() -> None:
    expected = set(KINDS) if VERSION >= (2, 21) else {n for n in KINDS if n <= 25 or n in (29, 30)}
    assert set(SUPPORTED) == expected


@pytest.mark.parametrize("number", SUPPORTED, ids=lambda n: KINDS[n].label)
@pytest.mark.parametrize("shape", [(), (0,), (7, 3), (2, 0, 3)], ids=str)
def test_every_dtype_reads_the_same(
    tmp_path: Path, number: int, shape: tuple[int, ...], compare: Callable[..., None]
) -> None:
    kind = KINDS[number]
    source = sample(kind, shape)
    tensor = as_tensor(kind, source)
    prefix = save(tmp_path / "c", {"pad": tf.constant(True), "x": tensor, "y": tensor})
    compare(prefix, saved={"x": source, "y": source})


@pytest.mark.parametrize("number", SUPPORTED, ids=lambda n: KINDS[n].label)
def test_every_dtype_in_slices_reads_the_same(
    tmp_path: Path, number: int, compare: Callable[..., None]
) -> None:
    """TensorFlow cannot merge slices of most types."""
    kind = KINDS[number]
    source = sample(kind, (6, 4))
    slices = [as_tensor(kind, source[:4]), as_tensor(kind, source[4:])]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "c"),
        tensor_names=["x", "x"],
        shape_and_slices=["6 4 0,4:-", "6 4 4,2:-"],
        tensors=slices,
    )
    mergeable = {1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14, 18}
    unreadable = () if number in mergeable else ("x",)
    compare(tmp_path / "c", saved={"x": source}, unreadable=unreadable)


def test_strings_read_the_same(tmp_path: Path, compare: Callable[..., None]) -> None:
    values = np.array([[b"", b"a\0b"], [b"\xff" * 300, b"x" * 100_000]], dtype=object)
    tensors = {
        "matrix": tf.constant(values),
        "scalar": tf.constant(b"one"),
        "empty scalar": tf.constant(b""),
        "none": tf.zeros((0, 3), tf.string),
    }
    compare(save(tmp_path / "c", tensors), saved={"matrix": values})


def test_names_that_are_not_utf8_read_the_same(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"\x00w", b"a\x00b", "é".encode(), b"plain"]
    sources = {name: np.arange(i + 1, dtype=np.float32) for i, name in enumerate(names)}
    prefix = save(tmp_path / "c", {name: tf.constant(value) for name, value in sources.items()})
    with tb.open(prefix) as ck:
        assert {name.encode("utf-8", "surrogateescape") for name in ck} == set(names)
        for name, source in sources.items():
            (original,) = tf.raw_ops.RestoreV2(
                prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[tf.float32]
            )
            text = name.decode("utf-8", "surrogateescape")
            assert same_bits(ck[text], original.numpy())
            assert same_bits(ck[text], source)


def test_index_of_several_blocks_reads_the_same(
    tmp_path: Path, compare: Callable[..., None]
) -> None:
    values = {f"{i:05d}/kernel/of/a/layer": tf.constant(i) for i in range(9000)}
    prefix = save(tmp_path / "c", values)
    assert Path(prefix + ".index").stat().st_size > table.BLOCK_SIZE
    compare(prefix)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_sliced_tensor_read_the_same(
    tmp_path: Path, seed: int, compare: Callable[..., None]
) -> None:
    rng = random.Random(seed)
    shape = tuple(rng.randrange(1, 12) for _ in range(1 + seed % 3))
    source = sample(KINDS[1], shape, seed=seed)
    boxes = tilings.guillotine(shape, 1 + seed * 2, rng)
    spec = " ".join(str(size) for size in shape)

    def slice_spec(box: tilings.Box) -> str:
        return f"{spec} " + ":".join(f"{start},{length}" for start, length in box)

    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "c"),
        tensor_names=["t"] * len(boxes),
        shape_and_slices=[slice_spec(box) for box in boxes],
        tensors=[tf.constant(source[tilings.slices(box)]) for box in boxes],
    )
    compare(tmp_path / "c", saved={"t": source})
    with tb.open(tmp_path / "c") as ck:
        for box in tilings.guillotine(shape, 10, rng):
            (original,) = tf.raw_ops.RestoreV2(
                prefix=str(tmp_path / "c"),
                tensor_names=["t"],
                shape_and_slices=[slice_spec(box)],
                dtypes=[tf.float32],
            )
            assert same_bits(ck["t"][tilings.slices(box)], original.numpy())


def partition_initializer(source: np.ndarray) -> Callable[..., Any]:
    """Returns an initializer that returns the partition's box of ``source``."""

    def initialize(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        ranges = zip(partition_info.var_offset, shape, strict=True)
        return tf.constant(source[tuple(slice(o, o + n) for o, n in ranges)], dtype)

    return initialize


@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_variables_read_the_same(
    tmp_path: Path, sharded: bool, compare: Callable[..., None]
) -> None:
    v1 = tf.compat.v1
    source = np.random.default_rng(1).normal(size=(23, 5)).astype(np.float32)
    with tf.Graph().as_default():
        for axis, name in enumerate(("rows", "columns")):
            with tf.device(f"/cpu:{axis}"):
                partitioner = v1.fixed_size_partitioner(3, axis=axis)
                v1.get_variable(
                    name,
                    (23, 5),
                    initializer=partition_initializer(source),
                    partitioner=partitioner,
                )
        with tf.device("/cpu:1"):
            v1.get_variable("whole", initializer=source, use_resource=True)
            v1.get_variable("step", initializer=np.int64(7), use_resource=True)
        saver = v1.train.Saver(sharded=sharded)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            path = saver.save(session, str(tmp_path / "model.ckpt"), global_step=7)
    saved = dict.fromkeys(("rows", "columns", "whole"), source)
    compare(path, saved=saved)
    compare(tmp_path, saved=saved)
    assert len(list(tmp_path.glob("*.data-*"))) == (2 if sharded else 1)
    with tb.open(path) as ck:
        assert len(ck["rows"].slices) == 3
        assert not np.asarray(ck["rows"]).flags.owndata


def module() -> Any:
    """Creates variables of several types in a tree with lists, dicts and a cycle."""
    root = tf.Module()
    root.kernel = tf.Variable(np.random.default_rng(2).normal(size=(64, 33)), dtype=tf.float32)
    root.child = tf.Module()
    root.child.parent = root
    root.child.table = {"a/b": tf.Variable([1, 2, 3]), "c.d": tf.Variable(True)}
    root.child.items = [tf.Variable(1.5, dtype=tf.bfloat16), tf.Variable([b"text", b""])]
    root.half = tf.Variable(tf.ones((5, 2), tf.float16), name="named_half")
    root.none = tf.Variable(tf.zeros((0, 4)))
    return root


def test_object_based_checkpoint_reads_the_same(
    tmp_path: Path, compare: Callable[..., None]
) -> None:
    root = module()
    path = tf.train.Checkpoint(root=root, step=tf.Variable(3, dtype=tf.int64)).save(
        tmp_path / "ckpt"
    )
    compare(path)
    compare(tmp_path)
    with tb.open(path) as ck:
        assert "named_half" in ck
        assert "named_half" not in list(ck)
        assert same_bits(ck["named_half"], root.half.numpy())


def test_saved_model_reads_the_same(tmp_path: Path, compare: Callable[..., None]) -> None:
    tf.saved_model.save(module(), str(tmp_path / "model"))
    compare(tmp_path / "model" / "variables" / "variables", our_path=tmp_path / "model")


@pytest.mark.skipif(VERSION < (2, 17), reason="this TensorFlow has no sharding policies")
@pytest.mark.parametrize("limit", [1500, 4000])
def test_shards_of_limited_size_read_the_same(
    tmp_path: Path, limit: int, compare: Callable[..., None]
) -> None:
    policy = tf.train.experimental.MaxShardSizePolicy(limit)
    root = module()
    del root.none  # with this policy TensorFlow does not save empty variables, and cannot restore
    options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    path = tf.train.Checkpoint(root=root).save(tmp_path / "ckpt", options=options)
    assert len(list(tmp_path.glob("*.data-*"))) > 1
    compare(path)


WRITTEN_BY_CRAFT: dict[str, dict[str, Any]] = {
    "one block": {},
    "many blocks": {"block_size": 100},
    "snappy": {"kind": table.SNAPPY},
    "other restarts": {"restart_interval": 3},
}


@pytest.mark.parametrize("layout", WRITTEN_BY_CRAFT)
def test_files_of_the_test_writer_read_the_same(
    tmp_path: Path, layout: str, compare: Callable[..., None]
) -> None:
    prefix = specimen(num_shards=2).write(tmp_path / "c", **WRITTEN_BY_CRAFT[layout])
    compare(prefix, saved=TENSORS)


def test_big_endian_checkpoint_reads_the_same(tmp_path: Path, compare: Callable[..., None]) -> None:
    bundle = Bundle(big_endian=True)
    saved = {}
    for kind in (KINDS[number] for number in KINDS if number < 24):
        saved[kind.label] = sample(kind, (3, 2))
        bundle.add(kind.label, saved[kind.label], number=kind.number)
    bundle.add_strings("s", [b"one", b"", b"\xff" * 300], (3,))
    compare(bundle.write(tmp_path / "c"), saved=saved)
