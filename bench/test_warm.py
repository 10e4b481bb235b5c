# SPDX-License-Identifier: Apache-2.0
"""A model that starts from yesterday's table by today's vocabulary: ``warm_start``, all of it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, content, data, graphs, page_cache, rivals, tables
from bench.case import FLOOR, OURS, VERIFIED, Case, Contender, Run
from bench.content import Array
from bench.fresh import Report
from bench.graphs import NAME, Table
from bench.sizes import DIM, Size

THREADS = len(os.sched_getaffinity(0))
PIECES = 8
_STEP_BYTES = 8


def test_warm(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    return [_case(old, pieces) for old in size.warm for pieces in (1, PIECES)]


def expected_lines(old: int) -> Array:
    """The line in the old vocabulary, or -1, of every line of the new one."""
    new_numbers, old_numbers = data.grown_numbers(old)
    where = np.full(max(new_numbers.max(), old_numbers.max()) + 1, -1)
    where[old_numbers] = np.arange(old)
    return where[new_numbers]


def _case(old: int, pieces: int) -> Case:
    new = old * 6 // 5
    form = f"{pieces} partitions" if pieces > 1 else "one variable"
    return Case(
        key=f"warm/{old} to {new} tokens, {form}",
        title=f"{old:,} to {new:,} tokens x {DIM} float32, shuffled, 25 % new, into {form}",
        contenders=[
            _ours(old, Table(new, pieces)),
            _tensorflow(old, Table(new, pieces)),
            *(_floor(old, new, huge) for huge in (False, True)),
        ],
        check=lambda report: _check(report, old, Table(new, pieces)),
        unit="rows",
        amount=new,
        weigh=True,
        fresh=True,
        collecting=True,
    )


def _check(report: Report, old: int, table: Table) -> None:
    lines = expected_lines(old)
    if isinstance(report.value, np.ndarray):  # the floor's own memory
        content.require_rows(report.value, lines, DIM, fill=0)
        return

    def expected(ids: Array) -> Array:
        rows = content.rows(np.maximum(lines[ids], 0), DIM)
        rows[lines[ids] < 0] = 0
        return rows

    graphs.require(report, table, expected)


def _ours(old: int, table: Table) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        with _warm_starting(old, table, tb, graphs.load_ops) as run:
            yield run

    return Contender("tensorbundle", start, OURS, VERIFIED, needs=("tensorflow",),
                     api=("warm_start", "VocabInfo"))  # fmt: skip


def _tensorflow(old: int, table: Table) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        with _warm_starting(old, table, rivals.tensorflow().compat.v1.train) as run:
            yield run

    return Contender("TensorFlow", start, checksum=VERIFIED, needs=("tensorflow",))


@contextmanager
def _warm_starting(
    old: int, table: Table, train: Any, load: Callable[[], Any] | None = None
) -> Iterator[Run]:
    """By the functions that `train` has; new rows are zeros."""
    prefix, (new_file, old_file) = data.table(old), data.grown(old)

    def initialise(_: Any) -> None:
        info = train.VocabInfo(
            new_vocab=str(new_file), new_vocab_size=table.rows, num_oov_buckets=0,
            old_vocab=str(old_file), backup_initializer=rivals.tensorflow().zeros_initializer(),
        )  # fmt: skip
        train.warm_start(str(prefix), NAME, {NAME: info})

    with graphs.model(table, [*_files(prefix), new_file, old_file], initialise, load) as run:
        yield run


def _files(prefix: Path) -> list[Path]:
    return sorted(prefix.parent.glob(f"{prefix.name}.*"))


def _floor(old: int, new: int, huge: bool) -> Contender:
    """The sum of what no order of work can spare.

    Read both vocabularies, find their lines and touch one random slot of a table per line; read the
    old table once for its checksum; gather its rows, whose numbers are known, into new memory.
    """

    @contextmanager
    def start() -> Iterator[Run]:
        table, paths, lines = tables.Table(old), data.grown(old), expected_lines(old)
        page_cache.warm([*table.files(), *paths])
        ceiling.library()
        fill = np.zeros(DIM, np.float32)
        with table.descriptor() as (file, offset):

            def run() -> Report:
                report = Report()
                with report.part("running"):
                    _probe(paths, old)
                    ceiling.pread_checked(file, offset, table.nbytes, None, THREADS)
                    out = ceiling.fresh((new, DIM), huge=huge)
                    ceiling.gather(out, table.maps(), lines, threads=THREADS, fill=fill)
                report.value = out
                return report

            yield run

    pages = "huge pages" if huge else "4 KiB pages"
    return Contender(f"C: probe, check and gather into new {pages}", start, FLOOR, VERIFIED)


def _probe(paths: tuple[Path, ...], old: int) -> None:
    slots = np.zeros(1 << (old * 11 // 8).bit_length(), np.uint64)
    for path in paths:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            ceiling.probe_lines(np.frombuffer(text, np.uint8), slots, THREADS)
