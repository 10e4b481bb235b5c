# SPDX-License-Identifier: Apache-2.0
"""Casts between element types, and the names of types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft.compare import same_bits

from tensorbundle import casts

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def test_casts_are_those_of_numpy_without_warnings() -> None:
    values = np.array([1.5, -0.0, 1e-45, 65520, 3.4e38, np.inf, np.nan], np.float32)
    for target in (BFLOAT16, np.dtype(np.float16), np.dtype(np.float64)):
        with np.errstate(all="ignore"):
            expected = values.astype(target)
        assert same_bits(casts.cast(values, target), expected)


def test_float64_is_rounded_once() -> None:
    # bfloat16 has 8 digits: 1 + 2**-8 is a tie, and float32 has no digit for 2**-40.
    values = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 2**-8 - 2**-40, -1 - 2**-8 - 2**-40])
    rounded = casts.cast(values, BFLOAT16).astype(np.float64)
    assert rounded.tolist() == [1 + 2**-7, 1, 1, -1 - 2**-7]


def test_bits_are_a_view() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).astype(BFLOAT16).T
    view = casts.bits(array)
    assert view.dtype == np.uint16
    assert np.shares_memory(view, array)
    assert casts.bits(view) is view


def test_equal_type_is_not_copied() -> None:
    array = np.zeros(3, np.float32)
    assert casts.cast(array, array.dtype) is array


@pytest.mark.parametrize(
    ("value", "name"),
    [("float32", "float32"), ("qint8", "qint8"), (np.float16, "float16"), (BFLOAT16, "bfloat16"),
     (ml_dtypes.bfloat16, "bfloat16"), (np.dtype("<i4"), "int32"), (bool, "bool"), ("float", None),
     ("f4", None), ("datetime64", None), (np.dtype("M8[s]"), None), (None, "float64"), (3, None)],
)  # fmt: skip
def test_names_of_types(value: Any, name: str | None) -> None:
    found = casts.dtype_of(value)
    if value is None:
        return
    assert (None if found is None else found[0]) == name


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("int64", "int8", (-128, 127)), ("int8", "int64", None), ("uint8", "int8", (-128, 127)),
        ("bool", "int8", None), ("uint64", "int64", (-(2**63), 2**63 - 1)),
        ("int32", "float64", None),
        ("int8", "int4", (-8, 7)), ("float32", "float16", None),
    ],
)  # fmt: skip
def test_limits_of_integers(source: str, target: str, expected: tuple[int, int] | None) -> None:
    assert casts.limits(source, target) == expected


def test_values_outside_the_limits_are_found() -> None:
    blocks = [np.array([], np.uint64), np.array([3, 2**64 - 1], np.uint64)]
    assert casts.check_values(blocks, "uint64", "uint64") is None
    wrong = f"the value {2**64 - 1} is not in [0, 255]"
    assert casts.check_values(blocks, "uint64", "uint8") == wrong
    assert casts.check_values([np.array([-3], ml_dtypes.int4)], "int4", "uint4") is not None


INTEGERS = ["bool", "int4", "int8", "int16", "int32", "int64", "uint4", "uint8", "uint32", "uint64"]
FLOATS = [name for name in casts.BY_NAME if name.startswith(("float", "bfloat", "complex"))]


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", FLOATS)
def test_integers_become_floats_only_if_every_value_is_kept(source: str, target: str) -> None:
    if casts.obstacle(source, target) is not None:
        return
    low, high = casts._integer_range(source)
    powers = [sign * (2**n + d) for n in range(65) for d in (-1, 0, 1) for sign in (-1, 1)]
    powers += [2**62 + 2**9, 2**62 + 2**10, low, high - 1, high]
    for value in {value for value in powers if low <= value <= high}:
        wide = np.array([0, value], np.uint64 if value >= 0 else np.int64)
        array = wide.astype(casts.BY_NAME[source])
        result = complex(array.astype(casts.BY_NAME[target])[1]).real
        is_kept = np.isfinite(result) and int(result) == value
        assert is_kept or casts.depends_on_values(source, target)
        assert (casts.check_values([array], source, target) is None) == is_kept
    empty = np.zeros((0, 3), casts.BY_NAME[source])
    assert casts.check_values([empty], source, target) is None


@pytest.mark.parametrize("pair", [("string", "float32"), ("variant", "int8"), ("qint8", "int8"),
    ("float32", "int32"), ("complex64", "float32"), ("int32", "bool"), ("float32", "quint8"),
    ("int64", "float32")])  # fmt: skip
def test_unsupported_casts(pair: tuple[str, str]) -> None:
    assert casts.obstacle(*pair) is not None
