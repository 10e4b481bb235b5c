# SPDX-License-Identifier: Apache-2.0
"""The values of a table's variables, remapped to the new vocabulary.

Building the graph reads neither the table nor the vocabularies. When it runs, the two vocabularies
are joined once per process, for all partitions of all tables that share them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tensorbundle.filenames import path_text
from tensorbundle.load_plan import Stored
from tensorbundle.tf.backend import NAME, Backend, Table, is_native_for_remaps, on_cpu_of
from tensorbundle.tf.checkpoint_index import is_remote, key_of
from tensorbundle.tf.errors import path_with_nul
from tensorbundle.tf.fill_values import (
    FillValues,
    build_fill_values,
    build_partition,
    from_whole_partition,
    initial_value,
)
from tensorbundle.tf.native_backend import NativeBackend
from tensorbundle.tf.options import Options
from tensorbundle.tf.stock_backend import StockBackend, can_remap
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


def remap_variable(
    prefix: bytes, step: Remap, stored: Stored | None, variables: Sequence[Any], options: Options
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
    dtype = variables[0].dtype.base_dtype
    if stored is not None and stored.dtype is not None:
        dtype = tf.as_dtype(stored.dtype)
    info = step.info
    table = Table(
        key_of(step.tensor if stored is None else stored.key),
        dtype,
        path_in_ops(info.new_vocab),
        path_in_ops(info.old_vocab),
        step.wanted,
        info.old_vocab_size,
    )
    backend = _backend(prefix, table, step, variables, options)
    verified = None
    if not all(partition.is_all_oov for partition in step.partitions):
        verified = backend.verification(table, variables[0])
    remapped = []
    for partition, variable in zip(step.partitions, variables, strict=True):
        with _fill_device(backend, variable):
            value = _value(backend, table, partition, step, variable)
        if verified is not None and not tf.executing_eagerly():
            with on_cpu_of(variable), tf.control_dependencies([verified]):
                value = tf.identity(value, name=NAME)
        remapped.append(value)
    return remapped


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
    return text if is_remote(text) else os.fsencode(path_text(text))


def _backend(
    prefix: bytes, table: Table, step: Remap, variables: Sequence[Any], options: Options
) -> Backend:
    """Returns the backend for all partitions of a table."""
    is_local = not any(map(is_remote, (prefix, table.new_vocab, table.old_vocab)))
    in_stock_terms = all(can_remap(table.dtype, partition) for partition in step.partitions)
    if is_local and all(
        is_native_for_remaps(variable, options, in_stock_terms=in_stock_terms)
        for variable in variables
    ):
        return NativeBackend(prefix, options)
    return StockBackend(prefix, options)


def _fill_device(backend: Backend, variable: Any) -> contextlib.AbstractContextManager[None]:
    """Returns the device scope for the fill values: the task of a variable in another process.

    For variables of this process it is the caller's device, as in TensorFlow: seeded values depend
    on it.
    """
    if isinstance(backend, NativeBackend) and on_another_job(variable):
        return on_cpu_of(variable)
    return contextlib.nullcontext()


def _value(
    backend: Backend, table: Table, partition: PartitionRemap, step: Remap, variable: Any
) -> Any:
    """Returns a partition's initial value."""
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
            initializer, partition, dtype, lambda: backend.num_missing(table, partition, variable)
        )
    value = _in_type_of(variable, backend, table, partition, fill)
    return (
        tf.slice(value, partition.window_offset, partition.shape) if partition.is_window else value
    )


def _in_type_of(
    variable: Any, backend: Backend, table: Table, partition: PartitionRemap, fill: FillValues
) -> Any:
    """Returns the remapped partition, of shape `partition.remapped_shape`, in a variable's type."""
    wanted = variable.dtype.base_dtype
    if table.dtype == wanted:
        return backend.remap(table, partition, fill, variable)
    with on_cpu_of(variable):
        if fill.layout != "zero" and not _holds(table.dtype, wanted):
            return _filled_after_cast(variable, backend, table, partition, fill)
        given = FillValues(fill.layout, tuple(tf.cast(each, table.dtype) for each in fill.tensors))
        return tf.cast(backend.remap(table, partition, given, variable), wanted)


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether `wide` can represent every value of `narrow`."""
    pairs = zip(_BITS[wide.name], _BITS[narrow.name], strict=True)
    return all(a >= b for a, b in pairs)


def _filled_after_cast(
    variable: Any, backend: Backend, table: Table, partition: PartitionRemap, fill: FillValues
) -> Any:
    """Converts the remapped table, then writes the fill values.

    Missing cells are found by remapping twice: they are 0 if filled with zeros and 1 if filled with
    ones.
    """
    ones = FillValues("full", (tf.ones(partition.remapped_shape, table.dtype),))
    zeros = backend.remap(table, partition, FillValues("zero", ()), variable)
    filled = backend.remap(table, partition, ones, variable)
    missing = tf.equal(zeros, 0) & tf.equal(filled, 1)
    cast = tf.cast(zeros, variable.dtype.base_dtype)
    if fill.layout == "full":
        return tf.where(missing, fill.tensors[0], cast)
    if partition.num_oov == 0:
        return _scatter(cast, missing, fill.tensors[0])
    known = partition.num_entries
    size = [
        known if axis == partition.axis else -1 for axis in range(len(partition.remapped_shape))
    ]
    begin = [0] * len(partition.remapped_shape)
    body = _scatter(tf.slice(cast, begin, size), tf.slice(missing, begin, size), fill.tensors[0])
    return tf.concat([body, fill.tensors[1]], partition.axis)


def _scatter(table: Any, missing: Any, cells: Any) -> Any:
    """Writes `cells` to the missing cells of the table, in row-major order."""
    return tf.tensor_scatter_nd_update(table, tf.where(missing), tf.reshape(cells, [-1]))
