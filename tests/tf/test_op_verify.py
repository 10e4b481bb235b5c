# SPDX-License-Identifier: Apache-2.0
"""TensorbundleVerifyV1 combines the partial checksums of reads."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

ROWS, COLUMNS = 40, 6
SHAPE = (ROWS, COLUMNS)


@pytest.fixture(params=["whole", "rows", "columns"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A float table in one stored slice, in three slices of rows, or in two of columns."""
    values = np.random.default_rng(0).random(SHAPE, np.float32)
    bundle = Bundle()
    bundle.pad(24)
    boxes = {
        "whole": tilings.grid(SHAPE, [[ROWS], [COLUMNS]]),
        "rows": tilings.cut(SHAPE, 0, [7, 13, 20]),
        "columns": tilings.cut(SHAPE, 1, [2, 4]),
    }[request.param]
    if request.param == "whole":
        bundle.add("t", values)
    else:
        bundle.add_sliced("t", values, boxes)
    return bundle.write(tmp_path / "ck"), values


def read(ops: ModuleType, prefix: Path, spec: str, **options: Any) -> tuple[Any, Any]:
    value, parts = ops.tensorbundle_read_v1(
        prefix=str(prefix), tensor="t", dtype=tf.float32, slice_spec=spec,
        verify="parts", **options,
    )  # fmt: skip
    return value, parts


def verify(ops: ModuleType, prefix: Path, parts: list[Any]) -> bool:
    ok = ops.tensorbundle_verify_v1(parts=parts, prefix=str(prefix), tensor="t", dtype=tf.float32)
    assert ok.dtype == tf.bool and ok.shape == ()
    return bool(ok.numpy())


def flip(prefix: Path, offset: int) -> None:
    data = bytearray(shard_path(prefix).read_bytes())
    data[offset] ^= 0x04
    shard_path(prefix).write_bytes(data)


ROW_SPECS = [f"{ROWS} {COLUMNS} {start},10:-" for start in range(0, ROWS, 10)]
COLUMN_SPECS = [f"{ROWS} {COLUMNS} -:{start},3" for start in (0, 3)]


