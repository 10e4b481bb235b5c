# SPDX-License-Identifier: Apache-2.0
"""Statistics and histograms of a tensor's values, on all threads and in bounded memory.

The checksums of the tensor are compared first, then its blocks are converted to float64 one by one.
The mean and the sum of squared deviations of each block are merged with those of the blocks before
it (Chan, Golub and LeVeque, 1979), which is accurate where the sum of squares is not. Blocks are
merged in order, so the result does not depend on the number of threads.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from tensorbundle import blocks
from tensorbundle.errors import CorruptionError, IOFailure

if TYPE_CHECKING:
    from tensorbundle.tensor import Array, Tensor

Result = TypeVar("Result")


@dataclass
class TensorStats:
    """Statistics of a tensor's values.

    Attributes:
        count: The number of elements.
        min: The least value that is not NaN, or None. An int for integer types.
        max: The greatest value that is not NaN.
        mean: The mean of the finite values; None without finite values.
        std: Their standard deviation, as by ``np.std``.
        zeros: The number of zeros.
        nan: The number of NaNs.
        inf: The number of infinities.
    """

    count: int = 0
    min: int | float | None = None
    max: int | float | None = None
    mean: float | None = None
    std: float | None = None
    zeros: int = 0
    nan: int = 0
    inf: int = 0


class Histogram(NamedTuple):
    """The number of finite values per interval.

    Attributes:
        edges: The bounds of the intervals, one more than there are counts.
        counts: The number of values per interval.
    """

    edges: list[float]
    counts: list[int]


class _Block(NamedTuple):
    """The statistics of one block.

    `low` and `high` are the least and the greatest value, `finite` the number of finite values,
    `deviations` the sum of the squares of their deviations from their mean.
    """

    elements: int
    zeros: int
    nan: int
    inf: int
    low: int | float | None
    high: int | float | None
    finite: int
    mean: float
    deviations: float


def has_stats(tensor: Tensor) -> bool:
    """Returns whether a tensor has statistics: strings, variants and complex numbers do not."""
    return tensor.dtype != object and tensor.dtype.kind != "c"


def compute_stats(tensor: Tensor, advance: Callable[[int], object] | None = None) -> TensorStats:
    """Computes the statistics of a tensor.

    Requires that ``has_stats(tensor)``. Bool counts as 0 and 1.

    Args:
        tensor: The tensor.
        advance: Called with the number of bytes of each block that is done.

    Returns:
        The statistics.

    Raises:
        CorruptionError: The stored bytes do not match their checksum.
        IOFailure: The system failed a read.
    """
    _verify(tensor)
    result = TensorStats()
    finite = 0
    mean = deviations = 0.0
    for block in _map_blocks(tensor, _block_stats, advance):
        result.count += block.elements
        result.zeros += block.zeros
        result.nan += block.nan
        result.inf += block.inf
        if block.low is not None and block.high is not None:
            result.min = block.low if result.min is None else min(result.min, block.low)
            result.max = block.high if result.max is None else max(result.max, block.high)
        if block.finite:
            merged = finite + block.finite
            share = block.finite / merged
            difference = block.mean - mean
            mean += difference * share
            deviations += block.deviations
            if finite:  # the difference may be so large that its square is infinite
                deviations += difference * difference * (finite * share)
            finite = merged
    if finite:
        result.mean = mean
        result.std = math.sqrt(deviations / finite)
    return result


def compute_histogram(
    tensor: Tensor,
    stats: TensorStats,
    bins: int,
    advance: Callable[[int], object] | None = None,
) -> Histogram:
    """Counts the finite values of a tensor in intervals of equal width.

    Args:
        tensor: The tensor.
        stats: Its statistics. They have compared the checksums, which is not repeated.
        bins: The number of intervals.
        advance: As for ``compute_stats``.

    Returns:
        The histogram; an empty one without finite values. Values that are all the same are in the
        middle of an interval, unless they are close to the limits of float64.
    """
    if stats.min is None or stats.max is None or stats.mean is None:
        return Histogram([], [])
    low, high = float(stats.min), float(stats.max)
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = math.inf, -math.inf
        for least, greatest in _map_blocks(tensor, _finite_bounds):
            low, high = min(low, least), max(high, greatest)
    if low == high:
        margin = max(abs(low) * 1e-6, 0.5)
        limit = sys.float_info.max
        low, high = max(low - margin, -limit), min(high + margin, limit)
    counts = np.zeros(bins, np.int64)
    for found in _map_blocks(
        tensor, functools.partial(_count, low=low, high=high, bins=bins), advance
    ):
        counts += found
    parts = [i / bins for i in range(bins + 1)]
    return Histogram([low * (1 - part) + high * part for part in parts], counts.tolist())


def _block_stats(block: Array) -> _Block:
    values = block.astype(np.float64)
    count = values.size
    zeros = count - int(np.count_nonzero(values))
    nan = inf = 0
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
        if not math.isfinite(total):
            is_nan = np.isnan(values)
            nan = int(np.count_nonzero(is_nan))
            inf = int(np.count_nonzero(np.isinf(values)))
            block = block[~is_nan]
            values = values[np.isfinite(values)]
        finite = values.size
        if not block.size:
            return _Block(count, zeros, nan, inf, None, None, 0, 0.0, 0.0)
        # For float64, the sum of finite values may overflow, but not the sum of their shares.
        mean = total / count if finite == count else math.nan
        if not math.isfinite(mean):
            mean = float((values / max(finite, 1)).sum())
        values -= mean
        values *= values  # not a dot product: BLAS would start threads
        deviations = float(values.sum())
    low, high = block.min().item(), block.max().item()
    if isinstance(low, bool):
        low, high = int(low), int(high)
    return _Block(count, zeros, nan, inf, low, high, finite, mean, deviations)


def _finite_bounds(block: Array) -> tuple[float, float]:
    """Returns the least and the greatest finite value of a block, or (inf, -inf)."""
    values = _finite(block)
    return (float(values.min()), float(values.max())) if values.size else (math.inf, -math.inf)


def _count(block: Array, *, low: float, high: float, bins: int) -> Array:
    """Returns the number of values per interval."""
    # Halves, because the difference of two values of float64 may overflow.
    values = _finite(block) / 2
    values -= low / 2
    values *= bins / (high / 2 - low / 2)
    places = values.astype(np.int64)
    np.clip(places, 0, bins - 1, out=places)
    return np.bincount(places, minlength=bins)


def _finite(block: Array) -> Array:
    values = block.astype(np.float64)
    is_finite = np.isfinite(values)
    return values if is_finite.all() else values[is_finite]


def _verify(tensor: Tensor) -> None:
    checkpoint = tensor._checkpoint._core
    for message, number in blocks.damage(checkpoint, [tensor]).values():
        if number:
            raise IOFailure(message, number)
        raise CorruptionError(message)


def _map_blocks(
    tensor: Tensor,
    function: Callable[[Array], Result],
    advance: Callable[[int], object] | None = None,
) -> Iterator[Result]:
    """Yields ``function(block)`` for each block, in order."""

    def apply(box: Any) -> tuple[Result, int]:
        block = blocks.read_box(tensor, box)
        return function(block), block.nbytes

    boxes = blocks.boxes(tensor.shape)
    # A single block is not worth a thread.
    threads = 1 if tensor.size <= blocks.BLOCK_ELEMENTS else tensor._checkpoint._core.threads
    for result, nbytes in blocks.map_in_order(apply, boxes, threads):
        yield result
        if advance is not None:
            advance(nbytes)
