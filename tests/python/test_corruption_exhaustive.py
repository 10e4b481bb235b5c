# SPDX-License-Identifier: Apache-2.0
"""Exhaustive corruption of a small checkpoint: every bit, every length, every byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from craft import mutant_runner, table
from craft.bundle import index_path, shard_path
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from craft.specimen import TENSORS, specimen
from craft.table import Encoded
from craft.v1 import V1File

import tensorbundle as tb

EDGE_VALUES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


def bit_flips(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        for bit in range(8):
            yield data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def assert_fatal_or_harmless(path: Path, prefix: Path) -> bool:
    """Returns True if open raised; an accepted mutant must have the original values."""
    try:
        ck = tb.open(prefix)
    except tb.CorruptionError as error:
        assert str(path) in str(error)
        return True
    with ck:
        assert set(ck) == set(TENSORS)
        assert all(same_bits(ck[name], TENSORS[name]) for name in TENSORS)
    return False


@pytest.mark.parametrize("kind", [table.NONE, table.SNAPPY], ids=["plain", "snappy"])
def test_flipped_index_bit_is_detected(tmp_path: Path, kind: int) -> None:
    prefix = specimen().write(tmp_path / "c", kind=kind, block_size=150)
    path = index_path(prefix)
    harmless = 0
    for mutant in bit_flips(path.read_bytes()):
        path.write_bytes(mutant)
        harmless += not assert_fatal_or_harmless(path, prefix)
    # The footer's last varint, followed by zero padding, has a second encoding of the same number.
    assert harmless <= 1


def test_truncated_index_is_detected(tmp_path: Path) -> None:
    prefix = specimen().write(tmp_path / "c", block_size=150)
    path = index_path(prefix)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert assert_fatal_or_harmless(path, prefix)


def test_flipped_data_bit_is_detected(tmp_path: Path) -> None:
    bundle = specimen()
    prefix = bundle.write(tmp_path / "c")
    path = shard_path(prefix)
    data = path.read_bytes()
    owner: dict[int, str] = {}
    for key, entry in bundle.entries.items():
        for position in range(entry.offset, entry.offset + entry.size):
            owner[position] = "w" if key.startswith(b"\0") else key.decode()
    assert set(owner) == set(range(len(data)))
    for at, mutant in enumerate(bit_flips(data)):
        path.write_bytes(mutant)
        name = owner[at // 8]
        with tb.open(prefix, threads=1) as ck:
            report = ck.verify()
            assert not report.ok
            assert [item.tensor for item in report.damaged] == [name]
            with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
                ck[name].read()
        with pytest.raises(tb.CorruptionError), tb.open(prefix, verify="full", threads=1) as ck:
            np.asarray(ck[name])


def test_truncated_data_is_detected(tmp_path: Path) -> None:
    bundle = specimen()
    prefix = bundle.write(tmp_path / "c")
    path = shard_path(prefix)
    data = path.read_bytes()
    ends = {
        name: max(
            entry.offset + entry.size
            for key, entry in bundle.entries.items()
            if key == name.encode() or (name == "w" and key.startswith(b"\0"))
        )
        for name in TENSORS
    }
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with tb.open(prefix) as ck:
            for name in TENSORS:
                if name in "abw":  # reads of a box are not compared with a checksum
                    with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
                        ck[name][:1]
                if ends[name] <= length:
                    assert same_bits(ck[name].read(), TENSORS[name])
                else:
                    with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
                        ck[name].read()


def changed_bytes(encoded: Encoded, values: range | tuple[int, ...]) -> Iterator[bytes]:
    """Sets every byte of every block to each of the values, and recomputes the checksums."""
    for offset, size in encoded.blocks:
        for position in range(offset, offset + size + 1):
            for value in values:
                if encoded.data[position] != value:
                    data = bytearray(encoded.data)
                    data[position] = value
                    yield encoded.resealed(data)


def resized(encoded: Encoded) -> Iterator[bytes]:
    """Removes each byte, and inserts a byte before each, which invalidates the handles."""
    for position in range(len(encoded.data)):
        yield encoded.data[:position] + encoded.data[position + 1 :]
        yield encoded.data[:position] + b"\x01" + encoded.data[position:]


@pytest.mark.parametrize(
    ("kind", "values"),
    [(table.NONE, range(0, 256, 5)), (table.SNAPPY, EDGE_VALUES)],
    ids=["plain", "snappy"],
)
def test_resealed_index_mutants_never_crash(
    tmp_path: Path, kind: int, values: range | tuple[int, ...]
) -> None:
    bundle = specimen()
    bundle.write_shards(tmp_path / "c")
    encoded = bundle.table(kind=kind, block_size=150 if kind else table.BLOCK_SIZE).encode()
    mutants = [{"c.index": mutant} for mutant in changed_bytes(encoded, values)]
    counts = mutant_runner.run(tmp_path, mutants)
    assert sum(counts.values()) == len(mutants)
    assert counts["CorruptionError"] > len(mutants) // 2
    assert set(counts) <= {"CorruptionError", "UnsupportedError", "CheckpointNotFoundError", "read"}


def test_shifted_index_mutants_never_crash(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.write_shards(tmp_path / "c")
    mutants = [{"c.index": mutant} for mutant in resized(bundle.table().encode())]
    counts = mutant_runner.run(tmp_path, mutants)
    assert sum(counts.values()) == len(mutants)
    # A byte inserted between the last block and the footer changes no block offset.
    assert counts["CorruptionError"] >= len(mutants) - 1


def test_string_mutants_never_crash(tmp_path: Path) -> None:
    bundle = specimen()
    prefix = bundle.write(tmp_path / "c")
    data = shard_path(prefix).read_bytes()
    entry = bundle.entries[b"s"]
    mutants = []
    for position in range(entry.offset, entry.offset + entry.size):
        for value in range(256):
            changed = data[:position] + bytes([value]) + data[position + 1 :]
            mutants.append({shard_path(prefix).name: changed})
    counts = mutant_runner.run(tmp_path, mutants)
    assert sum(counts.values()) == len(mutants)
    assert set(counts) == {"CorruptionError", "read"}


def v1_specimen() -> V1File:
    file = V1File()
    file.add("f", 1, sample(KINDS[1], (2, 2)))
    file.add("i", 3, np.array([-1, 300], np.int32))
    file.add("s", 7, np.array([b"one", b""], dtype=object))
    file.add_sliced("w", 2, sample(KINDS[2], (3,)), [((0, 1),), ((1, 2),)])
    return file


def test_corrupt_v1_file_is_detected(tmp_path: Path) -> None:
    path = v1_specimen().write(tmp_path / "c")
    data = path.read_bytes()
    with tb.open(path) as ck:
        expected = {name: ck[name].read() for name in ck}
    for mutant in [*bit_flips(data), *(data[:length] for length in range(len(data)))]:
        path.write_bytes(mutant)
        try:
            with tb.open(path) as ck:
                assert set(ck) == set(expected)
                assert all(same_bits(ck[name].read(), expected[name]) for name in expected)
        except tb.CorruptionError as error:
            assert str(path) in str(error)
        else:
            pytest.fail("the corruption was not detected")


def test_resealed_v1_mutants_never_crash(tmp_path: Path) -> None:
    encoded = v1_specimen().table(block_size=100).encode()
    mutants = [{"c": mutant} for mutant in changed_bytes(encoded, EDGE_VALUES)]
    counts = mutant_runner.run(tmp_path, mutants)
    assert sum(counts.values()) == len(mutants)
    assert set(counts) <= {"CorruptionError", "UnsupportedError", "read"}
