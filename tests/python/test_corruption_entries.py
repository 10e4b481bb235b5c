# SPDX-License-Identifier: Apache-2.0
"""Corrupt headers and entries: errors at open, and errors of one tensor."""

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
    """Requires open to raise exactly ``kind`` with a message that names the index."""
    with pytest.raises(kind) as caught:
        tb.open(prefix)
    assert type(caught.value) is kind
    assert str(index_path(prefix)) in str(caught.value)
    assert word in str(caught.value)


def assert_others_read(ck: Any, *bad: str) -> None:
    """Requires every tensor of the specimen except ``bad`` to have its value."""
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
    "truncated": b"\x08",
    "not a message": b"\xff\xff\xff",
    "field number 0": b"\x08\x01\x00\x01",
    "group": b"\x08\x01" + wire.group(9),
    "shards of another wire type": b"\x0d\1\0\0\0",
    "version is not a message": b"\x08\x01\x1a\x02\x08\x80",
}


@pytest.mark.parametrize("case", HEADERS)
def test_corrupt_header_raises_corruption_error(tmp_path: Path, case: str) -> None:
    bundle = specimen()
    bundle.header = HEADERS[case]
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
    "0 and an overflow": _dims(0, BIG, BIG),
    "rank 255": _dims(*[1] * 253, 2, 3),
    "unknown rank": _unknown_rank,
    "no shape but not a scalar": _no_shape,
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


@pytest.mark.parametrize("case", FATAL_FIELDS)
def test_inconsistent_entry_raises_corruption_error(tmp_path: Path, case: str) -> None:
    bundle = specimen()
    entry = bundle.entries[b"a"]
    before = entry.SerializeToString()
    FATAL_FIELDS[case](entry)
    if case == "rank 255":
        entry = bundle.entries[b"a"]
    assert entry.SerializeToString() != before
    assert_fatal(bundle.write(tmp_path / "c"), word="'a'")


