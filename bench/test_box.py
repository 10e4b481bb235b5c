# SPDX-License-Identifier: Apache-2.0
"""Reading a box of a tensor with one stored slice: an eighth of it, and a single row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import baseline, data
from bench.case import (
    BASELINE,
    OURS,
    UNVERIFIED,
    VERIFIED,
    Case,
    Contender,
    Destination,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import DIM, MIB, Table, binary

SIZES = {"smoke": 2 * MIB, "256MB": 256 * MIB, "1GB": 1024 * MIB}
ONE_ROW_SIZES = {"smoke": 2 * MIB, "256MB": 400 * MIB}


def test_box(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    found = []
    if size in SIZES:
        table = Table(SIZES[size] // (4 * DIM))
        found += [_proportion(table), _rows(table), _columns(table)]
    if size in ONE_ROW_SIZES:
        found.append(_one_row(Table(ONE_ROW_SIZES[size] // (4 * DIM))))
    return found


def _tensorbundle(table: Table, index: Any, out: Callable[[], Any]) -> Callable[[], Any]:
    @contextmanager
    def start() -> Iterator[Run]:
        into = out()
        with tb.open(table.prefix, verify="none") as ck:
            tensor = ck["table"]
            yield lambda: tensor.read(index, out=into)

    return start


def _proportion(table: Table) -> Case:
    out, eighth, size = Destination(table.rows, DIM), table.rows // 8, binary(table.nbytes)
    box = np.s_[3 * eighth : 4 * eighth]

    def check(result: Any) -> None:
        data.require_table(result, 0 if result.shape[0] == table.rows else 3 * eighth * DIM)

    return Case(
        key=f"box/whole and an eighth of {size}",
        title=f"the whole of a table of {size}, and an eighth of its rows",
        contenders=[
            Contender("whole", _tensorbundle(table, ..., lambda: out.array), OURS, UNVERIFIED),
            Contender(
                "eighth", _tensorbundle(table, box, lambda: out.array[:eighth]), OURS, UNVERIFIED
            ),
        ],
        check=check,
        destination=out,
    )


def _restore(table: Table, spec: str) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
        yield lambda: tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=["table"], shape_and_slices=[spec], dtypes=[tf.float32]
        )[0]

    return Contender("TensorFlow RestoreV2", start, checksum=VERIFIED, needs=("tensorflow",))


def _safetensors(table: Table, index: Any) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        from safetensors import safe_open

        with safe_open(table.safetensors, "numpy") as file:
            yield lambda: file.get_slice("table")[index]

    return Contender("safetensors get_slice", start, needs=("safetensors",))


def _competitors(table: Table, index: Any, spec: str, out: Destination) -> list[Contender]:
    @contextmanager
    def memmap() -> Iterator[Run]:
        into, source = out.array, table.maps()[0]

        def run() -> Any:
            np.copyto(into, source[index])
            return into

        yield run

    @contextmanager
    def tensorstore() -> Iterator[Run]:
        array = table.tensorstore()
        yield lambda: array[index].read().result()

    return [
        _restore(table, spec),
        Contender("numpy.memmap, copyto", memmap, checksum=UNVERIFIED),
        _safetensors(table, index),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr")),
    ]


def _rows(table: Table) -> Case:
    eighth, size = table.rows // 8, binary(table.nbytes)
    start, out = 3 * eighth, Destination(eighth, DIM)
    index = np.s_[start : start + eighth, :]

    @contextmanager
    def pread() -> Iterator[Run]:
        into = out.array
        with table.descriptor() as file:
            yield lambda: baseline.pread(file, table.offset + start * DIM * 4, into, 1)

    return Case(
        key=f"box/rows, an eighth of {size}",
        title=f"an eighth of the rows of a table of {size}, into a given buffer",
        contenders=[
            Contender(
                "tensorbundle", _tensorbundle(table, index, lambda: out.array), OURS, UNVERIFIED
            ),
            *_competitors(table, index, f"{table.rows} {DIM} {start},{eighth}:-", out),
            Contender("C: pread", pread, BASELINE, UNVERIFIED),
        ],
        check=partial(data.require_table, start=start * DIM),
        unit="bytes",
        amount=out.nbytes,
        destination=out,
        memory=True,
    )


def _columns(table: Table) -> Case:
    width, size = DIM // 8, binary(table.nbytes)
    out, index = Destination(table.rows, width), np.s_[:, width : 2 * width]
    spec = f"{table.rows} {DIM} -:{width},{width}"

    def check(result: Any) -> None:
        assert result.shape == out.shape
        data.require_rows(result, np.arange(table.rows), lambda ids: data.rows(ids)[index])

    return Case(
        key=f"box/columns, an eighth of {size}",
        title=f"an eighth of the columns of a table of {size}, into a given buffer",
        contenders=[
            Contender(
                "tensorbundle", _tensorbundle(table, index, lambda: out.array), OURS, UNVERIFIED
            ),
            *_competitors(table, index, spec, out),
        ],
        check=check,
        unit="bytes",
        amount=out.nbytes,
        destination=out,
        memory=True,
    )


def _one_row(table: Table) -> Case:
    row, size = table.rows * 5 // 8, binary(table.nbytes)

    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        with tb.open(table.prefix) as ck:
            tensor = ck["table"]
            yield lambda: tensor.read(row)

    @contextmanager
    def view() -> Iterator[Run]:
        with tb.open(table.prefix) as ck:
            tensor = ck["table"]
            yield lambda: tensor[row]

    @contextmanager
    def memmap() -> Iterator[Run]:
        source = table.maps()[0]
        yield lambda: np.array(source[row])

    return Case(
        key=f"row/of {size}",
        title=f"one row of a table of {size}",
        contenders=[
            Contender("tensorbundle", tensorbundle, OURS, UNVERIFIED),
            Contender("tensorbundle: view", view, OURS, UNVERIFIED),
            _restore(table, f"{table.rows} {DIM} {row},1:-"),
            Contender("numpy.memmap", memmap, checksum=UNVERIFIED),
            _safetensors(table, np.s_[row : row + 1]),
        ],
        check=partial(data.require_table, start=row * DIM),
        unit="rows",
        amount=1,
        memory=True,
        touched_files=table.files,
    )
