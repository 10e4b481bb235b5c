# SPDX-License-Identifier: Apache-2.0
"""Casts between element types, and the names of types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft.compare import same_bits

from tensorbundle import _core, casts

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def test_bfloat16_equals_ml_dtypes() -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 1 << 32, 1 << 20, np.uint32)
    bits[: 1 << 17] = np.arange(1 << 17) << 15  # all upper halves, and all ties
    values = bits.view(np.float32)
    with np.errstate(all="ignore"):
        expected = values.astype(BFLOAT16)
    assert same_bits(casts.cast(values, BFLOAT16), expected)
    everything = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16)
    actual = casts.cast(everything, np.dtype(np.float32))
    numbers = ~np.isnan(actual)
    with np.errstate(all="ignore"):
        assert same_bits(actual[numbers], everything.astype(np.float32)[numbers])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (17, 5)])
def test_shapes_and_strides(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    for view in (array, array.T, array[..., ::2] if shape else array):
        assert same_bits(casts.cast(view, BFLOAT16), view.astype(BFLOAT16, order="C"))


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        _core.cast_bfloat16(np.zeros(3, np.uint32), np.zeros(2, np.uint16))
    with pytest.raises(TypeError):
        _core.cast_bfloat16(np.zeros(3, np.float32), np.zeros(3, np.uint16))


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
    assert casts.check_values(blocks, (0, 2**64 - 1)) is None
    assert casts.check_values(blocks, (0, 5)) == f"the value {2**64 - 1} is not in [0, 5]"
    assert casts.check_values([np.array([-3], ml_dtypes.int4)], (0, 5)) is not None


@pytest.mark.parametrize("pair", [("string", "float32"), ("variant", "int8"), ("qint8", "int8"),
    ("float32", "int32"), ("complex64", "float32"), ("int32", "bool"), ("float32", "quint8"),
    ("int64", "float32")])  # fmt: skip
def test_unsupported_casts(pair: tuple[str, str]) -> None:
    assert casts.obstacle(*pair) is not None
