# SPDX-License-Identifier: Apache-2.0
"""Damage to header and entries: what is fatal at open, and what concerns one tensor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings, wire
from craft.bundle import Bundle, fill_slice, index_path, shard_path
from craft.compare import same_bits
from craft.messages import BundleEntry
from craft.ordered_code import slice_key
from craft.specimen import TENSORS, specimen

import tensorbundle as tb

BIG = (1 << 63) - 1


def assert_fatal(prefix: Path, word: str = "", kind: type[Exception] = tb.CorruptionError) -> None:
    """Opening raises exactly ``kind``, and the message names the index."""
    with pytest.raises(kind) as caught:
        tb.open(prefix)
    assert type(caught.value) is kind
    assert str(index_path(prefix)) in str(caught.value)
    assert word in str(caught.value)


def assert_others_read(ck: Any, *bad: str) -> None:
    """Every tensor of the specimen except ``bad`` reads right."""
    for name in TENSORS:
        if name not in bad:
            assert same_bits(ck[name], TENSORS[name])


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "no shards": b"\x1a\x02\x08\x01",
    "0 shards": b"\x08\x00\x1a\x02\x08\x01",
    "-1 shards": wire.varint_field(1, -1) + b"\x1a\x02\x08\x01",
    "2^32+1 shards": wire.varint_field(1, (1 << 32) + 1),
    "2^31-1 shards": wire.varint_field(1, (1 << 31) - 1),
    "unknown byte order": b"\x08\x01\x10\x07",
    "torn": b"\x08",
    "not a message": b"\xff\xff\xff",
    "field number 0": b"\x08\x01\x00\x01",
    "group": b"\x08\x01" + wire.group(9),
    "shards of another wire type": b"\x0d\1\0\0\0",
    "version is no message": b"\x08\x01\x1a\x02\x08\x80",
}


@pytest.mark.parametrize("fault", HEADERS)
def test_corrupt_header_raises_corruption_error(tmp_path: Path, fault: str) -> None:
    bundle = specimen()
    bundle.header = HEADERS[fault]
    assert_fatal(bundle.write(tmp_path / "c"))


@pytest.mark.parametrize(
    "version", [{"min_consumer": 2}, {"bad_consumers": [5, 1]}, {"producer": -1}], ids=str
)
def test_unsupported_version_raises_error(tmp_path: Path, version: dict[str, Any]) -> None:
    bundle = specimen()
    bundle.header.version.CopyFrom(type(bundle.header.version)(**{"producer": 1, **version}))
    with pytest.raises((tb.UnsupportedError, tb.CorruptionError)) as caught:
        tb.open(bundle.write(tmp_path / "c"))
    assert str(index_path(tmp_path / "c")) in str(caught.value)
    if "producer" not in version:
        assert type(caught.value) is tb.UnsupportedError


def _set(**fields: Any) -> Callable[[Any], Any]:
    def change(entry: Any) -> None:
        for name, value in fields.items():
            setattr(entry, name, value)

    return change


def _dims(*sizes: int) -> Callable[[Any], Any]:
    def change(entry: Any) -> None:
        del entry.shape.dim[:]
        for size in sizes:
            entry.shape.dim.add(size=size)

    return change


def _unknown_rank(entry: Any) -> None:
    entry.shape.unknown_rank = True


def _no_shape(entry: Any) -> None:
    entry.ClearField("shape")


FATAL_FIELDS: dict[str, Callable[[Any], Any]] = {
    "negative dimension": _dims(2, -3),
    "two negative dimensions": _dims(-2, -3),
    "element count overflows": _dims(BIG, 3),
    "element count wraps to 6": _dims(1 << 33, 1 << 33, 6),
    "byte count overflows": _dims(1 << 61, 2),
    "0 beside an overflow": _dims(0, BIG, BIG),
    "rank 255": _dims(*[1] * 253, 2, 3),
    "unknown rank": _unknown_rank,
    "no shape, yet more than a scalar": _no_shape,
    "shape too large for the size": _dims(2, 4),
    "shape too small for the size": _dims(2, 2),
    "size too small": _set(size=23),
    "size too large": _set(size=25),
    "size 0": _set(size=0),
    "negative size": _set(size=-24),
    "smallest size": _set(size=-(1 << 63)),
    "largest size": _set(size=BIG),
    "negative offset": _set(offset=-1),
    "smallest offset": _set(offset=-(1 << 63)),
    "end overflows": _set(offset=BIG),
    "shard beyond the last": _set(shard_id=1),
    "negative shard": _set(shard_id=-1),
    "largest shard": _set(shard_id=(1 << 31) - 1),
}


@pytest.mark.parametrize("fault", FATAL_FIELDS)
def test_inconsistent_entry_raises_corruption_error(tmp_path: Path, fault: str) -> None:
    bundle = specimen()
    entry = bundle.entries[b"a"]
    before = entry.SerializeToString()
    FATAL_FIELDS[fault](entry)
    if fault == "rank 255":
        entry = bundle.entries[b"a"]
    assert entry.SerializeToString() != before
    assert_fatal(bundle.write(tmp_path / "c"), word="'a'")


def test_missing_shape_is_a_scalar_if_size_matches(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.entries[b"z"].ClearField("shape")
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert_others_read(ck)


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "not a message": lambda good: b"\xff" * 9,
    "torn": lambda good: good[:-1],
    "field number 0": lambda good: good + b"\x00\x01",
    "wire type 6": lambda good: good + b"\x7e",
    "wire type 7": lambda good: good + b"\x7f",
    "length beyond the end": lambda good: good + b"\x7a\x7f",
    "length of 2^64-1": lambda good: good + b"\x7a" + b"\xff" * 9 + b"\x01",
    "varint of 11 bytes": lambda good: good + b"\x78" + b"\xff" * 10 + b"\x01",
    "field number beyond 2^29": lambda good: good + wire.varint(1 << 33) + b"\x01",
    "group": lambda good: good + wire.group(15),
    "open group": lambda good: good + wire.tag(15, 3),
    "closed group": lambda good: good + wire.tag(15, 4),
    "deep groups": lambda good: good + wire.tag(15, 3) * 100_000,
    "dtype twice": lambda good: good + wire.varint_field(1, 1),
    "shape twice": lambda good: good + wire.bytes_field(2, b""),
    "offset twice": lambda good: good + wire.varint_field(4, 0) * 2,
    "checksum twice": lambda good: good + wire.fixed32_field(6, 0),
    "dtype as fixed32": lambda good: wire.fixed32_field(1, 1) + good,
    "shape as varint": lambda good: good + wire.varint_field(2, 1),
    "offset as bytes": lambda good: good + wire.bytes_field(4, b"\0"),
    "checksum as varint": lambda good: good + wire.varint_field(6, 1),
    "slices as varint": lambda good: good + wire.varint_field(7, 1),
    "shard of 33 bits": lambda good: good + wire.varint_field(3, 1 << 32),
    "dtype of 33 bits": lambda good: good.replace(b"\x08\x01", wire.varint_field(1, 1 + (1 << 32))),
    "dimension as fixed64": lambda good: good.replace(
        b"\x12\x08\x12\x02\x08\x02\x12\x02\x08\x03", wire.bytes_field(2, wire.fixed64_field(2, 6))
    ),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_entry_raises_corruption_error(tmp_path: Path, fault: str) -> None:
    bundle = specimen()
    good = bundle.entries[b"a"].SerializeToString()
    bundle.entries[b"a"] = MALFORMED[fault](good)
    assert bundle.entries[b"a"] != good
    assert_fatal(bundle.write(tmp_path / "c"), word="'a'")


@pytest.mark.parametrize("number", [0, 20, 34, 99, 101, 133, (1 << 31) - 1, -1])
def test_lists_tensors_of_unknown_dtype(tmp_path: Path, number: int) -> None:
    bundle = specimen()
    bundle.entries[b"a"].dtype = number
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert set(ck) == set(TENSORS)
        assert ck["a"].shape == (2, 3)
        for attempt in (np.asarray, lambda t: t.read(), lambda t: t[0]):
            with pytest.raises(tb.UnsupportedError, match="'a'") as caught:
                attempt(ck["a"])
            assert str(number) in str(caught.value)
        assert_others_read(ck, "a")


def _piece(bundle: Bundle, start: int) -> Any:
    return bundle.entries[slice_key(b"w", [(start, 2), (0, 6)])]


def _respell(bundle: Bundle, *specs: Any) -> None:
    """Lists other slices for ``w``, and moves the stored pieces under their keys."""
    full = bundle.entries[b"w"]
    old = [slice_key(b"w", [(start, 2), (0, 6)]) for start in (0, 2)]
    pieces = [bundle.entries.pop(key) for key in old]
    del full.slices[:]
    for spec, piece in zip(specs, pieces * 2, strict=False):
        fill_slice(full.slices.add(), spec)
        bundle.entries.setdefault(slice_key(b"w", spec), piece)


def _slice_faults() -> dict[str, Callable[[Bundle], Any]]:
    top = [(0, 2), (0, 6)]
    return {
        "piece missing": lambda b: b.entries.pop(slice_key(b"w", [(2, 2), (0, 6)])),
        "all pieces missing": lambda b: [
            b.entries.pop(slice_key(b"w", [(start, 2), (0, 6)])) for start in (0, 2)
        ],
        "out of bounds": lambda b: _respell(b, top, [(3, 2), (0, 6)]),
        "far out of bounds": lambda b: _respell(b, top, [(1 << 40, 2), (0, 6)]),
        "end overflows": lambda b: _respell(b, top, [(BIG, 2), (0, 6)]),
        "negative start": lambda b: _respell(b, top, [(-2, 2), (0, 6)]),
        "negative length": lambda b: _respell(b, top, [(2, -2), (0, 6)]),
        "length 0": lambda b: _respell(b, top, [(2, 0), (0, 6)]),
        "rank too low": lambda b: _respell(b, top, [(2, 2)]),
        "rank too high": lambda b: _respell(b, top, [(2, 2), (0, 6), (0, 1)]),
        "full with a start": lambda b: _respell(b, top, [(2, -1), (0, 6)]),
        "same slice twice": lambda b: _respell(b, top, [(2, 2), (0, 6)], top),
        "dtype of the piece": lambda b: _set(dtype=3)(_piece(b, 0)),
        "larger dtype of the piece": lambda b: _set(dtype=2, size=96)(_piece(b, 0)),
        "smaller piece": lambda b: (_dims(1, 6)(_piece(b, 0)), _set(size=24)(_piece(b, 0))),
        "larger piece": lambda b: (_dims(3, 6)(_piece(b, 0)), _set(size=72)(_piece(b, 0))),
        "transposed piece": lambda b: _dims(6, 2)(_piece(b, 0)),
        "piece of another rank": lambda b: _dims(12)(_piece(b, 0)),
        "piece that lists slices": lambda b: fill_slice(_piece(b, 0).slices.add(), top),
        "size of the piece": lambda b: _set(size=47)(_piece(b, 0)),
        "shard of the piece": lambda b: _set(shard_id=3)(_piece(b, 2)),
        "offset of the piece": lambda b: _set(offset=-4)(_piece(b, 2)),
        "full shape overflows": lambda b: _dims(BIG, 6)(b.entries[b"w"]),
    }


@pytest.mark.parametrize("fault", _slice_faults())
def test_inconsistent_slices_raise_corruption_error(tmp_path: Path, fault: str) -> None:
    bundle = specimen()
    _slice_faults()[fault](bundle)
    assert_fatal(bundle.write(tmp_path / "c"), word="'w'")


HOLEY: dict[str, list[tilings.Box]] = {
    "hole": [((0, 2), (0, 6)), ((3, 1), (0, 6))],
    "overlap": [((0, 3), (0, 6)), ((2, 2), (0, 6))],
    "overlap and hole of equal size": [((0, 2), (0, 6)), ((1, 2), (0, 6))],
    "corner missing": [((0, 2), (0, 6)), ((2, 2), (0, 3))],
}


@pytest.mark.parametrize("fault", HOLEY)
def test_slices_with_gap_or_overlap_raise_on_read(tmp_path: Path, fault: str) -> None:
    source = np.arange(24, dtype=np.float32).reshape(4, 6)
    bundle = specimen()
    bundle.add_sliced("h", source, HOLEY[fault])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert ck["h"].shape == (4, 6)
        for attempt in (np.asarray, lambda t: t.read()):
            with pytest.raises(tb.CorruptionError, match="'h'"):
                attempt(ck["h"])
        assert_others_read(ck)


def test_reads_stored_box_of_incomplete_tensor(tmp_path: Path) -> None:
    source = np.arange(24, dtype=np.float32).reshape(4, 6)
    bundle = specimen()
    bundle.add_sliced("h", source, HOLEY["hole"])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["h"][:2], source[:2])
        assert same_bits(ck["h"][3], source[3])
        with pytest.raises(tb.CorruptionError, match="'h'"):
            ck["h"][2]


def test_orphan_slices_are_hidden_and_reported(tmp_path: Path) -> None:
    bundle = specimen()
    del bundle.entries[b"w"]
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert set(ck) == set(TENSORS) - {"w"}
        assert_others_read(ck, "w")
        report = ck.verify()
        assert report.ok
        assert any("2" in warning and "slice" in warning for warning in report.warnings)


def test_overlapping_tensors_are_read_and_reported(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.entries[b"b"].offset -= 8
    bundle.entries[b"b"].crc32c = 0
    with tb.open(bundle.write(tmp_path / "c"), verify="none") as ck:
        assert set(ck) == set(TENSORS)
        assert_others_read(ck, "b")
        notes = ck.verify().warnings
        assert any("'a'" in note and "'b'" in note for note in notes)


def test_missing_slices_are_rejected_in_linear_time(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.add_full("many", 1, (100_000,), [[(i, 1)] for i in range(100_000)])
    prefix = bundle.write(tmp_path / "c")
    start = time.monotonic()
    assert_fatal(prefix, word="'many'")
    assert time.monotonic() - start < 5


def test_overlapping_slices_are_rejected_in_bounded_time(tmp_path: Path) -> None:
    """All boxes overlap pairwise in one axis: the worst case of a sweep over pairs."""
    count = 20_000
    source = np.zeros((count, 2), np.int8)
    bundle = specimen()
    boxes = [((0, count - i), (0, 1)) for i in range(count // 2)]
    piece = bundle.add("first", source[:, :1])
    bundle.shards[0] += bytes(count)
    for box in boxes:
        entry = BundleEntry()
        entry.CopyFrom(piece)
        _dims(box[0][1], 1)(entry)
        entry.size = box[0][1]
        bundle.entries[slice_key(b"h", box)] = entry
    bundle.add_full("h", 6, (count, 2), boxes)
    start = time.monotonic()
    with (
        tb.open(bundle.write(tmp_path / "c")) as ck,
        pytest.raises(tb.CorruptionError, match="'h'"),
    ):
        np.asarray(ck["h"])
    assert time.monotonic() - start < 20


def test_wrong_or_missing_checksum_raises_on_read(tmp_path: Path) -> None:
    for absent in (False, True):
        bundle = specimen()
        if absent:
            bundle.entries[b"a"].ClearField("crc32c")
        else:
            bundle.entries[b"a"].crc32c ^= 1
        prefix = bundle.write(tmp_path / "c")
        with tb.open(prefix, verify="none") as ck:
            assert_others_read(ck)
        with tb.open(prefix) as ck:
            with pytest.raises(tb.CorruptionError, match="'a'") as caught:
                ck["a"].read()
            assert str(shard_path(prefix)) in str(caught.value)
            assert_others_read(ck, "a")
            report = ck.verify()
            assert not report.ok
            assert [item.tensor for item in report.damaged] == ["a"]
            with pytest.raises(tb.CorruptionError):
                report.raise_for_damage()
