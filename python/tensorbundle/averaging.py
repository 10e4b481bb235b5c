# SPDX-License-Identifier: Apache-2.0
"""The weighted mean of several checkpoints: ``average``.

plan   compare names, types and shapes of all checkpoints; nothing is written if they differ
write  for each tensor, in the file order of the last checkpoint, and each slice stored there:
       verify the sources, average block by block in float64 on all threads, append to the slice
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorbundle import _core, arguments, blocks, casts, checkpoint
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import CorruptionError, IOFailure
from tensorbundle.filenames import AnyPath, check_not_source, destination_prefix
from tensorbundle.tables import html_table, plural, size_text
from tensorbundle.tensor import StoredSlice, Tensor
from tensorbundle.writer import Writer, begin_slice

Array = np.ndarray[Any, Any]
Group = tuple[Tensor, ...]

_AVERAGED = ("float", "half", "bfloat", "complex")
# Weights are scaled if the largest is beyond 2**_MAX_EXPONENT or its reciprocal.
_MAX_EXPONENT = 100
# The least sum of weights, as a fraction of the sum of their absolute values.
_MIN_SUM = 1e-12
# Problems that one message lists.
_MAX_PROBLEMS = 50


@dataclass(frozen=True)
class AverageReport:
    """The result of ``average``.

    Attributes:
        path: The prefix of the new checkpoint.
        sources: The checkpoints that were averaged.
        weights: The weight of each, normalized to a sum of 1.
        averaged: The names of the averaged tensors.
        copied: The names of the tensors that were copied from the last source.
        nbytes: The bytes of all tensors.
    """

    path: str
    sources: tuple[str, ...]
    weights: tuple[float, ...]
    averaged: tuple[str, ...]
    copied: tuple[str, ...]
    nbytes: int

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{self.path}: {plural(len(self.averaged), 'tensor')} averaged from "
            f"{plural(len(self.sources), 'checkpoint')}, {len(self.copied):,} copied from the "
            f"last, {size_text(self.nbytes)}"
        )

    def __str__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        rows = [
            (f"{weight:.4g}", path) for path, weight in zip(self.sources, self.weights, strict=True)
        ]
        return html_table(self.summary, ("weight", "checkpoint"), rows)


def average(
    srcs: Iterable[AnyPath | Checkpoint],
    dst: AnyPath,
    *,
    weights: Iterable[float] | None = None,
    shards: int = 1,
    alignment: int = 64,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> AverageReport:
    """Writes the weighted mean of several checkpoints, without reading them into memory.

    Float and complex tensors become ``sum(weight * value) / sum(weights)``, computed in float64
    (complex128) and rounded once to the stored type. NaN and infinities propagate, also with weight
    0, as in ``numpy.average``. All other tensors (integers such as ``global_step``, bools, strings,
    an object graph) are copied from the last checkpoint, and so are its partitions. The partitions
    of the other checkpoints may differ. All bytes are compared with their checksums.

    Args:
        srcs: The checkpoints, as any paths that ``open`` accepts, or open ones.
        dst: The prefix of the new checkpoint.
        weights: A finite number for each checkpoint, with a sum other than 0; default: all the
            same.
        shards: The number of data files.
        alignment: As for ``Writer``.
        overwrite: Whether to replace a checkpoint at `dst`. It cannot be one of `srcs`.
        threads: Default: as many as the process may use, see ``set_num_threads``.
        progress: Called from time to time with (bytes done, total bytes) of all sources.

    Returns:
        A report with the new prefix and the names of the averaged and copied tensors.

    Raises:
        CheckpointNotFoundError: A source, or one of its data files, does not exist.
        CorruptionError: A source is corrupted; the message names the tensor.
        DestinationExistsError: `dst` exists, and `overwrite` is false.
        IOFailure: The system failed a read or a write.
        TypeError: An argument has the wrong type.
        ValueError: Names, types or shapes differ between the sources (the message lists all of
            them); `weights` are invalid; there are no sources; or `dst` is one of them.

    Examples:
        >>> tb.average(["model.ckpt-1000", "model.ckpt-2000"], "averaged/model.ckpt").path
        'averaged/model.ckpt'
    """
    if isinstance(srcs, (str, bytes, os.PathLike, Checkpoint)):
        raise TypeError(f"srcs must be a sequence of checkpoints, not {type(srcs).__name__}")
    arguments.check_progress(progress)
    paths = list(srcs)
    if not paths:
        raise ValueError("srcs must have at least one checkpoint")
    factors = _weights(weights, len(paths))
    prefix = destination_prefix(dst)
    count = arguments.thread_count(threads)
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(checkpoint.opened(path)) for path in paths]
        _check_destination(prefix, sources)
        groups = _matched(sources)
        averager = _Averager(sources, factors, count, progress)
        with Writer(
            prefix, shards=shards, alignment=alignment, overwrite=overwrite, threads=threads
        ) as writer:
            averager.write(writer, groups)
        total = sum(factors)
        return AverageReport(
            path=writer.path,
            sources=tuple(source.path for source in sources),
            weights=tuple(factor / total for factor in factors),
            averaged=tuple(group[-1].name for group in groups if _is_averaged(group[-1])),
            copied=tuple(group[-1].name for group in groups if not _is_averaged(group[-1])),
            nbytes=sum(group[-1].nbytes for group in groups),
        )


def _weights(weights: Iterable[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Iterable):
        raise TypeError(f"weights must be a sequence of numbers, not {type(weights).__name__}")
    found = []
    for weight in weights:
        try:
            found.append(float(weight))
        except OverflowError:
            raise ValueError(f"weights must be finite, not {weight!r:.40}") from None
        except (TypeError, ValueError):
            raise TypeError(f"weights must be numbers, not {weight!r}") from None
    if len(found) != count:
        raise ValueError(f"there are {len(found)} weights for {plural(count, 'checkpoint')}")
    if not all(map(math.isfinite, found)):
        raise ValueError(f"weights must be finite, not {found}")
    exponent = math.frexp(max(map(abs, found)))[1]
    if abs(exponent) > _MAX_EXPONENT:  # products with values could overflow, or lose digits
        found = [math.ldexp(weight, -exponent) for weight in found]
    # A sum that is only the rounding error of its terms would scale the result by 1e16.
    if not _MIN_SUM * sum(map(abs, found)) < abs(sum(found)) < math.inf:
        raise ValueError(f"the sum of the weights must be finite and not 0, but they are {found}")
    return found


def _matched(sources: Sequence[Checkpoint]) -> list[Group]:
    """Returns the tensors of each name, one per source, in the file order of the last source.

    Raises:
        ValueError: The sources differ; the message lists all differences.
        CheckpointNotFoundError, CorruptionError: A tensor cannot be read.
    """
    last = sources[-1]
    tensors = [dict(source.items()) for source in sources]
    problems: list[str] = []
    for source, found in zip(sources[:-1], tensors[:-1], strict=True):
        problems += [
            f"{name!r} is in {last.path!r}, but not in {source.path!r}"
            for name in tensors[-1]
            if name not in found
        ]
        for name, tensor in found.items():
            expected = tensors[-1].get(name)
            if expected is None:
                problems.append(f"{name!r} is in {source.path!r}, but not in {last.path!r}")
            elif _kind(tensor) != _kind(expected):
                problems.append(
                    f"{name!r} is {_describe(tensor)} in {source.path!r}, but "
                    f"{_describe(expected)} in {last.path!r}"
                )
    if problems:
        raise ValueError("the checkpoints differ:\n  " + _list(problems))
    for found in tensors:
        for tensor in found.values():
            if _is_averaged(tensor):
                tensor._core.check_box([0] * tensor.ndim, tensor.shape)
    ordered = sorted(tensors[-1].values(), key=blocks.file_order)
    return [tuple(found[tensor.name] for found in tensors) for tensor in ordered]


def _list(problems: Sequence[str]) -> str:
    more = len(problems) - _MAX_PROBLEMS
    shown = [*problems[:_MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
    return "\n  ".join(shown)


def _kind(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return tensor.stored_dtype, tensor.shape


def _describe(tensor: Tensor) -> str:
    return f"{tensor.stored_dtype} {list(tensor.shape)}"


def _is_averaged(tensor: Tensor) -> bool:
    """Returns whether a tensor has floats. They are integers if ml_dtypes lacks their type."""
    is_float = tensor.stored_dtype.startswith(_AVERAGED) and tensor.dtype.kind not in "iuO"
    return is_float and tensor.size > 0


def _check_destination(prefix: str, sources: Sequence[Checkpoint]) -> None:
    for source in sources:
        if os.path.realpath(prefix) == os.path.realpath(source.path):
            raise ValueError(f"the destination {prefix!r} is one of the sources")
        check_not_source(prefix, checkpoint.files_of(source))


class _Averager:
    """Averages the tensors of one call."""

    def __init__(
        self,
        sources: Sequence[Checkpoint],
        weights: Sequence[float],
        threads: int,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._sources = sources
        self._weights = weights
        self._threads = threads
        self._progress = progress
        self._total = 0
        self._done = 0

    def write(self, writer: Writer, groups: Sequence[Group]) -> None:
        """Writes tensors. A group has the tensor of every source, the one to copy last."""
        self._total = sum(map(_source_bytes, groups))
        for batch in blocks.batches(groups, _source_bytes):
            copied = {each[-1].name: each[-1] for each in batch if not _is_averaged(each[-1])}
            averaged = [each for each in batch if _is_averaged(each[-1])]
            if copied:
                writer.copy(copied)
                self._advance(sum(tensor.nbytes for tensor in copied.values()))
            for number, source in enumerate(self._sources):
                _verify(source, [group[number] for group in averaged])
            if averaged:
                writer._call(functools.partial(self._write_means, averaged))
        blocks.require_unchanged(*(source._core for source in self._sources))

    def _write_means(self, groups: Sequence[Group], core: _core.Writer) -> None:
        tasks = (
            (group, stored, box)
            for group in groups
            for stored in group[-1].slices
            for box in blocks.boxes(stored.shape, stored.offset)
        )

        def mean(task: tuple[Group, StoredSlice, blocks.Box]) -> tuple[Group, StoredSlice, Array]:
            group, stored, box = task
            return (
                group,
                stored,
                weighted_mean([blocks.copy_box(each, box) for each in group], self._weights),
            )

        part = None
        with contextlib.closing(blocks.map_in_order(mean, tasks, self._threads)) as results:
            for group, stored, array in results:
                part = part or begin_slice(core, group[-1].name, group[-1], stored)
                part.append(array)
                self._advance(array.nbytes * len(group))
                if part.left == 0:
                    part.finish()
                    part = None

    def _advance(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _source_bytes(group: Group) -> int:
    """Returns the bytes to read for a tensor."""
    if _is_averaged(group[-1]):
        return sum(tensor.nbytes for tensor in group)
    return group[-1].nbytes


def _verify(source: Checkpoint, tensors: Sequence[Tensor]) -> None:
    """Raises the error of the first tensor that is corrupted or cannot be read."""
    for message, number in blocks.damage(source._core, tensors).values():
        if number:
            raise IOFailure(message, number, source.path)
        raise CorruptionError(message)


def weighted_mean(arrays: Sequence[Any], weights: Sequence[float]) -> Array:
    """Returns the weighted mean of arrays of the same shape and dtype, in that dtype."""
    first = np.asarray(arrays[0])
    wide: Any = np.complex128 if first.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        total = first.astype(wide)
        if weights[0] != 1:
            total *= weights[0]
        product = np.empty_like(total)
        for array, weight in zip(arrays[1:], weights[1:], strict=True):
            np.copyto(product, array)
            if weight != 1:
                product *= weight
            total += product
        total /= sum(weights)
        if first.dtype.itemsize == total.dtype.itemsize and not np.isfinite(total).all():
            total = _without_overflow(total, arrays, weights)
        return casts.cast(total, first.dtype)


def _without_overflow(mean: Array, arrays: Sequence[Any], weights: Sequence[float]) -> Array:
    """Returns a mean in which parts that are not finite are computed from smaller terms.

    A power of two scales the terms, which loses nothing beside the terms that overflow.
    """
    factor = 2.0 ** -(math.frexp(sum(map(abs, weights)))[1] + 1)
    parts = np.atleast_1d(mean).view(np.float64)  # of complex numbers: both
    total = np.zeros_like(parts)
    for array, weight in zip(arrays, weights, strict=True):
        terms = np.atleast_1d(np.ascontiguousarray(array, mean.dtype)).view(np.float64)
        total += terms * factor * weight
    total = total / sum(weights) / factor
    np.copyto(parts, total, where=~np.isfinite(parts))
    return parts.view(mean.dtype).reshape(mean.shape)
