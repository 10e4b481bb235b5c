# SPDX-License-Identifier: Apache-2.0
"""Gathering rows of a table by id into a given array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import baseline, data
from bench.case import (
    BASELINE,
    OURS,
    THREADS,
    UNVERIFIED,
    Case,
    Contender,
    Destination,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import DIM, Array, Table

ROWS = {"smoke": 16_384, "table": 4_194_304}
IDS = {"smoke": 4_000, "table": 1_000_000}
ROW_BYTES = {"smoke": (64, 4096), "table": (64, 512, 1024, 4096)}
"""Row sizes besides that of ``Table``. A gather copies about as many bytes for each."""
SLICES = 8
_FRACTION = 0.02
"""The fraction of the ids for readers that need more than a second for all ids."""


@dataclass(frozen=True)
class Gather:
    """Ids into a table: ``uniform``, ``zipf`` (a few rows are frequent) or ``sorted``."""

    table: Table
    count: int
    kind: str = "uniform"

    @property
    def ids(self) -> Array:
        rng = np.random.default_rng(7)
        if self.kind == "zipf":
            # Exponent 1.05, truncated to the table. The frequent rows are spread over it.
            ranks = np.floor(self.table.rows ** rng.random(self.count)).astype(np.int64) - 1
            return ranks * 48271 % self.table.rows
        ids = rng.integers(0, self.table.rows, self.count)
        return np.sort(ids) if self.kind == "sorted" else ids

    def few(self) -> Array:
        return self.ids[: math.ceil(self.count * _FRACTION)]


def test_gather(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in ROWS:
        return []
    rows, count, threads = ROWS[size], IDS[size], sorted({1, THREADS})
    main = Gather(Table(rows), count)
    found = [_case(main, n, slow=True) for n in threads]
    found += [_case(replace(main, kind="sorted"), 1)]
    found += [_case(replace(main, kind="zipf"), n, brief=True) for n in threads]
    for row_bytes in ROW_BYTES[size]:
        dim = row_bytes // 4
        other = Gather(Table(rows * DIM // dim, dim), count * min(DIM, dim) // dim)
        for kind in ("uniform", "zipf"):
            found += [_case(replace(other, kind=kind), n, brief=True) for n in threads]
    sliced = Gather(Table(rows, slices=SLICES), count)
    return found + [_case(sliced, n) for n in threads]


def _case(gather: Gather, threads: int, *, slow: bool = False, brief: bool = False) -> Case:
    """Returns a case. `slow` adds competitors without a target, `brief` keeps only the fastest."""
    table, out = gather.table, Destination(gather.count, gather.table.dim)
    stored = f", {table.slices} slices" if table.slices > 1 else ""
    many = f"{threads} thread{'s' * (threads > 1)}"
    return Case(
        key=f"gather/{gather.count} x {table.dim * 4} B of {table.rows}, "
        f"{gather.kind}{stored}, {many}",
        title=f"{gather.count:,} rows of {table.dim * 4} bytes, {gather.kind}, of {table.rows:,}"
        f"{stored}; {many}",
        contenders=[
            _tensorbundle(gather, out, threads),
            *_numpy(gather, out)[: 1 if brief else None],
            *(_slow(gather) if slow else ()),
            _baseline(gather, out, threads, streaming=False),
            _baseline(gather, out, threads, streaming=True),
        ],
        check=lambda result: data.require_rows(
            result, gather.ids, partial(data.rows, dim=table.dim)
        ),
        unit="rows",
        amount=gather.count,
        destination=out,
        memory=slow or table.slices > 1,
    )


def _tensorbundle(gather: Gather, out: Destination, threads: int) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        ids, into = gather.ids, out.array
        with tb.open(gather.table.prefix, threads=threads) as ck:
            tensor = ck["table"]
            yield lambda: tensor.take(ids, out=into)

    return Contender("tensorbundle take", start, OURS, UNVERIFIED)


def _numpy(gather: Gather, out: Destination) -> list[Contender]:
    @contextmanager
    def take() -> Iterator[Run]:
        ids, into, (source,) = gather.ids, out.array, gather.table.maps()
        yield lambda: source.take(ids, axis=0, out=into, mode="clip")

    @contextmanager
    def index() -> Iterator[Run]:
        ids, (source,) = gather.ids, gather.table.maps()
        yield lambda: source[ids]

    @contextmanager
    def by_slice() -> Iterator[Run]:
        ids, into, sources = gather.ids, out.array, gather.table.maps()
        rows = gather.table.rows // len(sources)

        def run() -> Any:
            number = ids // rows
            for i, source in enumerate(sources):
                here = np.flatnonzero(number == i)
                into[here] = source.take(ids[here] - i * rows, axis=0, mode="clip")
            return into

        yield run

    if gather.table.slices > 1:
        return [Contender("numpy.memmap per slice, take", by_slice, checksum=UNVERIFIED)]
    return [
        Contender("numpy.memmap, take(out=, mode='clip')", take, checksum=UNVERIFIED),
        Contender("numpy.memmap[ids]", index, checksum=UNVERIFIED),
    ]


def _slow(gather: Gather) -> list[Contender]:
    """Returns competitors without a target: they need the table in memory or are slow."""
    table = gather.table

    @contextmanager
    def tf_gather() -> Iterator[Run]:
        tf = tensorflow()
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

        ids = gather.few().tolist()
        with safe_open(table.safetensors, "numpy") as file:
            tensor = file.get_slice("table")
            yield lambda: [tensor[i : i + 1] for i in ids]

    @contextmanager
    def tensorstore() -> Iterator[Run]:
        array, ids = table.tensorstore(), gather.few()
        yield lambda: array[ids].read().result()

    return [
        Contender("tf.gather, table in memory", tf_gather, needs=("tensorflow",)),
        Contender("pyarrow take, over the mapping", pyarrow, checksum=UNVERIFIED,
                  needs=("pyarrow",)),
        Contender("safetensors, row by row", safetensors, needs=("safetensors",),
                  fraction=_FRACTION),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr"),
                  fraction=_FRACTION),
    ]  # fmt: skip


def _baseline(gather: Gather, out: Destination, threads: int, *, streaming: bool) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        ids, into, sources = gather.ids, out.array, gather.table.maps()
        yield lambda: baseline.gather(into, sources, ids, threads, streaming=streaming)

    name = "the same, stores past the caches" if streaming else "prefetching gather"
    return Contender(f"C: {name}", start, BASELINE, UNVERIFIED)