def test_missing_shape_is_a_scalar_if_size_matches(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.entries[b"z"].ClearField("shape")
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert_others_read(ck)


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "not a message": lambda entry: b"\xff" * 9,
    "truncated": lambda entry: entry[:-1],
    "field number 0": lambda entry: entry + b"\x00\x01",
    "wire type 6": lambda entry: entry + b"\x7e",
    "wire type 7": lambda entry: entry + b"\x7f",
    "length beyond the end": lambda entry: entry + b"\x7a\x7f",
    "length of 2^64-1": lambda entry: entry + b"\x7a" + b"\xff" * 9 + b"\x01",
    "varint of 11 bytes": lambda entry: entry + b"\x78" + b"\xff" * 10 + b"\x01",
    "field number beyond 2^29": lambda entry: entry + wire.varint(1 << 33) + b"\x01",
    "group": lambda entry: entry + wire.group(15),
    "unterminated group": lambda entry: entry + wire.tag(15, 3),
    "unopened group": lambda entry: entry + wire.tag(15, 4),
    "deeply nested groups": lambda entry: entry + wire.tag(15, 3) * 100_000,
    "dtype twice": lambda entry: entry + wire.varint_field(1, 1),
    "shape twice": lambda entry: entry + wire.bytes_field(2, b""),
    "offset twice": lambda entry: entry + wire.varint_field(4, 0) * 2,
    "checksum twice": lambda entry: entry + wire.fixed32_field(6, 0),
    "dtype as fixed32": lambda entry: wire.fixed32_field(1, 1) + entry,
    "shape as varint": lambda entry: entry + wire.varint_field(2, 1),
    "offset as bytes": lambda entry: entry + wire.bytes_field(4, b"\0"),
    "checksum as varint": lambda entry: entry + wire.varint_field(6, 1),
    "slices as varint": lambda entry: entry + wire.varint_field(7, 1),
    "shard of 33 bits": lambda entry: entry + wire.varint_field(3, 1 << 32),
    "dtype of 33 bits": lambda entry: entry.replace(
        b"\x08\x01", wire.varint_field(1, 1 + (1 << 32))
    ),
    "dimension as fixed64": lambda entry: entry.replace(
        b"\x12\x08\x12\x02\x08\x02\x12\x02\x08\x03", wire.bytes_field(2, wire.fixed64_field(2, 6))
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_entry_raises_corruption_error(tmp_path: Path, case: str) -> None:
    bundle = specimen()
    valid = bundle.entries[b"a"].SerializeToString()
    bundle.entries[b"a"] = MALFORMED[case](valid)
    assert bundle.entries[b"a"] != valid
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


def _slice_entry(bundle: Bundle, start: int) -> Any:
    return bundle.entries[slice_key(b"w", [(start, 2), (0, 6)])]


def _replace_slices(bundle: Bundle, *specs: Any) -> None:
    """Replaces the slices of ``w``, and stores the existing entries under the new keys."""
    full = bundle.entries[b"w"]
    old = [slice_key(b"w", [(start, 2), (0, 6)]) for start in (0, 2)]
    entries = [bundle.entries.pop(key) for key in old]
    del full.slices[:]
    for spec, entry in zip(specs, entries * 2, strict=False):
        fill_slice(full.slices.add(), spec)
        bundle.entries.setdefault(slice_key(b"w", spec), entry)


def _invalid_slices() -> dict[str, Callable[[Bundle], Any]]:
    top = [(0, 2), (0, 6)]
    return {
        "slice missing": lambda b: b.entries.pop(slice_key(b"w", [(2, 2), (0, 6)])),
        "all slices missing": lambda b: [
            b.entries.pop(slice_key(b"w", [(start, 2), (0, 6)])) for start in (0, 2)
        ],
        "out of bounds": lambda b: _replace_slices(b, top, [(3, 2), (0, 6)]),
        "far out of bounds": lambda b: _replace_slices(b, top, [(1 << 40, 2), (0, 6)]),
        "end overflows": lambda b: _replace_slices(b, top, [(BIG, 2), (0, 6)]),
        "negative start": lambda b: _replace_slices(b, top, [(-2, 2), (0, 6)]),
        "negative length": lambda b: _replace_slices(b, top, [(2, -2), (0, 6)]),
        "length 0": lambda b: _replace_slices(b, top, [(2, 0), (0, 6)]),
        "rank too low": lambda b: _replace_slices(b, top, [(2, 2)]),
        "rank too high": lambda b: _replace_slices(b, top, [(2, 2), (0, 6), (0, 1)]),
        "full with a start": lambda b: _replace_slices(b, top, [(2, -1), (0, 6)]),
        "same slice twice": lambda b: _replace_slices(b, top, [(2, 2), (0, 6)], top),
        "dtype of the slice": lambda b: _set(dtype=3)(_slice_entry(b, 0)),
        "larger dtype of the slice": lambda b: _set(dtype=2, size=96)(_slice_entry(b, 0)),
        "smaller slice": lambda b: (
            _dims(1, 6)(_slice_entry(b, 0)),
            _set(size=24)(_slice_entry(b, 0)),
        ),
        "larger slice": lambda b: (
            _dims(3, 6)(_slice_entry(b, 0)),
            _set(size=72)(_slice_entry(b, 0)),
        ),
        "transposed slice": lambda b: _dims(6, 2)(_slice_entry(b, 0)),
        "slice of another rank": lambda b: _dims(12)(_slice_entry(b, 0)),
        "slice that lists slices": lambda b: fill_slice(_slice_entry(b, 0).slices.add(), top),
        "size of the slice": lambda b: _set(size=47)(_slice_entry(b, 0)),
        "shard of the slice": lambda b: _set(shard_id=3)(_slice_entry(b, 2)),
        "offset of the slice": lambda b: _set(offset=-4)(_slice_entry(b, 2)),
        "full shape overflows": lambda b: _dims(BIG, 6)(b.entries[b"w"]),
    }


@pytest.mark.parametrize("case", _invalid_slices())
def test_inconsistent_slices_raise_corruption_error(tmp_path: Path, case: str) -> None:
    bundle = specimen()
    _invalid_slices()[case](bundle)
    assert_fatal(bundle.write(tmp_path / "c"), word="'w'")


INVALID_TILINGS: dict[str, list[tilings.Box]] = {
    "gap": [((0, 2), (0, 6)), ((3, 1), (0, 6))],
    "overlap": [((0, 3), (0, 6)), ((2, 2), (0, 6))],
    "overlap and gap of equal size": [((0, 2), (0, 6)), ((1, 2), (0, 6))],
    "corner missing": [((0, 2), (0, 6)), ((2, 2), (0, 3))],
}


@pytest.mark.parametrize("case", INVALID_TILINGS)
def test_slices_with_gap_or_overlap_raise_on_read(tmp_path: Path, case: str) -> None:
    source = np.arange(24, dtype=np.float32).reshape(4, 6)
    bundle = specimen()
    bundle.add_sliced("h", source, INVALID_TILINGS[case])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert ck["h"].shape == (4, 6)
        for attempt in (np.asarray, lambda t: t.read()):
            with pytest.raises(tb.CorruptionError, match="'h'"):
                attempt(ck["h"])
        assert_others_read(ck)


def test_reads_stored_box_of_incomplete_tensor(tmp_path: Path) -> None:
    source = np.arange(24, dtype=np.float32).reshape(4, 6)
    bundle = specimen()
    bundle.add_sliced("h", source, INVALID_TILINGS["gap"])
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
        warnings = ck.verify().warnings
        assert any("'a'" in warning and "'b'" in warning for warning in warnings)


def test_missing_slices_are_rejected_in_linear_time(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.add_full("many", 1, (100_000,), [[(i, 1)] for i in range(100_000)])
    prefix = bundle.write(tmp_path / "c")
    start = time.monotonic()
    assert_fatal(prefix, word="'many'")
    assert time.monotonic() - start < 5


def test_overlapping_slices_are_rejected_in_bounded_time(tmp_path: Path) -> None:
    """All slices overlap pairwise along one axis: the worst case of a sweep."""
    count = 20_000
    source = np.zeros((count, 2), np.int8)
    bundle = specimen()
    boxes = [((0, count - i), (0, 1)) for i in range(count // 2)]
    first = bundle.add("first", source[:, :1])
    bundle.shards[0] += bytes(count)
    for box in boxes:
        entry = BundleEntry()
        entry.CopyFrom(first)
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
    for missing in (False, True):
        bundle = specimen()
        if missing:
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
