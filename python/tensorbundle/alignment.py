# SPDX-License-Identifier: Apache-2.0
"""Checkpoints rewritten so that their tensors can be mapped."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsIndex

from tensorbundle import _core, arguments, paths
from tensorbundle.errors import IOFailure, UnsupportedError
from tensorbundle.filenames import INDEX_SUFFIX, AnyPath, data_file_prefix, path_text


class DestinationExistsError(IOFailure, FileExistsError):
    """There is a checkpoint, or a file of one, where a new one was to be written."""


@dataclass(frozen=True)
class AlignReport:
    """What ``align`` did.

    Attributes:
        path: The prefix of the new checkpoint.
        slices: Stored slices: one per tensor, several per partitioned one.
        moved: How many of them lie at another offset than before.
        bytes_before: Size of the source's data files.
        bytes_after: Size of the new ones; the difference is padding, or padding that was dropped.
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
    """Writes a checkpoint anew, with every tensor where it can be mapped.

    The copy is the same checkpoint to TensorFlow and to us: names, values, slices, shards,
    checksums, byte order, object graph. Only offsets differ: every stored slice of 1 MB (10**6
    bytes) or more begins at a multiple of `alignment`, every other at a multiple of 64. Each byte
    is read once and compared with its stored checksum on the way; memory stays below 16 MB beside
    the index. An aligned checkpoint comes out byte for byte as it was.

    Everything is written under temporary names beside the destination, brought to the disk, and
    only then named, the index last. A process that is killed leaves no checkpoint there, or all of
    it; what else it leaves (``*.tempstate*``, data files without an index) can be deleted. A
    failure leaves nothing. No file is ever replaced.

    Args:
        src: The checkpoint, by any path that ``open`` takes.
        dst: The new prefix, or a file name of it (``.index``, ``.data-...``). A directory, or a
            path that ends in a slash, takes the source's own name inside it. A directory that is
            missing is made if its parent is there.
        alignment: In bytes: a power of two from 64 to 2**30. 4096 suits mappings, and direct I/O.
        threads: By default as many as the process may use: see ``set_num_threads``.
        progress: Called now and then with (bytes done, bytes in all).

    Returns:
        Where it is, and what it cost.

    Raises:
        CheckpointNotFoundError: There is no such source, or a data shard of it is missing.
        CorruptionError: The source is damaged; the message names the tensor.
        DestinationExistsError: A file is there already. It is an IOFailure and a FileExistsError.
        IOFailure: The system failed a read or a write, as when the disk is full.
        UnsupportedError: The source is a V1 checkpoint, or has tensors that overlap in part; or a
            path is not local.
        TypeError: An argument is not of its type.
        ValueError: The destination is the source, or `alignment` is not a power of two from 64 to
            2**30.

    Example:
        >>> tb.align("model.ckpt-1000", "aligned/model.ckpt-1000").path
        'aligned/model.ckpt-1000'
    """
    number = arguments.integer(alignment, "alignment")
    if not 64 <= number <= 1 << 30:
        shown = arguments.shown(number)
        raise ValueError(f"alignment must be a power of two from 64 to 2**30, not {shown}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    count = arguments.num_threads(None if threads is None else arguments.check_threads(threads))
    source = paths.resolve(src)
    if source.format != 2:
        raise UnsupportedError(
            f"{source.prefix!r} is a V1 checkpoint: its tensors lie inside a table and cannot be "
            "aligned. Restore it with TensorFlow and save it again, as V2 (the default of "
            "tf.compat.v1.train.Saver), then align that"
        )
    prefix = _destination(dst, source.prefix)
    try:
        numbers = _core.align(
            os.fsencode(source.prefix),
            os.fsencode(prefix),
            alignment=number,
            threads=count,
            progress=progress,
        )
    except IOFailure as error:
        if error.errno != errno.EEXIST:
            raise
        raise DestinationExistsError(error._message, errno.EEXIST, error.filename) from None
    return AlignReport(prefix, *numbers)


def _destination(path: AnyPath, source: str) -> str:
    """The prefix that a destination stands for."""
    text = path_text(path)
    if not text or "\0" in text:
        raise ValueError(f"a destination is a path, not {text!r}")
    if text.startswith("~") and not os.path.lexists(text.partition("/")[0]):
        text = os.path.expanduser(text)
    if text.endswith(os.sep) or os.path.isdir(text):
        return os.path.join(text, os.path.basename(source))
    return data_file_prefix(text) or text.removesuffix(INDEX_SUFFIX)
