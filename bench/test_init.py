# SPDX-License-Identifier: Apache-2.0
"""Variables that start from a checkpoint: what ``init_from_checkpoint`` and its runs cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, content, data, graphs, page_cache, rivals
from bench.case import FLOOR, OURS, UNVERIFIED, VERIFIED, Case, Contender, Run
from bench.content import Array
from bench.fresh import Report
from bench.graphs import NAME, Table
from bench.sizes import DIM, Size
from bench.tables import binary

THREADS = len(os.sched_getaffinity(0))
PIECES = 8
_STEP_BYTES = 8
"""What lies before a table that is not aligned."""

ZEROS = "zeros, compared where they were made"

Prefix = Callable[[], Path]


def test_init(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    found = []
    for nbytes in size.init_parts:
        found += _plain_and_aligned(Table(nbytes // (4 * DIM), PIECES), f"into {PIECES}")
        found.append(_older_variables(Table(nbytes // (4 * DIM), PIECES, resource=False)))
    for nbytes in size.init:
        found += _plain_and_aligned(Table(nbytes // (4 * DIM)), "whole")
    found += [_mapped_alone(nbytes) for nbytes in size.init_mapped]
    return found


def _plain_and_aligned(table: Table, form: str) -> list[Case]:
    """The same table from two checkpoints: as TensorFlow writes it, and at a page's beginning."""

    def plain() -> Path:
        return data.table(table.rows)

    def aligned() -> Path:
        return data.aligned(table.rows)

    floors = [_floor(table, plain, huge) for huge in (False, True)]
    mapped = [_ours(table, aligned, "map"), _tensorflow(table, aligned), _zeros(table.pieces)]
    return [
        _case(table, form, "", [_ours(table, plain, "copy"), _tensorflow(table, plain), *floors]),
        _case(table, form, ", aligned", mapped),
    ]


def _older_variables(table: Table) -> Case:
    def aligned() -> Path:
        return data.aligned(table.rows)

    contenders = [_ours(table, aligned, "copy"), _ours(table, aligned, "map")]
    contenders.append(_tensorflow(table, aligned))
    return _case(table, f"into {PIECES}", ", reference variables", contenders)


def _case(table: Table, form: str, kind: str, contenders: list[Contender]) -> Case:
    nbytes = table.rows * DIM * 4
    into = f"{table.pieces} partitions" if table.pieces > 1 else "one variable"
    return Case(
        key=f"init/{binary(nbytes)} {form}{kind}",
        title=f"{table.rows:,} x {DIM} float32 ({binary(nbytes)}), stored whole, into {into}{kind}",
        contenders=contenders,
        check=lambda report: _check(report, table),
        unit="bytes",
        amount=nbytes,
        weigh=True,
        fresh=True,
        collecting=True,
    )


def _rows(ids: Array) -> Array:
    return content.rows(ids, DIM)


def _check(report: Report, table: Table, expected: Callable[[Array], Array] = _rows) -> None:
    if isinstance(report.value, np.ndarray):  # the floor's own memory
        content.require_table(report.value)
    elif report.value is not ZEROS:
        graphs.require(report, table, expected)


def _ours(table: Table, prefix: Prefix, mode: str, *, fits: bool = True) -> Contender:
    """What does not fit into memory has only those rows in the page cache that are looked up."""

    @contextmanager
    def start() -> Iterator[Run]:
        path = prefix()

        def initialise(variable: Any) -> None:
            with tb.tf.options(mode=mode):
                tb.init_from_checkpoint(path, {NAME: variable})

        files = _files(path) if fits else []
        if not fits:
            _warm_rows(path, table)
        with graphs.model(table, files, initialise, graphs.load_ops) as run:
            yield run

    checksum = VERIFIED if mode == "copy" else UNVERIFIED
    return Contender(f"tensorbundle, {mode}", start, OURS, checksum, needs=("tensorflow",),
                     api=("init_from_checkpoint", "tf.options"))  # fmt: skip


def _tensorflow(table: Table, prefix: Prefix) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        path, train = prefix(), rivals.tensorflow().compat.v1.train

        def initialise(variable: Any) -> None:
            pieces = list(variable) if table.pieces > 1 else variable
            train.init_from_checkpoint(str(path), {NAME: pieces})

        with graphs.model(table, _files(path), initialise) as run:
            yield run

    return Contender("TensorFlow", start, checksum=VERIFIED, needs=("tensorflow",))


def _files(prefix: Path) -> list[Path]:
    return sorted(prefix.parent.glob(f"{prefix.name}.*"))


def _warm_rows(prefix: Path, table: Table) -> None:
    with prefix.with_name(f"{prefix.name}.data-00000-of-00001").open("rb") as file:
        for row in table.looked_up:
            os.pread(file.fileno(), DIM * 4, data.PAGE + int(row) * DIM * 4)


def _floor(table: Table, prefix: Prefix, huge: bool) -> Contender:
    """Once over the bytes: parallel reads into new memory, checksummed while the caches hold them.

    The floor is bytes over the rate of pread into pages that the system has yet to give, with
    CRC-32C of a block that the caches hold.
    """

    @contextmanager
    def start() -> Iterator[Run]:
        path = prefix()
        page_cache.warm(_files(path))
        ceiling.library()
        (shard,) = path.parent.glob(f"{path.name}.data-*")
        with shard.open("rb") as file:

            def run() -> Report:
                report = Report()
                with report.part("running"):
                    out = ceiling.fresh((table.rows, DIM), huge=huge)
                    ceiling.pread_checked(file.fileno(), _STEP_BYTES, out.nbytes, out, THREADS)
                report.value = out
                return report

            yield run

    pages = "huge pages" if huge else "4 KiB pages"
    return Contender(f"C: pread and CRC-32C into new {pages}", start, FLOOR, VERIFIED)


def _zeros(pieces: int) -> Contender:
    """The floor of a mapping: TensorFlow's session, for variables with next to nothing in them."""
    table = Table(8 * pieces, pieces)

    @contextmanager
    def start() -> Iterator[Run]:
        with graphs.model(table, [], lambda _: None) as run:

            def checked() -> Report:
                report = run()
                graphs.require(report, table, lambda ids: np.zeros((len(ids), DIM), np.float32))
                report.value = ZEROS
                return report

            yield checked

    what = f"{pieces} partitions" if pieces > 1 else "one variable"
    return Contender(
        f"TensorFlow: zeros into {what} of 8 rows", start, FLOOR, needs=("tensorflow",)
    )


def _mapped_alone(nbytes: int) -> Case:
    """A table larger than memory; its file is a hole but for three rows."""
    table = Table(nbytes // (4 * DIM))

    def expected(ids: Array) -> Array:
        wanted = content.rows(ids, DIM)
        wanted[~np.isin(ids, data.filled(table.rows))] = 0
        return wanted

    return Case(
        key=f"init/{binary(nbytes)}, mapped",
        title=f"{table.rows:,} x {DIM} float32 ({binary(nbytes)}, a sparse file), mapped",
        contenders=[
            _ours(table, lambda: data.holes(table.rows), "map", fits=False),
            _zeros(table.pieces),
        ],
        check=lambda report: _check(report, table, expected),
        amount=nbytes,
        weigh=True,
        fresh=True,
        collecting=True,
    )
