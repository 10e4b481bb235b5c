# SPDX-License-Identifier: Apache-2.0
"""Corrupt string and variant tensors affect no other tensor and cause no huge allocation."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from craft import wire
from craft.bundle import shard_path
from craft.checksum import mask, masked_crc
from craft.compare import same_bits
from craft.specimen import TENSORS, specimen
from craft.strings import encode_strings, encode_variants

import tensorbundle as tb


def payloads() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Returns invalid payloads with the shapes of their entries."""
    valid, _ = encode_strings([b"ab", b"c"])
    long_varint = b"\x82\x80\x00\x01" + valid[2:]
    return {
        "nothing": (b"", (2,)),
        "no room for the length checksum": (valid[:4], (2,)),
        "length checksum": (valid[:2] + b"\0\0\0\0" + valid[6:], (2,)),
        "more elements than bytes": (valid, (1000,)),
        "2^40 elements": (valid, (1 << 40,)),
        "2^61 elements": (valid, (1 << 61,)),
        "fewer elements than lengths": (valid, (1,)),
        "length beyond the end": (b"\x64\x01" + valid[2:], (2,)),
        "length of 100 GiB": (wire.varint(100 << 30) + b"\x01" + valid[2:], (2,)),
        "length of 2^64-1": (wire.varint((1 << 64) - 1) + b"\x01" + valid[2:], (2,)),
        "length sum overflows": (wire.varint((1 << 64) - 2) + b"\x05" + valid[2:], (2,)),
        "longer than its content": (valid + b"x", (2,)),
        "shorter than its content": (valid[:-1], (2,)),
        "lengths not minimal": (long_varint, (2,)),
        "unterminated length": (b"\x80" * 12 + valid[2:], (2,)),
    }


def resealed(payload: bytes, count: int) -> tuple[bytes, int]:
    """Returns the payload with correct checksums where possible: only its structure is invalid."""
    lengths, at = [], 0
    while at < len(payload) and len(lengths) < count:
        value, shift = 0, 0
        while at < len(payload):
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(value & (1 << 64) - 1)
    fixed = b"".join(struct.pack("<I" if n < 1 << 32 else "<Q", n) for n in lengths)
    checksum = struct.pack("<I", masked_crc(fixed))
    return payload[:at] + checksum + payload[at + 4 :], masked_crc(
        fixed + checksum + payload[at + 4 :]
    )


@pytest.mark.parametrize(
    ("case", "verify"),
    [
        (case, verify)
        for case in payloads()
        for verify in ("none", "lazy")
        if (case, verify) != ("length checksum", "none")  # which compares no checksum
    ],
)
@pytest.mark.parametrize("reseal", [False, True], ids=["wrong checksums", "correct checksums"])
def test_corrupt_string_payload_raises_corruption_error(
    tmp_path: Path, case: str, verify: str, reseal: bool
) -> None:
    payload, shape = payloads()[case]
    crc = 0
    if reseal and len(payload) > 4 and case != "length checksum":
        payload, crc = resealed(payload, min(shape[0], 1000))
    bundle = specimen()
    bundle.add_payload("bad", 7, shape, payload, crc=crc)
    prefix = bundle.write(tmp_path / "c")
    with (
        pytest.raises(tb.CorruptionError, match="'bad'") as caught,
        tb.open(prefix, verify=verify) as ck,
    ):
        ck["bad"].read()
    assert str(prefix) in str(caught.value)


def test_corrupt_strings_affect_only_their_tensor(tmp_path: Path) -> None:
    bundle = specimen()
    valid, _ = encode_strings([b"ab", b"c"])
    bundle.add_payload("bad", 7, (2,), valid[:2] + b"\0\0\0\0" + valid[6:], crc=0)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        for _ in range(2):
            with pytest.raises(tb.CorruptionError, match="'bad'"):
                np.asarray(ck["bad"])
            assert all(same_bits(ck[name], TENSORS[name]) for name in TENSORS)
        assert [item.tensor for item in ck.verify().damaged] == ["bad"]


def test_checksum_covers_string_content(tmp_path: Path) -> None:
    bundle = specimen()
    prefix = bundle.write(tmp_path / "c")
    entry = bundle.entries[b"s"]
    data = bytearray(shard_path(prefix).read_bytes())
    data[entry.offset + entry.size - 1] ^= 1
    shard_path(prefix).write_bytes(data)
    with tb.open(prefix, verify="none") as ck:
        assert np.asarray(ck["s"]).tolist() == [b"one", b"", b"thred"]
    with tb.open(prefix) as ck:
        with pytest.raises(tb.CorruptionError, match="'s'"):
            ck["s"].read()
        assert [item.tensor for item in ck.verify().damaged] == ["s"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        wire.varint(1 << 50) + b"abc",
        wire.varint((1 << 64) - 1) + b"abc",
        b"\x80" * 12,
        encode_variants([b"abc"])[0][:-1],
        encode_variants([b"abc"])[0] + b"x",
        b"\x03abc" + struct.pack("<I", mask(7)),
    ],
    ids=["nothing", "2^50", "2^64-1", "unterminated", "truncated", "longer", "checksum"],
)
def test_corrupt_variant_payload_raises_corruption_error(tmp_path: Path, payload: bytes) -> None:
    bundle = specimen()
    bundle.add_payload("bad", 21, (1,), payload, crc=0)
    prefix = bundle.write(tmp_path / "c")
    with pytest.raises(tb.CorruptionError, match="'bad'"), tb.open(prefix) as ck:
        assert all(same_bits(ck[name], TENSORS[name]) for name in TENSORS)
        ck["bad"].read()
