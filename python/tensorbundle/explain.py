# SPDX-License-Identifier: Apache-2.0
"""Descriptions of reads without reading: ``Tensor.explain`` and ``Tensor.byte_ranges``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbundle import _core, dtypes, gather, indexing
from tensorbundle.tables import plural

Array = np.ndarray[Any, Any]

_ALIGNMENT = 64  # the alignment that zero-copy consumers require


@dataclass(frozen=True)
class ReadPlan:
    """The plan of ``t[index]`` and ``t.read(index)`` at this moment.

    Attributes:
        name: The tensor's name.
        shape: The shape of the result.
        dtype: The dtype of the result.
        slices: The number of stored slices with requested elements.
        ranges: The number of contiguous byte ranges in the files.
        bytes_asked: The size of the result in bytes.
        bytes_read: The size of the ranges in bytes. Larger than `bytes_asked` if an index has
            steps, or a slice must be decoded whole.
        bytes_touched: The size of the pages that contain the ranges, in bytes.
        resident: The fraction of the touched pages in the page cache; None if the system does not
            report it.
        means: The method of ``t[index]``: ``"view"``, ``"gather"`` (rows from the mapping),
            ``"pread"``, ``"direct"``, ``"requests"`` (to a remote store), ``"decode"`` or
            ``"nothing"``.
        why_no_view: The reason why the result is not a view, or None.
        stream_means: The method of ``t.chunks()``: ``"direct"`` if it would bypass the page cache,
            else the method of a copy.
        threads: The number of threads of a copy.
        checksum: The checksums that ``t.read(index)`` would compare.
        alignment: The largest power of two, up to 4096, that divides the offset of the first byte;
            None for an empty result.
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
            verdict = "aligned" if self.alignment >= _ALIGNMENT else "not aligned"
            alignment = f"{self.alignment} bytes, {verdict} to {_ALIGNMENT}"
        return "\n".join(
            [
                f"{self.name!r} {self.dtype} {self.shape}",
                f"  means      {means}; streamed: {self.stream_means}",
                f"  stored in  {plural(self.slices, 'slice')}, {plural(self.ranges, 'range')}",
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
    columns = _ranges(tensor, index).T.tolist()
    return [(files[file], offset, nbytes) for file, offset, nbytes in zip(*columns, strict=True)]


def explain(tensor: _core.Tensor, index: Any) -> ReadPlan:
    """Implements ``Tensor.explain``."""
    ranges = _ranges(tensor, index)
    counts = tensor.inspect_ranges(ranges)
    shape = _result_shape(tensor, index)
    method, why_no_view = _read_method(tensor, index)
    copy_method = tensor.io if tensor.io in ("direct", "requests") else "pread"
    if tensor.dtype == object or tensor.is_decoded:
        copy_method = "decode"
    itemsize = 0 if tensor.dtype == object else tensor.dtype.itemsize
    return ReadPlan(
        name=tensor.name,
        shape=shape,
        dtype=tensor.dtype,
        slices=counts["slices"],
        ranges=len(ranges),
        bytes_asked=math.prod(shape) * itemsize if itemsize else counts["bytes"],
        bytes_read=counts["bytes"],
        bytes_touched=counts["touched"],
        resident=counts["resident"] / counts["probed"] if counts["probed"] else None,
        means=copy_method if method == "copy" else method,
        why_no_view=why_no_view,
        stream_means="direct" if counts["direct"] and copy_method == "pread" else copy_method,
        threads=tensor.threads,
        checksum=_describe_checksums(tensor, index, counts),
        alignment=None if len(ranges) == 0 else math.gcd(4096, int(ranges[0, 1])),
    )


def _ranges(tensor: _core.Tensor, index: Any) -> Array:
    """Returns (file number, offset, size) of every range, as an array of three columns."""
    if gather.is_row_index(index):
        return tensor.ranges_of_rows(_row_positions(tensor, index))
    indexing.require_basic(index, tensor.name)
    box = indexing.to_box(index, tensor.shape)
    return tensor.ranges_of_box(box.offset, box.shape)


def _row_positions(tensor: _core.Tensor, index: Any) -> Array:
    """Returns the rows of an index as a flat array of nonnegative numbers."""
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
    # NumPy computes the shape from a broadcast array, which takes no memory.
    return np.broadcast_to(np.empty((), np.bool_), tensor.shape)[
        (*index, ...) if isinstance(index, tuple) and Ellipsis not in index else index
    ].shape


def _read_method(tensor: _core.Tensor, index: Any) -> tuple[str, str | None]:
    """Returns the method of ``t[index]``, and the reason why the result is not a view."""
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
    if tensor.view_box(box.offset, box.shape) is not None:
        return "view", None
    return "copy", view_obstacle(tensor)


def view_obstacle(tensor: _core.Tensor) -> str | None:
    """Returns why the whole tensor cannot be viewed; None if it can."""
    if tensor.type_number in dtypes.SIGN_EXTENDED:
        return f"{dtypes.stored_name(tensor.type_number)} must be widened to {tensor.dtype}"
    return tensor.view_obstacle()


def _describe_checksums(tensor: _core.Tensor, index: Any, counts: dict[str, int]) -> str:
    if not tensor.verify:
        return 'not compared: opened with verify="none"'
    if gather.is_row_index(index):
        return "not compared: rows are not whole slices"
    whole, verified, slices = counts["whole"], counts["verified"], counts["slices"]
    outcomes = [
        (whole - verified, "compared"),
        (verified, "compared before"),
        (slices - whole, "not compared: not read whole"),
    ]
    return (
        ", ".join(f"{count} of {slices} slices {outcome}" for count, outcome in outcomes if count)
        or "-"
    )
