# SPDX-License-Identifier: Apache-2.0
"""What a read would touch and how it would be done: ``Tensor.explain`` and ``byte_ranges``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbundle import _core, dtypes, gather, indexing

Array = np.ndarray[Any, Any]

_ALIGNMENT = 64  # what consumers that take memory without a copy ask for


@dataclass(frozen=True)
class ReadPlan:
    """What ``t[index]`` and ``t.read(index)`` would do now.

    Attributes:
        name: The tensor's name.
        shape: Of the result.
        dtype: Of the result.
        slices: Stored slices with elements that are asked for.
        ranges: Contiguous ranges of bytes in the files.
        bytes_asked: Bytes of the result.
        bytes_read: Bytes of the ranges: more than asked for if an index has steps, or a slice
            must be decoded whole.
        bytes_touched: Bytes of the pages that the ranges lie in.
        resident: How much of the touched pages is in the page cache, from 0 to 1; None where the
            system does not tell.
        means: Of ``t[index]``: ``"view"``, ``"gather"`` (rows from the mapping), ``"pread"``,
            ``"direct"``, ``"decode"`` or ``"nothing"``.
        why_no_view: Why it is not a view, or None.
        stream_means: Of ``t.chunks()``: ``"direct"`` where it would pass by the page cache, else as
            a copy.
        threads: That a copy uses.
        checksum: Which checksums ``t.read(index)`` would compare.
        alignment: The largest power of two, up to 4096, that divides the offset of the first byte;
            None when nothing is read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slices: int
    ranges: int
    bytes_asked: int
    bytes_read: int
    bytes_touched: int
    resident: float | None
    means: str
    why_no_view: str | None
    stream_means: str
    threads: int
    checksum: str
    alignment: int | None

    def __str__(self) -> str:
        resident = "unknown" if self.resident is None else f"{self.resident:.0%}"
        means = self.means if self.why_no_view is None else f"{self.means} ({self.why_no_view})"
        if self.alignment is None:
            alignment = "-"
        else:
            enough = "enough" if self.alignment >= _ALIGNMENT else "too little"
            alignment = f"{self.alignment} bytes, {enough} for {_ALIGNMENT}"
        return "\n".join(
            [
                f"{self.name!r} {self.dtype} {self.shape}",
                f"  means      {means}; streamed: {self.stream_means}",
                f"  stored in  {self.slices} slices, {self.ranges} ranges",
                f"  bytes      {self.bytes_asked:,} asked, {self.bytes_read:,} read, "
                f"{self.bytes_touched:,} touched",
                f"  in memory  {resident}",
                f"  alignment  {alignment}",
                f"  threads    {self.threads}",
                f"  checksum   {self.checksum}",
            ]
        )


def byte_ranges(tensor: _core.Tensor, index: Any) -> list[tuple[str, int, int]]:
    """Implements ``Tensor.byte_ranges``."""
    files = tensor.file_paths()
    found = _ranges(tensor, index).T.tolist()
    return [(files[file], offset, nbytes) for file, offset, nbytes in zip(*found, strict=True)]


def explain(tensor: _core.Tensor, index: Any) -> ReadPlan:
    """Implements ``Tensor.explain``."""
    ranges = _ranges(tensor, index)
    facts = tensor.inspect_ranges(ranges)
    shape = _result_shape(tensor, index)
    means, why = _means(tensor, index)
    copied = "direct" if tensor.io == "direct" else "pread"
    if tensor.dtype == object or tensor.is_decoded:
        copied = "decode"
    itemsize = 0 if tensor.dtype == object else tensor.dtype.itemsize
    return ReadPlan(
        name=tensor.name,
        shape=shape,
        dtype=tensor.dtype,
        slices=facts["slices"],
        ranges=len(ranges),
        bytes_asked=math.prod(shape) * itemsize if itemsize else facts["bytes"],
        bytes_read=facts["bytes"],
        bytes_touched=facts["touched"],
        resident=facts["resident"] / facts["probed"] if facts["probed"] else None,
        means=copied if means == "copy" else means,
        why_no_view=why,
        stream_means="direct" if facts["direct"] and copied == "pread" else copied,
        threads=tensor.threads,
        checksum=_checksum(tensor, index, facts),
        alignment=None if len(ranges) == 0 else math.gcd(4096, int(ranges[0, 1])),
    )


def _ranges(tensor: _core.Tensor, index: Any) -> Array:
    """(file number, offset, size) of every range, in an array of three columns."""
    if gather.is_row_index(index):
        return tensor.ranges_of_rows(_positions(tensor, index))
    indexing.require_basic(index, tensor.name)
    box = indexing.to_box(index, tensor.shape)
    return tensor.ranges_of_box(box.starts, box.lengths)


def _positions(tensor: _core.Tensor, index: Any) -> Array:
    """Row numbers from 0 on, flat."""
    if not tensor.shape:
        raise TypeError(f"tensor {tensor.name!r} is a scalar: it has no rows")
    numbers = gather.row_numbers(index).reshape(-1)
    count = tensor.shape[0]
    bad = (numbers >= count) | (numbers < -count if numbers.dtype.kind == "i" else False)
    if bad.any():
        raise IndexError(f"row {numbers[bad][0]} is not in tensor {tensor.name!r} of {count} rows")
    positions = numbers.astype(np.int64)
    return np.where(positions < 0, positions + count, positions)


def _result_shape(tensor: _core.Tensor, index: Any) -> tuple[int, ...]:
    if gather.is_row_index(index):
        return (*np.shape(index), *tensor.shape[1:])
    # Strides of 0 cost nothing: the shape that NumPy gives this index.
    return np.broadcast_to(np.empty((), np.bool_), tensor.shape)[
        (*index, ...) if isinstance(index, tuple) and Ellipsis not in index else index
    ].shape


def _means(tensor: _core.Tensor, index: Any) -> tuple[str, str | None]:
    """How ``t[index]`` gets its elements, and why that is no view."""
    if math.prod(_result_shape(tensor, index)) == 0:
        return "nothing", None
    if tensor.dtype == object:
        return "decode", "its elements have no fixed size"
    if gather.is_row_index(index):
        mapped = tensor.io in ("auto", "mmap") and not tensor.is_decoded
        return ("gather" if mapped else "copy"), "rows are copied together"
    if tensor.view() is not None:
        return "view", None
    box = indexing.to_box(index, tensor.shape)
    if tensor.view_box(box.starts, box.lengths) is not None:
        return "view", None
    return "copy", view_obstacle(tensor)


def view_obstacle(tensor: _core.Tensor) -> str | None:
    """Why there is no view of the whole tensor; None if there is one."""
    if tensor.type_number in dtypes.SIGN_EXTENDED:
        return f"{dtypes.stored_name(tensor.type_number)} must be widened to {tensor.dtype}"
    return tensor.view_obstacle()


def _checksum(tensor: _core.Tensor, index: Any, facts: dict[str, int]) -> str:
    if not tensor.verify:
        return 'not compared: opened with verify="none"'
    if gather.is_row_index(index):
        return "not compared: rows are not whole slices"
    whole, verified, slices = facts["whole"], facts["verified"], facts["slices"]
    parts = [
        (whole - verified, "compared"),
        (verified, "compared before"),
        (slices - whole, "not compared: not read whole"),
    ]
    return ", ".join(f"{count} of {slices} slices {what}" for count, what in parts if count) or "-"
