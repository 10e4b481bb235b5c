# SPDX-License-Identifier: Apache-2.0
"""Remapping of a table whose stored type differs from its variable's type.

The remap ops have a single type. Fill values must not be converted to a stored type that is
narrower than the variable's: the backup initializer's values must not lose precision.
"""

from __future__ import annotations

from typing import Any

from tensorbundle.remap_partitions import PartitionRemap
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.read_backends import on_cpu_of

# (bits of the exponent, bits of the mantissa).
_BITS = {
    "float16": (5, 10),
    "bfloat16": (8, 7),
    "float32": (8, 23),
    "float64": (11, 52),
    "float8_e5m2": (5, 2),
    "float8_e4m3fn": (4, 3),
}


def value(
    remapper: Any, partition: PartitionRemap, fill: FillValues, variable: Any, stored: Any
) -> Any:
    """Returns the remapped partition, of shape `partition.remapped_shape`, in the variable's type.

    Args:
        remapper: The backend that remaps the table.
        partition: The partition.
        fill: The fill values, in the variable's type.
        variable: The variable.
        stored: The table's ``tf.DType``.
    """
    import tensorflow as tf

    wanted = variable.dtype.base_dtype
    if stored == wanted:
        return remapper.value(partition, fill, variable, stored)
    with on_cpu_of(variable):
        if fill.layout != "zero" and not _holds(stored, wanted):
            return _fill_after_cast(remapper, partition, fill, variable, stored)
        given = FillValues(fill.layout, tuple(tf.cast(each, stored) for each in fill.tensors))
        return tf.cast(remapper.value(partition, given, variable, stored), wanted)


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether `wide` can represent every value of `narrow`."""
    pairs = zip(_BITS[wide.name], _BITS[narrow.name], strict=True)
    return all(a >= b for a, b in pairs)


def _fill_after_cast(
    remapper: Any, partition: PartitionRemap, fill: FillValues, variable: Any, stored: Any
) -> Any:
    """Converts the remapped table, then writes the fill values.

    Missing cells are found by remapping twice: they are 0 if filled with zeros and 1 if filled with
    ones.
    """
    import tensorflow as tf

    ones = FillValues("full", (tf.ones(partition.remapped_shape, stored),))
    zeros = remapper.value(partition, FillValues("zero", ()), variable, stored)
    filled = remapper.value(partition, ones, variable, stored)
    missing = tf.equal(zeros, 0) & tf.equal(filled, 1)
    table = tf.cast(zeros, variable.dtype.base_dtype)
    if fill.layout == "full":
        return tf.where(missing, fill.tensors[0], table)
    if partition.num_oov == 0:
        return _scatter(table, missing, fill.tensors[0])
    known = partition.num_rows if partition.axis == 0 else partition.num_cols
    size = [
        known if axis == partition.axis else -1 for axis in range(len(partition.remapped_shape))
    ]
    begin = [0] * len(partition.remapped_shape)
    body = _scatter(tf.slice(table, begin, size), tf.slice(missing, begin, size), fill.tensors[0])
    return tf.concat([body, fill.tensors[1]], partition.axis)


def _scatter(table: Any, missing: Any, cells: Any) -> Any:
    """Writes `cells` to the missing cells of the table, in row-major order."""
    import tensorflow as tf

    return tf.tensor_scatter_nd_update(table, tf.where(missing), tf.reshape(cells, [-1]))
