# SPDX-License-Identifier: Apache-2.0
"""Comparisons of arrays, and the memory that they refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb


def same_bits(left: Any, right: Any) -> bool:
    """Compares dtype, shape and bytes: NaN equals the same NaN, and -0.0 differs from 0.0."""
    left, right = _as_array(left), _as_array(right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == np.dtype(object):
        return bool(left.reshape(-1).tolist() == right.reshape(-1).tolist())
    return bool(left.tobytes() == right.tobytes())


def _as_array(value: Any) -> np.ndarray:
    # NumPy converts a scalar string to fixed-width text and drops its trailing zeros.
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


def shows_a_file(array: np.ndarray) -> bool:
    """Returns whether an object other than a NumPy array owns the memory, as for a mapped file."""
    root: Any = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    return not isinstance(root, np.ndarray)


def mapped_file(array: np.ndarray) -> tuple[str, str] | None:
    """Returns the file that backs the array's memory and its permissions ("rw-p"), or None.

    Linux only: reads /proc/self/maps.
    """
    address = array.ctypes.data
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            begin, end = (int(bound, 16) for bound in fields[0].split("-"))
            if begin <= address < end:
                return (fields[5].strip(), fields[1]) if len(fields) > 5 else None
    return None


def stored_tensors(path: str | Path) -> dict[str, Any]:
    """Returns the type, the slices and the bytes of every tensor."""
    result = {}
    with tb.open(path) as ck:
        for name, tensor in ck.items():
            slices = []
            for part in tensor.slices:
                with open(part.file, "rb") as file:
                    file.seek(part.file_offset)
                    slices.append((part.offset, part.shape, part.crc32c, file.read(part.nbytes)))
            result[name] = tensor.stored_dtype, tensor.shape, slices
    return result
