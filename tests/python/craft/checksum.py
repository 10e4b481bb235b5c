# SPDX-License-Identifier: Apache-2.0
"""CRC32C and its masked form, which checkpoints store."""

from __future__ import annotations

import google_crc32c

_MASK_DELTA = 0xA282EAD8


def crc32c(data: bytes, crc: int = 0) -> int:
    """Returns the checksum of ``data``, continuing from ``crc``."""
    return int(google_crc32c.extend(crc, bytes(data)))


def mask(crc: int) -> int:
    """Returns the stored form: rotated by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """Returns ``mask(crc32c(data))``."""
    return mask(crc32c(data))
