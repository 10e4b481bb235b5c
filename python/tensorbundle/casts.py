# SPDX-License-Identifier: Apache-2.0
"""Element types by name, the casts between them that ``edit`` allows, and the casts themselves.

===================  =============================================================================
float to float       always, rounded once, as by TensorFlow: to nearest, ties to even
integer to integer   if every value fits; bool counts as an integer from 0 to 1, but not as a target
complex to complex   always
other casts          if NumPy's ``can_cast(..., "safe")`` allows them (int32 to float64) and every
                     value is kept: NumPy calls int64 to float64 safe
===================  =============================================================================

Strings, variants and quantized types are never cast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

from tensorbundle import dtypes

Array = np.ndarray[Any, Any]

_FLOATS = ("float64", "float32", "float16", "bfloat16")
_NARROW_FLOATS = ("float8_", "float4_", "float6_")


def dtype_of(value: object) -> tuple[str, np.dtype[Any]] | None:
    """Returns TensorFlow's name of a type, and its dtype; None if TensorFlow has no such type.

    `value` is a name such as ``"bfloat16"``, a dtype, a scalar type of NumPy or ml_dtypes, or a
    ``tf.DType``. ``"float"`` and other names that differ between NumPy and TensorFlow are not
    accepted.
    """
    if isinstance(value, str):
        return (value, BY_NAME[value]) if value in BY_NAME else None
    name = getattr(value, "name", None) if not isinstance(value, type) else None
    if isinstance(name, str) and not isinstance(value, np.dtype):
        return dtype_of(name)
    try:
        dtype = np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        return None
    return dtype_of(dtype.name)


BY_NAME: dict[str, np.dtype[Any]] = {
    dtypes.stored_name(number): dtype
    for number, dtype in enumerate(dtypes.BY_NUMBER)
    if not dtypes.stored_name(number).startswith("unknown")
}
_NUMBERS: dict[str, int] = {
    dtypes.stored_name(number): number for number in range(len(dtypes.BY_NUMBER))
}


def number_of(name: str) -> int:
    """Returns the type number of a name that `dtype_of` returned."""
    return _NUMBERS[name]


def stored_name(dtype: np.dtype[Any]) -> str:
    """Returns TensorFlow's name of a type; ``"string"`` for objects."""
    found = dtype_of(dtype)
    return "string" if found is None else found[0]


def _kind(name: str) -> str:
    """Returns the kind of a type: float, integer, complex, or "" for one that is not cast."""
    if name in _FLOATS or name.startswith(_NARROW_FLOATS):
        return "float" if _is_native(name) else ""
    if name == "bool":
        return "integer"
    if name.startswith(("int", "uint")):
        return "integer" if _is_native(name) else ""
    return "complex" if name.startswith("complex") else ""


def _is_native(name: str) -> bool:
    """Returns whether the installed ml_dtypes has the type, so that its values can be computed."""
    return BY_NAME[name].name.startswith(name) or name.startswith(BY_NAME[name].name)


def obstacle(source: str, target: str) -> str | None:
    """Returns why no value of a type can be cast to another type, or None."""
    kinds = _kind(source), _kind(target)
    if "" in kinds:
        name = target if kinds[0] else source
        return f"{name} cannot be cast"
    if target == "bool":
        return "bool is not a target of casts"
    if kinds in (("float", "float"), ("complex", "complex"), ("integer", "integer")):
        return None
    if np.can_cast(BY_NAME[source], BY_NAME[target], "safe"):
        return None
    return f"{source} to {target} would lose values"


def limits(source: str, target: str) -> tuple[int, int] | None:
    """Returns the smallest and largest value of an integer type, or None.

    None means that every value of the source type fits, or that the types are not integers.
    """
    if "integer" not in (_kind(source), _kind(target)) or _kind(source) != _kind(target):
        return None
    low, high = _integer_range(target)
    source_low, source_high = _integer_range(source)
    return None if low <= source_low and source_high <= high else (low, high)


def _integer_range(name: str) -> tuple[int, int]:
    if name == "bool":
        return 0, 1
    info: Any = ml_dtypes.iinfo(BY_NAME[name])  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)


def depends_on_values(source: str, target: str) -> bool:
    """Returns whether only some values of a type can be cast, by `check_values`.

    Requires: `obstacle` returned None.
    """
    return limits(source, target) is not None or _digits_of_target(source, target) is not None


