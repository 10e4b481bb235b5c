# SPDX-License-Identifier: Apache-2.0
"""Remapped tables through our own reader, where the op library cannot be loaded.

In this process only: who runs the graph elsewhere does not have these functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensorbundle import vocab
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.remap_pieces import PieceRemap
from tensorbundle.tf import copies
from tensorbundle.tf.backup import Fills
from tensorbundle.tf.errors import as_tensorflow_raises, invalid_argument, shape_mismatch

Array = np.ndarray[Any, Any]


class NumpyRemap(NamedTuple):
    """One table, remapped when the graph runs, or at once in eager mode.

    Attributes:
        prefix: The checkpoint.
        tensor: The table in it.
        new_vocab: The new vocabulary's path.
        old_vocab: The old one's.
        old_size: How many entries of the old one count; -1: all.
        verify: Whether the table's checksums are compared.
        threads: For reads and joins; None: as many as the process may use.
    """

    prefix: bytes
    tensor: str
    new_vocab: bytes
    old_vocab: bytes
    old_size: int
    verify: bool
    threads: int | None

    def num_missing(self, piece: PieceRemap, _: Any) -> Any:
        """A scalar, int32 where that suffices: how many cells of a partition are missing."""
        import tensorflow as tf

        dtype = tf.int32 if piece.counts_in_int32 else tf.int64

        def missing() -> Array:
            ids = self._ids(piece)
            cells = int(np.count_nonzero(ids < 0)) * piece.cells_per_entry
            return np.array(cells, dtype.as_numpy_dtype)

        return _called(missing, (), dtype, (), "missing_cells")

    def value(self, piece: PieceRemap, fills: Fills, _: Any, dtype: Any) -> Any:
        """The remapped partition, of shape `piece.made`."""

        def remapped(*given: Array) -> Array:
            return self._read(piece, fills.layout, given, dtype.name)

        return _called(remapped, fills.tensors, dtype, piece.made, "checkpoint_initializer")

    def verification(self, *_: Any) -> Any:
        """A scalar that is computed only if the table is undamaged; None where nobody asks."""
        import tensorflow as tf

        if not self.verify:
            return None

        def verified() -> Array:
            with as_tensorflow_raises(), self._open() as checkpoint:
                checkpoint.verify([self.tensor]).raise_for_damage()
            return np.array(True)

        return _called(verified, (), tf.bool, (), "checkpoint_initializer_verify")

    def _open(self) -> Checkpoint:
        # Reads, no mappings: a file that is cut off meanwhile is an error and nothing worse.
        return Checkpoint(self.prefix, verify="none", io="pread", threads=self.threads)

    def _ids(self, piece: PieceRemap) -> Array:
        with as_tensorflow_raises():
            return vocab.remap_vocab(
                self.new_vocab,
                self.old_vocab,
                new_size=piece.num_entries,
                new_offset=piece.first_entry,
                old_size=None if self.old_size < 0 else self.old_size,
            ).ids

    def _read(self, piece: PieceRemap, layout: str, given: tuple[Array, ...], dtype: str) -> Array:
        ids = self._ids(piece)
        with as_tensorflow_raises(), self._open() as checkpoint:
            table = checkpoint[self.tensor]
            if table.stored_dtype != dtype:
                raise invalid_argument(
                    f"Tensor {self.tensor} has invalid type {table.stored_dtype} instead of "
                    f"expected type {dtype}"
                )
            self._check_shape(table.shape, piece)
            rows, columns = ids, None
            if piece.axis == 1:
                rows, columns = piece.offset + np.arange(piece.num_rows), ids
            return vocab.load_and_remap(
                table,
                rows=rows,
                columns=columns,
                fill=_fill(piece, layout, given, ids),
                num_oov_rows=piece.num_oov if piece.axis == 0 else 0,
                num_oov_columns=piece.num_oov if piece.axis == 1 else 0,
            )

    def _check_shape(self, stored: tuple[int, ...], piece: PieceRemap) -> None:
        kept = 1 if piece.axis == 0 else 2
        if len(stored) != len(piece.made) or stored[kept:] != piece.made[kept:]:
            raise shape_mismatch(
                f"Tensor {self.tensor} has shape {list(stored)}, from which no variable of shape "
                f"{list(piece.made)} can be made by another vocabulary on axis {piece.axis}"
            )


def _fill(piece: PieceRemap, layout: str, given: tuple[Array, ...], ids: Array) -> Any:
    """The missing cells' values, as ``load_and_remap`` takes them."""
    if layout == "zero":
        return 0
    if layout == "full":
        body, oov = np.split(given[0], [piece.num_entries], axis=piece.axis)
        given = (np.compress(ids < 0, body, axis=piece.axis), oov)
    return np.concatenate([np.reshape(part, -1) for part in given])


def _called(
    function: Callable[..., Array],
    inputs: tuple[Any, ...],
    dtype: Any,
    shape: tuple[int, ...],
    name: str,
) -> Any:
    """What a function of ours returns: now in eager mode, else whenever the graph runs."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return tf.constant(function(*[value.numpy() for value in inputs]), dtype)
    value = tf.numpy_function(function, list(inputs), dtype, name=name)
    copies.mark_repeatable(value.op)
    value.set_shape(shape)
    return value