@pytest.mark.parametrize("specs", [ROW_SPECS, ROW_SPECS[::-1], COLUMN_SPECS, [""]])
def test_partial_checksums_of_whole_tensor_detect_bit_flips(
    specs: list[str], stored: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, values = stored
    parts = [read(ops, prefix, spec)[1] for spec in specs]
    assert verify(ops, prefix, parts)
    for offset in range(24, 24 + values.nbytes, 97):
        flip(prefix, offset)
        corrupt = [read(ops, prefix, spec)[1] for spec in specs]
        with pytest.raises(tf.errors.DataLossError, match=r"'t'.*CRC32C"):
            verify(ops, prefix, corrupt)
        flip(prefix, offset)


def test_bytes_read_earlier_are_verified_not_the_file(
    stored: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, _values = stored
    flip(prefix, 24)
    wrong = [read(ops, prefix, spec)[1] for spec in ROW_SPECS]
    flip(prefix, 24)
    assert (wrong[0].numpy()[:, 2] > 0).all()  # the rows are contiguous in every stored slice
    with pytest.raises(tf.errors.DataLossError):
        verify(ops, prefix, wrong)


@pytest.mark.parametrize("selected", [[0], [3], [1, 2], [0, 3]])
def test_rest_of_partly_read_slice_is_read_and_verified(
    selected: list[int], stored: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, _values = stored
    parts = [read(ops, prefix, ROW_SPECS[i])[1] for i in selected]
    assert verify(ops, prefix, parts)
    read_slices = {int(index) for part in parts for index in part.numpy()[:, 0]}
    with tb.open(prefix) as checkpoint:
        ranges = [range(at, at + size) for _, _, _, at, size, _ in checkpoint["t"].slices]
    for offset in range(24, ranges[-1].stop, 101):
        flip(prefix, offset)
        corrupt = [read(ops, prefix, ROW_SPECS[i])[1] for i in selected]
        if any(offset in ranges[index] for index in read_slices):
            with pytest.raises(tf.errors.DataLossError):
                verify(ops, prefix, corrupt)
        else:  # a slice that was not read; TensorFlow would not read it either
            assert verify(ops, prefix, corrupt)
        with pytest.raises(tf.errors.DataLossError):  # without parts, the whole tensor is read
            verify(ops, prefix, [])
        flip(prefix, offset)
    assert verify(ops, prefix, [])


def test_slices_that_were_not_read_are_not_verified(tmp_path: Path, ops: ModuleType) -> None:
    values = np.arange(60, dtype=np.float32).reshape(10, 6)
    bundle = Bundle()
    bundle.add_sliced("t", values, tilings.cut((10, 6), 0, [5, 5]))
    prefix = bundle.write(tmp_path / "ck")
    flip(prefix, 5 * 6 * 4)
    _, parts = read(ops, prefix, "10 6 0,5:-")
    assert verify(ops, prefix, [parts])
    restored = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=["t"], shape_and_slices=["10 6 0,5:-"], dtypes=[tf.float32]
    )[0]  # fmt: skip
    assert same_bits(restored.numpy(), values[:5])


def test_overlapping_reads_are_all_verified(
    stored: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, _values = stored
    good = [read(ops, prefix, spec)[1] for spec in ROW_SPECS]
    overlapping = read(ops, prefix, f"{ROWS} {COLUMNS} 5,12:-")[1]
    assert verify(ops, prefix, [*good, *good, overlapping, overlapping])
    flip(prefix, shard_path(prefix).stat().st_size - 1)
    bad = read(ops, prefix, f"{ROWS} {COLUMNS} 30,10:-")[1]
    flip(prefix, shard_path(prefix).stat().st_size - 1)
    with pytest.raises(tf.errors.DataLossError):
        verify(ops, prefix, [*good, bad])


def test_map_verifies_only_intersecting_slices(tmp_path: Path, ops: ModuleType) -> None:
    values = np.arange(60, dtype=np.float32).reshape(10, 6)
    bundle = Bundle()
    bundle.pad(64)
    bundle.add_sliced("t", values, tilings.cut((10, 6), 0, [5, 5]))
    prefix = bundle.write(tmp_path / "ck")

    def mapped(verification: str, *specs: str) -> list[Any]:
        values, _, _ = ops.tensorbundle_map_v1(
            prefix=str(prefix), tensor="t", dtype=tf.float32, slice_specs=list(specs),
            N=len(specs), verify=verification,
        )  # fmt: skip
        return [value.numpy()[:-1] for value in values]

    first, both = "10 6 0,4:-", ""
    assert same_bits(mapped("full", first, both)[1], values)
    flip(prefix, 64 + 5 * 6 * 4)  # in the second slice
    assert same_bits(mapped("full", first)[0], values[:4])
    with pytest.raises(tf.errors.DataLossError, match=r"'t'.*CRC32C"):
        mapped("full", first, both)
    first_unread, second_unread = tf.constant([[[0, 0, 0, 0]], [[1, 0, 0, 0]]], tf.int64)
    assert verify(ops, prefix, [first_unread])
    with pytest.raises(tf.errors.DataLossError):
        verify(ops, prefix, [first_unread, second_unread])
    assert not same_bits(mapped("none", first, both)[1], values)


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ([[1, 0, 4, 0]], tf.errors.InvalidArgumentError, "stored slice 1 of a tensor that has 1"),
        ([[0, 44, 8, 0]], tf.errors.DataLossError, "48 bytes"),
        ([[0, 2**62, 2**62, 0]], tf.errors.DataLossError, "48 bytes"),
        ([[0, 0, 8, -1]], tf.errors.InvalidArgumentError, "holds -1"),
        ([[0, 0, 8, 2**32]], tf.errors.InvalidArgumentError, "is not a CRC32C"),
        ([[0, 0, 8]], tf.errors.InvalidArgumentError, r"shape \[1,3\]"),
        ([0, 0, 8, 7], tf.errors.InvalidArgumentError, r"shape \[4\]"),
        ([[0, 0, 48, 12345]], tf.errors.DataLossError, "CRC32C"),
    ],
)
def test_invalid_partial_checksum_raises(
    parts: list[Any], error: type[Exception], match: str, tmp_path: Path, ops: ModuleType
) -> None:
    bundle = Bundle()
    bundle.add("t", np.arange(12, dtype=np.float32).reshape(3, 4))
    prefix = bundle.write(tmp_path / "ck")
    with pytest.raises(error, match=match):
        verify(ops, prefix, [tf.constant(parts, tf.int64)])


def test_assignment_waits_for_verification(
    stored: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    """If one byte is wrong, all partitions of the variable stay uninitialized."""
    prefix, values = stored
    for corrupt in (False, True):
        if corrupt:
            flip(prefix, 24 + values.nbytes // 2)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            reads = [read(ops, prefix, spec) for spec in ROW_SPECS]
            ok = ops.tensorbundle_verify_v1(
                parts=[part for _, part in reads], prefix=str(prefix), tensor="t", dtype=tf.float32
            )
            variables = [
                tf.compat.v1.get_variable(f"v{i}", (10, COLUMNS), use_resource=bool(i % 2))
                for i in range(4)
            ]
            with tf.control_dependencies([ok]):
                assigns = [
                    tf.compat.v1.assign(v, tf.ensure_shape(value, (10, COLUMNS)))
                    for v, (value, _) in zip(variables, reads, strict=True)
                ]
            if not corrupt:
                session.run(tf.group(*assigns))
                assert same_bits(np.concatenate(session.run(variables)), values)
                continue
            with pytest.raises(tf.errors.DataLossError):
                session.run(tf.group(*assigns))
            initialized = session.run([tf.compat.v1.is_variable_initialized(v) for v in variables])
            assert not any(initialized)


def test_tensor_with_missing_slices_raises_data_loss(tmp_path: Path, ops: ModuleType) -> None:
    bundle = Bundle()
    bundle.add_sliced("t", np.arange(12, dtype=np.float32).reshape(4, 3), [((0, 2), (0, 3))])
    prefix = str(bundle.write(tmp_path / "ck"))
    with pytest.raises(tf.errors.DataLossError, match="6 of the 12 elements"):
        ops.tensorbundle_verify_v1(parts=[], prefix=prefix, tensor="t", dtype=tf.float32)
