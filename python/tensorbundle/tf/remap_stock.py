# SPDX-License-Identifier: Apache-2.0
"""Remapped tables by TensorFlow's own ops.

They take float32 matrices, and refuse two new rows from one old row. Both vocabularies are read
once per table, where TensorFlow reads them for each partition and while it builds the graph.
"""

from __future__ import annotations

from typing import Any

from tensorbundle.errors import UnsupportedError
from tensorbundle.remap_pieces import PieceRemap
from tensorbundle.tf.backup import Fills


class StockRemap:
    """One table, remapped by ``GenerateVocabRemapping`` and ``LoadAndRemapMatrix``.

    Their devices are the caller's, as in TensorFlow: variables on other tasks receive the values.
    """

    def __init__(
        self, prefix: Any, tensor: bytes, vocabularies: tuple[Any, Any], old_size: int, size: int
    ) -> None:
        """Makes no op yet.

        Args:
            prefix: The checkpoint.
            tensor: The table in it.
            vocabularies: The new one's path, and the old one's.
            old_size: How many entries of the old one count; -1: all.
            size: How many entries of the new one any partition needs, from the first.
        """
        self._prefix = prefix
        self._tensor = tensor
        self._vocabularies = vocabularies
        self._old_size = old_size
        self._size = size
        self._all_ids: Any = None

    def num_missing(self, piece: PieceRemap, _: Any) -> Any:
        """An int32 scalar: how many cells of a partition are missing."""
        import tensorflow as tf

        present = tf.reduce_sum(tf.cast(self._ids(piece) >= 0, tf.int32))
        # Wraps from 2**31 on, as TensorFlow's count does: its op takes no more cells anyway.
        return (piece.num_entries - present) * piece.cells_per_entry

    def value(self, piece: PieceRemap, fills: Fills, variable: Any, dtype: Any) -> Any:
        """The remapped partition, of shape `piece.made`.

        Raises:
            UnsupportedError: TensorFlow's op does not take such tables.
        """
        import tensorflow as tf

        if dtype != tf.float32 or len(piece.made) != 2:
            raise UnsupportedError(
                f"{variable.name}: TensorFlow's own op remaps float32 matrices, not "
                f"{dtype.name} of rank {len(piece.made)}; ours, which is used "
                "with op='auto' where it can be loaded, does"
            )
        ids = self._ids(piece)
        rows = ids
        if piece.axis == 1:
            rows = tf.range(piece.offset, piece.offset + piece.num_rows, dtype=tf.int64)
        matrix = tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=self._prefix,
            old_tensor_name=self._tensor,
            row_remapping=rows,
            col_remapping=ids if piece.axis == 1 else tf.zeros([0], tf.int64),
            initializing_values=self._cells(piece, fills, ids),
            num_rows=piece.num_rows,
            num_cols=piece.num_cols if piece.axis == 1 else piece.made[1],
        )
        if piece.num_oov == 0:
            return matrix
        return tf.concat([matrix, _oov_block(piece, fills)], piece.axis)

    def verification(self, *_: Any) -> None:
        """Nothing: TensorFlow's op compares checksums itself."""

    def _ids(self, piece: PieceRemap) -> Any:
        """The old rows, or columns, of the entries that a partition takes."""
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
        return tf.slice(self._all_ids, [piece.first_entry], [piece.num_entries])

    def _cells(self, piece: PieceRemap, fills: Fills, ids: Any) -> Any:
        import tensorflow as tf

        if fills.layout == "cells":
            return fills.tensors[0]
        if fills.layout == "zero":
            return tf.zeros([self.num_missing(piece, None)])
        width = piece.made[1] if piece.axis == 0 else piece.num_cols
        body = tf.slice(fills.tensors[0], [0, 0], [piece.num_rows, width])
        return tf.boolean_mask(body, ids < 0, axis=piece.axis)


def _oov_block(piece: PieceRemap, fills: Fills) -> Any:
    import tensorflow as tf

    if fills.layout == "zero":
        return tf.zeros(piece.oov_shape)
    if fills.layout == "cells":
        return fills.tensors[1]
    begin = [piece.num_rows, 0] if piece.axis == 0 else [0, piece.num_cols]
    return tf.slice(fills.tensors[0], begin, piece.oov_shape)


def _unfolded(path: Any) -> Any:
    """A path that TensorFlow cannot see through while it builds and optimises the graph.

    Its op counts as a pure function of constants otherwise, and is run to find out shapes.
    """
    import tensorflow as tf

    return tf.compat.v1.placeholder_with_default(tf.constant(path), [])
