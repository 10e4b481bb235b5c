# SPDX-License-Identifier: Apache-2.0
"""What the tables and vocabularies hold: a formula, so that any part of a result can be checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCK = 1 << 22
"""Elements that are made or compared at a time."""


def _cells(numbers: Array) -> Array:
    """float32 in [1, 2) from element numbers (uint32, wrapping): neighbours look unrelated."""
    bits = numbers * np.uint32(2654435761)
    bits ^= bits >> np.uint32(15)
    bits &= np.uint32(0x007FFFFF)
    bits |= np.uint32(0x3F800000)
    return bits.view(np.float32)


def elements(start: int, stop: int) -> Array:
    """Elements [start, stop) of a table in row-major order; tables have fewer than 2**32."""
    return _cells(np.arange(start, stop, dtype=np.uint32))


def blocks(count: int) -> Iterator[Array]:
    """All `count` elements of a table, in order, a block at a time."""
    for start in range(0, count, BLOCK):
        yield elements(start, min(start + BLOCK, count))


def rows(ids: Array, dim: int) -> Array:
    """The rows of these numbers of a table with `dim` columns."""
    first = (ids.astype(np.uint64) * np.uint64(dim)).astype(np.uint32)
    return _cells(first[:, None] + np.arange(dim, dtype=np.uint32))


def require_table(array: Array, start: int = 0) -> None:
    """Compares with the elements of a table from number `start` on.

    Raises:
        AssertionError: They differ.
    """
    flat = array.reshape(-1)
    for at in range(0, flat.size, BLOCK):
        part = flat[at : at + BLOCK]
        same = np.array_equal(part, elements(start + at, start + at + part.size))
        assert same, f"wrong values among elements {at} to {at + part.size}"


def require_rows(array: Array, ids: Array, dim: int, fill: float | None = None) -> None:
    """Compares gathered rows with the rows of these numbers; -1 is a row of `fill`.

    Raises:
        AssertionError: They differ.
    """
    assert array.shape == (ids.size, dim), array.shape
    step = max(1, BLOCK // dim)
    for at in range(0, ids.size, step):
        part = ids[at : at + step]
        expected = rows(np.maximum(part, 0), dim)
        if fill is not None:
            expected[part < 0] = fill
        assert np.array_equal(array[at : at + step], expected), f"wrong rows from {at} on"


def shuffled(first: int, count: int, seed: int) -> Array:
    """The numbers [first, first + count), shuffled."""
    return np.random.default_rng(seed).permutation(np.arange(first, first + count))


def tokens(numbers: Array) -> Iterator[bytes]:
    """One token per number: 9 to 12 letters, all different."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    mixed = (numbers.astype(np.uint64) * odd) & np.uint64((1 << 44) - 1)
    return (b"t%x" % value for value in mixed.tolist())


def row_ids(kind: str, count: int, table_rows: int) -> Array:
    """Which rows a gather asks for: ``uniform``, ``zipf`` (few rows, often) or ``sorted``."""
    rng = np.random.default_rng(7)
    if kind == "zipf":
        # Exponent 1.05, cut off at the table's end; the popular rows lie anywhere in the table.
        ranks = np.floor(table_rows ** rng.random(count)).astype(np.int64) - 1
        return ranks * 48271 % table_rows
    ids = rng.integers(0, table_rows, count)
    return np.sort(ids) if kind == "sorted" else ids
