# SPDX-License-Identifier: Apache-2.0
"""Tensors of strings and variants: object arrays of ``bytes``, read by stored slices.

Elements have no fixed size, so a stored slice is read whole, whatever is wanted of it. Memory
follows what is wanted and stored, never the declared shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorbundle.errors import CorruptionError

if TYPE_CHECKING:
    from tensorbundle import _core

Array = np.ndarray[Any, Any]


def read_box(
    core: _core.Checkpoint,
    index: int,
    starts: Sequence[int],
    lengths: Sequence[int],
    verify: bool,
) -> Array:
    """The elements of a box, as an array of its lengths.

    Raises:
        CorruptionError: An element is stored nowhere or twice, or the stored bytes are damaged.
    """
    pieces = core.slices_of_box(index, starts, lengths)
    result = np.empty(tuple(lengths), object)
    for piece, piece_starts, piece_lengths, first, count in pieces:
        elements = read_piece(core, index, piece, piece_lengths, verify)
        result[_slices(first, count, starts)] = elements[_slices(first, count, piece_starts)]
    return result


def read_piece(
    core: _core.Checkpoint, index: int, piece: int, lengths: Sequence[int], verify: bool
) -> Array:
    """All elements of a stored slice."""
    elements = core.read_strings(index, piece, verify=verify)
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(tuple(lengths))


def take_rows(
    core: _core.Checkpoint, index: int, shape: Sequence[int], rows: Array, name: str, verify: bool
) -> Array:
    """Rows by number, in the order of `rows`, which are inside the tensor.

    Raises:
        CorruptionError: An element of them is stored nowhere or twice, or the stored bytes are
            damaged.
    """
    wanted, places = np.unique(rows, return_inverse=True)
    met = []
    stored = np.zeros(len(wanted), np.int64)  # elements per row
    for piece, (piece_starts, piece_lengths, *_) in enumerate(core.slices(index)):
        begin, end = np.searchsorted(wanted, [piece_starts[0], piece_starts[0] + piece_lengths[0]])
        if begin < end and math.prod(piece_lengths):
            met.append((piece, piece_starts, piece_lengths, slice(int(begin), int(end))))
            stored[begin:end] += math.prod(piece_lengths[1:])
    for row in wanted[stored != math.prod(shape[1:])][:1].tolist():
        # Says which elements are missing, or stored twice; or finds the two even.
        core.require_box(index, [row, *[0] * (len(shape) - 1)], [1, *shape[1:]])
    result = np.empty((len(wanted), *shape[1:]), object)
    filled = np.zeros(result.shape, bool)
    for piece, piece_starts, piece_lengths, where in met:
        elements = read_piece(core, index, piece, piece_lengths, verify)
        columns = (
            slice(a, a + n) for a, n in zip(piece_starts[1:], piece_lengths[1:], strict=True)
        )
        target = (where, *columns)
        if filled[target].any():
            raise CorruptionError(f"tensor {name!r}: an element is stored in two slices")
        filled[target] = True
        result[target] = elements[wanted[where] - piece_starts[0]]
    return result[places.reshape(rows.shape)]


def _slices(
    starts: Sequence[int], lengths: Sequence[int], origin: Sequence[int]
) -> tuple[slice, ...]:
    """A box as an index into an array that begins at `origin`."""
    parts = zip(starts, lengths, origin, strict=True)
    return tuple(slice(a - o, a - o + n) for a, n, o in parts)
