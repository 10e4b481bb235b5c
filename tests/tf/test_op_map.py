# SPDX-License-Identifier: Apache-2.0
"""TensorbundleMapV1: the memory of a variable is a private mapping of the checkpoint."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits

tf = pytest.importorskip("tensorflow")

ROWS, COLUMNS = 200_000, 64
SHAPE = (ROWS, COLUMNS)
TABLE_MIB = ROWS * COLUMNS * 4 >> 20


def anonymous_mib() -> float:
    """Returns the anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def count_mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.fixture(scope="module")
def large_table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A 49 MiB table, the last tensor of its shard."""
    values = np.random.default_rng(0).random(SHAPE, np.float32)
    bundle = Bundle()
    bundle.pad(4096)
    bundle.add("t", values)
    return bundle.write(tmp_path_factory.mktemp("map") / "ck"), values


def mapped(ops: ModuleType, prefix: Path, shape: tuple[int, ...] | None = None) -> Any:
    (value,), begin, (size,) = ops.tensorbundle_map_v1(
        prefix=str(prefix), tensor="t", dtype=tf.float32, slice_specs=[""], N=1, verify="none"
    )
    value = tf.slice(value, begin, size)
    value.set_shape(shape)
    return value


@pytest.mark.parametrize("use_resource", [True, False])
def test_mapped_variable_is_updated_without_a_copy(
    use_resource: bool, large_table: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, values = large_table
    shard = shard_path(prefix)
    before = hashlib.sha256(shard.read_bytes()).hexdigest()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable(
            "v", initializer=lambda: mapped(ops, prefix, SHAPE), use_resource=use_resource,
        )  # fmt: skip
        ids = tf.constant([0, 77, ROWS - 1])
        rows = tf.nn.embedding_lookup(variable, ids)
        update = tf.compat.v1.scatter_sub(variable, ids, tf.ones((3, COLUMNS)))
        session.run(rows.op.graph.get_operations()[0])  # the cost of a first run
        start = anonymous_mib()
        session.run(variable.initializer)
        assert count_mappings(shard) == 1
        assert same_bits(session.run(rows), values[[0, 77, ROWS - 1]])
        session.run(update.op)  # fetching its value would copy the whole variable
        assert same_bits(session.run(rows), values[[0, 77, ROWS - 1]] - 1)
        assert anonymous_mib() - start < TABLE_MIB / 4
        assert count_mappings(shard) >= 1  # the update did not copy it
    gc.collect()
    assert count_mappings(shard) == 0
    assert hashlib.sha256(shard.read_bytes()).hexdigest() == before


def test_eager_variable_is_mapped_without_a_copy(
    large_table: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, values = large_table
    start = anonymous_mib()
    variable = tf.Variable(mapped(ops, prefix))
    assert same_bits(tf.gather(variable, [5, 6]).numpy(), values[5:7])
    variable.scatter_sub(tf.IndexedSlices(tf.ones((1, COLUMNS)), [5]))
    assert same_bits(tf.gather(variable, [5, 6]).numpy(), values[5:7] - np.float32([[1], [0]]))
    assert anonymous_mib() - start < TABLE_MIB / 4
    del variable
    gc.collect()
    assert count_mappings(shard_path(prefix)) == 0


def test_row_after_the_end_of_the_file_is_readable(tmp_path: Path, ops: ModuleType) -> None:
    """The file ends at a page boundary, or within a page."""
    for rows in (1024, 1023, 1025, 1):
        values = np.arange(rows * 16, dtype=np.float32).reshape(rows, 16)
        bundle = Bundle()
        bundle.add("t", values)
        prefix = bundle.write(tmp_path / f"ck{rows}")
        (padded,), _, _ = ops.tensorbundle_map_v1(
            prefix=str(prefix), tensor="t", dtype=tf.float32, slice_specs=[""], N=1
        )
        assert padded.shape == (rows + 1, 16)
        array = padded.numpy()  # reads the row that is not in the file
        assert same_bits(array[:rows], values)


def test_offset_not_a_multiple_of_64_raises(tmp_path: Path, ops: ModuleType) -> None:
    values = np.arange(32, dtype=np.float32).reshape(2, 16)
    for offset in (0, 4, 16, 60, 64, 68, 128, 4096):
        bundle = Bundle()
        bundle.pad(offset)
        bundle.add("t", values)
        prefix = bundle.write(tmp_path / f"ck{offset}")
        if offset % 64:
            with pytest.raises(
                tf.errors.InvalidArgumentError,
                match=rf"offset {offset} of .*not a multiple of 64.*tensorbundle align",
            ):
                mapped(ops, prefix)
        else:
            assert same_bits(mapped(ops, prefix).numpy(), values)


@pytest.mark.parametrize(
    ("boxes", "spec", "reason"),
    [
        (tilings.cut((8, 16), 0, [4, 4]), "", None),
        (tilings.cut((8, 16), 0, [4, 4]), "8 16 2,4:-", None),
        (tilings.cut((8, 16), 0, [4, 4])[::-1], "", "not adjacent"),
        (tilings.cut((8, 16), 1, [8, 8]), "", "longer stored rows|one behind"),
        (tilings.cut((8, 16), 1, [8, 8]), "8 16 -:0,8", None),
        (tilings.cut((8, 16), 0, [8]), "8 16 -:0,8", "longer stored rows"),
        (tilings.cut((8, 16), 0, [8]), "8 16 3,2:-", None),
    ],
)
def test_contiguous_boxes_are_mapped(
    boxes: list[Any], spec: str, reason: str | None, tmp_path: Path, ops: ModuleType
) -> None:
    values = np.arange(128, dtype=np.float32).reshape(8, 16)
    bundle = Bundle()
    bundle.add_sliced("t", values, boxes)
    prefix = bundle.write(tmp_path / "ck")
    options = {"prefix": str(prefix), "tensor": "t", "dtype": tf.float32}
    if reason is None:
        expected, _ = ops.tensorbundle_read_v1(slice_spec=spec, **options)
        (value,), _, (size,) = ops.tensorbundle_map_v1(slice_specs=[spec], N=1, **options)
        assert same_bits(value.numpy()[:-1], expected.numpy())
        assert size.numpy().tolist() == list(expected.shape)
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            ops.tensorbundle_map_v1(slice_specs=[spec], N=1, **options)


def test_overlapping_boxes_have_separate_memory(tmp_path: Path, ops: ModuleType) -> None:
    values = np.arange(128, dtype=np.float32).reshape(8, 16)
    bundle = Bundle()
    bundle.add("t", values)
    prefix = bundle.write(tmp_path / "ck")
    specs = ["8 16 0,4:-", "8 16 4,4:-", "8 16 2,3:-", ""]
    outputs, begin, sizes = ops.tensorbundle_map_v1(
        prefix=str(prefix), tensor="t", dtype=tf.float32, slice_specs=specs, N=4
    )
    assert begin.numpy().tolist() == [0, 0]
    assert [size.numpy().tolist() for size in sizes] == [[4, 16], [4, 16], [3, 16], [8, 16]]
    variables = [tf.Variable(tf.slice(p, begin, n)) for p, n in zip(outputs, sizes, strict=True)]
    del outputs
    assert count_mappings(shard_path(prefix)) == 4
    for variable in variables:
        variable.scatter_sub(tf.IndexedSlices(tf.ones((1, 16)), [0]))
    assert count_mappings(shard_path(prefix)) >= 4  # in place
    for variable, box in zip(
        variables, [slice(0, 4), slice(4, 8), slice(2, 5), slice(0, 8)], strict=True
    ):
        expected = values[box].copy()
        expected[0] -= 1
        assert same_bits(variable.numpy(), expected)
    assert shard_path(prefix).read_bytes() == values.tobytes()


@pytest.mark.parametrize(
    ("specs", "count", "error"),
    [
        (["8 16 0,4:-"], 2, "N is 2, but slice_specs are 1"),
        (["8 16 0,4:-", "9 16 0,4:-"], 2, "9,16"),  # a shape other than the stored one
        (["8 16 0,4:-", "nonsense"], 2, "nonsense"),
    ],
)
def test_invalid_spec_raises(
    specs: list[str], count: int, error: str, tmp_path: Path, ops: ModuleType
) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros((8, 16), np.float32))
    prefix = bundle.write(tmp_path / "ck")
    with pytest.raises(tf.errors.InvalidArgumentError, match=error):
        ops.tensorbundle_map_v1(
            prefix=str(prefix), tensor="t", dtype=tf.float32, slice_specs=specs, N=count
        )
    assert count_mappings(shard_path(prefix)) == 0


@pytest.mark.parametrize("value", [np.float32(3), np.zeros((0, 4), np.float32)])
def test_tensor_without_rows_raises(value: Any, tmp_path: Path, ops: ModuleType) -> None:
    bundle = Bundle()
    bundle.add("t", value)
    prefix = bundle.write(tmp_path / "ck")
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot be mapped: it has no rows"):
        mapped(ops, prefix)


@pytest.mark.parametrize("truncate", [lambda data: data[:-1], lambda data: b""])
def test_truncated_shard_raises_data_loss(
    truncate: Callable[[bytes], bytes], tmp_path: Path, ops: ModuleType
) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros((1000, 64), np.float32))
    prefix = bundle.write(tmp_path / "ck")
    shard_path(prefix).write_bytes(truncate(bytes(bundle.shards[0])))
    with pytest.raises(tf.errors.DataLossError, match="truncated"):
        mapped(ops, prefix)


def test_table_larger_than_memory_is_mapped(tmp_path: Path, ops: ModuleType) -> None:
    """The shard is a sparse file of 64 GiB."""
    rows = 1 << 28
    bundle = Bundle()
    entry = bundle.add_payload("t", 1, (rows, 64), b"")
    entry.size = rows * 256
    prefix = bundle.write(tmp_path / "ck")
    try:
        with shard_path(prefix).open("wb") as file:
            file.truncate(rows * 256)
    except OSError:
        pytest.skip("the file system does not support files of that size")
    start = anonymous_mib()
    variable = tf.Variable(mapped(ops, prefix))
    variable.scatter_sub(tf.IndexedSlices(tf.ones((1, 64)), tf.constant([rows - 1], tf.int64)))
    assert tf.gather(variable, tf.constant([rows - 1], tf.int64)).numpy().sum() == -64
    assert anonymous_mib() - start < 64
