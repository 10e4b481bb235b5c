# SPDX-License-Identifier: Apache-2.0
"""Equality as the tests mean it."""

from __future__ import annotations

from typing import Any

import numpy as np


def same_bits(left: Any, right: Any) -> bool:
    """Equal dtype, shape and bytes, so that NaN equals the same NaN and -0.0 does not equal 0.0."""
    left, right = _as_array(left), _as_array(right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == np.dtype(object):
        return bool(left.reshape(-1).tolist() == right.reshape(-1).tolist())
    return bool(left.tobytes() == right.tobytes())


def _as_array(value: Any) -> np.ndarray:
    # NumPy would make fixed-width text of a scalar string, and drop its trailing zeros.
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


def shows_a_file(array: np.ndarray) -> bool:
    """Whether the memory belongs to something else than NumPy, as that of a mapped file does."""
    root: Any = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    return not isinstance(root, np.ndarray)


def mapped_file(array: np.ndarray) -> tuple[str, str] | None:
    """The file that the array's memory shows and how it is mapped ("rw-p"); None where it is none.

    Linux only: looks into /proc.
    """
    address = array.ctypes.data
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            begin, end = (int(part, 16) for part in fields[0].split("-"))
            if begin <= address < end:
                return (fields[5].strip(), fields[1]) if len(fields) > 5 else None
    return None
