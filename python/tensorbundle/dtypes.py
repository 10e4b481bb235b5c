# SPDX-License-Identifier: Apache-2.0
"""Conversion of TensorFlow's element types to NumPy's and DLPack's.

The numbers are those of ``tensorflow/core/framework/types.proto``. Types that NumPy lacks come from
ml_dtypes. If the installed ml_dtypes does not have a type, its bytes are read as int8 or uint8, and
``Tensor.stored_dtype`` still returns its name.
"""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np

from tensorbundle import _core

STRING = 7
VARIANT = 21
VARIABLE_SIZE = frozenset({STRING, VARIANT})  # types whose elements have no fixed size

# Number -> (name in TensorFlow, name in NumPy or ml_dtypes, fallback type, bits of a signed integer
# narrower than its byte).
_TYPES: dict[int, tuple[str, str, str | None, int | None]] = {
    1: ("float32", "float32", None, None),
    2: ("float64", "float64", None, None),
    3: ("int32", "int32", None, None),
    4: ("uint8", "uint8", None, None),
    5: ("int16", "int16", None, None),
    6: ("int8", "int8", None, None),
    7: ("string", "object", None, None),
    8: ("complex64", "complex64", None, None),
    9: ("int64", "int64", None, None),
    10: ("bool", "bool", None, None),
    # Quantized types are plain integers, as TensorFlow's own reader returns them.
    11: ("qint8", "int8", None, None),
    12: ("quint8", "uint8", None, None),
    13: ("qint32", "int32", None, None),
    14: ("bfloat16", "bfloat16", "uint16", None),
    15: ("qint16", "int16", None, None),
    16: ("quint16", "uint16", None, None),
    17: ("uint16", "uint16", None, None),
    18: ("complex128", "complex128", None, None),
    19: ("float16", "float16", None, None),
    21: ("variant", "object", None, None),
    22: ("uint32", "uint32", None, None),
    23: ("uint64", "uint64", None, None),
    24: ("float8_e5m2", "float8_e5m2", "uint8", None),
    25: ("float8_e4m3fn", "float8_e4m3fn", "uint8", None),
    26: ("float8_e4m3fnuz", "float8_e4m3fnuz", "uint8", None),
    27: ("float8_e4m3b11fnuz", "float8_e4m3b11fnuz", "uint8", None),
    28: ("float8_e5m2fnuz", "float8_e5m2fnuz", "uint8", None),
    29: ("int4", "int4", "int8", 4),
    30: ("uint4", "uint4", "uint8", None),
    31: ("int2", "int2", "int8", 2),
    32: ("uint2", "uint2", "uint8", None),
    33: ("float4_e2m1fn", "float4_e2m1fn", "uint8", None),
}

# Names in old versions of ml_dtypes.
_FORMER_NAMES = {"float8_e4m3b11fnuz": "float8_e4m3b11"}

_OBJECT = np.dtype(object)

# Dtype name -> number. Plain integers are not quantized.
_NUMBERS = {
    name: number
    for number, (stored, name, _, _) in _TYPES.items()
    if not stored.startswith("q") and name != "object"
}
_NUMBERS |= {former: _NUMBERS[name] for name, former in _FORMER_NAMES.items()}

# (code, bits) of DLPack's DLDataType, by kind for NumPy's types and by name for those of ml_dtypes.
_DLPACK_KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_DLPACK_NAMES = {
    "bfloat16": (4, 16),
    "float8_e4m3b11fnuz": (9, 8),
    "float8_e4m3b11": (9, 8),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
}


def find(name: str) -> np.dtype[Any] | None:
    """Returns the dtype of a name in NumPy or ml_dtypes, or None."""
    for candidate in (name, _FORMER_NAMES.get(name, name)):
        scalar_type: type | None = getattr(ml_dtypes, candidate, None)
        if scalar_type is not None:
            return np.dtype(scalar_type)
    try:
        return np.dtype(name)
    except TypeError:
        return None


def _resolve(number: int) -> np.dtype[Any]:
    _, name, fallback, _ = _TYPES[number]
    found = find(name)
    if found is not None:
        return found
    assert fallback is not None
    return np.dtype(fallback)


# The dtype of each type number, for the extension; object for numbers without a type.
BY_NUMBER: tuple[np.dtype[Any], ...] = tuple(
    _resolve(number) if number in _TYPES else _OBJECT for number in range(max(_TYPES) + 2)
)

# Number -> bits, for narrow signed integers that the installed ml_dtypes does not have. Only their
# low bits are stored.
SIGN_EXTENDED: dict[int, int] = {
    number: bits
    for number, (_, name, _, bits) in _TYPES.items()
    if bits is not None and find(name) is None
}

_core.set_dtypes(BY_NUMBER, [STRING, VARIANT, *SIGN_EXTENDED])


def stored_name(number: int) -> str:
    """Returns TensorFlow's name of a type, or ``"unknown (<number>)"``."""
    entry = _TYPES.get(number)
    return entry[0] if entry else f"unknown ({number})"


@functools.lru_cache(maxsize=256)
def enum_name(number: int) -> str:
    """Returns the name in TensorFlow's enum, as in ``debug_string``: ``DT_FLOAT``."""
    special = {1: "DT_FLOAT", 2: "DT_DOUBLE", 19: "DT_HALF"}
    if number in special:
        return special[number]
    return f"DT_{stored_name(number).upper()}" if number in _TYPES else f"DT_{number}"


def sign_extend(number: int, array: np.ndarray[Any, Any]) -> None:
    """Sign-extends narrow integers from their stored low bits, in place; ignores other types.

    Example: the int2 value -1 is stored as 0b11.
    """
    bits = SIGN_EXTENDED.get(number)
    if bits is not None:
        np.left_shift(array, 8 - bits, out=array)
        np.right_shift(array, 8 - bits, out=array)


@functools.lru_cache(maxsize=256)  # NumPy computes a dtype's name at each access
def number_of(dtype: np.dtype[Any]) -> int:
    """Returns the type number with which elements of a NumPy dtype are stored.

    Any byte order; ``STRING`` for NumPy's strings and for objects, which may be anything.

    Raises:
        TypeError: TensorFlow has no such type.
    """
    if dtype.kind in "SUOT":
        return STRING
    number = _NUMBERS.get(dtype.name)
    if number is None:
        raise TypeError(f"TensorFlow has no type for the dtype {dtype}")
    return number


# Bits of the types of which only the low bits of a byte are stored.
_NARROW_BITS = {29: 4, 30: 4, 31: 2, 32: 2}


def to_stored(number: int, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the elements as they are stored: little-endian, and without high bits.

    Example: the int4 value -1 is stored as 0b1111.
    """
    bits = _NARROW_BITS.get(number)
    if bits is not None:
        return np.asarray(array.view(np.uint8) & np.uint8((1 << bits) - 1))
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def dlpack_type(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Returns the (code, bits) of a dtype in DLPack, or None."""
    if dtype.name in _DLPACK_NAMES:
        return _DLPACK_NAMES[dtype.name]
    code = _DLPACK_KINDS.get(dtype.kind)
    # ml_dtypes also uses kinds such as "f", but `isbuiltin` is 1 only for NumPy's types.
    if code is None or dtype.isbuiltin != 1:
        return None
    return code, dtype.itemsize * 8
