# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's dtype numbers, from the format document."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

STRING, VARIANT = 7, 21


@dataclass(frozen=True)
class Kind:
    """One fixed-size dtype.

    Attributes:
        number: TensorFlow's enum value.
        label: TensorFlow's name in lower case.
        plain: Its name in NumPy or ml_dtypes.
        fallback: The integer type of the same width, used if ml_dtypes lacks the type.
        bits: The number of low bits used per stored byte, for types narrower than a byte.
    """

    number: int
    label: str
    plain: str
    fallback: str = ""
    bits: int = 8

    @property
    def dtype(self) -> np.dtype:
        """The dtype that a reader returns with the installed ml_dtypes."""
        extension = getattr(ml_dtypes, self.plain, None)
        if extension is not None:
            return np.dtype(extension)
        return np.dtype(self.fallback or self.plain)

    @property
    def is_substituted(self) -> bool:
        return bool(self.fallback) and not hasattr(ml_dtypes, self.plain)


KINDS = {
    kind.number: kind
    for kind in (
        Kind(1, "float", "float32"),
        Kind(2, "double", "float64"),
        Kind(3, "int32", "int32"),
        Kind(4, "uint8", "uint8"),
        Kind(5, "int16", "int16"),
        Kind(6, "int8", "int8"),
        Kind(8, "complex64", "complex64"),
        Kind(9, "int64", "int64"),
        Kind(10, "bool", "bool", bits=1),
        Kind(11, "qint8", "int8"),
        Kind(12, "quint8", "uint8"),
        Kind(13, "qint32", "int32"),
        Kind(14, "bfloat16", "bfloat16", "uint16"),
        Kind(15, "qint16", "int16"),
        Kind(16, "quint16", "uint16"),
        Kind(17, "uint16", "uint16"),
        Kind(18, "complex128", "complex128"),
        Kind(19, "half", "float16"),
        Kind(22, "uint32", "uint32"),
        Kind(23, "uint64", "uint64"),
        Kind(24, "float8_e5m2", "float8_e5m2", "uint8"),
        Kind(25, "float8_e4m3fn", "float8_e4m3fn", "uint8"),
        Kind(26, "float8_e4m3fnuz", "float8_e4m3fnuz", "uint8"),
        Kind(27, "float8_e4m3b11fnuz", "float8_e4m3b11fnuz", "uint8"),
        Kind(28, "float8_e5m2fnuz", "float8_e5m2fnuz", "uint8"),
        Kind(29, "int4", "int4", "int8", bits=4),
        Kind(30, "uint4", "uint4", "uint8", bits=4),
        Kind(31, "int2", "int2", "int8", bits=2),
        Kind(32, "uint2", "uint2", "uint8", bits=2),
        Kind(33, "float4_e2m1fn", "float4_e2m1fn", "uint8", bits=4),
    )
}

_NUMBER_OF = {
    str(kind.dtype): number
    for number, kind in reversed(KINDS.items())
    if not kind.label.startswith("q") and not kind.is_substituted
}


def number_of(dtype: np.dtype) -> int:
    """Returns TensorFlow's number of ``dtype``."""
    return _NUMBER_OF[str(dtype)]


def component_size(dtype: np.dtype) -> int:
    """Returns the unit of byte swapping; complex numbers swap each component separately."""
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize


def swapped(payload: bytes, dtype: np.dtype) -> bytes:
    """Returns the same numbers in the other byte order."""
    unit = component_size(dtype)
    return np.frombuffer(payload, np.uint8).reshape(-1, unit)[:, ::-1].tobytes()


def sample(kind: Kind, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns an array of ``kind`` with random bit patterns, reproducible by ``seed``."""
    count = int(np.prod(shape, dtype=np.int64))
    rng = np.random.default_rng(seed * 1000 + kind.number)
    raw = rng.integers(0, 256, count * kind.dtype.itemsize, dtype=np.uint8)
    if kind.bits < 8:
        raw &= (1 << kind.bits) - 1
        if kind.dtype == np.dtype(np.int8):  # a narrower type, sign-extended by the reader
            shift = 8 - kind.bits
            raw = (raw << shift).view(np.int8) >> shift
    return raw.view(kind.dtype).reshape(shape)


def stored_bytes(array: np.ndarray, number: int) -> bytes:
    """Returns the row-major bytes; types narrower than a byte use only its low bits."""
    if KINDS[number].bits < 8:
        return (array.reshape(-1).view(np.uint8) & ((1 << KINDS[number].bits) - 1)).tobytes()
    return array.tobytes()
