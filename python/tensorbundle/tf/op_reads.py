# SPDX-License-Identifier: Apache-2.0
"""Reads by our ops. An op opens the checkpoint when it runs, in the process where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tensorbundle.tf import op_library
from tensorbundle.tf.checkpoint_index import key_of
from tensorbundle.variables import Slice, slice_spec


class OpReadRequest(NamedTuple):
    """The attributes of one read op.

    Attributes:
        prefix: The checkpoint.
        tensor: The tensor's name.
        shape: The whole tensor's shape when the graph was built.
        partition: The part to read; None for the whole tensor.
        fixed: Whether the tensor must still have that shape when it is read.
        verify: How checksums are compared: ``"full"``, ``"parts"``, ``"lazy"``, ``"none"``.
        threads: The number of threads; None: the default of the process that reads.
    """

    prefix: bytes
    tensor: str
    shape: tuple[int, ...]
    partition: Slice | None
    fixed: bool
    verify: str
    threads: int | None

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.shape if self.partition is None else self.partition.shape

    @property
    def spec(self) -> str:
        """The box in TensorFlow's format. Contains the tensor's shape also for a whole tensor.

        So if the checkpoint is rewritten with another shape, the read fails instead of changing the
        shape of the variable.
        """
        if self.partition is not None:
            return self.partition.spec
        if not self.fixed or 0 in self.shape:
            return ""
        return slice_spec(self.shape, [0] * len(self.shape), self.shape)


def value_and_parts(library: Any, read: OpReadRequest, dtype: Any, name: str) -> tuple[Any, Any]:
    """Returns the value, and the partial checksums of what was read.

    Args:
        library: The op library.
        read: The attributes.
        dtype: The tensor's type.
        name: The name of the value.
    """
    value, parts = library.tensorbundle_read_v1(
        prefix=read.prefix,
        tensor=key_of(read.tensor),
        slice_spec=read.spec,
        dtype=dtype,
        verify=read.verify,
        threads=read.threads or 0,
        name=name,
    )
    if read.fixed:
        value.set_shape(read.extent)
    return value, parts


def mapped(
    library: Any, reads: Sequence[OpReadRequest], dtype: Any, names: Sequence[str]
) -> list[Any]:
    """Returns values that are mappings of the checkpoint's file, all from one op.

    The op's values have one extra row, which is sliced off here: TensorFlow owns a slice, but would
    copy a tensor that it does not own at the first update.

    Args:
        library: The op library.
        reads: Boxes of one tensor, each of which is contiguous in its file.
        dtype: The tensor's type.
        names: Scopes, ending in ``/``, one per value. The op is created in the first one.
    """
    import tensorflow as tf

    first, count = reads[0], len(reads)
    attributes = {
        "prefix": first.prefix,
        "tensor": key_of(first.tensor),
        "slice_specs": [read.spec.encode() for read in reads],
        "dtype": dtype,
        "verify": first.verify,
        "threads": first.threads or 0,
        "N": count,
    }
    if tf.executing_eagerly():
        values, begin, sizes = library.tensorbundle_map_v1(**attributes)
        return [tf.slice(value, begin, size) for value, size in zip(values, sizes, strict=True)]
    dtypes = [*[dtype] * count, tf.int64, *[tf.int64] * count]
    outputs = op_library.create_op(
        "TensorbundleMapV1", [], dtypes, f"{names[0]}map/", attributes
    ).outputs
    begin = outputs[count]
    sliced = []
    for value, size, name, read in zip(
        outputs[:count], outputs[count + 1 :], names, reads, strict=True
    ):
        value = op_library.create_op("Slice", [value, begin, size], [dtype], name).outputs[0]
        value.set_shape(read.extent)
        sliced.append(value)
    return sliced


def verified(library: Any, prefix: bytes, tensor: str, dtype: Any, parts: Sequence[Any]) -> Any:
    """Returns a scalar whose computation fails if a checksum of the tensor differs.

    Args:
        library: The op library.
        prefix: The checkpoint.
        tensor: The tensor's name.
        dtype: The tensor's type.
        parts: The partial checksums from reads of it. Bytes that they do not cover are read again.
    """
    return library.tensorbundle_verify_v1(
        parts=list(parts),
        prefix=prefix,
        tensor=key_of(tensor),
        dtype=dtype,
        name="checkpoint_initializer_verify",
    )
