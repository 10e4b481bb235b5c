# SPDX-License-Identifier: Apache-2.0
"""TensorbundleReadV1 returns the same values and raises the same errors as RestoreV2."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from craft.threads import most_threads
from craft.v1 import V1File

tf = pytest.importorskip("tensorflow")

FLOAT = 1
VERIFY = ["full", "parts", "lazy", "none"]


def is_supported(number: int) -> bool:
    try:
        return bool(tf.as_dtype(number))
    except TypeError:
        return False


SUPPORTED = [number for number in KINDS if is_supported(number)]


def spec_of(shape: tuple[int, ...], box: tuple[tuple[int, int], ...]) -> str:
    """Formats a box as TensorFlow's slice specification; a full axis is a dash."""
    items = [
        "-" if pair == (0, n) else f"{pair[0]},{pair[1]}"
        for pair, n in zip(box, shape, strict=True)
    ]
    return " ".join(map(str, shape)) + " " + ":".join(items)


def restore(prefix: Path, name: str, spec: str, dtype: Any) -> Any:
    return tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=[name], shape_and_slices=[spec], dtypes=[dtype]
    )[0]


def as_bytes(tensor: Any) -> bytes:
    """Returns the tensor's memory; quantized types need a bitcast."""
    dtype = {"qint8": tf.int8, "quint8": tf.uint8, "qint16": tf.int16, "quint16": tf.uint16,
             "qint32": tf.int32}.get(tensor.dtype.name)  # fmt: skip
    return bytes((tensor if dtype is None else tf.bitcast(tensor, dtype)).numpy().tobytes())


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Writes a float tensor `t` of shape [30, 7] in one slice at an offset that can be mapped."""
    values = np.arange(210, dtype=np.float32).reshape(30, 7)
    bundle = Bundle()
    bundle.add("t", values)
    return bundle.write(tmp_path / "ck"), values


@pytest.mark.parametrize("number", SUPPORTED)
def test_every_dtype_equals_restore(number: int, ops: ModuleType, tmp_path: Path) -> None:
    values = sample(KINDS[number], (5, 3), seed=number)
    bundle = Bundle()
    bundle.add("t", values, number=number)
    bundle.pad(-len(bundle.shards[0]) % 64)
    bundle.add("scalar", sample(KINDS[number], (), seed=1), number=number)
    bundle.add("empty", values[:0], number=number)
    prefix = bundle.write(tmp_path / "ck")
    dtype = tf.as_dtype(number)
    for verify in VERIFY:
        options = {"prefix": str(prefix), "dtype": dtype, "verify": verify}
        value, _ = ops.tensorbundle_read_v1(tensor="t", **options)
        assert value.shape == (5, 3)
        expected = as_bytes(restore(prefix, "t", "", dtype))
        assert as_bytes(value) == expected
        scalar, _ = ops.tensorbundle_read_v1(tensor="scalar", **options)
        assert scalar.shape == ()
        assert as_bytes(scalar) == as_bytes(restore(prefix, "scalar", "", dtype))
        empty, parts = ops.tensorbundle_read_v1(tensor="empty", **options)
        assert empty.shape == (0, 3)
        assert parts.shape == (0, 4)
    (mapped,), _, _ = ops.tensorbundle_map_v1(
        prefix=str(prefix), tensor="t", dtype=dtype, slice_specs=[""], N=1
    )
    assert mapped.shape == (6, 3)
    assert as_bytes(mapped)[: len(expected)] == expected


@pytest.mark.parametrize("seed", range(12))
def test_boxes_of_sliced_tensor_equal_restore(seed: int, ops: ModuleType, tmp_path: Path) -> None:
    rng = random.Random(seed)
    shape = tuple(rng.randint(1, 9) for _ in range(rng.randint(1, 4)))
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    bundle = Bundle(2)
    stored = tilings.guillotine(shape, rng.randint(0, 6), rng)
    bundle.add_sliced("t", values, stored, shard_of=lambda i: i % 2)
    prefix = bundle.write(tmp_path / "ck")
    for box in [*stored, *tilings.guillotine(shape, 5, rng)]:
        spec = spec_of(shape, box)
        for verify in VERIFY:
            value, parts = ops.tensorbundle_read_v1(
                prefix=str(prefix), tensor="t", slice_spec=spec, dtype=tf.float32, verify=verify
            )
            assert same_bits(value.numpy(), values[tilings.slices(box)])
            assert same_bits(value.numpy(), restore(prefix, "t", spec, tf.float32).numpy())
            assert (len(parts) > 0) == (verify == "parts")


@pytest.mark.parametrize("verify", VERIFY)
def test_big_endian_values_are_swapped(verify: str, ops: ModuleType, tmp_path: Path) -> None:
    values = np.arange(300_000, dtype=np.float64).reshape(-1, 3)
    bundle = Bundle(big_endian=True)
    bundle.add("t", values)
    prefix = bundle.write(tmp_path / "ck")
    options = {"prefix": str(prefix), "tensor": "t", "dtype": tf.float64, "verify": verify}
    value, parts = ops.tensorbundle_read_v1(**options)
    assert same_bits(value.numpy(), values)
    box, _ = ops.tensorbundle_read_v1(**options, slice_spec="100000 3 7,99:1,2")
    assert same_bits(box.numpy(), values[7:106, 1:3])
    if verify == "parts":  # the checksums are of the stored byte order
        del options["verify"]
        assert ops.tensorbundle_verify_v1(parts=[parts], **options).numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="big-endian"):
        ops.tensorbundle_map_v1(
            prefix=str(prefix), tensor="t", dtype=tf.float64, slice_specs=[""], N=1
        )


@pytest.mark.parametrize("verify", VERIFY)
def test_strings_are_read(verify: str, ops: ModuleType, tmp_path: Path) -> None:
    values = [b"", b"short", b"x" * 22, b"y" * 23, b"\x00\xff", b"z" * 10_000]
    bundle = Bundle()
    bundle.add_strings("s", values, (2, 3))
    bundle.add_strings("scalar", [b"one and only, and not a short one"], ())
    prefix = bundle.write(tmp_path / "ck")
    options = {"prefix": str(prefix), "dtype": tf.string, "verify": verify}
    value, parts = ops.tensorbundle_read_v1(tensor="s", **options)
    assert value.numpy().tolist() == [values[:3], values[3:]]
    assert parts.shape == (0, 4)
    box, _ = ops.tensorbundle_read_v1(tensor="s", slice_spec="2 3 -:1,2", **options)
    assert box.numpy().tolist() == [values[1:3], values[4:]]
    scalar, _ = ops.tensorbundle_read_v1(tensor="scalar", **options)
    assert scalar.numpy() == b"one and only, and not a short one"
    with pytest.raises(tf.errors.InvalidArgumentError, match="'s' cannot be mapped"):
        ops.tensorbundle_map_v1(
            prefix=str(prefix), tensor="s", dtype=tf.string, slice_specs=[""], N=1
        )


def test_bit_flip_in_strings_raises_data_loss(ops: ModuleType, tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_strings("s", [b"hello", b"world"], (2,))
    bundle.shards[0][-2] ^= 1
    options = {"prefix": str(bundle.write(tmp_path / "ck")), "tensor": "s", "dtype": tf.string}
    for verify in ("full", "parts", "lazy"):
        with pytest.raises(tf.errors.DataLossError, match="'s'"):
            ops.tensorbundle_read_v1(verify=verify, **options)
    assert ops.tensorbundle_read_v1(verify="none", **options)[0].numpy()[1] != b"world"


@pytest.mark.parametrize("number", [1, 2, 3, 9, 10])
@pytest.mark.parametrize("verify", VERIFY)
def test_v1_checkpoint_equals_restore(
    number: int, verify: str, ops: ModuleType, tmp_path: Path
) -> None:
    values = sample(KINDS[number], (6, 4), seed=number)
    file = V1File()
    file.add("whole", number, values)
    file.add_sliced("sliced", number, values, tilings.cut((6, 4), 0, [2, 4]))
    prefix = file.write(tmp_path / "old")
    dtype = tf.as_dtype(number)
    for name in ("whole", "sliced"):
        options = {"prefix": str(prefix), "tensor": name, "dtype": dtype}
        value, parts = ops.tensorbundle_read_v1(verify=verify, **options)
        assert same_bits(value.numpy(), values)
        assert same_bits(value.numpy(), restore(prefix, name, "", dtype).numpy())
        box, _ = ops.tensorbundle_read_v1(slice_spec="6 4 1,3:2,2", verify=verify, **options)
        assert same_bits(box.numpy(), values[1:4, 2:])
        assert ops.tensorbundle_verify_v1(parts=[parts], **options).numpy()


def test_shards_of_v1_checkpoint_are_read(ops: ModuleType, tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    boxes = tilings.cut((6, 4), 0, [2, 4])
    for shard, box in enumerate(boxes):
        file = V1File()
        file.add_sliced("t", FLOAT, values, [box])
        file.write(tmp_path / f"old-{shard:05d}-of-00002")
    prefix = str(tmp_path / "old-?????-of-00002")
    value, _ = ops.tensorbundle_read_v1(prefix=prefix, tensor="t", dtype=tf.float32)
    assert same_bits(value.numpy(), values)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"tensor": "q"}, tf.errors.NotFoundError, "Key q not found in checkpoint"),
        ({"prefix": "/no/such"}, tf.errors.NotFoundError, "/no/such"),
        (
            {"dtype": tf.float64},
            tf.errors.InvalidArgumentError,
            "tensor_name = t; expected dtype double does not equal original dtype float",
        ),
        (
            {"slice_spec": "7 30 -:-"},
            tf.errors.InvalidArgumentError,
            r"spec \[7,30\] does not match the shape stored in checkpoint: \[30,7\]",
        ),
        ({"slice_spec": "30  7 -:-"}, tf.errors.InvalidArgumentError, "Non numerical dimension"),
        ({"slice_spec": "30 7 0,0:-"}, tf.errors.InvalidArgumentError, "positive length"),
        ({"slice_spec": "30 7 -1,2:-"}, tf.errors.InvalidArgumentError, "non-negative start"),
        ({"slice_spec": "30 7 a:-"}, tf.errors.InvalidArgumentError, "pair of numbers"),
        ({"slice_spec": "x"}, tf.errors.InvalidArgumentError, "two elements"),
    ],
)
def test_invalid_attribute_raises_the_error_of_restore(
    changes: dict[str, Any],
    error: type[Exception],
    match: str,
    table: tuple[Path, np.ndarray],
    ops: ModuleType,
) -> None:
    options = {"prefix": str(table[0]), "tensor": "t", "dtype": tf.float32, **changes}
    with pytest.raises(error, match=match):
        ops.tensorbundle_read_v1(**options)
    with pytest.raises(error):  # TensorFlow raises the same class
        restore(options["prefix"], options["tensor"], changes.get("slice_spec", ""),
                options["dtype"])  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("30 7 25,6:-", "out of bounds"),
        ("30 7 -", "2 extents"),
        ("30 7 1,9223372036854775807:-", "out of bounds"),
    ],
)
def test_out_of_bounds_slice_raises_invalid_argument(
    spec: str, match: str, table: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    """TensorFlow raises an InternalError; for the last spec it aborts the process."""
    with pytest.raises(tf.errors.InvalidArgumentError, match=match):
        ops.tensorbundle_read_v1(
            prefix=str(table[0]), tensor="t", dtype=tf.float32, slice_spec=spec
        )


def test_message_is_utf8_for_any_name(table: tuple[Path, np.ndarray], ops: ModuleType) -> None:
    """Python cannot decode a status that is not UTF-8."""
    for name, shown in (
        (b"\xff\xfe", r"\\xff\\xfe"),
        (b"a\0b", r"a\\x00b"),
        (b"\xe2\x82", r"\\xe2\\x82"),
        (b"\xed\xa0\x80", r"\\xed\\xa0\\x80"),
        ("\u20ac".encode(), "\u20ac"),
    ):
        with pytest.raises(tf.errors.NotFoundError, match=f"Key {shown} not found"):
            ops.tensorbundle_read_v1(prefix=str(table[0]), tensor=name, dtype=tf.float32)
    with pytest.raises(tf.errors.NotFoundError) as caught:
        ops.tensorbundle_read_v1(prefix=str(table[0]), tensor="n" * 100_000, dtype=tf.float32)
    assert len(str(caught.value)) < 8192


def test_verify_attribute_rejects_other_values(
    table: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    options = {"prefix": str(table[0]), "tensor": "t", "dtype": tf.float32}
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="allowed values"):
        ops.tensorbundle_read_v1(**options, verify="some")
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="allowed values"):
        ops.tensorbundle_map_v1(**options, slice_specs=[""], N=1, verify="parts")


@pytest.mark.parametrize("verify", VERIFY)
def test_truncated_or_missing_shard_raises(
    verify: str, table: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    prefix, values = table
    shard = shard_path(prefix)
    options = {"prefix": str(prefix), "tensor": "t", "dtype": tf.float32, "verify": verify}
    shard.write_bytes(values.tobytes()[:-1])
    with pytest.raises(tf.errors.DataLossError, match="839 bytes"):
        ops.tensorbundle_read_v1(**options)
    if verify in ("full", "none"):
        with pytest.raises(tf.errors.DataLossError, match="839 bytes"):
            ops.tensorbundle_map_v1(**options, slice_specs=[""], N=1)
    shard.unlink()
    with pytest.raises(tf.errors.NotFoundError, match="is missing"):
        ops.tensorbundle_read_v1(**options)
    shard.mkdir()
    with pytest.raises(tf.errors.FailedPreconditionError, match="directory"):
        ops.tensorbundle_read_v1(**options)


@pytest.mark.parametrize("verify", VERIFY)
@pytest.mark.parametrize("spec", ["", "30 7 5,10:-", "30 7 -:2,3"])
def test_bit_flip_raises_data_loss(
    verify: str, spec: str, table: tuple[Path, np.ndarray], ops: ModuleType
) -> None:
    """`full` detects it anywhere in a stored slice that intersects the box."""
    prefix, values = table
    data = bytearray(values.tobytes())
    data[-1] ^= 0x40  # in the last row
    shard_path(prefix).write_bytes(data)
    options = {"prefix": str(prefix), "tensor": "t", "dtype": tf.float32}
    is_detected = verify == "full" or (verify == "lazy" and not spec)
    if is_detected:
        with pytest.raises(tf.errors.DataLossError, match=r"'t'.*CRC32C"):
            ops.tensorbundle_read_v1(**options, slice_spec=spec, verify=verify)
        return
    _, parts = ops.tensorbundle_read_v1(**options, slice_spec=spec, verify=verify)
    if verify == "parts":
        with pytest.raises(tf.errors.DataLossError, match=r"'t'.*CRC32C"):
            ops.tensorbundle_verify_v1(parts=[parts], **options)


def test_rewritten_checkpoint_is_read_again(tmp_path: Path, ops: ModuleType) -> None:
    """A session keeps its kernels."""
    prefix = tmp_path / "ck"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        value, _ = ops.tensorbundle_read_v1(prefix=str(prefix), tensor="t", dtype=tf.float32)
        for round_number in range(4):
            values = np.full((3 + round_number,), round_number, np.float32)
            bundle = Bundle()
            bundle.pad(64 * round_number)
            bundle.add("t", values)
            bundle.write(prefix)
            assert same_bits(session.run(value), values)


def test_op_is_not_constant_folded(table: tuple[Path, np.ndarray], ops: ModuleType) -> None:
    prefix, values = table
    with tf.Graph().as_default() as graph:
        value, _ = ops.tensorbundle_read_v1(prefix=str(prefix), tensor="t", dtype=tf.float32)
        assert value.op.op_def.is_stateful
        with tf.compat.v1.Session(graph=graph) as session:
            for _ in range(2):
                assert same_bits(session.run(value), values)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_reads_use_as_many_threads_as_asked_for(
    threads: int, ops: ModuleType, tmp_path: Path
) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros((1 << 17, 64), np.float32))
    prefix = str(bundle.write(tmp_path / "ck"))

    def read() -> None:
        ops.tensorbundle_read_v1(prefix=prefix, tensor="t", dtype=tf.float32, threads=threads)

    read()  # TensorFlow starts its own threads
    added = 0
    for attempt in range(30):  # on a busy machine the other thread may see too little
        added = max(added, most_threads(read))
        if attempt > 3 and added >= threads - 1:
            break
    assert added == threads - 1
