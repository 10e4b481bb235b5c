# SPDX-License-Identifier: Apache-2.0
"""Reads by our own op, which finds everything out when it runs, in the process where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tensorbundle.tf import nodes
from tensorbundle.tf.source import key_of
from tensorbundle.variables import Slice, slice_spec


class OpRead(NamedTuple):
    """One op, and what it is told.

    Attributes:
        prefix: The checkpoint.
        tensor: The tensor's name.
        shape: The whole tensor's, when the graph was built.
        part: What is wanted of it; None for everything.
        fixed: Whether it must still have that shape when it is read.
        verify: What the op does about checksums: ``"full"``, ``"parts"``, ``"lazy"``, ``"none"``.
        threads: For the read; None leaves it to the process that reads.
    """

    prefix: bytes
    tensor: str
    shape: tuple[int, ...]
    part: Slice | None
    fixed: bool
    verify: str
    threads: int | None

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of what is read."""
        return self.shape if self.part is None else self.part.extent

    @property
    def spec(self) -> str:
        """The slice, with the whole shape even where everything is wanted.

        So a checkpoint that is rewritten with another shape is an error, and never a variable of
        another shape than it was declared with.
        """
        if self.part is not None:
            return self.part.spec
        if not self.fixed or 0 in self.shape:
            return ""
        return slice_spec(self.shape, [0] * len(self.shape), self.shape)


def value_and_parts(library: Any, read: OpRead, dtype: Any, name: str) -> tuple[Any, Any]:
    """The value, which gets the name, and the checksums of the byte ranges that it was read from.

    Args:
        library: The op library.
        read: What is read, and how.
        dtype: The tensor's.
        name: Of the value.
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


def mapped(library: Any, reads: Sequence[OpRead], dtype: Any, names: Sequence[str]) -> list[Any]:
    """Values that are the checkpoint's memory, all from one op, where any of them is computed.

    They come with one row too many, sliced off here: TensorFlow owns a slice, and would copy what
    it does not own at the first update.

    Args:
        library: The op library.
        reads: Parts of one tensor, each with all of its rows one behind the other in its file.
        dtype: The tensor's.
        names: Scopes, ending in ``/``. The values get their names; the op goes into the first.
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
        pieces, begin, sizes = library.tensorbundle_map_v1(**attributes)
        return [tf.slice(piece, begin, size) for piece, size in zip(pieces, sizes, strict=True)]
    dtypes = [*[dtype] * count, tf.int64, *[tf.int64] * count]
    outputs = nodes.make("TensorbundleMapV1", [], dtypes, f"{names[0]}map/", attributes).outputs
    begin = outputs[count]
    values = []
    for piece, size, name, read in zip(
        outputs[:count], outputs[count + 1 :], names, reads, strict=True
    ):
        value = nodes.make("Slice", [piece, begin, size], [dtype], name).outputs[0]
        value.set_shape(read.extent)
        values.append(value)
    return values


def verified(library: Any, prefix: bytes, tensor: str, dtype: Any, parts: Sequence[Any]) -> Any:
    """A scalar that exists only if the checksums of the whole tensor are right.

    Args:
        library: The op library.
        prefix: The checkpoint.
        tensor: The tensor's name.
        dtype: The tensor's.
        parts: What reads of it gave; what they leave out is read once more, in passing.
    """
    return library.tensorbundle_verify_v1(
        parts=list(parts),
        prefix=prefix,
        tensor=key_of(tensor),
        dtype=dtype,
        name="checkpoint_initializer_verify",
    )
