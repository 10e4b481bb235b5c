# SPDX-License-Identifier: Apache-2.0
"""Remapping by TensorFlow's own ops.

The ops support only float32 matrices, and fail if two new rows come from one old row. Both
vocabularies are read once per table; TensorFlow's function reads them once per partition, and while
it builds the graph.
"""

from __future__ import annotations

from typing import Any

from tensorbundle.errors import UnsupportedError
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.warm_plan import PartitionRemap


class StockRemap:
    """One table, remapped by ``GenerateVocabRemapping`` and ``LoadAndRemapMatrix``.

    The ops run on the caller's device, as in TensorFlow, and values are sent to other tasks.
    """

    def __init__(
        self, prefix: Any, tensor: bytes, vocabularies: tuple[Any, Any], old_size: int, size: int
    ) -> None:
        """Creates no ops.

        Args:
            prefix: The checkpoint.
            tensor: The table in it.
            vocabularies: The paths of the new and the old vocabulary.
            old_size: How many entries of the old vocabulary are used; -1: all.
            size: How many entries of the new vocabulary are used, from the first.
        """
        self._prefix = prefix
        self._tensor = tensor
        self._vocabularies = vocabularies
        self._old_size = old_size
        self._size = size
        self._all_ids: Any = None

    def num_missing(self, partition: PartitionRemap, _: Any) -> Any:
        """Returns an int32 scalar: the number of missing cells of a partition."""
        import tensorflow as tf

        present = tf.reduce_sum(tf.cast(self._ids(partition) >= 0, tf.int32))
        # Overflows at 2**31 like TensorFlow's count: its op does not support more cells.
        return (partition.num_entries - present) * partition.cells_per_entry

    def value(self, partition: PartitionRemap, fill: FillValues, variable: Any, dtype: Any) -> Any:
        """Returns the remapped partition, of shape `partition.remapped_shape`.

        Raises:
            UnsupportedError: TensorFlow's op does not support the table.
        """
        import tensorflow as tf

        if dtype != tf.float32 or len(partition.remapped_shape) != 2:
            raise UnsupportedError(
                f"{variable.name}: TensorFlow's own op remaps float32 matrices, not "
                f"{dtype.name} of rank {len(partition.remapped_shape)}; ours, which is used "
                "with op='auto' where it can be loaded, does"
            )
        ids = self._ids(partition)
        rows = ids
        if partition.axis == 1:
            rows = tf.range(partition.offset, partition.offset + partition.num_rows, dtype=tf.int64)
        matrix = tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=self._prefix,
            old_tensor_name=self._tensor,
            row_remapping=rows,
            col_remapping=ids if partition.axis == 1 else tf.zeros([0], tf.int64),
            initializing_values=self._cells(partition, fill, ids),
            num_rows=partition.num_rows,
            num_cols=partition.num_cols if partition.axis == 1 else partition.remapped_shape[1],
        )
        if partition.num_oov == 0:
            return matrix
        return tf.concat([matrix, _oov_block(partition, fill)], partition.axis)

    def verification(self, *_: Any) -> None:
        """Returns None: TensorFlow's op compares the checksums itself."""

    def _ids(self, partition: PartitionRemap) -> Any:
        """Returns the old rows, or columns, of a partition's entries."""
        import tensorflow as tf

        if self._all_ids is None:
            new, old = map(_unfolded, self._vocabularies)
            self._all_ids, _ = tf.raw_ops.GenerateVocabRemapping(
                new_vocab_file=new,
                old_vocab_file=old,
                new_vocab_offset=0,
                num_new_vocab=self._size,
                old_vocab_size=self._old_size,
            )
        return tf.slice(self._all_ids, [partition.first_entry], [partition.num_entries])

    def _cells(self, partition: PartitionRemap, fill: FillValues, ids: Any) -> Any:
        import tensorflow as tf

        if fill.layout == "cells":
            return fill.tensors[0]
        if fill.layout == "zero":
            return tf.zeros([self.num_missing(partition, None)])
        width = partition.remapped_shape[1] if partition.axis == 0 else partition.num_cols
        body = tf.slice(fill.tensors[0], [0, 0], [partition.num_rows, width])
        return tf.boolean_mask(body, ids < 0, axis=partition.axis)


def _oov_block(partition: PartitionRemap, fill: FillValues) -> Any:
    import tensorflow as tf

    if fill.layout == "zero":
        return tf.zeros(partition.oov_shape)
    if fill.layout == "cells":
        return fill.tensors[1]
    begin = [partition.num_rows, 0] if partition.axis == 0 else [0, partition.num_cols]
    return tf.slice(fill.tensors[0], begin, partition.oov_shape)


def _unfolded(path: Any) -> Any:
    """Returns a path that TensorFlow does not constant-fold.

    Otherwise its op is a stateless function of constants, and runs during shape inference.
    """
    import tensorflow as tf

    return tf.compat.v1.placeholder_with_default(tf.constant(path), [])
