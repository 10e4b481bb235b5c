# SPDX-License-Identifier: Apache-2.0
"""CRC32C and the masked form in which checkpoints store it."""

from __future__ import annotations

import google_crc32c

_MASK_DELTA = 0xA282EAD8


def crc32c(data: bytes, crc: int = 0) -> int:
    """The checksum of ``data``, continuing from ``crc``."""
    return int(google_crc32c.extend(crc, bytes(data)))


def mask(crc: int) -> int:
    """The stored form: rotated by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """``mask(crc32c(data))``."""
    return mask(crc32c(data))
