# SPDX-License-Identifier: Apache-2.0
"""The values of a table's variables, remapped to the new vocabulary.

Building the graph reads neither the table nor the vocabularies. When it runs, the two vocabularies
are joined once per process, for all partitions of all tables that share them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import tensorflow as tf

from tensorbundle import naming
from tensorbundle.filenames import is_remote, path_text
from tensorbundle.load_plan import Stored
from tensorbundle.tf import fill_values
from tensorbundle.tf.backend import (
    Backend,
    RemapRequest,
    StockBackend,
    Table,
    after,
    can_remap,
    is_here,
    is_native_for_remaps,
    on_cpu_of,
)
from tensorbundle.tf.errors import path_with_nul
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.native_backend import NativeBackend
from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import outside_if_pruned, set_initializer
from tensorbundle.warm_plan import Remap


class TableRemap(NamedTuple):
    """The remap of one table's variables.

    Attributes:
        prefix: The checkpoint.
        step: The plan for this table.
        stored: The table; None if it is not known yet.
        variables: Its partitions, in the order of the plan's.
        options: The options of reading.
    """

    prefix: bytes
    step: Remap
    stored: Stored | None
    variables: Sequence[Any]
    options: Options

    def assign(self, ready: list[tuple[Any, Any, Any]] | None) -> None:
        """Replaces the initializers of the variables by `ready`; None: by ``values()``."""
        values = ready or self.values()
        with outside_if_pruned(self.variables):
            for variable, value, initial in values:
                set_initializer(variable, value, initial)

    def values(self) -> list[tuple[Any, Any, Any]]:
        """Returns (variable, value, value of ``initial_value``) for every partition.

        The last is None if ``initial_value`` must stay as it is, as TensorFlow leaves it. If the
        table is verified and corrupt, computing any of the values fails.

        Raises:
            UnsupportedError: TensorFlow's own ops must be used and do not support the table.
            TypeError: The backup initializer returns values of another type.
        """
        with outside_if_pruned(self.variables):
            since = tf.compat.v1.get_default_graph().version
            remapped = self._remapped()
            initial: list[Any] = remapped
            if self.step.slot_of is None and fill_values.may_be_seeded(
                self.step.info.backup_initializer
            ):
                initial = [fill_values.independent(value, since) for value in remapped]
        return list(zip(self.variables, remapped, initial, strict=True))

    def _remapped(self) -> list[Any]:
        table = self._table()
        backend = self._backend(table)
        verified = None
        if not all(partition.is_all_oov for partition in self.step.partitions):
            verified = backend.verification(table, self.variables[0])
        remapped = []
        for partition, variable in zip(self.step.partitions, self.variables, strict=True):
            with _fill_device(backend, variable):
                value = self._value(backend, RemapRequest(table, partition, variable))
            remapped.append(after(verified, value, variable))
        return remapped

    def _table(self) -> Table:
        dtype = self.variables[0].dtype.base_dtype
        if self.stored is not None and self.stored.dtype is not None:
            dtype = tf.as_dtype(self.stored.dtype)
        info = self.step.info
        return Table(
            naming.as_bytes(self.step.tensor if self.stored is None else self.stored.key),
            dtype,
            path_in_ops(info.new_vocab),
            path_in_ops(info.old_vocab),
            self.step.wanted,
            info.old_vocab_size,
        )

    def _backend(self, table: Table) -> Backend:
        """Returns the backend for all partitions."""
        is_local = not any(map(is_remote, (self.prefix, table.new_vocab, table.old_vocab)))
        in_stock_terms = all(can_remap(table.dtype, each) for each in self.step.partitions)
        if is_local and all(
            is_native_for_remaps(variable, self.options, in_stock_terms=in_stock_terms)
            for variable in self.variables
        ):
            return NativeBackend(self.prefix, self.options)
        return StockBackend(self.prefix, self.options)

    def _value(self, backend: Backend, request: RemapRequest) -> Any:
        """Returns a partition's initial value."""
        _, partition, variable = request
        dtype = variable.dtype.base_dtype
        if self.step.slot_of is not None:
            current = fill_values.initial_value(variable)
            if partition.is_all_oov:
                return current
            fill = fill_values.from_whole_partition(current, partition)
        else:
            initializer = self.step.info.backup_initializer
            if partition.is_all_oov:
                return fill_values.build_partition(initializer, partition, dtype)
            fill = fill_values.build_fill_values(
                initializer, partition, dtype, lambda: backend.num_missing(request)
            )
        value = _in_type_of_variable(backend, request, fill)
        if partition.is_window:
            value = tf.slice(value, partition.window_offset, partition.shape)
        return value


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


def _fill_device(backend: Backend, variable: Any) -> contextlib.AbstractContextManager[None]:
    """Returns the device scope for the fill values: the task of a variable in another process.

    For variables of this process it is the caller's device, as in TensorFlow: seeded values depend
    on it.
    """
    if isinstance(backend, NativeBackend) and not is_here(variable.device):
        return on_cpu_of(variable)
    return contextlib.nullcontext()


def _in_type_of_variable(backend: Backend, request: RemapRequest, fill: FillValues) -> Any:
    """Returns the remapped partition, of shape `partition.remapped_shape`, in a variable's type."""
    stored, wanted = request.table.dtype, request.variable.dtype.base_dtype
    if stored == wanted:
        return backend.remap(request, fill)
    with on_cpu_of(request.variable):
        if fill.layout != "zero" and not _holds(stored, wanted):
            return _filled_after_cast(backend, request, fill)
        given = FillValues(fill.layout, tuple(tf.cast(each, stored) for each in fill.tensors))
        return tf.cast(backend.remap(request, given), wanted)


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether `wide` can represent every value of `narrow`; both are float types."""
    a, b = (ml_dtypes.finfo(each.as_numpy_dtype) for each in (wide, narrow))  # type: ignore[no-untyped-call]
    return bool(a.nexp >= b.nexp and a.nmant >= b.nmant)


def _filled_after_cast(backend: Backend, request: RemapRequest, fill: FillValues) -> Any:
    """Converts the remapped table, then writes the fill values.

    Missing cells are found by remapping twice: they are 0 if filled with zeros and 1 if filled with
    ones.
    """
    table, partition, variable = request
    shape = partition.remapped_shape
    zeros = backend.remap(request, FillValues("zero", ()))
    filled = backend.remap(request, FillValues("full", (tf.ones(shape, table.dtype),)))
    missing = tf.equal(zeros, 0) & tf.equal(filled, 1)
    cast = tf.cast(zeros, variable.dtype.base_dtype)
    if fill.layout == "full":
        return tf.where(missing, fill.tensors[0], cast)
    # The out-of-vocabulary block, if there is one, comes last, and is filled as a whole.
    cells, *block = fill.tensors
    size = [-1] * len(shape)
    size[partition.axis] = partition.num_entries
    body, missing = (tf.slice(each, [0] * len(shape), size) for each in (cast, missing))
    body = tf.tensor_scatter_nd_update(body, tf.where(missing), tf.reshape(cells, [-1]))
    return tf.concat([body, *block], partition.axis)
