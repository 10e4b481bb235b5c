# SPDX-License-Identifier: Apache-2.0
"""Rows of a table by number, into a given array."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, content, rivals
from bench.case import FLOOR, OURS, UNVERIFIED, Case, Contender, Destination, Run
from bench.content import Array
from bench.sizes import DIM, Size
from bench.tables import Table

THREADS = len(os.sched_getaffinity(0))
_SLOW = 0.02
"""The part of the ids given to readers that need more than a second for all of them."""


@dataclass(frozen=True)
class Gather:
    """`count` ids into a table, drawn as `kind` says."""

    table: Table
    count: int
    kind: str = "uniform"

    @property
    def ids(self) -> Array:
        return content.row_ids(self.kind, self.count, self.table.rows)

    def some(self) -> Array:
        return self.ids[: math.ceil(self.count * _SLOW)]


def test_gather(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    found = []
    for rows in size.table_rows:
        main = Gather(Table(rows), size.ids)
        found += [_case(main, threads, slow=True) for threads in sorted({1, THREADS})]
        found += [_case(replace(main, kind=kind), 1) for kind in ("zipf", "sorted")]
        for row_bytes in size.row_bytes:
            dim = row_bytes // 4
            count = size.ids * min(DIM, dim) // dim
            other = Gather(Table(rows * DIM // dim, dim), count)
            found += [_case(other, threads) for threads in sorted({1, THREADS})]
        parts = Gather(Table(rows, parts=8), size.ids)
        found += [_case(parts, threads) for threads in sorted({1, THREADS})]
    return found


def _case(gather: Gather, threads: int, *, slow: bool = False) -> Case:
    table = gather.table
    out = Destination(gather.count, table.dim)
    stored = f", {table.parts} partitions" if table.parts > 1 else ""
    many = f"{threads} thread{'s' * (threads > 1)}"
    contenders = [_ours(gather, out, threads), *_numpy(gather, out)]
    if slow:
        contenders += _slow(gather)
    return Case(
        key=f"gather/{gather.count} x {table.dim * 4} B of {table.rows}, "
        f"{gather.kind}{stored}, {many}",
        title=f"{gather.count:,} rows of {table.dim * 4} bytes, {gather.kind}, of {table.rows:,}"
        f"{stored}; {many}",
        contenders=contenders + _floors(gather, out, threads),
        check=lambda result: content.require_rows(np.asarray(result), gather.ids, table.dim),
        unit="rows",
        amount=gather.count,
        destination=out,
        weigh=slow or table.parts > 1,
    )


def _ours(gather: Gather, out: Destination, threads: int) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        ids, into = gather.ids, out.array
        with tb.open(gather.table.prefix, threads=threads) as ck:
            tensor = ck["table"]
            yield lambda: tensor.take(ids, out=into)

    return Contender("tensorbundle take", start, OURS, UNVERIFIED, api=("Tensor.take",))


def _numpy(gather: Gather, out: Destination) -> list[Contender]:
    @contextmanager
    def take() -> Iterator[Run]:
        ids, into, (source,) = gather.ids, out.array, gather.table.maps()
        yield lambda: source.take(ids, axis=0, out=into, mode="clip")

    @contextmanager
    def fancy() -> Iterator[Run]:
        ids, (source,) = gather.ids, gather.table.maps()
        yield lambda: source[ids]

    @contextmanager
    def by_part() -> Iterator[Run]:
        ids, into, sources = gather.ids, out.array, gather.table.maps()
        rows = gather.table.rows // len(sources)

        def run() -> Any:
            part = ids // rows
            for i, source in enumerate(sources):
                here = np.flatnonzero(part == i)
                into[here] = source.take(ids[here] - i * rows, axis=0, mode="clip")
            return into

        yield run

    if gather.table.parts > 1:
        return [Contender("numpy.memmap per partition, take", by_part, checksum=UNVERIFIED)]
    return [
        Contender("numpy.memmap, take(out=, mode='clip')", take, checksum=UNVERIFIED),
        Contender("numpy.memmap[ids]", fancy, checksum=UNVERIFIED),
    ]


def _slow(gather: Gather) -> list[Contender]:
    """Those that no bar is about: in memory already, or far behind."""
    table = gather.table

    @contextmanager
    def tensorflow() -> Iterator[Run]:
        tf = rivals.tensorflow()
        with tf.device("cpu"):
            source = tf.constant(np.asarray(table.maps()[0]))
            ids = tf.constant(gather.ids)
            yield lambda: tf.gather(source, ids)

    @contextmanager
    def pyarrow() -> Iterator[Run]:
        import pyarrow
        from pyarrow import compute

        flat = pyarrow.py_buffer(table.maps()[0])
        kind = pyarrow.binary(table.dim * 4)
        source = pyarrow.FixedSizeBinaryArray.from_buffers(kind, table.rows, [None, flat])
        ids = pyarrow.array(gather.ids)

        def run() -> Any:
            taken = compute.take(source, ids, boundscheck=False)
            return np.frombuffer(taken.buffers()[1], np.float32).reshape(-1, table.dim)

        yield run

    @contextmanager
    def safetensors() -> Iterator[Run]:
        from safetensors import safe_open

        ids = gather.some().tolist()
        with safe_open(table.safetensors, "numpy") as file:
            part = file.get_slice("table")
            yield lambda: [part[i : i + 1] for i in ids]

    @contextmanager
    def tensorstore() -> Iterator[Run]:
        array, ids = table.tensorstore(), gather.some()
        yield lambda: array[ids].read().result()

    return [
        Contender("tf.gather, table in memory", tensorflow, needs=("tensorflow",)),
        Contender("pyarrow take, over the mapping", pyarrow, checksum=UNVERIFIED,
                  needs=("pyarrow",)),
        Contender("safetensors, row by row", safetensors, needs=("safetensors",), fraction=_SLOW),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr"),
                  fraction=_SLOW),
    ]  # fmt: skip


def _floors(gather: Gather, out: Destination, threads: int) -> list[Contender]:
    def gathering(streaming: bool) -> Callable[[], Any]:
        @contextmanager
        def start() -> Iterator[Run]:
            ids, into, sources = gather.ids, out.array, gather.table.maps()
            yield lambda: ceiling.gather(into, sources, ids, threads=threads, streaming=streaming)

        return start

    return [
        Contender("C: prefetching gather", gathering(False), FLOOR, UNVERIFIED),
        Contender("C: the same, stores past the caches", gathering(True), FLOOR, UNVERIFIED),
    ]
