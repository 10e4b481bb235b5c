# SPDX-License-Identifier: Apache-2.0
"""Streaming a tensor in chunks, and a checkpoint tensor by tensor, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from craft.bundle import Bundle, shard_path

import tensorbundle as tb
from bench import baseline, data
from bench.case import BASELINE, OURS, UNVERIFIED, VERIFIED, Case, Contender, Run, tensorflow
from bench.data import DIM, MIB, Array, Table, binary

SIZES = {
    "smoke": (4 * MIB, MIB // 2),
    "1GB": (1024 * MIB, 16 * MIB),
    "4GB": (4096 * MIB, 16 * MIB),
}
"""The bytes of the tensor and of a chunk."""
TENSORS = 16
"""The number of tensors in the checkpoint that is streamed."""


class ChunkCheck:
    """Checks every chunk of the first run, and no chunk of the timed runs."""

    def __init__(self) -> None:
        self._active = False
        self._next = 0

    def reset(self) -> None:
        self._active, self._next = True, 0

    def free(self) -> None:
        self._active = False

    def check(self, start: int, rows: Array) -> None:
        if self._active:
            assert start == self._next, f"row {start} instead of {self._next}"
            data.require_table(rows, start * DIM)
            self._next = start + rows.shape[0]

    def check_last(self, start: int, rows: Array) -> None:
        """Checks the last chunk, for a contender that returns no other."""
        self._next = start
        self.check(start, rows)

    def finish(self, rows: int) -> None:
        assert self._next == rows, f"{self._next} of {rows} rows"
        self._active = False


def test_stream(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in SIZES:
        return []
    nbytes, chunk = SIZES[size]
    return [
        _chunks(nbytes, chunk, cold=False),
        _chunks(nbytes, chunk, cold=True),
        _checkpoint(nbytes, chunk),
    ]


def _chunks(nbytes: int, chunk: int, *, cold: bool) -> Case:
    table, check = Table(nbytes // (4 * DIM)), ChunkCheck()
    state, rows = "cold" if cold else "warm", chunk // (DIM * 4)
    return Case(
        key=f"stream/{binary(nbytes)}, {state}",
        title=f"a tensor of {binary(nbytes)} in chunks of {binary(chunk)}, page cache {state}",
        contenders=[*_tensorbundle(table, rows, check), *_others(table, rows, check)],
        check=lambda _: check.finish(table.rows),
        unit="bytes",
        amount=nbytes,
        destination=check,
        cold_files=table.files if cold else None,
        memory=True,
    )


def _tensorbundle(table: Table, rows: int, check: ChunkCheck) -> list[Contender]:
    def streaming(reuse: bool = False, **options: Any) -> Callable[[], Any]:
        @contextmanager
        def start() -> Iterator[Run]:
            prefix = table.prefix
            # One buffer is filled while the other is used.
            out = [np.zeros((rows, DIM), np.float32) for _ in range(2)] if reuse else None

            def run() -> None:
                with tb.open(prefix, **options) as ck:
                    for at, array in ck["table"].chunks(rows, out=out):
                        check.check(at, array)

            yield run

        return start

    name = "tensorbundle chunks"
    return [
        Contender(name, streaming(), OURS, VERIFIED),
        Contender(f"{name}, out=", streaming(reuse=True), OURS, VERIFIED),
        Contender(f"{name}, verify=none", streaming(verify="none"), OURS, UNVERIFIED),
        Contender(f"{name}, io=direct", streaming(io="direct"), OURS, VERIFIED),
    ]


def _others(table: Table, rows: int, check: ChunkCheck) -> list[Contender]:
    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)

        def run() -> None:
            check.check(0, tf.train.load_checkpoint(prefix).get_tensor("table"))

        yield run

    @contextmanager
    def memmap() -> Iterator[Run]:
        buffer = np.zeros((rows, DIM), np.float32)
        table.files()  # writes missing files

        def run() -> None:
            source = table.maps()[0]
            for at in range(0, table.rows, rows):
                chunk = source[at : at + rows]
                np.copyto(buffer[: chunk.shape[0]], chunk)
                check.check(at, buffer[: chunk.shape[0]])

        yield run

    @contextmanager
    def pread() -> Iterator[Run]:
        buffer = np.zeros((rows, DIM), np.float32)

        def run() -> None:
            with table.descriptor() as file:
                source = file, table.offset, table.nbytes
                baseline.call("baseline_pread_sequential", *source, buffer, buffer.nbytes)
            check.check_last(table.rows - rows, buffer)

        yield run

    return [
        Contender("TensorFlow reader (whole)", get_tensor, checksum=VERIFIED,
                  needs=("tensorflow",)),
        Contender("numpy.memmap, copyto a buffer", memmap, checksum=UNVERIFIED),
        Contender("C: pread in order into one buffer", pread, BASELINE, UNVERIFIED),
    ]  # fmt: skip


@data.stored
def _large_tensors(folder: Path, count: int, rows: int) -> None:
    """Writes a checkpoint with `count` tensors that concatenate to a table."""
    prefix, bundle, size = folder / "ckpt", Bundle(), rows * DIM
    bundle.write_shards(prefix)
    for i in range(count):
        start = i * size
        crc = data.write_elements(shard_path(prefix), 4 * start, start, start + size)
        data.add_entry(bundle, f"tensor_{i:02d}", (rows, DIM), 4 * start, crc)
    data.write_index(bundle, prefix)


def _checkpoint(nbytes: int, chunk: int) -> Case:
    rows, check = nbytes // (4 * DIM * TENSORS), ChunkCheck()
    bound = max(2 * rows * DIM * 4, chunk)

    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        prefix = _large_tensors(TENSORS, rows) / "ckpt"

        def run() -> None:
            with tb.open(prefix) as ck:
                for i, (_, array) in enumerate(ck.stream(max_bytes=bound)):
                    check.check(i * rows, array)

        yield run

    @contextmanager
    def get_tensors() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(_large_tensors(TENSORS, rows) / "ckpt")

        def run() -> None:
            reader = tf.train.load_checkpoint(prefix)
            for i, name in enumerate(sorted(reader.get_variable_to_shape_map())):
                check.check(i * rows, reader.get_tensor(name))

        yield run

    return Case(
        key=f"stream/{TENSORS} tensors of {binary(nbytes // TENSORS)}",
        title=f"all {TENSORS} tensors of {binary(nbytes // TENSORS)}, one by one, page cache warm",
        contenders=[
            Contender("tensorbundle stream", tensorbundle, OURS, VERIFIED),
            Contender("TensorFlow reader", get_tensors, checksum=VERIFIED, needs=("tensorflow",)),
        ],
        check=lambda _: check.finish(TENSORS * rows),
        unit="bytes",
        amount=nbytes,
        destination=check,
        memory=True,
    )
