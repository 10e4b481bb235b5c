# SPDX-License-Identifier: Apache-2.0
"""Tensors with the remapped values of a table's variables.

Building the graph reads neither the table nor the vocabularies. When it runs, the two vocabularies
are joined once per process, for all partitions of all tables that share them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple, Protocol

from tensorbundle.filenames import path_text
from tensorbundle.load_plan import Stored
from tensorbundle.tf import backend, checkpoint_index, read_backends
from tensorbundle.tf.checkpoint_index import key_of
from tensorbundle.tf.errors import path_with_nul
from tensorbundle.tf.fill_values import (
    FillValues,
    build_fill_values,
    build_partition,
    from_whole_partition,
    initial_value,
)
from tensorbundle.tf.options import Options
from tensorbundle.tf.read_backends import on_cpu_of
from tensorbundle.tf.remap_numpy import NumpyRemap
from tensorbundle.tf.remap_stock import StockRemap
from tensorbundle.tf.variables import on_another_job
from tensorbundle.warm_plan import PartitionRemap, Remap

# (bits of the exponent, bits of the mantissa).
_BITS = {
    "float16": (5, 10),
    "bfloat16": (8, 7),
    "float32": (8, 23),
    "float64": (11, 52),
    "float8_e5m2": (5, 2),
    "float8_e4m3fn": (4, 3),
}


def remap_and_cast(
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


_NAME = "checkpoint_initializer"


class Remapper(Protocol):
    """A backend that remaps one table."""

    def num_missing(self, partition: PartitionRemap, variable: Any, /) -> Any:
        """Returns a scalar tensor: the number of missing cells of a partition."""

    def value(
        self, partition: PartitionRemap, fill: FillValues, variable: Any, dtype: Any, /
    ) -> Any:
        """Returns the remapped partition in the table's type; shape: `partition.remapped_shape`."""

    def verification(self, near: Any, dtype: Any, /) -> Any:
        """Returns a tensor whose computation fails if the table is corrupt, or None."""


class OpRemap(NamedTuple):
    """One table, remapped by our ops in the process where they run.

    Attributes:
        library: The op library.
        prefix: The checkpoint.
        tensor: The table in it.
        new_vocab: The new vocabulary's path.
        old_vocab: The old vocabulary's path.
        new_size: How many entries of the new vocabulary are used, from the first.
        old_size: How many entries of the old vocabulary are used; -1: all.
        options: The options in effect at the call.
    """

    library: Any
    prefix: bytes
    tensor: bytes
    new_vocab: bytes
    old_vocab: bytes
    new_size: int
    old_size: int
    options: Options

    def num_missing(self, partition: PartitionRemap, variable: Any) -> Any:
        """Returns the number of missing cells of a partition, as int32 if it fits."""
        import tensorflow as tf

        with read_backends.on_cpu_of(variable):
            count = self.library.tensorbundle_missing_v1(
                new_vocab=self.new_vocab,
                old_vocab=self.old_vocab,
                new_size=self.new_size,
                old_size=self.old_size,
                offset=partition.first_entry,
                num_new=partition.num_entries,
                cells_per_entry=partition.cells_per_entry,
                out_type=tf.int32 if partition.counts_in_int32 else tf.int64,
                name="missing_cells",
            )
        count.set_shape([])
        return count

    def value(self, partition: PartitionRemap, fill: FillValues, variable: Any, dtype: Any) -> Any:
        """Returns the remapped partition, of shape `partition.remapped_shape`."""
        with read_backends.on_cpu_of(variable):
            value = self.library.tensorbundle_remap_v1(
                fills=list(fill.tensors),
                prefix=self.prefix,
                tensor=self.tensor,
                dtype=dtype,
                axis=partition.axis,
                new_vocab=self.new_vocab,
                old_vocab=self.old_vocab,
                new_size=self.new_size,
                old_size=self.old_size,
                offset=partition.offset,
                num_rows=partition.num_rows,
                num_cols=partition.num_cols,
                num_oov=partition.num_oov,
                fill_layout=fill.layout,
                shape=list(partition.remapped_shape),
                threads=self.options.threads or 0,
                name=_NAME,
            )
        value.set_shape(partition.remapped_shape)
        return value

    def verification(self, near: Any, dtype: Any) -> Any:
        """Returns a tensor that fails to compute if the table is corrupt, or None."""
        if self.options.verification(mapped=False) != "full":
            return None
        with read_backends.on_cpu_of(near):
            return self.library.tensorbundle_verify_v1(
                parts=[],
                prefix=self.prefix,
                tensor=self.tensor,
                dtype=dtype,
                name="checkpoint_initializer_verify",
            )


