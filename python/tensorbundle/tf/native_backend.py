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

from tensorbundle import naming
from tensorbundle.tf import op_library
from tensorbundle.tf.backend import (
    NAME,
    ReadRequest,
    RemapRequest,
    Table,
    after,
    on_cpu_of,
    read_in_groups,
    without_extra_row,
)
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.options import Options


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

    def num_missing(self, request: RemapRequest) -> Any:
        """Implements `Backend`."""
        table, partition, variable = request
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

    def remap(self, request: RemapRequest, fill: FillValues) -> Any:
        """Implements `Backend`."""
        table, partition, variable = request
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
        if all(request.mapped for request in requests):
            return self._map(requests)
        verify = self._options.verification(mapped=False)
        if verify != "full" or len(requests) == 1 or not _are_distinct_copies(requests):
            return [
                self._map([each])[0] if each.mapped else self._copy(each, verify, NAME)[0]
                for each in requests
            ]
        copies = [self._copy(request, "parts", f"{NAME}_piece") for request in requests]
        return self._after_verification(requests, *zip(*copies, strict=True))

    def _copy(self, request: ReadRequest, verify: str, name: str) -> tuple[Any, Any]:
        """Returns a value and its partial checksums."""
        with on_cpu_of(request.variable):
            value, parts = self._ops.tensorbundle_read_v1(
                prefix=self._prefix,
                tensor=naming.as_bytes(request.tensor),
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
        # A single op compares all slices before it outputs a value. Several ops need a verification
        # op that runs before all of them. Mapping reads nothing, so there are no partial checksums.
        is_verified = self._options.verification(mapped=True) == "full"
        is_apart = is_verified and len(set(map(_task, requests))) > 1
        verify = "full" if is_verified and not is_apart else "none"
        name = f"{NAME}_piece" if is_apart else NAME
        values = read_in_groups(
            requests, _task, lambda _, some: self._map_in_task(some, verify, name)
        )
        return self._after_verification(requests, values, []) if is_apart else values

    def _map_in_task(self, requests: Sequence[ReadRequest], verify: str, name: str) -> list[Any]:
        """Returns mappings from one op, without their extra rows.

        The op also outputs the arguments of the slices: as constants they would be half of the
        graph.
        """
        first = requests[0]
        with on_cpu_of(first.variable):
            values, begin, sizes = self._ops.tensorbundle_map_v1(
                prefix=self._prefix,
                tensor=naming.as_bytes(first.tensor),
                slice_specs=[request.spec for request in requests],
                dtype=first.dtype,
                verify=verify,
                threads=self._options.threads or 0,
                N=len(requests),
                name=f"{NAME}_map",
            )
            return [
                without_extra_row(request, value, begin, size, name)
                for request, value, size in zip(requests, values, sizes, strict=True)
            ]

    def _after_verification(
        self, requests: Sequence[ReadRequest], values: Sequence[Any], parts: Sequence[Any]
    ) -> list[Any]:
        """Returns values of one tensor that are available if its checksums are right."""
        first = requests[0]
        ok = self._verified(naming.as_bytes(first.tensor), first.dtype, parts, first.variable)
        return [
            after(ok, value, request.variable)
            for request, value in zip(requests, values, strict=True)
        ]

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


def _task(request: ReadRequest) -> Any:
    return request.variable.device, request.dtype


def _are_distinct_copies(requests: Sequence[ReadRequest]) -> bool:
    """Whether the reads are of distinct boxes, and none is a mapping."""
    parts = [each.partition for each in requests if each.partition is not None and not each.mapped]
    return len({(part.offset, part.shape) for part in parts}) == len(requests)
