# SPDX-License-Identifier: Apache-2.0
"""Reads and remaps by TensorFlow's own ops, in graphs that any process can load.

One ``RestoreV2`` per task reads all that the task needs. Options travel as attributes of the nodes
whose names begin with an underscore: our kernels read them, TensorFlow's ignore them.
``LoadAndRemapMatrix`` takes out-of-vocabulary entries as missing ones.

A mapping has one extra row, which is sliced off: TensorFlow owns a slice, but would copy a tensor
that it does not own at the first update. TensorFlow's kernel returns no extra row, and the slice is
the whole value. The size of the slice is not a constant, because Grappler would then remove the
slice: it takes the shape of the value from the slice specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework.ops import get_default_graph

from tensorbundle.errors import UnsupportedError
from tensorbundle.tf.backend import NAME, ReadRequest, Table, library_is_usable, on_cpu_of
from tensorbundle.tf.checkpoint_index import key_of
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.op_library import create_constant, create_op
from tensorbundle.tf.options import Options
from tensorbundle.warm_plan import PartitionRemap


def can_remap(dtype: Any, partition: PartitionRemap) -> bool:
    """Whether TensorFlow's ops can express a remap."""
    return bool(dtype == tf.float32) and len(partition.remapped_shape) == 2


class StockBackend:
    """A `Backend`. Reads run on the CPU of each variable's task.

    Remaps run on the caller's device, as in TensorFlow, and values are sent to other tasks.
    """

    def __init__(self, prefix: bytes, options: Options) -> None:
        """Stores the checkpoint and the options."""
        self._prefix = prefix
        self._options = options
        self._shared: dict[Any, Any] = {}

    def read(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Implements `Backend`."""
        values: list[Any] = [None] * len(requests)
        nodes: dict[Any, list[int]] = {}
        for i, request in enumerate(requests):
            if request.is_empty_slice:
                with on_cpu_of(request.variable):
                    values[i] = tf.zeros(request.extent, request.dtype, name=NAME)
            else:
                nodes.setdefault((request.variable.device, request.mapped), []).append(i)
        for (_, mapped), indices in nodes.items():
            some = [requests[i] for i in indices]
            with on_cpu_of(some[0].variable):
                found = self._restore(some, mapped)
            for i, value in zip(indices, found, strict=True):
                values[i] = value
        return values

    def num_missing(self, table: Table, partition: PartitionRemap, _: Any) -> Any:
        """Implements `Backend`."""
        # Overflows at 2**31 like TensorFlow's count: its op does not support more cells.
        _, present = self._old_ids(table, partition)
        return (partition.num_entries - present) * partition.cells_per_entry

    def remap(
        self, table: Table, partition: PartitionRemap, fill: FillValues, variable: Any
    ) -> Any:
        """Implements `Backend`.

        Raises:
            UnsupportedError: TensorFlow's op does not support the table.
        """
        if not can_remap(table.dtype, partition):
            raise UnsupportedError(
                f"{variable.name}: TensorFlow's own op remaps float32 matrices, not "
                f"{table.dtype.name} of rank {len(partition.remapped_shape)}; ours, which is used "
                "with op='auto' where it can be loaded, does"
            )
        zero = fill.layout == "zero"
        ids, _ = self._old_ids(table, partition, zero=zero)
        every = ids
        if partition.num_oov:
            every = tf.concat([ids, tf.fill([partition.num_oov], tf.constant(-1, tf.int64))], 0)
        rows, columns = every, self._constant(np.zeros(0, np.int64))
        if partition.axis == 1:
            first = partition.offset
            rows = tf.range(first, first + partition.num_rows, dtype=tf.int64)
            columns = every
        num_rows, num_columns = partition.remapped_shape
        value = tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=self._constant(self._prefix),
            old_tensor_name=self._constant(table.tensor),
            row_remapping=rows,
            col_remapping=columns,
            initializing_values=self._missing_cells(table, partition, fill, every),
            num_rows=num_rows,
            num_cols=num_columns,
            name=NAME,
        )
        self._set_options(value, zero=zero)
        return value

    def verification(self, *_: Any) -> None:
        """Implements `Backend`: the op compares the checksums itself."""

    def _restore(self, requests: Sequence[ReadRequest], mapped: bool) -> list[Any]:
        """Returns values of one task, from one op."""
        values = _restore_op(
            self._prefix,
            [key_of(request.tensor) for request in requests],
            [request.spec for request in requests],
            [request.dtype for request in requests],
            f"{NAME}_map" if mapped else NAME,
        )
        self._set_options(values[0], mapped=mapped)
        if mapped:
            values = _without_extra_rows(values, requests)
        elif not tf.executing_eagerly():
            # TensorFlow's function creates an op per value: names of later ops stay the same.
            for _ in requests[1:]:
                get_default_graph().unique_name(NAME)
        for request, value in zip(requests, values, strict=True):
            if request.fixed:
                value.set_shape(request.extent)
        return values

    def _set_options(self, value: Any, *, mapped: bool = False, zero: bool = False) -> None:
        """Sets the options as attributes of the node. An eager op has none."""
        if tf.executing_eagerly():
            return
        attributes: dict[str, Any] = {}
        if zero:
            attributes["fill"] = attr_value_pb2.AttrValue(s=b"zero")
        if mapped:
            attributes["mode"] = attr_value_pb2.AttrValue(s=b"map")
        verify = self._options.verification(mapped=mapped)
        if verify != "full":
            attributes["verify"] = attr_value_pb2.AttrValue(s=verify.encode())
        if self._options.threads:
            attributes["threads"] = attr_value_pb2.AttrValue(i=self._options.threads)
        for name, attribute in attributes.items():
            value.op._set_attr(f"_tensorbundle_{name}", attribute)

    def _old_ids(
        self, table: Table, partition: PartitionRemap, *, zero: bool = False
    ) -> tuple[Any, Any]:
        """Returns the old rows, or columns, of a partition's entries, and how many are not -1.

        Our kernel takes them from the join that the process shares. TensorFlow's reads both
        vocabularies each time: where it runs, one op serves all partitions.

        Args:
            table: The table.
            partition: The partition.
            zero: The number is only used to build zeros, which our kernels do not need: it is that
                of all entries then.
        """
        first, count = partition.first_entry, partition.num_entries
        if library_is_usable():
            return self._join(table, first, count, zero=zero)
        ids = tf.slice(self._join(table, 0, table.new_size)[0], [first], [count])
        return ids, tf.reduce_sum(tf.cast(ids >= 0, tf.int32))

    def _join(self, table: Table, first: int, count: int, *, zero: bool = False) -> tuple[Any, Any]:
        """Returns the outputs of one op."""
        key = (table.new_vocab, table.old_vocab, table.old_size, first, count, zero)

        def create() -> tuple[Any, Any]:
            ids, present = tf.raw_ops.GenerateVocabRemapping(
                new_vocab_file=self._path(table.new_vocab),
                old_vocab_file=self._path(table.old_vocab),
                new_vocab_offset=first,
                num_new_vocab=count,
                old_vocab_size=table.old_size,
            )
            if zero and not tf.executing_eagerly():
                ids.op._set_attr("_tensorbundle_fill", attr_value_pb2.AttrValue(s=b"zero"))
            return ids, present

        joined: tuple[Any, Any] = self._once(key, create)
        return joined

    def _path(self, path: bytes) -> Any:
        """Returns a path that TensorFlow takes for no constant: a stateful op prints nothing.

        TensorFlow would evaluate a function of constants, and so read the vocabularies, while the
        graph is built and again when a session optimizes it.
        """
        return self._once(("path", path), lambda: tf.raw_ops.Print(input=path, data=[], first_n=0))

    def _constant(self, value: Any) -> Any:
        key = value if isinstance(value, bytes) else (value.dtype.str, value.tobytes())
        return self._once(("constant", key), lambda: tf.constant(value))

    def _once(self, key: Any, create: Callable[[], Any]) -> Any:
        """Returns what `create` returned for the key: the ops of all partitions share it."""
        if key not in self._shared:
            self._shared[key] = create()
        return self._shared[key]

    def _missing_cells(
        self, table: Table, partition: PartitionRemap, fill: FillValues, ids: Any
    ) -> Any:
        """Returns the values of all missing cells, in row-major order."""
        if fill.layout == "full":
            return tf.reshape(tf.boolean_mask(fill.tensors[0], ids < 0, axis=partition.axis), [-1])
        if fill.layout == "zero":
            # With our kernels none are missing: they fill with zeros without reading zeros.
            _, present = self._old_ids(table, partition, zero=True)
            count = (partition.num_entries - present) * partition.cells_per_entry
            return tf.zeros([count + partition.num_oov * partition.cells_per_entry])
        if len(fill.tensors) == 1:
            return tf.reshape(fill.tensors[0], [-1])
        parts = list(fill.tensors)
        if partition.axis == 1:
            parts = [tf.reshape(part, [partition.num_rows, -1]) for part in parts]
            return tf.reshape(tf.concat(parts, 1), [-1])
        return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)


def _restore_op(
    prefix: bytes, names: list[Any], specs: list[Any], dtypes: list[Any], name: str
) -> list[Any]:
    """Returns the outputs of a ``RestoreV2``. Its inputs have the names that TensorFlow gives."""
    if tf.executing_eagerly():
        eager: list[Any] = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=names, shape_and_slices=specs, dtypes=dtypes, name=name
        )
        return eager
    scope = get_default_graph().unique_name(name)
    inputs = [create_constant([prefix], [], f"{scope}/prefix/")]
    for part, texts in (("tensor_names", names), ("shape_and_slices", specs)):
        encoded = [tf.compat.as_bytes(text) for text in texts]
        inputs.append(create_constant(encoded, [len(encoded)], f"{scope}/{part}/"))
    return list(create_op("RestoreV2", inputs, dtypes, f"{scope}/", {"dtypes": dtypes}).outputs)


def _without_extra_rows(values: Sequence[Any], requests: Sequence[ReadRequest]) -> list[Any]:
    begins: dict[int, Any] = {}
    sizes: dict[tuple[int, ...], Any] = {}
    sliced = []
    for value, request in zip(values, requests, strict=True):
        extent = request.extent
        if len(extent) not in begins:
            begins[len(extent)] = _integers([0] * len(extent), "begin")
        if extent not in sizes:
            sizes[extent] = _not_constant(_integers(list(extent), "size"))
        inputs = [value, begins[len(extent)], sizes[extent]]
        if tf.executing_eagerly():
            sliced.append(tf.slice(*inputs))
        else:
            sliced.append(create_op("Slice", inputs, [request.dtype], NAME).outputs[0])
    return sliced


def _integers(values: list[int], name: str) -> Any:
    if tf.executing_eagerly():
        return tf.constant(values, tf.int64)
    return create_constant(values, [len(values)], f"{NAME}_{name}")


def _not_constant(constant: Any) -> Any:
    """Returns a tensor that TensorFlow does not fold as a constant."""
    if tf.executing_eagerly():
        return constant
    shape = tf.compat.v1.AttrValue(shape=constant.shape.as_proto())
    op = create_op(
        "PlaceholderWithDefault", [constant], [constant.dtype], f"{constant.op.name}_default",
        {"dtype": constant.dtype, "shape": shape},
    )  # fmt: skip
    return op.outputs[0]
