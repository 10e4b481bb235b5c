# SPDX-License-Identifier: Apache-2.0
"""V1 checkpoints: a table that contains the tensor data."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import table, tilings, wire
from craft.compare import same_bits, shows_a_file
from craft.dtypes import KINDS, STRING, sample
from craft.v1 import FIELDS, V1File, values_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb

SHAPES = [(), (1,), (0,), (2, 0), (3, 4), (2, 3, 2)]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("number", FIELDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reads_every_dtype(
    tmp_path: Path, number: int, shape: tuple[int, ...], packed: bool
) -> None:
    source = sample(KINDS[number], shape)
    file = V1File()
    file.add("x", number, source, packed=packed)
    with tb.open(file.write(tmp_path / "v1")) as ck:
        t = ck["x"]
        assert (t.name, t.shape, t.dtype) == ("x", shape, KINDS[number].dtype)
        assert same_bits(t, source)
        owned = t.read()
        assert same_bits(owned, source)
        assert shape == () or (owned.flags.writeable and owned.flags.aligned)
        assert ck.verify().ok


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 2)], ids=str)
def test_reads_strings(tmp_path: Path, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape, dtype=int))
    values = [b"", b"a\0b", b"\xff" * 300, b"x"][:count] if count else []
    source = np.array(values, dtype=object).reshape(shape)
    file = V1File()
    file.add("s", STRING, source)
    path = file.write(tmp_path / "v1")
    with tb.open(path) as ck:
        assert same_bits(ck["s"], source)
    got = tb.load_variable(str(path), "s")
    if shape == ():
        assert type(got) is bytes
    assert np.asarray(got, dtype=object).reshape(-1).tolist() == values


def test_tensorflow_api_reads_v1(tmp_path: Path) -> None:
    file = V1File()
    source = sample(KINDS[19], (5, 2))
    file.add("half", 19, source)
    file.add_sliced("sliced", 1, np.eye(4, dtype=np.float32), tilings.cut((4, 4), 0, [1, 3]))
    reader = tb.NewCheckpointReader(str(file.write(tmp_path / "v1")))
    assert reader.get_variable_to_shape_map() == {"half": [5, 2], "sliced": [4, 4]}
    assert reader.get_variable_to_dtype_map()["half"] == np.float16
    got = reader.get_tensor("half")
    assert same_bits(got, source) and got.flags.writeable
    assert same_bits(reader.get_tensor("sliced"), np.eye(4, dtype=np.float32))


@pytest.mark.parametrize("number", [1, 2, 3, 8, 10, 19])
@pytest.mark.parametrize("axis", [0, 1])
def test_reads_slices_from_one_file(tmp_path: Path, number: int, axis: int) -> None:
    source = sample(KINDS[number], (6, 8))
    file = V1File()
    boxes = tilings.cut((6, 8), axis, [1, 3, source.shape[axis] - 4])
    file.add_sliced("t", number, source, boxes[::-1])
    with tb.open(file.write(tmp_path / "v1")) as ck:
        assert same_bits(ck["t"], source)
        assert same_bits(ck["t"][2:5, 1:7], source[2:5, 1:7])
        assert same_bits(ck["t"][-1], source[-1])


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_reads_shards_of_random_tilings(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    shape = tuple(rng.randrange(1, 7) for _ in range(rng.randrange(1, 4)))
    number = rng.choice([1, 3, 9, 18, 19])
    source = sample(KINDS[number], shape, seed=rng.randrange(50))
    boxes = tilings.guillotine(shape, rng.randrange(1, 8), rng)
    count = rng.randrange(1, 4)
    pattern = shards(tmp_path / f"s{seed}", count, {"t": (number, source, boxes)})
    with tb.open(pattern) as ck:
        assert same_bits(ck["t"], source)
        assert same_bits(ck["t"].read(), source)


def shards(prefix: Path, count: int, tensors: dict[str, tuple[int, np.ndarray, Any]]) -> str:
    """Writes ``prefix-SSSSS-of-NNNNN`` with the boxes in round-robin order; returns the pattern."""
    files = [V1File() for _ in range(count)]
    for name, (number, source, boxes) in tensors.items():
        for shard, file in enumerate(files):
            if boxes[shard::count]:
                file.add_sliced(name, number, source, boxes[shard::count])
    for shard, file in enumerate(files):
        file.write(prefix.with_name(f"{prefix.name}-{shard:05d}-of-{count:05d}"))
    return f"{prefix}-?????-of-{count:05d}"


def test_pattern_expands_only_the_shard_number(tmp_path: Path) -> None:
    folder = tmp_path / "od[d] *dir"
    folder.mkdir()
    source = sample(KINDS[1], (6, 2))
    tensors = {"t": (1, source, tilings.cut((6, 2), 0, [2, 2, 2]))}
    pattern = shards(folder / "v1", 2, tensors)
    with tb.open(pattern) as ck:
        assert same_bits(ck["t"], source)
    (folder / "v1-00001-of-00002").unlink()
    with pytest.raises(tb.CheckpointNotFoundError, match="v1-00001-of-00002"):
        tb.open(pattern)
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.open(tmp_path / "*" / "v1-?????-of-00002")


@pytest.mark.parametrize("kind", [table.NONE, table.SNAPPY], ids=["plain", "snappy"])
@pytest.mark.parametrize("block_size", [1, 500, table.BLOCK_SIZE])
def test_reads_every_table_layout(tmp_path: Path, kind: int, block_size: int) -> None:
    file = V1File()
    sources = {f"t{i:02d}": sample(KINDS[n], (i + 1, 7)) for i, n in enumerate(FIELDS)}
    for number, (name, source) in zip(FIELDS, sources.items(), strict=True):
        file.add(name, number, source)
    big = sample(KINDS[1], (300, 1000))
    file.add("big", 1, big)
    path = file.write(tmp_path / "v1", kind=kind, block_size=block_size, restart_interval=3)
    with tb.open(path) as ck:
        assert set(ck) == {*sources, "big"}
        assert all(same_bits(ck[name], source) for name, source in sources.items())
        assert same_bits(ck["big"], big)
        assert ck.verify().ok


def test_floats_are_views_of_the_file(tmp_path: Path) -> None:
    file = V1File()
    source = sample(KINDS[1], (100, 3))
    file.add("f", 1, source)
    with tb.open(file.write(tmp_path / "v1")) as ck:
        view = np.asarray(ck["f"])
        assert shows_a_file(view) and not view.flags.writeable
    assert same_bits(view, source)


def test_accepts_names_of_arbitrary_bytes(tmp_path: Path) -> None:
    file = V1File()
    for name in (b"\xff\xfe", b"a\0b", b"\0", "é".encode()):
        file.add(name, 3, np.arange(3, dtype=np.int32))
    with tb.open(file.write(tmp_path / "v1")) as ck:
        assert set(ck) == {"\udcff\udcfe", "a\0b", "\0", "é"}
        assert all(same_bits(ck[name], np.arange(3, dtype=np.int32)) for name in ck)


def test_reads_values_split_over_several_fields(tmp_path: Path) -> None:
    source = np.arange(10, dtype=np.float32)
    file = V1File()
    file.declare("f", 1, (10,), [[None]])
    file.add_record("f", [None], values_of(1, source[:4]) + values_of(1, source[4:]))
    loose = wire.fixed32_field(5, 0x3F800000) + values_of(1, source[:9])
    file.declare("g", 1, (10,), [[None]])
    file.add_record("g", [None], loose)
    with tb.open(file.write(tmp_path / "v1")) as ck:
        assert same_bits(ck["f"], source)
        assert same_bits(ck["g"], np.concatenate([[np.float32(1)], source[:9]]))


def invalid_records() -> dict[str, tuple[int, bytes]]:
    ints = np.array([1, 2, 3])
    return {
        "short": (3, values_of(3, ints[:2])),
        "long": (3, values_of(3, np.array([1, 2, 3, 4]))),
        "other type": (3, values_of(1, ints.astype(np.float32))),
        "empty": (3, b""),
        "beyond int16": (5, values_of(3, np.array([1, 2, 40_000]))),
        "beyond uint8": (4, values_of(3, np.array([1, 2, -1]))),
        "beyond int8": (6, values_of(3, np.array([1, 2, 128]))),
        "half of 17 bits": (19, wire.bytes_field(13, wire.varint(1 << 16) + b"\0\0")),
        "odd complex": (8, values_of(1, np.ones(5, np.float32)).replace(b"\x2a", b"\x4a", 1)),
        "truncated float": (1, wire.bytes_field(5, bytes(11))),
        "truncated varint": (3, wire.bytes_field(7, b"\1\2\x83")),
        "not a message": (3, b"\x3a\x7f"),
        "group": (3, wire.group(7, b"")),
    }


@pytest.mark.parametrize("case", invalid_records())
def test_corrupt_record_affects_only_its_tensor(tmp_path: Path, case: str) -> None:
    number, values = invalid_records()[case]
    file = V1File()
    file.add("good", 1, np.ones(3, np.float32))
    file.declare("bad", number, (3,), [[None]])
    file.add_record("bad", [None], values)
    path = file.write(tmp_path / "v1")
    with tb.open(path) as ck:
        assert set(ck) == {"good", "bad"}
        with pytest.raises(tb.CorruptionError, match="'bad'") as caught:
            np.asarray(ck["bad"])
        assert str(path) in str(caught.value)
        assert same_bits(ck["good"], np.ones(3, np.float32))
        assert not ck.verify().ok


def test_missing_record_raises_corruption_error(tmp_path: Path) -> None:
    file = V1File()
    file.declare("gone", 1, (3,), [[None]])
    file.add("good", 1, np.ones(3, np.float32))
    with (
        pytest.raises(tb.CorruptionError, match="'gone'"),
        tb.open(file.write(tmp_path / "v1")) as ck,
    ):
        np.asarray(ck["gone"])


def test_corrupt_data_block_raises_corruption_error(tmp_path: Path) -> None:
    file = V1File()
    file.add("a", 1, sample(KINDS[1], (100,)))
    file.add("z", 1, sample(KINDS[1], (100,), seed=3))
    encoded = file.table(block_size=1).encode()
    offset, size = encoded.blocks[-3]  # the last data block, which contains "z"
    corrupt = bytearray(encoded.data)
    corrupt[offset + size - 60] ^= 4
    path = tmp_path / "v1"
    path.write_bytes(corrupt)
    with pytest.raises(tb.CorruptionError, match=str(path)), tb.open(path) as ck:
        ck["z"].read()


LARGE = 400_000
"""Elements of a tensor whose block is too large to be kept in memory."""


def large_file(block_size: int) -> tuple[V1File, dict[str, np.ndarray]]:
    """Returns a file with blocks of more than 1 MiB: one with everything, or one per record."""
    file = V1File()
    tensors = {name: sample(KINDS[1], (LARGE,), seed=i) for i, name in enumerate(("a", "b"))}
    for name, array in tensors.items():
        file.add(name, 1, array)
    return file, tensors


@pytest.mark.parametrize("block_size", [1, 4096, 1 << 30])
@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "snappy"])
def test_reads_large_blocks(tmp_path: Path, block_size: int, kind: int) -> None:
    file, tensors = large_file(block_size)
    path = file.write(tmp_path / "v1", block_size=block_size, kind=kind)
    for verify in ("none", "lazy", "full"):
        with tb.open(path, verify=verify) as ck:
            for name, expected in tensors.items():
                out = np.empty(LARGE, np.float32)
                assert same_bits(ck[name].read(out=out), expected)
                assert same_bits(ck[name].take([LARGE - 1, 0]), expected[[LARGE - 1, 0]])
                assert same_bits(np.concatenate([c for _, c in ck[name].chunks(99_999)]), expected)
            assert ck.verify().ok


@pytest.mark.parametrize("block_size", [4096, 1 << 30])
def test_every_byte_of_a_large_block_is_verified(tmp_path: Path, block_size: int) -> None:
    file, tensors = large_file(block_size)
    encoded = file.table(block_size=block_size).encode()
    path = tmp_path / "v1"
    for offset, size in encoded.blocks[:-2]:  # without the metaindex and index blocks
        payload = encoded.data.find(tensors["a"].tobytes()[:64], offset)
        places = {0, 1, 2, 3, 40, size // 2, size - 9, size - 1, size, size + 1, size + 4}
        places |= {payload - offset + n for n in (-3, -1, 0, 1)} if payload >= 0 else set()
        for place in places:
            corrupt = bytearray(encoded.data)
            corrupt[offset + place] ^= 4
            path.write_bytes(corrupt)
            for read in (lambda t: t.read(), lambda t: next(iter(t.chunks(1000)))):
                with pytest.raises(tb.CorruptionError, match=str(path)), tb.open(path) as ck:
                    for name in tensors:
                        read(ck[name])


def test_a_large_block_that_was_overwritten_is_not_read(tmp_path: Path) -> None:
    path = large_file(4096)[0].write(tmp_path / "v1")
    with tb.open(path) as ck:
        other = V1File()
        other.add("x" * 100, 1, np.zeros(1, np.float32))  # moves the records
        other.add("a", 1, np.zeros(LARGE, np.float32))
        other.add("b", 1, np.zeros(LARGE, np.float32))
        path.write_bytes(other.table().encode().data)
        with pytest.raises(tb.CorruptionError, match=str(path)):
            ck["a"].read()
