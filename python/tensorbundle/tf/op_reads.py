# SPDX-License-Identifier: Apache-2.0
"""Reads by our own op, which finds everything out when it runs, in the process where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tensorbundle.assignment import Slice, slice_spec


@dataclasses.dataclass(frozen=True, slots=True)
class OpRead:
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


class Bounds:
    """Where slices begin and how long they are, as constants that slices of one size share.

    A constant for every slice would be half of a graph that maps a table in many pieces. For one
    context: control dependencies and loops included.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, tuple[int, ...]], tuple[Any, Any]] = {}

    def from_origin(self, extent: tuple[int, ...], device: str) -> tuple[Any, Any]:
        """A slice of that extent from the first element on.

        Args:
            extent: The slice's shape.
            device: Whatever tells apart where slices are; ops are made on the current one.
        """
        import tensorflow as tf

        key = device, extent
        if key not in self._made:
            begin = tf.constant([0] * len(extent), tf.int64, name="begin")
            self._made[key] = begin, tf.constant(extent, tf.int64, name="size")
        return self._made[key]


def value_and_parts(
    library: Any, read: OpRead, dtype: Any, name: str, bounds: tuple[Any, Any] | None
) -> tuple[Any, Any]:
    """The value, which gets the name, and the checksums of the byte ranges that it was read from.

    A mapping comes with one row too many, sliced off here: TensorFlow owns a slice, and would copy
    what it does not own at the first update.

    Args:
        library: The op library.
        read: What is read, and how.
        dtype: The tensor's.
        name: Of the value.
        bounds: Of the extent, for a mapping.
    """
    import tensorflow as tf

    value, parts = library.tensorbundle_read_v1(
        prefix=read.prefix,
        tensor=read.tensor.encode("utf-8", "surrogateescape"),
        slice_spec=read.spec,
        dtype=dtype,
        mode="map" if bounds else "copy",
        verify=read.verify,
        threads=read.threads or 0,
        name="read" if bounds else name,
    )
    if bounds:
        begin, size = bounds
        value = tf.slice(value, begin, size, name=name)
    if read.fixed:
        value.set_shape(read.extent)
    return value, parts


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
        tensor=tensor.encode("utf-8", "surrogateescape"),
        dtype=dtype,
        name="checkpoint_initializer_verify",
    )
