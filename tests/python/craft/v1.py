# SPDX-License-Identifier: Apache-2.0
"""Writes V1 checkpoints: a table that contains the tensor data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from craft import table, wire
from craft.bundle import as_key, fill_slice
from craft.dtypes import STRING
from craft.messages import SavedTensorSlices, Tensor, UnpackedTensor
from craft.ordered_code import Spec, slice_key
from craft.tilings import slices

# dtype number -> the field of the value message.
FIELDS = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val",
    8: "scomplex_val", 9: "int64_val", 10: "bool_val", 11: "int_val", 12: "int_val", 13: "int_val",
    16: "int_val", 17: "int_val", 18: "dcomplex_val", 19: "half_val",
}  # fmt: skip


def values_of(number: int, array: np.ndarray, *, packed: bool = True) -> bytes:
    """Returns the serialized value message of a slice, in row-major order."""
    message = (Tensor if packed else UnpackedTensor)()
    flat = np.ascontiguousarray(array).reshape(-1)
    if number == STRING:
        message.string_val.extend(flat.tolist())
        return bytes(message.SerializeToString())
    if number == 19:
        flat = flat.view(np.uint16)
    elif flat.dtype.kind == "c":
        flat = flat.view(f"f{flat.dtype.itemsize // 2}")
    if flat.dtype == np.float32:  # converting to a Python float quiets signalling NaNs
        field = message.DESCRIPTOR.fields_by_name[FIELDS[number]].number
        if packed:
            return wire.bytes_field(field, flat.tobytes()) if flat.size else b""
        return b"".join(wire.fixed32_field(field, bits) for bits in flat.view(np.uint32).tolist())
    getattr(message, FIELDS[number]).extend(flat.tolist())
    return bytes(message.SerializeToString())


class V1File:
    """A V1 table in memory: a whole checkpoint or one shard.

    Attributes:
        meta: The message under the empty key.
        records: The serialized data records by key, which tests may replace.
    """

    def __init__(self) -> None:
        self.meta: Any = SavedTensorSlices()
        self.meta.meta.versions.producer = 1
        self.records: dict[bytes, bytes] = {}

    def declare(
        self, name: str | bytes, number: int, shape: Sequence[int], specs: Sequence[Spec]
    ) -> Any:
        """Lists a tensor and its slices, without data."""
        tensor = self.meta.meta.tensor.add(name=as_key(name), type=number)
        tensor.shape.SetInParent()
        for size in shape:
            tensor.shape.dim.add(size=size)
        for spec in specs:
            fill_slice(tensor.slice.add(), spec)
        return tensor

    def add_record(self, name: str | bytes, spec: Spec, values: bytes) -> None:
        """Stores one slice from a serialized value message."""
        record = SavedTensorSlices()
        record.data.name = as_key(name)
        record.data.slice.SetInParent()
        fill_slice(record.data.slice, spec)
        head = record.data.SerializeToString() + wire.bytes_field(3, values)
        self.records[slice_key(as_key(name), spec)] = wire.bytes_field(2, head)

    def add(self, name: str | bytes, number: int, array: Any, *, packed: bool = True) -> None:
        """Stores a whole tensor as one all-full slice."""
        array = np.asarray(array)
        spec: Spec = [None] * array.ndim
        self.declare(name, number, array.shape, [spec])
        self.add_record(name, spec, values_of(number, array, packed=packed))

    def add_sliced(
        self,
        name: str | bytes,
        number: int,
        array: np.ndarray,
        boxes: Sequence[tuple[tuple[int, int], ...]],
    ) -> None:
        """Stores the given boxes of a tensor: all of them, or those of this shard."""
        self.declare(name, number, array.shape, boxes)
        for box in boxes:
            self.add_record(name, box, values_of(number, array[slices(box)]))

    def table(self, **options: Any) -> table.Table:
        records = [(b"", self.meta.SerializeToString()), *sorted(self.records.items())]
        return table.build(records, **options)

    def write(self, path: Path, **options: Any) -> Path:
        path.write_bytes(self.table(**options).encode().data)
        return path
