# SPDX-License-Identifier: Apache-2.0
"""Streaming a tensor in chunks, and a checkpoint tensor by tensor, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, content, data, rivals
from bench.case import FLOOR, OURS, UNVERIFIED, VERIFIED, Case, Contender, Run
from bench.content import Array
from bench.sizes import DIM, PIECES, Size
from bench.tables import Table, binary


class Watch:
    """Looks at every chunk of the first run, and at none of the timed ones."""

    def __init__(self) -> None:
        self._looking = False
        self._next = 0

    def spoil(self) -> None:
        self._looking, self._next = True, 0

    def free(self) -> None:
        self._looking = False

    def see(self, start: int, rows: Array) -> None:
        if self._looking:
            assert start == self._next, f"row {start} where {self._next} was due"
            content.require_table(rows, start * DIM)
            self._next = start + rows.shape[0]

    def see_last(self, start: int, rows: Array) -> None:
        """For one that shows what is in the buffer in the end."""
        self._next = start
        self.see(start, rows)

    def check(self, rows: int) -> None:
        assert self._next == rows, f"{self._next} of {rows} rows came"
        self._looking = False


def test_stream(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    found = []
    for nbytes, chunk in size.stream:
        found += [_chunks(nbytes, chunk, cold=False), _chunks(nbytes, chunk, cold=True)]
        found += [_checkpoint(nbytes, chunk)]
    return found


def _chunks(nbytes: int, chunk: int, *, cold: bool) -> Case:
    table = Table.of_bytes(nbytes)
    watch = Watch()
    state = "cold" if cold else "warm"
    return Case(
        key=f"stream/{binary(nbytes)}, {state}",
        title=f"a tensor of {binary(nbytes)} in chunks of {binary(chunk)}, page cache {state}",
        contenders=[*_ours(table, chunk // (DIM * 4), watch), *_others(table, chunk, watch)],
        check=lambda _: watch.check(table.rows),
        unit="bytes",
        amount=nbytes,
        destination=watch,
        cold=table.files if cold else None,
        weigh=True,
        chunk=chunk,
    )


def _ours(table: Table, rows: int, watch: Watch) -> list[Contender]:
    def streaming(reuse: bool = False, **options: Any) -> Callable[[], Any]:
        @contextmanager
        def start() -> Iterator[Run]:
            prefix = table.prefix
            # Two, so that one can be filled while the other is used.
            out = [np.zeros((rows, DIM), np.float32) for _ in range(2)] if reuse else None

            def run() -> None:
                with tb.open(prefix, **options) as ck:
                    for at, array in ck["table"].chunks(rows, out=out):
                        watch.see(at, array)

            yield run

        return start

    api = ("Tensor.chunks",)
    return [
        Contender("tensorbundle chunks", streaming(), OURS, VERIFIED, api=api),
        Contender("tensorbundle chunks, out=", streaming(reuse=True), OURS, VERIFIED, api=api),
        Contender(
            "tensorbundle chunks, verify=none", streaming(verify="none"), OURS, UNVERIFIED, api=api
        ),
        Contender(
            "tensorbundle chunks, io=direct", streaming(io="direct"), OURS, VERIFIED, api=api
        ),
    ]


def _others(table: Table, chunk: int, watch: Watch) -> list[Contender]:
    rows = chunk // (DIM * 4)

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, prefix = rivals.tensorflow(), str(table.prefix)

        def run() -> None:
            watch.see(0, tf.train.load_checkpoint(prefix).get_tensor("table"))

        yield run

    @contextmanager
    def memmap() -> Iterator[Run]:
        buffer = np.zeros((rows, DIM), np.float32)
        table.files()  # makes the data

        def run() -> None:
            source = table.maps()[0]
            for at in range(0, table.rows, rows):
                part = source[at : at + rows]
                np.copyto(buffer[: part.shape[0]], part)
                watch.see(at, buffer[: part.shape[0]])

        yield run

    @contextmanager
    def pread() -> Iterator[Run]:
        buffer = np.zeros((rows, DIM), np.float32)

        def run() -> None:
            with table.descriptor() as (file, offset):
                ceiling.pread_sequential(file, offset, table.nbytes, buffer)
            watch.see_last(table.rows - rows, buffer)

        yield run

    return [
        Contender(
            "TensorFlow reader (whole)", get_tensor, checksum=VERIFIED, needs=("tensorflow",)
        ),
        Contender("numpy.memmap, copyto a buffer", memmap, checksum=UNVERIFIED),
        Contender("C: pread in order into one buffer", pread, FLOOR, UNVERIFIED),
    ]


def _checkpoint(nbytes: int, chunk: int) -> Case:
    rows = nbytes // (4 * DIM * PIECES)
    watch = Watch()

    @contextmanager
    def ours() -> Iterator[Run]:
        prefix = data.pieces(PIECES, rows)

        def run() -> None:
            with tb.open(prefix) as ck:
                for i, (_, array) in enumerate(ck.stream(max_bytes=max(2 * rows * DIM * 4, chunk))):
                    watch.see(i * rows, array)

        yield run

    @contextmanager
    def tensorflow() -> Iterator[Run]:
        tf, prefix = rivals.tensorflow(), str(data.pieces(PIECES, rows))

        def run() -> None:
            reader = tf.train.load_checkpoint(prefix)
            for i, name in enumerate(sorted(reader.get_variable_to_shape_map())):
                watch.see(i * rows, reader.get_tensor(name))

        yield run

    return Case(
        key=f"stream/{PIECES} tensors of {binary(nbytes // PIECES)}",
        title=f"all {PIECES} tensors of {binary(nbytes // PIECES)}, one by one, page cache warm",
        contenders=[
            Contender("tensorbundle stream", ours, OURS, VERIFIED, api=("Checkpoint.stream",)),
            Contender("TensorFlow reader", tensorflow, checksum=VERIFIED, needs=("tensorflow",)),
        ],
        check=lambda _: watch.check(PIECES * rows),
        unit="bytes",
        amount=nbytes,
        destination=watch,
        weigh=True,
    )
