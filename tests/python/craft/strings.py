# SPDX-License-Identifier: Apache-2.0
"""Payloads of string and variant tensors, with the checksums of their entries."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from craft.checksum import crc32c, mask
from craft.wire import varint


def encode_strings(values: Sequence[bytes], *, big_endian: bool = False) -> tuple[bytes, int]:
    """Returns the payload and the masked CRC of a string tensor.

    The checksums cover the lengths as fixed-width numbers in the writer's byte order, not as the
    stored varints.
    """
    order = ">" if big_endian else "<"
    crc = 0
    for value in values:
        width = "I" if len(value) <= 0xFFFFFFFF else "Q"
        crc = crc32c(struct.pack(order + width, len(value)), crc)
    length_crc = struct.pack(order + "I", mask(crc))
    body = b"".join(values)
    crc = crc32c(body, crc32c(length_crc, crc))
    return b"".join(varint(len(value)) for value in values) + length_crc + body, mask(crc)


def encode_variants(values: Sequence[bytes]) -> tuple[bytes, int]:
    """Returns the payload and the masked CRC of a variant tensor of serialized elements."""
    out = bytearray()
    crc = 0
    for value in values:
        crc = crc32c(value, crc32c(struct.pack("<Q", len(value)), crc))
        stored = struct.pack("<I", mask(crc))
        crc = crc32c(stored, crc)
        out += varint(len(value)) + value + stored
    return bytes(out), mask(crc)
