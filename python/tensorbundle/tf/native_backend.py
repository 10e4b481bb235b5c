# SPDX-License-Identifier: Apache-2.0
"""Reads and remaps by our ops. They open the checkpoint in the process where they run.

The reads of one tensor in several parts checksum what they read, and one op combines the checksums
and reads what no part covers. So each server reads its own part, and together they verify the
tensor in one pass. Mappings come from one op per task.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tensorbundle.tf import op_library
from tensorbundle.tf.backend import NAME, ReadRequest, Table, on_cpu_of
from tensorbundle.tf.checkpoint_index import key_of
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.options import Options
from tensorbundle.warm_plan import PartitionRemap


class NativeBackend:
    """A `Backend`. Requires that the op library can be loaded."""

    def __init__(self, prefix: bytes, options: Options) -> None:
        """Stores the checkpoint and the options."""
        self._prefix = prefix
        self._options = options
        self._ops: Any = op_library.load_op_library()

    def read(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Implements `Backend`."""
        values = []
        for _, group in itertools.groupby(requests, lambda request: request.tensor):
            values += self._read_tensor(list(group))
        return values

    def num_missing(self, table: Table, partition: PartitionRemap, variable: Any) -> Any:
        """Implements `Backend`."""
        with on_cpu_of(variable):
            count = self._ops.tensorbundle_missing_v1(
                new_vocab=table.new_vocab,
                old_vocab=table.old_vocab,
                new_size=table.new_size,
                old_size=table.old_size,
                offset=partition.first_entry,
                num_new=partition.num_entries,
                cells_per_entry=partition.cells_per_entry,
                out_type=tf.int32 if partition.counts_in_int32 else tf.int64,
                name="missing_cells",
            )
        count.set_shape([])
        return count

    def remap(
        self, table: Table, partition: PartitionRemap, fill: FillValues, variable: Any
    ) -> Any:
        """Implements `Backend`."""
        with on_cpu_of(variable):
            value = self._ops.tensorbundle_remap_v1(
                fills=list(fill.tensors),
                prefix=self._prefix,
                tensor=table.tensor,
                dtype=table.dtype,
                axis=partition.axis,
                new_vocab=table.new_vocab,
                old_vocab=table.old_vocab,
                new_size=table.new_size,
                old_size=table.old_size,
                offset=partition.offset,
                num_rows=partition.num_rows,
                num_cols=partition.num_cols,
                num_oov=partition.num_oov,
                fill_layout=fill.layout,
                shape=list(partition.remapped_shape),
                threads=self._options.threads or 0,
                name=NAME,
            )
        value.set_shape(partition.remapped_shape)
        return value

    def verification(self, table: Table, near: Any) -> Any:
        """Implements `Backend`."""
        if self._options.verification(mapped=False) != "full":
            return None
        return self._verified(table.tensor, table.dtype, [], near)

    def _read_tensor(self, requests: Sequence[ReadRequest]) -> list[Any]:
        first = requests[0]
        if all(request.mapped for request in requests):
            return self._map(requests)
        together = (
            len(requests) > 1
            and self._options.verification(mapped=False) == "full"
            and not any(request.mapped for request in requests)
            and _are_distinct(requests)
        )
        if not together:
            return [self._read_alone(request) for request in requests]
        values: list[Any] = []
        parts: list[Any] = []
        scopes: list[str | None] = []
        for request in requests:
            if request.is_empty_slice:
                values.append(self._read_alone(request))
                scopes.append(None)
                continue
            with on_cpu_of(request.variable), tf.name_scope(NAME) as scope:
                value, part = self._copy(request, "parts", "piece")
            values.append(value)
            scopes.append(scope)
            parts.append(part)
        ok = self._verified(key_of(first.tensor), first.dtype, parts, first.variable)
        return _after(ok, requests, values, scopes)

    def _read_alone(self, request: ReadRequest) -> Any:
        """Returns one value, whose op compares the checksums."""
        if request.mapped:
            return self._map([request])[0]
        with on_cpu_of(request.variable):
            if request.is_empty_slice:
                return tf.zeros(request.extent, request.dtype, name=NAME)
            with tf.name_scope(NAME) as scope:
                return self._copy(request, self._options.verification(mapped=False), scope)[0]

    def _copy(self, request: ReadRequest, verify: str, name: str) -> tuple[Any, Any]:
        """Returns a value and its partial checksums, on the current device."""
        value, parts = self._ops.tensorbundle_read_v1(
            prefix=self._prefix,
            tensor=key_of(request.tensor),
            slice_spec=request.spec,
            dtype=request.dtype,
            verify=verify,
            threads=self._options.threads or 0,
            name=name,
        )
        if request.fixed:
            value.set_shape(request.extent)
        return value, parts

    def _map(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Returns mappings, from one op per task. If a slice is corrupt, none is available."""
        scopes = []
        for _ in requests:
            with tf.name_scope(NAME) as scope:
                scopes.append(scope)
        tasks: dict[Any, list[int]] = {}
        for i, request in enumerate(requests):
            tasks.setdefault((request.variable.device, request.dtype), []).append(i)
        # A single op compares all slices before it outputs a value. Several ops need a verification
        # op that runs before all of them. Mapping reads nothing, so there are no partial checksums.
        full = self._options.verification(mapped=True) == "full"
        apart = full and len(tasks) > 1
        names = [f"{scope}piece/" for scope in scopes] if apart else scopes
        found: list[Any] = [None] * len(requests)
        for indices in tasks.values():
            some = [requests[i] for i in indices]
            verify = "full" if full and not apart else "none"
            with on_cpu_of(some[0].variable):
                mapped = self._map_in_task(some, verify, [names[i] for i in indices])
            for i, value in zip(indices, mapped, strict=True):
                found[i] = value
        if not apart:
            return found
        first = requests[0]
        ok = self._verified(key_of(first.tensor), first.dtype, [], first.variable)
        return _after(ok, requests, found, scopes)

    def _map_in_task(
        self, requests: Sequence[ReadRequest], verify: str, names: Sequence[str]
    ) -> list[Any]:
        """Returns mappings from one op, without their extra rows, on the current device.

        The op also outputs the arguments of the slices: as constants they would be half of the
        graph. Names are scopes, ending in ``/``; the op is created in the first one.
        """
        first, count = requests[0], len(requests)
        attributes = {
            "prefix": self._prefix,
            "tensor": key_of(first.tensor),
            "slice_specs": [request.spec.encode() for request in requests],
            "dtype": first.dtype,
            "verify": verify,
            "threads": self._options.threads or 0,
            "N": count,
        }
        if tf.executing_eagerly():
            values, begin, sizes = self._ops.tensorbundle_map_v1(**attributes)
            return [tf.slice(value, begin, size) for value, size in zip(values, sizes, strict=True)]
        dtypes = [*[first.dtype] * count, tf.int64, *[tf.int64] * count]
        create_op = op_library.create_op
        name = f"{names[0]}map/"
        outputs = create_op("TensorbundleMapV1", [], dtypes, name, attributes).outputs
        values, begin, sizes = outputs[:count], outputs[count], outputs[count + 1 :]
        sliced = []
        for value, size, name, request in zip(values, sizes, names, requests, strict=True):
            (value,) = create_op("Slice", [value, begin, size], [first.dtype], name).outputs
            value.set_shape(request.extent)
            sliced.append(value)
        return sliced

    def _verified(self, tensor: bytes, dtype: Any, parts: Sequence[Any], near: Any) -> Any:
        """Returns a scalar whose computation fails if a checksum of the tensor differs.

        Args:
            tensor: The tensor's key.
            dtype: Its ``tf.DType``.
            parts: The partial checksums from reads of it. Bytes that they do not cover are read
                again.
            near: The variable on whose CPU the op runs.
        """
        with on_cpu_of(near):
            return self._ops.tensorbundle_verify_v1(
                parts=list(parts),
                prefix=self._prefix,
                tensor=tensor,
                dtype=dtype,
                name=f"{NAME}_verify",
            )


def _after(
    ok: Any, requests: Sequence[ReadRequest], values: Sequence[Any], scopes: Sequence[str | None]
) -> list[Any]:
    """Returns values that depend on the verification `ok`; in eager mode it has run already."""
    if tf.executing_eagerly():
        return list(values)
    gated = []
    for request, value, scope in zip(requests, values, scopes, strict=True):
        with on_cpu_of(request.variable), tf.control_dependencies([ok]):
            gated.append(tf.identity(value, name=scope or NAME))
    return gated


def _are_distinct(requests: Sequence[ReadRequest]) -> bool:
    """Whether the boxes of the reads are distinct."""
    parts = [request.partition for request in requests if request.partition is not None]
    return len({(part.offset, part.shape) for part in parts}) == len(requests)