def _digits_of_target(source: str, target: str) -> int | None:
    """Returns the binary digits of a float type if integers of the source have more, or None."""
    if _kind(source) != "integer" or _kind(target) not in ("float", "complex"):
        return None
    info: Any = ml_dtypes.finfo(BY_NAME[target])  # type: ignore[no-untyped-call]
    digits = int(info.nmant) + 1
    low, high = _integer_range(source)
    return digits if max(-low, high) > 1 << digits else None


def check_values(blocks: Iterable[Array], source: str, target: str) -> str | None:
    """Returns which value another type does not have, or None."""
    digits = _digits_of_target(source, target)
    if digits is not None:
        return _check_floats(blocks, digits, target)
    bounds = limits(source, target)
    if bounds is None:
        return None
    low, high = bounds
    for block in blocks:
        if block.size == 0:
            continue
        values = block.astype(np.int64) if block.dtype.itemsize == 1 else block
        for value in (int(values.min()), int(values.max())):
            if not low <= value <= high:
                return f"the value {value} is not in [{low}, {high}]"
    return None


def _check_floats(blocks: Iterable[Array], digits: int, target: str) -> str | None:
    """Returns which integer a float type, with that many binary digits, does not have, or None."""
    for block in blocks:
        if block.dtype.itemsize < 8:
            # Types of few bits have no large values either; infinities and NaN differ from all.
            result = cast(block, BY_NAME[target]).astype(np.complex128)
            wrong = result != block.astype(np.complex128)
        else:
            # The magnitude of a negative int64, also the least, is that of its bits as uint64.
            bits64 = block.view("u8")
            # Without Python's integers: NumPy 1 would make them int64, and then all of it float64.
            size = np.where(block < 0, np.negative(bits64), bits64)
            without_zeros = size // np.maximum(size & np.negative(size), np.uint64(1))
            wrong = without_zeros >= np.uint64(1 << digits)
        if np.any(wrong):
            return f"{target} does not have the value {block[wrong].flat[0]}"
    return None


def bits(array: Array) -> Array:
    """Returns a view of elements of ml_dtypes as integers.

    NumPy copies integers fast and without the GIL, but not the elements of ml_dtypes.
    """
    if array.dtype.isbuiltin != 2:  # not a type of ml_dtypes
        return array
    return array.view(f"u{array.dtype.itemsize}")


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Returns an array with another type; the same array if it has the type already."""
    if array.dtype == dtype:
        return array
    # An overflow to infinity is a value of the result, as in TensorFlow.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if array.dtype.kind == "f" and array.dtype.itemsize == 8 and dtype.isbuiltin == 2:
            array = _rounded_to_odd(array)
        return array.astype(dtype)


def _rounded_to_odd(array: Array) -> Array:
    """Returns float64 as float32, from which a narrower type gets the nearest value of the float64.

    ml_dtypes casts float64 through float32, and so rounds twice. Here an inexact value is truncated
    and gets the lowest bit 1: it stays on the side of a tie on which it was.
    """
    result = np.asarray(array.astype(np.float32))
    exact = result.astype(np.float64)
    inexact = np.isfinite(result) & (exact != array)
    pattern = result.view(np.uint32)
    pattern -= inexact & (np.abs(exact) > np.abs(array))
    pattern |= inexact
    return result


def stored_as(array: Array, name: str) -> Array | str:
    """Returns numbers as another type, or which of them the type cannot hold.

    Only floats and complex numbers are rounded.

    Args:
        array: Bools, integers, floats or complex numbers; Python's integers as objects.
        name: The type, as returned by `dtype_of`.
    """
    dtype = BY_NAME[name]
    if array.dtype == dtype:
        return array
    kind = "integer" if array.dtype == object else _kind(stored_name(array.dtype))
    is_integer = dtype.kind in "biu" or _kind(name) == "integer"
    if kind == "complex" and dtype.kind != "c":
        return f"complex numbers cannot be stored as {name}"
    if is_integer:
        low, high = _integer_range(dtype.name)
        # The power of two is exact as a float, other than the maximum.
        fits = (array >= low) & (array < (high + 1 if kind == "integer" else float(high + 1)))
        if kind == "float":
            fits &= array == np.trunc(array)
        result = None if not np.all(fits) else array.astype(dtype)
    elif array.dtype == object:
        result = array.astype(np.float64)
        fits = result.astype(object) == array
        result = cast(result, dtype)
        fits = fits & (result.astype(object) == array)
    else:
        result = cast(array, dtype)
        fits = np.isfinite(result) | ~np.isfinite(array)
        if kind == "integer":
            fits &= result.astype(object) == array.astype(object)
    if np.all(fits) and result is not None:
        return result
    wrong = array[np.logical_not(fits)].flat[0]
    return f"the value {wrong} does not fit into {name}"
