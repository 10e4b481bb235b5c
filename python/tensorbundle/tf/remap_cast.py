# SPDX-License-Identifier: Apache-2.0
"""A remapped table whose stored type is converted to its variable's.

Our ops work in one type. What the table lacks must not go through a stored type that is narrower
than the variable's: the backup initializer's values stay what they are.
"""

from __future__ import annotations

from typing import Any

from tensorbundle.remap_pieces import PieceRemap
from tensorbundle.tf.backup import Fills
from tensorbundle.tf.values import on_cpu_of

# Bits of exponent and mantissa.
_BITS = {
    "float16": (5, 10),
    "bfloat16": (8, 7),
    "float32": (8, 23),
    "float64": (11, 52),
    "float8_e5m2": (5, 2),
    "float8_e4m3fn": (4, 3),
}


def value(remapper: Any, piece: PieceRemap, fills: Fills, variable: Any, stored: Any) -> Any:
    """The remapped partition, of shape `piece.made`, in the variable's type.

    Args:
        remapper: What remaps the table.
        piece: The partition.
        fills: What missing cells get, in the variable's type.
        variable: The variable.
        stored: The table's ``tf.DType``.
    """
    import tensorflow as tf

    wanted = variable.dtype.base_dtype
    if stored == wanted:
        return remapper.value(piece, fills, variable, stored)
    with on_cpu_of(variable):
        if fills.layout != "zero" and not _holds(stored, wanted):
            return _filled_later(remapper, piece, fills, variable, stored)
        given = Fills(fills.layout, tuple(tf.cast(each, stored) for each in fills.tensors))
        return tf.cast(remapper.value(piece, given, variable, stored), wanted)


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether every value of one type is one of another."""
    pairs = zip(_BITS[wide.name], _BITS[narrow.name], strict=True)
    return all(a >= b for a, b in pairs)


def _filled_later(
    remapper: Any, piece: PieceRemap, fills: Fills, variable: Any, stored: Any
) -> Any:
    """The table converted, and then what it lacks put in.

    A cell is missing where it gets whatever it is filled with.
    """
    import tensorflow as tf

    ones = Fills("full", (tf.ones(piece.made, stored),))
    zeros = remapper.value(piece, Fills("zero", ()), variable, stored)
    filled = remapper.value(piece, ones, variable, stored)
    missing = tf.equal(zeros, 0) & tf.equal(filled, 1)
    table = tf.cast(zeros, variable.dtype.base_dtype)
    if fills.layout == "full":
        return tf.where(missing, fills.tensors[0], table)
    if piece.num_oov == 0:
        return _put(table, missing, fills.tensors[0])
    known = piece.num_rows if piece.axis == 0 else piece.num_cols
    size = [known if axis == piece.axis else -1 for axis in range(len(piece.made))]
    begin = [0] * len(piece.made)
    body = _put(tf.slice(table, begin, size), tf.slice(missing, begin, size), fills.tensors[0])
    return tf.concat([body, fills.tensors[1]], piece.axis)


def _put(table: Any, missing: Any, cells: Any) -> Any:
    """The table with its missing cells, in row-major order."""
    import tensorflow as tf

    return tf.tensor_scatter_nd_update(table, tf.where(missing), tf.reshape(cells, [-1]))
