# SPDX-License-Identifier: Apache-2.0
"""``tf.DType`` of the stand-in, one instance per element type, and ``tf.as_dtype``."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from tensorbundle import dtypes

_RESOURCE = 20
_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_COMPLEX = {"complex64": "float32", "complex128": "float64"}
_QUANTIZED = {"qint8", "quint8", "qint16", "quint16", "qint32"}
_NARROW = {"int2", "uint2", "int4", "uint4"}
_NO_NUMPY = {"resource", "variant"}
# Types that TensorFlow has in tf.dtypes.experimental only.
_EXPERIMENTAL = ("float8", "float4", "int4", "uint4", "int2", "uint2")
_UNIT_RANGE = {"float32", "float64"}


class DType:
    """The type of a tensor's elements, as TensorFlow describes it."""

    __slots__ = ("_name", "_number")

    def __init__(self, type_enum: int) -> None:
        """Takes the number of the type in TensorFlow's enum.

        Raises:
            TypeError: No type has this number.
        """
        number = int(type_enum)
        name = "resource" if number == _RESOURCE else dtypes.stored_name(number)
        if name.startswith("unknown"):
            raise TypeError(f"{type_enum!r} is not the number of a TensorFlow DType")
        self._number = number
        self._name = name

    @property
    def name(self) -> str:
        """The name, such as ``"float32"``."""
        return self._name

    @property
    def as_datatype_enum(self) -> int:
        """The number in TensorFlow's enum."""
        return self._number

    @property
    def as_numpy_dtype(self) -> Any:
        """The NumPy type; a structured dtype for a quantized type."""
        if self._name in _NO_NUMPY:
            raise KeyError(self._number)
        if self._name in _QUANTIZED:
            return np.dtype([(self._name, dtypes.BY_NUMBER[self._number])])
        if self._name == "string":
            return object
        return dtypes.BY_NUMBER[self._number].type

    @property
    def size(self) -> int:
        """The bytes of an element; 0 for a type without a fixed size."""
        if self._name in _NO_NUMPY or self._name == "string":
            return 0
        return dtypes.BY_NUMBER[self._number].itemsize

    @property
    def base_dtype(self) -> DType:
        """The type itself: the stand-in has no reference types."""
        return self

    @property
    def real_dtype(self) -> DType:
        """The type of the real part of a complex number; else the type itself."""
        return BY_NAME[_COMPLEX.get(self._name, self._name)]

    @property
    def is_floating(self) -> bool:
        """Whether it is a real floating-point type."""
        return self._name in _FLOATS or self._name.startswith("float")

    @property
    def is_integer(self) -> bool:
        """Whether it is an integer type that is not quantized."""
        return self._name in _INTEGERS or self._name in _NARROW

    @property
    def is_complex(self) -> bool:
        """Whether it is a complex type."""
        return self._name in _COMPLEX

    @property
    def is_bool(self) -> bool:
        """Whether it is the type of truth values."""
        return self._name == "bool"

    @property
    def is_quantized(self) -> bool:
        """Whether it is a quantized type."""
        return self._name in _QUANTIZED

    @property
    def is_unsigned(self) -> bool:
        """Whether it is an unsigned integer type that is not quantized."""
        return self.is_integer and self._name.startswith("u")

    @property
    def is_numeric(self) -> bool:
        """Whether it is one of TensorFlow's numeric types; small floats and integers are not."""
        return self._name in _FLOATS | _INTEGERS | _QUANTIZED or self.is_complex

    @property
    def is_numpy_compatible(self) -> bool:
        """Whether there is a NumPy type for it."""
        return self._name not in _NO_NUMPY

    @property
    def min(self) -> Any:
        """The smallest value."""
        return self._limit("minimum", "min")

    @property
    def max(self) -> Any:
        """The largest value."""
        return self._limit("maximum", "max")

    def _limit(self, word: str, attribute: str) -> Any:
        has_order = self.is_floating or self.is_integer
        if not has_order:
            raise TypeError(f"Cannot find {word} value of {self}.")
        info = ml_dtypes.finfo if self.is_floating else ml_dtypes.iinfo
        return getattr(info(self.as_numpy_dtype), attribute)

    @property
    def limits(self) -> tuple[Any, Any]:
        """The range of intensities of an image of this type, without negative values."""
        if self._name == "bool":
            return 0, True
        if self._name in _UNIT_RANGE:
            return 0, 1
        if self._name in _INTEGERS:
            return 0, self.max
        raise ValueError(f"{self} does not have defined limits.")

    def is_compatible_with(self, other: Any) -> bool:
        """Whether another type is the same."""
        return self._number == as_dtype(other)._number

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        try:
            return self._number == as_dtype(other)._number
        except TypeError:
            return False

    def __hash__(self) -> int:
        return self._number

    def __int__(self) -> int:
        return self._number

    def __repr__(self) -> str:
        return f"tf.{self._name}"

    def __str__(self) -> str:
        return f"<dtype: {self._name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self._name,)


_BY_NUMBER = {
    number: DType(number)
    for number in range(1, len(dtypes.BY_NUMBER))
    if number == _RESOURCE or not dtypes.stored_name(number).startswith("unknown")
}
BY_NAME = {each.name: each for each in _BY_NUMBER.values()}
ALIASES = {"half": BY_NAME["float16"], "double": BY_NAME["float64"]}

# The names of tf.* and tf.dtypes.*, and those of tf.dtypes.experimental.
PUBLIC = {
    name: each for name, each in (BY_NAME | ALIASES).items() if not name.startswith(_EXPERIMENTAL)
}
EXPERIMENTAL = {name: each for name, each in BY_NAME.items() if name.startswith(_EXPERIMENTAL)}
QUANTIZED_DTYPES = frozenset(BY_NAME[name] for name in _QUANTIZED)

# What as_dtype() looks up. If ml_dtypes lacks a type, its as_numpy_dtype is that of an earlier
# number, which counts here.
_FROM_NUMPY: dict[Any, DType] = {
    each.as_numpy_dtype: each
    for each in reversed(_BY_NUMBER.values())
    if each.is_numpy_compatible and each.name != "string"
} | {np.dtype(code).type: BY_NAME["string"] for code in "OSU"}
# NumPy has several types for integers of the same size: longlong and int64, for example.
_FROM_NUMPY |= {np.dtype(code).type: BY_NAME[np.dtype(code).name] for code in "bBhHiIlLqQ"}
_FROM_ANY: dict[Any, DType] = {
    **_BY_NUMBER,
    **BY_NAME,
    **ALIASES,
    "float": BY_NAME["float32"],
    float: BY_NAME["float32"],
    bool: BY_NAME["bool"],
    object: BY_NAME["string"],
    **_FROM_NUMPY,
}


def as_dtype(type_value: Any) -> DType:
    """Returns the DType of a DType, its number or name, a NumPy type, or an object with a dtype.

    Raises:
        TypeError: There is no DType for the value.
    """
    if isinstance(type_value, DType):
        return _BY_NUMBER[type_value.as_datatype_enum]
    if isinstance(type_value, np.dtype):
        found = _FROM_NUMPY.get(type_value.type)  # in any byte order
        if found is not None:
            return found
    try:
        return _FROM_ANY[type_value]
    except (KeyError, TypeError):  # TypeError: not hashable
        pass
    if isinstance(getattr(type_value, "dtype", None), np.dtype):
        return as_dtype(type_value.dtype)
    raise TypeError(
        f"Cannot convert the argument `type_value`: {type_value!r} to a TensorFlow DType."
    )
