# SPDX-License-Identifier: Apache-2.0
"""Reading a part of a tensor that is stored whole: an eighth of it, and a single row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, content, rivals
from bench.case import FLOOR, OURS, UNVERIFIED, VERIFIED, Case, Contender, Destination, Run
from bench.sizes import DIM, Size
from bench.tables import Table, binary


def test_box(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    found = []
    for nbytes in size.tensor:
        found += [_proportion(nbytes), _rows(nbytes), _columns(nbytes)]
    return found + [_one_row(nbytes) for nbytes in size.one_row]


def _ours(table: Table, index: Any, into: Callable[[], Any]) -> Callable[[], Any]:
    @contextmanager
    def start() -> Iterator[Run]:
        out = into()
        with tb.open(table.prefix, verify="none") as ck:
            tensor = ck["table"]
            yield lambda: tensor.read(index, out=out)

    return start


def _proportion(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)
    out = Destination(table.rows, DIM)
    eighth = table.rows // 8
    part = np.s_[3 * eighth : 4 * eighth]

    def check(result: Any) -> None:
        content.require_table(result, 0 if result.shape[0] == table.rows else 3 * eighth * DIM)

    return Case(
        key=f"box/whole and an eighth of {binary(nbytes)}",
        title=f"the whole of a table of {binary(nbytes)}, and an eighth of its rows",
        contenders=[
            Contender("whole", _ours(table, ..., lambda: out.array), OURS, UNVERIFIED),
            Contender("eighth", _ours(table, part, lambda: out.array[:eighth]), OURS, UNVERIFIED),
        ],
        check=check,
        destination=out,
    )


def _formats(
    table: Table, index: tuple[slice, slice], spec: str, out: Destination
) -> list[Contender]:
    """The rivals, for a box that is contiguous or not."""

    @contextmanager
    def restore() -> Iterator[Run]:
        tf, prefix = rivals.tensorflow(), str(table.prefix)
        yield lambda: tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=["table"], shape_and_slices=[spec], dtypes=[tf.float32]
        )[0]

    @contextmanager
    def memmap() -> Iterator[Run]:
        into, source = out.array, table.maps()[0]

        def run() -> Any:
            np.copyto(into, source[index])
            return into

        yield run

    @contextmanager
    def safetensors() -> Iterator[Run]:
        from safetensors import safe_open

        with safe_open(table.safetensors, "numpy") as file:
            yield lambda: file.get_slice("table")[index]

    @contextmanager
    def tensorstore() -> Iterator[Run]:
        array = table.tensorstore()
        yield lambda: array[index].read().result()

    return [
        Contender("TensorFlow RestoreV2", restore, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("numpy.memmap, copyto", memmap, checksum=UNVERIFIED),
        Contender("safetensors get_slice", safetensors, needs=("safetensors",)),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr")),
    ]


def _rows(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)
    eighth = table.rows // 8
    start = 3 * eighth
    out = Destination(eighth, DIM)
    index = np.s_[start : start + eighth, :]

    @contextmanager
    def pread() -> Iterator[Run]:
        into = out.array
        with table.descriptor() as (file, offset):
            yield lambda: ceiling.pread(file, offset + start * DIM * 4, into, 1)

    return Case(
        key=f"box/rows, an eighth of {binary(nbytes)}",
        title=f"an eighth of the rows of a table of {binary(nbytes)}, into a given buffer",
        contenders=[
            Contender("tensorbundle", _ours(table, index, lambda: out.array), OURS, UNVERIFIED),
            *_formats(table, index, f"{table.rows} {DIM} {start},{eighth}:-", out),
            Contender("C: pread", pread, FLOOR, UNVERIFIED),
        ],
        check=lambda result: content.require_table(np.asarray(result), start * DIM),
        unit="bytes",
        amount=out.nbytes,
        destination=out,
        weigh=True,
    )


def _columns(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)
    width = DIM // 8
    out = Destination(table.rows, width)
    index = np.s_[:, width : 2 * width]

    def check(result: Any) -> None:
        array = np.asarray(result)
        assert array.shape == out.shape
        for at in range(0, table.rows, content.BLOCK // DIM):
            stop = min(at + content.BLOCK // DIM, table.rows)
            expected = content.elements(at * DIM, stop * DIM).reshape(-1, DIM)
            assert np.array_equal(array[at:stop], expected[index])

    return Case(
        key=f"box/columns, an eighth of {binary(nbytes)}",
        title=f"an eighth of the columns of a table of {binary(nbytes)}, into a given buffer",
        contenders=[
            Contender("tensorbundle", _ours(table, index, lambda: out.array), OURS, UNVERIFIED),
            *_formats(table, index, f"{table.rows} {DIM} -:{width},{width}", out),
        ],
        check=check,
        unit="bytes",
        amount=out.nbytes,
        destination=out,
        weigh=True,
    )


def _one_row(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)
    row = table.rows * 5 // 8

    @contextmanager
    def ours() -> Iterator[Run]:
        with tb.open(table.prefix) as ck:
            tensor = ck["table"]
            yield lambda: tensor.read(row)

    @contextmanager
    def restore() -> Iterator[Run]:
        tf, prefix = rivals.tensorflow(), str(table.prefix)
        spec = f"{table.rows} {DIM} {row},1:-"
        yield lambda: tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=["table"], shape_and_slices=[spec], dtypes=[tf.float32]
        )[0]

    @contextmanager
    def memmap() -> Iterator[Run]:
        source = table.maps()[0]
        yield lambda: np.array(source[row])

    @contextmanager
    def safetensors() -> Iterator[Run]:
        from safetensors import safe_open

        with safe_open(table.safetensors, "numpy") as file:
            yield lambda: file.get_slice("table")[row : row + 1]

    return Case(
        key=f"row/of {binary(nbytes)}",
        title=f"one row of a table of {binary(nbytes)}",
        contenders=[
            Contender("tensorbundle", ours, OURS, UNVERIFIED),
            Contender("TensorFlow RestoreV2", restore, checksum=VERIFIED, needs=("tensorflow",)),
            Contender("numpy.memmap", memmap, checksum=UNVERIFIED),
            Contender("safetensors get_slice", safetensors, needs=("safetensors",)),
        ],
        check=lambda result: content.require_table(np.asarray(result), row * DIM),
        unit="rows",
        amount=1,
        weigh=True,
        touched=table.files,
    )