def remap_variable(
    prefix: bytes, step: Remap, stored: Stored | None, variables: list[Any], options: Options
) -> list[Any]:
    """Returns the initial values of a table's variables, remapped to the new vocabulary.

    Args:
        prefix: The checkpoint.
        step: The plan for this table.
        stored: The table; None if it is not known yet.
        variables: Its partitions, in the order of the plan's.
        options: The options in effect at the call.

    Returns:
        A tensor per partition. If the table is verified and corrupt, computing any of them fails.

    Raises:
        UnsupportedError: TensorFlow's own ops must be used and do not support the table.
        TypeError: The backup initializer returns values of another type.
    """
    import tensorflow as tf

    dtype = variables[0].dtype.base_dtype
    if stored is not None and stored.dtype is not None:
        dtype = tf.as_dtype(stored.dtype)
    key = step.tensor if stored is None else stored.key
    remapper = _remapper(prefix, step, key, variables, options)
    verified = None
    if not all(partition.is_all_oov for partition in step.partitions):
        verified = remapper.verification(variables[0], dtype)
    remapped = []
    for partition, variable in zip(step.partitions, variables, strict=True):
        with _fill_device(remapper, variable):
            value = _value(remapper, partition, step, variable, dtype)
        remapped.append(_after(verified, value, variable))
    return remapped


def _fill_device(remapper: Remapper, variable: Any) -> contextlib.AbstractContextManager[None]:
    """Returns the device scope for the fill values: the task of a variable in another process.

    For variables of this process it is the caller's device, as in TensorFlow: seeded values depend
    on it.
    """
    if isinstance(remapper, OpRemap) and on_another_job(variable):
        return read_backends.on_cpu_of(variable)
    return contextlib.nullcontext()


def _value(
    remapper: Remapper, partition: PartitionRemap, step: Remap, variable: Any, stored: Any
) -> Any:
    """Returns a partition's initial value."""
    import tensorflow as tf

    dtype = variable.dtype.base_dtype
    if step.slot_of is not None:
        current = initial_value(variable)
        if partition.is_all_oov:
            return current
        fill = from_whole_partition(current, partition)
    else:
        initializer = step.info.backup_initializer
        if partition.is_all_oov:
            return build_partition(initializer, partition, dtype)
        fill = build_fill_values(
            initializer, partition, dtype, lambda: remapper.num_missing(partition, variable)
        )
    value = remap_and_cast(remapper, partition, fill, variable, stored)
    return (
        tf.slice(value, partition.window_offset, partition.shape) if partition.is_window else value
    )


def _after(verified: Any, value: Any, variable: Any) -> Any:
    """Makes a value depend on the verification of its table."""
    import tensorflow as tf

    if verified is None or tf.executing_eagerly():
        return value
    with read_backends.on_cpu_of(variable), tf.control_dependencies([verified]):
        return tf.identity(value, name=_NAME)


def _remapper(
    prefix: bytes, step: Remap, key: str, variables: list[Any], options: Options
) -> Remapper:
    info = step.info
    new_vocab, old_vocab = map(path_in_ops, (info.new_vocab, info.old_vocab))
    size = step.wanted
    name = _backend_name((prefix, new_vocab, old_vocab), variables, options)
    if name == "stock":
        old_size = info.old_vocab_size
        return StockRemap(prefix, key_of(key), (new_vocab, old_vocab), old_size, size)
    if name == "op":
        return OpRemap(
            library=read_backends.library_in_use(),
            prefix=prefix,
            tensor=key_of(key),
            new_vocab=new_vocab,
            old_vocab=old_vocab,
            new_size=size,
            old_size=info.old_vocab_size,
            options=options,
        )
    verify = options.verification(mapped=False) == "full"
    return NumpyRemap(
        prefix, key, new_vocab, old_vocab, info.old_vocab_size, verify, options.threads
    )


def _backend_name(paths: tuple[bytes, ...], variables: list[Any], options: Options) -> str:
    """Returns the backend for all partitions of a table: ``"op"``, ``"numpy"`` or ``"stock"``."""
    if any(checkpoint_index.is_remote(path) for path in paths):
        return "stock"
    backends = {backend.backend_for(variable, options) for variable in variables}
    return backends.pop() if len(backends) == 1 else "stock"


def path_in_ops(path: Any) -> bytes:
    """Returns a vocabulary's path as an attribute of ops. Relative paths stay relative.

    Raises:
        TypeError: It is not a path.
        ValueError: It contains a NUL byte, or a character that no file name can have.
    """
    try:
        text = os.fsencode(path)
    except UnicodeEncodeError:
        text = os.fsencode(path_text(path))  # raises a ValueError that names the character
    if b"\0" in text:
        raise path_with_nul(os.fsdecode(text))
    return text if checkpoint_index.is_remote(text) else os.fsencode(path_text(text))
