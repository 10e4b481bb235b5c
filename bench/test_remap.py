# SPDX-License-Identifier: Apache-2.0
"""Reading a table in the order of a new vocabulary, with a fill value for new rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import baseline, data, test_join
from bench.case import (
    BASELINE,
    OURS,
    THREADS,
    UNVERIFIED,
    VERIFIED,
    Case,
    Contender,
    Destination,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import DIM, Array, Table
from bench.test_gather import IDS, ROWS

FILL = 0.5


def test_remap(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in ROWS:
        return []
    table, count = Table(ROWS[size]), IDS[size]
    found = [_rows(table, count, percent) for percent in (0, 10, 90)]
    return [*found, _rows_and_columns(table, count), _from_files(table)]


def _remap(count: int, rows: int, percent: int) -> Array:
    """Returns the ids of `count` rows in random order; -1 for `percent` of them."""
    rng = np.random.default_rng(percent)
    ids = rng.permutation(rows)[:count]
    ids[rng.random(count) < percent / 100] = -1
    return ids


def _tensorbundle(
    table: Table, out: Destination, threads: int | None = None, **remaps: Callable[[], Array]
) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        into = out.array
        ids: dict[str, Any] = {name: create() for name, create in remaps.items()}
        with tb.open(table.prefix, threads=threads) as ck:
            tensor = ck["table"]
            yield lambda: tb.load_and_remap(tensor, **ids, fill=FILL, out=into)

    name = "tensorbundle" + (", 1 thread" if threads == 1 else "")
    return Contender(name, start, OURS, UNVERIFIED)


def _tensorflow(table: Table, rows: Callable[[], Array], columns: Callable[[], Array]) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
        ids, places = rows(), columns()
        width = places.size or table.dim
        present = np.count_nonzero(ids >= 0) * (np.count_nonzero(places >= 0) or width)
        fill = np.full(ids.size * width - present, FILL, np.float32)
        tensors = [tf.constant(each) for each in (ids, places, fill)]
        yield lambda: tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=prefix, old_tensor_name="table", row_remapping=tensors[0],
            col_remapping=tensors[1], initializing_values=tensors[2], num_rows=ids.size,
            num_cols=width, max_rows_in_memory=-1,
        )  # fmt: skip

    name = "TensorFlow LoadAndRemapMatrix"
    return Contender(name, start, checksum=VERIFIED, needs=("tensorflow",))


def _rows(table: Table, count: int, percent: int) -> Case:
    out = Destination(count, DIM)

    def ids() -> Array:
        return _remap(count, table.rows, percent)

    @contextmanager
    def numpy() -> Iterator[Run]:
        remap, into, (source,) = ids(), out.array, table.maps()

        def run() -> Any:
            source.take(remap, axis=0, out=into, mode="clip")
            into[remap < 0] = FILL
            return into

        yield run

    @contextmanager
    def gather() -> Iterator[Run]:
        remap, into, sources = ids(), out.array, table.maps()
        fill = np.full(DIM, FILL, np.float32)
        yield lambda: baseline.gather(into, sources, remap, THREADS, fill=fill)

    return Case(
        key=f"remap/{count} of {table.rows} rows, {percent} % missing",
        title=f"{count:,} rows of 256 bytes out of {table.rows:,} by a remap, {percent} % missing",
        contenders=[
            _tensorbundle(table, out, rows=ids),
            _tensorbundle(table, out, 1, rows=ids),
            _tensorflow(table, ids, lambda: np.empty(0, np.int64)),
            Contender("numpy.memmap, take and fill", numpy, checksum=UNVERIFIED),
            Contender(f"C: gather with fill, {THREADS} threads", gather, BASELINE, UNVERIFIED),
        ],
        check=lambda result: data.require_rows(result, ids(), partial(data.rows, fill=FILL)),
        unit="rows",
        amount=count,
        destination=out,
        memory=percent == 10,
    )


def _rows_and_columns(table: Table, count: int) -> Case:
    out = Destination(count, DIM)

    def ids() -> Array:
        return _remap(count, table.rows, 10)

    def columns() -> Array:
        return _remap(DIM, DIM, 5)

    def expected(rows: Array) -> Array:
        places = columns()
        result = data.rows(rows, fill=FILL)[:, places]
        result[:, places < 0] = FILL
        return result

    @contextmanager
    def numpy() -> Iterator[Run]:
        rows, places, into, (source,) = ids(), columns(), out.array, table.maps()

        def run() -> Any:
            taken = source.take(rows, axis=0, mode="clip")
            taken.take(places, axis=1, out=into, mode="clip")
            into[rows < 0] = FILL
            into[:, places < 0] = FILL
            return into

        yield run

    return Case(
        key=f"remap/{count} of {table.rows} rows, and columns",
        title=f"{count:,} rows out of {table.rows:,} by a remap, 10 % missing, "
        f"and all {DIM} columns by another",
        contenders=[
            _tensorbundle(table, out, rows=ids, columns=columns),
            _tensorflow(table, ids, columns),
            Contender("numpy.memmap, two takes and fill", numpy, checksum=UNVERIFIED),
        ],
        check=lambda result: data.require_rows(result, ids(), expected),
        unit="rows",
        amount=count,
        destination=out,
    )


def _from_files(table: Table) -> Case:
    """Joins both vocabularies and remaps the table, from their files."""
    count = table.rows
    out = Destination(count, DIM)

    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        (new, old), into = test_join.files(count), out.array
        with tb.open(table.prefix) as ck:
            tensor = ck["table"]

            def run() -> Any:
                tb.clear_caches()
                remap = tb.remap_vocab(new, old)
                return tb.load_and_remap(tensor, rows=remap, fill=FILL, out=into)

            yield run

    @contextmanager
    def both_ops() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
        new, old = map(str, test_join.files(count))

        def run() -> Any:
            ids, present = tf.raw_ops.GenerateVocabRemapping(
                new_vocab_file=new, old_vocab_file=old, new_vocab_offset=0, num_new_vocab=count
            )
            return tf.raw_ops.LoadAndRemapMatrix(
                ckpt_path=prefix, old_tensor_name="table", row_remapping=ids,
                col_remapping=np.empty(0, np.int64), num_rows=count, num_cols=DIM,
                initializing_values=tf.fill([(count - int(present)) * DIM], FILL),
            )  # fmt: skip

        yield run

    @contextmanager
    def arrow() -> Iterator[Run]:
        paths, into, (source,) = test_join.files(count), out.array, table.maps()

        def run() -> Any:
            ids = test_join.with_arrow(*paths, count)
            source.take(ids, axis=0, out=into, mode="clip")
            into[ids < 0] = FILL
            return into

        yield run

    return Case(
        key=f"remap/{count} rows, from vocabularies",
        title=f"join two vocabularies of {count:,} tokens and remap the table of as many rows",
        contenders=[
            Contender("tensorbundle", tensorbundle, OURS, UNVERIFIED),
            Contender("TensorFlow, both ops", both_ops, checksum=VERIFIED, needs=("tensorflow",)),
            Contender("pyarrow join, numpy.memmap take", arrow, checksum=UNVERIFIED,
                      needs=("pyarrow",)),
        ],
        check=lambda result: data.require_rows(
            result, test_join.expected(count), partial(data.rows, fill=FILL)
        ),
        unit="rows",
        amount=count,
        destination=out,
        memory=True,
    )  # fmt: skip
