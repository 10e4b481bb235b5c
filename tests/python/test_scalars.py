# SPDX-License-Identifier: Apache-2.0
"""Conversion of one-element tensors to Python numbers by NumPy's rules, and ==."""

from __future__ import annotations

import contextlib
import operator
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.dtypes import KINDS, Kind, sample

import tensorbundle as tb


def write(tmp_path: Path, **arrays: Any) -> tb.Checkpoint:
    bundle = Bundle()
    for name, array in arrays.items():
        if isinstance(array, bytes):
            bundle.add_strings(name, [array], ())
        else:
            bundle.add(name, array)
    return tb.open(bundle.write(tmp_path / "m"))


def outcome(function: Callable[[Any], Any], value: Any) -> Any:
    """Returns the result's type and repr, or the type of the exception."""
    try:
        result = function(value)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)
    return type(result), repr(result)


CONVERSIONS = [int, float, complex, bool, operator.index]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.label)
@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda convert: convert.__name__)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scalar_of_every_dtype_converts_like_numpy(
    tmp_path: Path, kind: Kind, convert: Callable[[Any], Any], seed: int
) -> None:
    array = sample(kind, (), seed)
    bundle = Bundle()
    bundle.add("x", array, number=kind.number)
    with tb.open(bundle.write(tmp_path / "m")) as checkpoint:
        tensor = checkpoint["x"]
        assert outcome(lambda tensor: tensor.item(), tensor) == outcome(np.ndarray.item, array)
        if convert is operator.index and array.dtype.kind == "V" and "int" in kind.label:
            expected = outcome(int, array)  # NumPy does not treat ml_dtypes' types as integers
        else:
            expected = outcome(convert, array)
        assert outcome(convert, tensor) == expected


@pytest.mark.parametrize("element", [b"", b"12", b"x", b"a\0b\0", b"\xff", b"1.5"])
def test_string_converts_like_bytes(tmp_path: Path, element: bytes) -> None:
    tensor = write(tmp_path, x=element)["x"]
    assert tensor.item() == element
    assert type(tensor.item()) is bytes
    for convert in CONVERSIONS:
        assert outcome(convert, tensor) == outcome(convert, element)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)])
def test_converts_one_element_of_any_rank(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = write(tmp_path, x=np.full(shape, 7, np.int32))["x"]
    assert (int(tensor), float(tensor), complex(tensor), bool(tensor)) == (7, 7.0, 7 + 0j, True)
    assert tensor.item() == 7
    with pytest.raises(TypeError, match="only a scalar of an integer type"):
        operator.index(tensor)


@pytest.mark.parametrize("shape", [(0,), (2,), (0, 3), (3, 4)])
def test_other_element_count_raises_error(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = write(tmp_path, x=np.zeros(shape))["x"]
    for convert in (int, float, complex, operator.index):
        with pytest.raises(TypeError, match="'x'"):
            convert(tensor)
    with pytest.raises(ValueError, match="item"):
        tensor.item()
    with pytest.raises(ValueError, match="truth value is ambiguous") as caught:
        bool(tensor)
    assert "'name in checkpoint'" in str(caught.value)


def test_integer_scalar_is_usable_as_index(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, step=np.int64(2), flag=np.bool_(True), x=np.arange(5.0))
    step, flag, x = checkpoint["step"], checkpoint["flag"], checkpoint["x"]
    assert list(range(step)) == [0, 1]
    assert x[step] == np.asarray(x)[step] == 2.0
    assert "yes" if checkpoint.get("step") else "no"
    with pytest.raises(TypeError):
        operator.index(flag)
    with pytest.raises(TypeError):
        x[flag]


def test_corrupt_element_raises_corruption_error(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, x=np.int64(5))
    file = Path(f"{checkpoint.path}.data-00000-of-00001")
    file.write_bytes(bytes(8))
    for convert in (int, bool, lambda tensor: tensor.item()):
        with pytest.raises(tb.CorruptionError):
            convert(tb.open(checkpoint.path)["x"])
    with pytest.raises(ValueError, match="closed"), contextlib.closing(checkpoint):
        checkpoint.close()
        int(checkpoint["x"])


# --- comparison


@pytest.mark.parametrize(
    "value",
    [5, 5.0, 5j, True, np.int64(5), np.array(5), np.arange(3), "5", b"5", [5], (5,)],
    ids=repr,
)
def test_comparison_with_value_raises_type_error(tmp_path: Path, value: Any) -> None:
    checkpoint = write(tmp_path, step=np.int64(5), text=b"5")
    for tensor in checkpoint.values():
        for compare in (operator.eq, operator.ne):
            with pytest.raises(TypeError):
                compare(tensor, value)
        with pytest.raises(TypeError, match=r"int\(t\), t\.item\(\) or t\.read\(\)"):
            assert tensor == value


def test_handles_of_same_tensor_are_equal(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, a=np.int64(5), b=np.int64(5))
    a, b = checkpoint["a"], checkpoint["b"]
    assert a == checkpoint["a"]
    assert not operator.ne(a, checkpoint["a"])
    assert hash(a) == hash(checkpoint["a"])
    assert a != b
    assert a != tb.open(checkpoint.path)["a"]
    assert pickle.loads(pickle.dumps((a, a)))[0] != a
    assert {a: 1, b: 2}[checkpoint["b"]] == 2
    assert len({a, b, checkpoint["a"]}) == 2
    assert a in [None, object(), b, a]
    assert a not in [None, object(), b]
    assert (a == None) is False  # noqa: E711
