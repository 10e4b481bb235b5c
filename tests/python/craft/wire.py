# SPDX-License-Identifier: Apache-2.0
"""Protobuf wire format, for messages that a protobuf library refuses to write."""

from __future__ import annotations

import struct


def varint(value: int) -> bytes:
    """Encodes base-128, low group first; negative numbers as 64-bit two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def varint_field(number: int, value: int) -> bytes:
    return tag(number, 0) + varint(value)


def fixed64_field(number: int, value: int) -> bytes:
    return tag(number, 1) + struct.pack("<Q", value)


def bytes_field(number: int, value: bytes) -> bytes:
    return tag(number, 2) + varint(len(value)) + value


def fixed32_field(number: int, value: int) -> bytes:
    return tag(number, 5) + struct.pack("<I", value)


def group(number: int, content: bytes = b"") -> bytes:
    return tag(number, 3) + content + tag(number, 4)
