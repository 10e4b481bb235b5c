# SPDX-License-Identifier: Apache-2.0
"""The order-preserving encoding of slice keys."""

from __future__ import annotations

from collections.abc import Sequence

Spec = Sequence["tuple[int, int] | None"]
"""One (start, length) per axis; None is the full axis."""

_HEADER = (0x80, 0xC0, 0xE0, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF, 0xFF, 0xFF)
_SECOND = {9: 0x80, 10: 0xC0}


def unsigned(value: int) -> bytes:
    """Encodes a length byte and the big-endian bytes without leading zeros."""
    body = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(body)]) + body


def string(value: bytes) -> bytes:
    """Escapes 00 and FF, and appends a terminator that differs from every escape."""
    escapes = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}
    return b"".join(escapes.get(byte, bytes([byte])) for byte in value) + b"\x00\x01"


def signed(value: int) -> bytes:
    """Encodes one to ten bytes; the leading bits hold the count."""
    magnitude = ~value if value < 0 else value
    size = next(n for n in range(1, 11) if magnitude < 1 << (7 * n - 1))
    body = bytearray(value.to_bytes(10, "big", signed=True)[10 - size :])
    body[0] ^= _HEADER[size - 1]
    if size in _SECOND:
        body[1] ^= _SECOND[size]
    return bytes(body)


def slice_key(name: bytes, spec: Spec) -> bytes:
    """Returns the table key of the stored slice ``spec`` of tensor ``name``."""
    key = unsigned(0) + string(name) + unsigned(len(spec))
    for pair in spec:
        start, length = (0, -1) if pair is None else pair
        key += signed(start) + signed(length)
    return key
