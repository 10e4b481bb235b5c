# SPDX-License-Identifier: Apache-2.0
"""Compares the core's CRC32C with google-crc32c."""

from __future__ import annotations

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from tensorbundle import _core


@given(data=st.binary(max_size=5000), start=st.integers(0, 2**32 - 1))
def test_matches_google_crc32c_on_any_bytes(data: bytes, start: int) -> None:
    assert _core.crc32c(data) == google_crc32c.value(data)
    assert _core.crc32c(data, start) == google_crc32c.extend(start, data)
    assert _core.crc32c(memoryview(data)[1:]) == google_crc32c.value(data[1:])


@given(first=st.binary(max_size=3000), second=st.binary(max_size=3000))
def test_combines_two_checksums(first: bytes, second: bytes) -> None:
    checksums = google_crc32c.value(first), google_crc32c.value(second)
    assert _core.crc32c_combine(*checksums, len(second)) == google_crc32c.value(first + second)


def test_combines_checksums_of_long_input() -> None:
    data = bytes(range(256)) * 40_000
    for cut in (0, 1, 4096, 5_000_001, len(data)):
        checksums = _core.crc32c(data[:cut]), _core.crc32c(data[cut:])
        assert _core.crc32c_combine(*checksums, len(data) - cut) == google_crc32c.value(data)
