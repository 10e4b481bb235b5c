# SPDX-License-Identifier: Apache-2.0
"""Reads with an empty page cache, compared with what the disk gives to plain C.

The baselines read with ``pread`` and with O_DIRECT, on 1 to 8 threads. The best of them is the
limit. None of them computes a checksum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import baseline, data
from bench.case import BASELINE, OURS, UNVERIFIED, VERIFIED, Case, Contender, Destination, Run
from bench.data import DIM, MIB, Array, Table, binary
from bench.measure import ColdCacheError
from bench.test_read import opening
from bench.test_stream import ChunkCheck

SIZES = {"smoke": 8 * MIB, "1GB": 1024 * MIB, "4GB": 4096 * MIB}
IDS = {"smoke": 100, "1GB": 10_000}
THREADS = 1, 2, 4, 8
STEP = 12
"""One row in so many is read: every page has one, and most bytes are unused."""
CHUNK = 16 * MIB

Read = Callable[[int, bool, int], Any]
"""Reads from a file descriptor, which may be one for direct I/O, on some threads."""


def test_cold(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in SIZES:
        return []
    table = Table(SIZES[size] // (4 * DIM))
    if size == "4GB":
        return [_stream(table)]
    random = np.random.default_rng(3).integers(0, table.rows, IDS[size])
    step = np.arange(0, table.rows, STEP)
    found = [_whole(table), _rows(table, random, f"{random.size:,} random rows")]
    found += [_rows(table, step, f"one row in {STEP}", STEP)]
    return found + ([_stream(table)] if size == "smoke" else [])


def _baselines(table: Table, read: Read) -> list[Contender]:
    @contextmanager
    def start(flags: int, threads: int) -> Iterator[Run]:
        try:
            file = os.open(table.files()[0], os.O_RDONLY | flags)
        except OSError as error:
            raise ColdCacheError(f"no direct I/O: {error}") from error
        yield lambda: read(file, flags != 0, threads)
        os.close(file)

    return [
        Contender(f"C: {name}, {n} thread{'s' * (n > 1)}", partial(start, flags, n), BASELINE,
                  UNVERIFIED)
        for name, flags in (("pread", 0), ("O_DIRECT", os.O_DIRECT))
        for n in THREADS
    ]  # fmt: skip


def _whole(table: Table) -> Case:
    out = Destination(table.rows, DIM)

    def read(file: int, direct: bool, threads: int) -> Array:
        into = out.array
        source = file, direct, table.offset
        baseline.call("baseline_read_cold", *source, into, into.nbytes, threads)
        return into

    return Case(
        key=f"cold/{binary(table.nbytes)}",
        title=f"open and read a tensor of {binary(table.nbytes)}, page cache cold",
        contenders=[
            Contender("tensorbundle", opening(table, out), OURS, VERIFIED),
            Contender(
                "tensorbundle, verify=none", opening(table, out, verify="none"), OURS, UNVERIFIED
            ),
            *_baselines(table, read),
        ],
        check=data.require_table,
        unit="bytes",
        amount=table.nbytes,
        destination=out,
        cold_files=table.files,
    )


def _stream(table: Table) -> Case:
    check, rows = ChunkCheck(), CHUNK // (DIM * 4)

    @contextmanager
    def start() -> Iterator[Run]:
        def run() -> None:
            with tb.open(table.prefix) as ck:
                for at, array in ck["table"].chunks(rows):
                    check.check(at, array)
            check.finish(table.rows)

        yield run

    def read(file: int, direct: bool, threads: int) -> None:
        # Without a destination: every thread reads into its own buffer.
        source = file, direct, table.offset
        baseline.call("baseline_read_cold", *source, None, table.nbytes, threads)

    return Case(
        key=f"cold/stream of {binary(table.nbytes)}",
        title=f"a tensor of {binary(table.nbytes)} in chunks of {binary(CHUNK)}, page cache cold, "
        "and every way to read",
        contenders=[
            Contender("tensorbundle chunks", start, OURS, VERIFIED),
            *_baselines(table, read),
        ],
        check=lambda _: None,
        unit="bytes",
        amount=table.nbytes,
        destination=check,
        cold_files=table.files,
    )


def _rows(table: Table, ids: Array, text: str, every: int = 0) -> Case:
    out, row_bytes = Destination(ids.size, DIM), DIM * 4

    @contextmanager
    def start() -> Iterator[Run]:
        into = out.array

        def run() -> Any:
            with tb.open(table.prefix) as ck:
                return ck["table"].take(ids, out=into)

        yield run

    def read(file: int, direct: bool, threads: int) -> Array:
        source, into = (file, direct, table.offset), out.array
        if every:  # the whole table, and one row in so many is copied
            baseline.call("baseline_read_cold_steps", *source, into, table.nbytes, row_bytes, every,
                          threads)  # fmt: skip
        else:
            baseline.call("baseline_read_cold_rows", *source, ids, ids.size, into, row_bytes,
                          threads)  # fmt: skip
        return into

    return Case(
        key=f"cold/{text} of {binary(table.nbytes)}",
        title=f"{text} of a table of {binary(table.nbytes)}, page cache cold",
        contenders=[
            Contender("tensorbundle take", start, OURS, UNVERIFIED),
            *_baselines(table, read),
        ],
        check=lambda result: data.require_rows(result, ids),
        unit="rows",
        amount=ids.size,
        destination=out,
        cold_files=table.files,
    )
