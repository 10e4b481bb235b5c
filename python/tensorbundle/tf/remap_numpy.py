# SPDX-License-Identifier: Apache-2.0
"""Remapping by our reader, if the op library cannot be loaded.

In this process only: other processes cannot run its NumPy functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensorbundle import vocab
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.tf import fill_values
from tensorbundle.tf.errors import as_tensorflow_raises, invalid_argument, shape_mismatch
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.warm_plan import PartitionRemap

Array = np.ndarray[Any, Any]


class NumpyRemap(NamedTuple):
    """One table, remapped when the graph runs, or now in eager mode.

    Attributes:
        prefix: The checkpoint.
        tensor: The table in it.
        new_vocab: The new vocabulary's path.
        old_vocab: The old vocabulary's path.
        old_size: How many entries of the old vocabulary are used; -1: all.
        verify: Whether the table's checksums are compared.
        threads: The number of threads for reads; None: the default.
    """

    prefix: bytes
    tensor: str
    new_vocab: bytes
    old_vocab: bytes
    old_size: int
    verify: bool
    threads: int | None

    def num_missing(self, partition: PartitionRemap, _: Any) -> Any:
        """Returns the number of missing cells of a partition, as int32 if it fits."""
        import tensorflow as tf

        dtype = tf.int32 if partition.counts_in_int32 else tf.int64

        def missing() -> Array:
            ids = self._ids(partition)
            cells = int(np.count_nonzero(ids < 0)) * partition.cells_per_entry
            return np.array(cells, dtype.as_numpy_dtype)

        return _called(missing, (), dtype, (), "missing_cells")

    def value(self, partition: PartitionRemap, fill: FillValues, _: Any, dtype: Any) -> Any:
        """Returns the remapped partition, of shape `partition.remapped_shape`."""

        def remapped(*given: Array) -> Array:
            return self._read(partition, fill.layout, given, dtype.name)

        return _called(
            remapped, fill.tensors, dtype, partition.remapped_shape, "checkpoint_initializer"
        )

    def verification(self, *_: Any) -> Any:
        """Returns a scalar that fails to compute if the table is corrupt, or None."""
        import tensorflow as tf

        if not self.verify:
            return None

        def verified() -> Array:
            with as_tensorflow_raises(), self._open() as checkpoint:
                checkpoint.verify([self.tensor]).raise_for_damage()
            return np.array(True)

        return _called(verified, (), tf.bool, (), "checkpoint_initializer_verify")

    def _open(self) -> Checkpoint:
        # pread: if the file is truncated meanwhile, reading raises an exception instead of SIGBUS.
        return Checkpoint(self.prefix, verify="none", io="pread", threads=self.threads)

    def _ids(self, partition: PartitionRemap) -> Array:
        with as_tensorflow_raises():
            return vocab.remap_vocab(
                self.new_vocab,
                self.old_vocab,
                new_size=partition.num_entries,
                new_offset=partition.first_entry,
                old_size=None if self.old_size < 0 else self.old_size,
            ).ids

    def _read(
        self, partition: PartitionRemap, layout: str, given: tuple[Array, ...], dtype: str
    ) -> Array:
        ids = self._ids(partition)
        with as_tensorflow_raises(), self._open() as checkpoint:
            table = checkpoint[self.tensor]
            if table.stored_dtype != dtype:
                raise invalid_argument(
                    f"Tensor {self.tensor} has invalid type {table.stored_dtype} instead of "
                    f"expected type {dtype}"
                )
            self._check_shape(table.shape, partition)
            rows, columns = ids, None
            if partition.axis == 1:
                rows, columns = partition.offset + np.arange(partition.num_rows), ids
            return vocab.load_and_remap(
                table,
                rows=rows,
                columns=columns,
                fill=_fill(partition, layout, given, ids),
                num_oov_rows=partition.num_oov if partition.axis == 0 else 0,
                num_oov_columns=partition.num_oov if partition.axis == 1 else 0,
            )

    def _check_shape(self, stored: tuple[int, ...], partition: PartitionRemap) -> None:
        kept = 1 if partition.axis == 0 else 2
        if (
            len(stored) != len(partition.remapped_shape)
            or stored[kept:] != partition.remapped_shape[kept:]
        ):
            raise shape_mismatch(
                f"Tensor {self.tensor} has shape {list(stored)}, from which no variable of shape "
                f"{list(partition.remapped_shape)} can be made by another vocabulary on axis "
                f"{partition.axis}"
            )


def _fill(partition: PartitionRemap, layout: str, given: tuple[Array, ...], ids: Array) -> Any:
    """Converts the fill values to the argument of ``load_and_remap``."""
    if layout == "zero":
        return 0
    if layout == "full":
        body, oov = np.split(given[0], [partition.num_entries], axis=partition.axis)
        given = (np.compress(ids < 0, body, axis=partition.axis), oov)
    return np.concatenate([np.reshape(part, -1) for part in given])


def _called(
    function: Callable[..., Array],
    inputs: tuple[Any, ...],
    dtype: Any,
    shape: tuple[int, ...],
    name: str,
) -> Any:
    """Calls a function now in eager mode, or each time the graph runs."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return tf.constant(function(*[value.numpy() for value in inputs]), dtype)
    value = tf.numpy_function(function, list(inputs), dtype, name=name)
    fill_values.mark_repeatable(value.op)
    value.set_shape(shape)
    return value
