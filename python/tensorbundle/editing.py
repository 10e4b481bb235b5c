# SPDX-License-Identifier: Apache-2.0
"""Edited copies of checkpoints: ``edit``.

The plan (`edit_plan`) decides everything. Then the tensors are written in the order of the source's
files, and the object graph last, as TensorFlow does:

=============  ===============================================================================
unchanged      copied with their slices, in parallel; the checksums are compared and stored again
changed        read, and compared with their checksums, in blocks on one thread; transposed and
               cast on all threads; written in order
object graph   copied, or edited so that it has the keys and full names of the result
=============  ===============================================================================
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from tensorbundle import _core, arguments, casts, checkpoint, dtypes, naming
from tensorbundle.blocks import submit
from tensorbundle.edit_plan import EditPlan, plan_edit
from tensorbundle.filenames import (
    AnyPath,
    check_not_source,
    destination_prefix,
)
from tensorbundle.naming import OBJECT_GRAPH
from tensorbundle.planned_tensor import PlannedTensor, whole
from tensorbundle.renaming import Rename
from tensorbundle.rules import Cast, Rules, Selector, Transpose
from tensorbundle.tables import size_text
from tensorbundle.tensor import Tensor
from tensorbundle.writer import Writer

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], object]

# Bytes of a block, in the source or in the result. The allocator returns larger ones to the system,
# which costs a page fault per page of the next one.
_BLOCK_BYTES = 1 << 20
# Smaller tensors are cast on the calling thread.
_SMALL = 1 << 20
# Bytes of all blocks that are transposed and cast at the same time, and of their results.
_MAX_BYTES_IN_FLIGHT = 40 << 20


@dataclass(frozen=True)
class EditReport:
    """The result of ``edit``.

    Attributes:
        path: The prefix of the new checkpoint.
        kept: The names of its tensors, in the order of the files.
        dropped: The keys of the source that were left out.
        renamed: Key in the source to name in the result, where they differ.
        cast: Name in the result to (type in the source, type in the result), where they differ.
        warnings: Descriptions of options without effect.
        bytes_before: Size of the tensors of the source.
        bytes_after: Size of the tensors of the result; strings count as in the source.
    """

    path: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    renamed: Mapping[str, str]
    cast: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        """Returns a summary, and a table of the changes."""
        counts = [f"{len(self.kept)} tensors kept", f"{len(self.dropped)} dropped"]
        counts += [f"{len(self.renamed)} renamed", f"{len(self.cast)} cast"]
        before, after = size_text(self.bytes_before), size_text(self.bytes_after)
        lines = [f"{self.path}: {', '.join(counts)}; {before} -> {after}"]
        rows = [("drop", name, "") for name in self.dropped]
        rows += [("rename", old, new) for old, new in self.renamed.items()]
        rows += [("cast", name, " -> ".join(types)) for name, types in self.cast.items()]
        width = max((len(row[1]) for row in rows), default=0)
        lines += [f"  {kind:<6}  {name:<{width}}  {rest}".rstrip() for kind, name, rest in rows]
        lines += [f"  warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def edit(
    src: AnyPath,
    dst: AnyPath,
    *,
    keep: Selector | None = None,
    drop: Selector | None = None,
    slots: bool = True,
    rename: Rename | None = None,
    cast: Cast | None = None,
    transpose: Transpose | None = None,
    partition: Mapping[str, int] | None = None,
    merge: bool = False,
    update: Mapping[str, Any] | None = None,
    rules: Rules | None = None,
    flatten: bool = False,
    shards: SupportsIndex = 1,
    alignment: SupportsIndex = 64,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> EditReport:
    """Writes an edited copy of a checkpoint, without TensorFlow and in bounded memory.

    Every byte that is read is compared with its checksum. Tensors that do not change are copied
    with their slices. Everything that is wrong with the options is found before a file is created.

    Names in the options are those of the source, except in `update`. In a checkpoint with an object
    graph they match a tensor's key, its key without ``/.ATTRIBUTES/VARIABLE_VALUE``, and its full
    name. In patterns, ``*`` matches any characters, also ``/``.

    Args:
        src: The checkpoint, as any path that ``open`` accepts.
        dst: The new prefix, as for ``Writer``.
        keep: A pattern or several, or a callable that gets the key: only these tensors are kept.
        drop: Likewise: these tensors are left out, also if `keep` selects them.
        slots: False leaves out the slots of optimizers, such as Adam's moments.
        rename: A mapping of old to new names; a list of (regular expression, replacement), each of
            which is applied wherever it matches; or a callable from old to new name. Keys and full
            names of an object graph are renamed alike.
        cast: A mapping of types to types, ``{"float32": "bfloat16"}``; its keys may also be names
            or patterns, which take precedence. A single type: all of float64, float32, float16 and
            bfloat16 become that type.
        transpose: A pattern or several, whose tensors get their axes in reverse; or a mapping of
            patterns to True or to a permutation such as ``(3, 2, 0, 1)``.
        partition: A mapping of patterns to numbers of slices along axis 0, which differ by at most
            one row, as TensorFlow's ``fixed_size_partitioner`` cuts.
        merge: Whether to store every other tensor in one slice.
        update: A mapping of names in the result to values, which replace or add tensors.
        rules: A rules file (``tensorbundle.rules``), or a list of such rules. For a tensor that a
            rule matches, the rule's options take precedence over the arguments.
        flatten: Whether to write full names as names, and no object graph.
        shards: The number of data files.
        alignment: As for ``Writer``.
        overwrite: Whether to replace a checkpoint of that prefix.
        threads: Default: as many as the process may use, see ``set_num_threads``.
        progress: Called from time to time with (bytes done, total bytes).
        dry_run: Whether to return the report without writing.

    Returns:
        A report, which ``print`` shows as a table.

    Raises:
        EditError: The options do not fit the checkpoint. It is a ValueError, and lists all
            problems: ``.problems``.
        CorruptionError: The source is corrupted. No file is left.
        DestinationExistsError: `dst` exists, and `overwrite` is False.
        IOFailure: The system failed a call. No file is left.
        TypeError: An argument has the wrong type.
        ValueError: `dst` equals `src`, or has files of it (links count); or an argument is invalid.

    Examples:
        >>> report = tb.edit("model.ckpt-1000", "small/model.ckpt", slots=False,
        ...                  cast={"float32": "bfloat16"}, rename=[("^bert/", "")])
    """
    arguments.check_progress(progress)
    count = arguments.thread_count(threads)
    prefix = destination_prefix(dst)
    with checkpoint.open(src, threads=threads) as source:
        _check_destination(source, prefix)
        plan = plan_edit(
            source,
            keep=keep,
            drop=drop,
            slots=slots,
            rename=rename,
            cast=cast,
            transpose=transpose,
            partition=partition,
            merge=merge,
            update=update,
            rules=rules,
            flatten=flatten,
        )
        report = EditReport(
            path=prefix,
            kept=tuple(tensor.name for tensor in plan.tensors),
            dropped=plan.dropped,
            renamed=plan.renamed,
            cast=plan.cast,
            warnings=plan.warnings,
            bytes_before=sum(tensor.nbytes for tensor in source.values()),
            bytes_after=sum(tensor.nbytes for tensor in plan.tensors) + len(plan.graph or b""),
        )
        if dry_run:
            return report
        with Writer(
            prefix, shards=shards, alignment=alignment, overwrite=overwrite, threads=threads
        ) as writer:
            write_plan(writer, plan, source, threads=count, progress=progress)
    return report


def write_plan(
    writer: Writer,
    plan: EditPlan,
    source: checkpoint.Checkpoint,
    *,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Writes the tensors of a plan, and the object graph.

    Raises:
        CorruptionError: The source is corrupted.
        IOFailure: The system failed a call.
    """
    counter = _Counter(progress, sum(tensor.nbytes for tensor in plan.tensors))
    unchanged: dict[str, Tensor] = {}

    def copy_unchanged() -> None:
        if unchanged:
            writer.copy(unchanged, progress=counter.of_part())
            counter.add(sum(tensor.nbytes for tensor in unchanged.values()))
            unchanged.clear()

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for tensor in plan.tensors:
            if tensor.is_unchanged and isinstance(tensor.source, Tensor):
                unchanged[tensor.name] = tensor.source
                continue
            copy_unchanged()
            changed = _ChangedTensor(tensor, pool, threads, counter)
            writer._call(changed.write)
        copy_unchanged()
    if plan.graph is not None:
        edited = plan.edited_graph()
        if edited == plan.graph:
            writer.copy({OBJECT_GRAPH: source[OBJECT_GRAPH]})
        else:
            writer.add(OBJECT_GRAPH, edited)
    counter.finish()


