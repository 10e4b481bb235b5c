# SPDX-License-Identifier: Apache-2.0
"""Compares the test writer's output with bytes that TensorFlow wrote."""

from __future__ import annotations

import random

import numpy as np
import pytest
from craft import ordered_code, tilings
from craft.bundle import Bundle
from craft.checksum import masked_crc
from craft.dtypes import KINDS
from craft.strings import encode_strings


def test_index_equals_tensorflows_bytes() -> None:
    bundle = Bundle()
    bundle.add("dt/int2", np.array([1, 0, 1], np.uint8).view(KINDS[31].dtype), number=31)
    expected = bytes.fromhex(
        "00000608011a020801" "00070f" "64742f696e7432" "081f120412020803280335" "75599106"
        "0000000001000000" "00a9317ea0" "0000000001000000" "00c0f2a1b0"
        "00010265002a" "0000000001000000" "009e5a2f98" "2f083c0e" + "00" * 36 + "57fb808b247547db"
    )  # fmt: skip
    assert bundle.table().encode().data == expected


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        (b"w", [(0, 2), None], "0077000101028082807f"),
        (b"w", [(2, 2), (3, 3)], "00770001010282828383"),
        (b"v", [(100, 200), None], "007600010102c064c0c8807f"),
        (b"\x6b\xff\x00\x01", [(100, 200)], "006bff0000ff0100010101c064c0c8"),
        (b"sc", [], "007363000100"),
    ],
)
def test_encodes_slice_keys(name: bytes, spec: ordered_code.Spec, expected: str) -> None:
    assert ordered_code.slice_key(name, spec) == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "80"), (63, "bf"), (64, "c040"), (8191, "dfff"), (8192, "e02000"), (-1, "7f"),
        (-64, "40"), (-65, "3fbf"), (2**48, "ff01000000000000"), (2**55, "ff8080000000000000"),
        (2**62, "ffc04000000000000000"), (-(2**63), "003f8000000000000000"),
    ],
)  # fmt: skip
def test_encodes_signed_numbers(value: int, expected: str) -> None:
    assert ordered_code.signed(value) == bytes.fromhex(expected)


def test_encoded_signed_numbers_keep_order() -> None:
    rng = random.Random(1)
    values = sorted(rng.getrandbits(rng.randrange(1, 63)) * rng.choice((1, -1)) for _ in range(500))
    encoded = [ordered_code.signed(value) for value in values]
    assert encoded == sorted(encoded)


def test_encodes_string_payload_and_checksum() -> None:
    assert encode_strings([b"hello"]) == (bytes.fromhex("05d9c69c43") + b"hello", 700506348)
    assert encode_strings([])[0] == bytes.fromhex("d8ea82a2")
    assert masked_crc(b"") == 0xA282EAD8


def test_random_boxes_cover_every_element_once() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        shape = tuple(rng.randrange(1, 7) for _ in range(rng.randrange(1, 4)))
        seen = np.zeros(shape, int)
        for box in tilings.guillotine(shape, 6, rng):
            seen[tilings.slices(box)] += 1
        assert (seen == 1).all()
