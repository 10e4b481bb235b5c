# SPDX-License-Identifier: Apache-2.0
"""Rewriting of checkpoints with aligned tensors, which can be mapped: ``align``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsIndex

from tensorbundle import _core, arguments, paths
from tensorbundle.errors import CorruptionError, UnsupportedError
from tensorbundle.filenames import AnyPath, destination_errors, destination_prefix


@dataclass(frozen=True)
class AlignReport:
    """The result of ``align``.

    Attributes:
        path: The prefix of the new checkpoint.
        slices: Number of stored slices: one per tensor, several per partitioned tensor.
        moved: Number of stored slices whose offset changed.
        bytes_before: Size of the source's data files.
        bytes_after: Size of the new data files. The difference is padding, added or removed.
    """

    path: str
    slices: int
    moved: int
    bytes_before: int
    bytes_after: int


def align(
    src: AnyPath,
    dst: AnyPath,
    *,
    alignment: SupportsIndex = 4096,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> AlignReport:
    """Rewrites a checkpoint so that every tensor can be mapped.

    The copy has the same names, values, slices, shards, checksums, byte order and object graph;
    only offsets differ. Every stored slice of 1 MB (``10**6`` bytes) or more starts at a multiple
    of `alignment`, every other slice at a multiple of 64. Each byte is read once and compared with
    its stored checksum. Memory use stays below 16 MB plus the index. Aligning an aligned checkpoint
    copies it byte for byte.

    All files are written under temporary names next to the destination, synced, and then renamed,
    the index last. A killed process leaves either no checkpoint or a complete one; the next write
    to the same prefix removes its other leftovers. A call that raises leaves no files. Existing
    files are never replaced.

    Args:
        src: The checkpoint, as any path that ``open`` accepts.
        dst: The new prefix, or one of its file names (``.index``, ``.data-...``). For a directory,
            or a path that ends in a slash, the source's base name is appended. A missing directory
            is created if its parent exists.
        alignment: A power of two from 64 to ``2**30``, in bytes. 4096 suits mappings and
            direct I/O.
        threads: Default: as many as the process may use, see ``set_num_threads``.
        progress: Called from time to time with (bytes done, total bytes).

    Returns:
        A report with the new prefix and the changes in offsets and size.

    Raises:
        CheckpointNotFoundError: The source or one of its data shards does not exist.
        CorruptionError: The source is corrupted; the message names the tensor.
        DestinationExistsError: A destination file already exists. It is an IOFailure and a
            FileExistsError.
        IOFailure: The system failed a read or a write, for example because the disk is full.
        UnsupportedError: The source is a V1 checkpoint, some of its tensors overlap in part, or a
            path is not local.
        TypeError: An argument has the wrong type.
        ValueError: `dst` equals `src`, or `alignment` is not a power of two in
            ``[64, 2**30]``.

    Examples:
        >>> tb.align("model.ckpt-1000", "aligned/model.ckpt-1000").path
        'aligned/model.ckpt-1000'
    """
    number = arguments.check_alignment(alignment, 64)
    arguments.check_progress(progress)
    count = arguments.thread_count(threads)
    source = paths.resolve(src)
    if source.format != 2:
        raise UnsupportedError(
            f"{source.prefix!r} is a V1 checkpoint: its tensors are stored inside a table and "
            "cannot be aligned. Restore it with TensorFlow and save it again as V2, the default of "
            "tf.compat.v1.train.Saver, then align the V2 checkpoint"
        )
    prefix = destination_prefix(dst, os.path.basename(source.prefix))
    try:
        with destination_errors():
            counts = _core.align(
                os.fsencode(source.prefix), os.fsencode(prefix), number, count, progress
            )
    except CorruptionError:
        paths.describe_wrong_files(source)
        raise
    return AlignReport(prefix, *counts)