class _Counter:
    """The progress over all tensors."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        """Counts bytes that were written."""
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def of_part(self) -> Progress | None:
        """Returns the progress function of a call that writes the next bytes."""
        progress, before, total = self._progress, self._done, self._total
        if progress is None:
            return None
        return lambda done, _: progress(min(before + done, total), total)

    def finish(self) -> None:
        """Reports that everything is written."""
        self.add(self._total - self._done)


@dataclass(frozen=True)
class _ChangedTensor:
    """A tensor whose values or slices differ from those of the source."""

    tensor: PlannedTensor
    pool: concurrent.futures.Executor
    threads: int
    counter: _Counter

    def write(self, core: _core.Writer) -> None:
        """Writes all slices."""
        tensor = self.tensor
        name = naming.as_bytes(tensor.name)
        number = casts.number_of(tensor.stored_dtype)
        # Closed at once, because an exception may be in a cycle of references with it.
        with contextlib.closing(tensor.slice_blocks(_BLOCK_BYTES)) as slices:
            for box, blocks in slices:
                offset, shape = (None, None) if box == whole(tensor.shape) else box
                if tensor.dtype == object:
                    strings = [text for block in blocks for text in tensor.finish(block).ravel()]
                    core.add_strings(name, tensor.shape, offset, shape, strings)
                    self.counter.add(tensor.nbytes // len(tensor.slices))
                    continue
                itemsize = tensor.dtype.itemsize
                part = core.begin(name, number, tensor.shape, offset, shape, itemsize)
                for array in self._finished(blocks):
                    part.append(dtypes.to_stored(number, array))
                    self.counter.add(array.nbytes)
                part.finish()

    def _finished(self, blocks: Iterable[Array]) -> Iterator[Array]:
        """Yields the transposed and cast blocks, in order, which are computed on all threads."""
        if self.tensor.nbytes < _SMALL:
            yield from map(self.tensor.finish, blocks)
            return
        running: collections.deque[tuple[int, concurrent.futures.Future[Array]]]
        running = collections.deque()
        in_flight = 0
        try:
            for block in blocks:
                nbytes = block.nbytes + block.size * self.tensor.dtype.itemsize
                running.append((nbytes, submit(self.pool, self.tensor.finish, block)))
                in_flight += nbytes
                del block  # its memory is reused as soon as it has been cast
                while len(running) > self.threads or in_flight > _MAX_BYTES_IN_FLIGHT:
                    nbytes, future = running.popleft()
                    in_flight -= nbytes
                    yield future.result()
            while running:
                yield running.popleft()[1].result()
        finally:
            for _, future in running:
                future.cancel()


def _check_destination(source: checkpoint.Checkpoint, prefix: str) -> None:
    """Raises ValueError if a destination is the source itself, or has files of it."""
    if os.path.abspath(source.path) == os.path.abspath(prefix):
        raise ValueError(f"the destination {prefix!r} is the source: choose another prefix")
    check_not_source(prefix, checkpoint.files_of(source))
