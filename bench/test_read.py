# SPDX-License-Identifier: Apache-2.0
"""Reading a tensor whole, warm and cold, as a view, and from the older format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, content, data, rivals
from bench.case import FLOOR, OURS, UNVERIFIED, VERIFIED, Case, Contender, Destination, Run
from bench.sizes import DIM, Size
from bench.tables import Table, binary

THREADS = len(os.sched_getaffinity(0))


def test_read(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    found = []
    for nbytes in size.tensor:
        found += [_whole(nbytes), _whole_cold(nbytes), _view(nbytes)]
    return found + [_v1(nbytes) for nbytes in size.v1]


def _ours(table: Table, out: Destination, **options: Any) -> Callable[[], Any]:
    @contextmanager
    def start() -> Iterator[Run]:
        into, prefix = out.array, table.prefix

        def run() -> Any:
            # Opened every time: a handle remembers what it has checked.
            with tb.open(prefix, **options) as ck:
                return ck["table"].read(out=into)

        yield run

    return start


def _contenders(table: Table, out: Destination) -> list[Contender]:
    """Those that may run warm and cold: nothing stays open between two runs."""

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, prefix = rivals.tensorflow(), str(table.prefix)
        yield lambda: tf.train.load_checkpoint(prefix).get_tensor("table")

    @contextmanager
    def restore() -> Iterator[Run]:
        tf, prefix = rivals.tensorflow(), str(table.prefix)
        yield lambda: tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=["table"], shape_and_slices=[""], dtypes=[tf.float32]
        )[0]

    @contextmanager
    def memmap() -> Iterator[Run]:
        into = out.array

        def run() -> Any:
            np.copyto(into, table.maps()[0])
            return into

        yield run

    @contextmanager
    def pread() -> Iterator[Run]:
        into = out.array

        def run() -> Any:
            with table.descriptor() as (file, offset):
                return ceiling.pread(file, offset, into, THREADS)

        yield run

    return [
        Contender("tensorbundle", _ours(table, out), OURS, VERIFIED),
        Contender("tensorbundle, 1 thread", _ours(table, out, threads=1), OURS, VERIFIED),
        Contender("tensorbundle, verify=none", _ours(table, out, verify="none"), OURS, UNVERIFIED),
        Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("TensorFlow RestoreV2", restore, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("numpy.memmap, copyto", memmap, checksum=UNVERIFIED),
        Contender(f"C: pread, {THREADS} threads", pread, FLOOR, UNVERIFIED),
    ]


def _other_formats(table: Table, out: Destination) -> list[Contender]:
    @contextmanager
    def safetensors() -> Iterator[Run]:
        from safetensors import safe_open

        with safe_open(table.safetensors, "numpy") as file:
            yield lambda: file.get_tensor("table")

    @contextmanager
    def tensorstore() -> Iterator[Run]:
        array = table.tensorstore()
        yield lambda: array.read().result()

    @contextmanager
    def zarr() -> Iterator[Run]:
        import zarr

        array = zarr.open_array(str(table.zarr), mode="r")
        yield lambda: array[...]

    @contextmanager
    def memcpy() -> Iterator[Run]:
        into, source = out.array, table.maps()[0]
        yield lambda: ceiling.memcpy(into, source, THREADS)

    return [
        Contender("safetensors get_tensor", safetensors, needs=("safetensors",)),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr")),
        Contender("zarr, Zarr 3", zarr, needs=("zarr",)),
        Contender(f"C: memcpy, {THREADS} threads", memcpy, FLOOR, UNVERIFIED),
    ]


def _whole(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)
    out = Destination(table.rows, DIM)
    return Case(
        key=f"read/{binary(nbytes)}, warm",
        title=f"read a tensor of {binary(nbytes)} into a given buffer, page cache warm",
        contenders=_contenders(table, out) + _other_formats(table, out),
        check=_is_table,
        unit="bytes",
        amount=nbytes,
        destination=out,
        weigh=True,
    )


def _whole_cold(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)
    out = Destination(table.rows, DIM)
    direct = _ours(table, out, io="direct")
    return Case(
        key=f"read/{binary(nbytes)}, cold",
        title=f"open and read a tensor of {binary(nbytes)} into a given buffer, page cache cold",
        contenders=[
            *_contenders(table, out),
            Contender("tensorbundle, io=direct", direct, OURS, VERIFIED),
        ],
        check=_is_table,
        unit="bytes",
        amount=nbytes,
        destination=out,
        cold=table.files,
    )


def _is_table(result: Any) -> None:
    content.require_table(np.asarray(result))


def _view(nbytes: int) -> Case:
    table = Table.of_bytes(nbytes)

    @contextmanager
    def ours() -> Iterator[Run]:
        prefix = table.prefix

        def run() -> Any:
            with tb.open(prefix) as ck:
                return np.asarray(ck["table"])

        yield run

    @contextmanager
    def opened() -> Iterator[Run]:
        with tb.open(table.prefix) as ck:
            yield lambda: np.asarray(ck["table"])

    @contextmanager
    def memmap() -> Iterator[Run]:
        table.files()  # makes the data
        yield lambda: table.maps()[0]

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        reader = rivals.tensorflow().train.load_checkpoint(str(table.prefix))
        yield lambda: reader.get_tensor("table")

    return Case(
        key=f"view/{binary(nbytes)}",
        title=f"a tensor of {binary(nbytes)} as a NumPy array that can be indexed",
        contenders=[
            Contender("tensorbundle: open and view", ours, OURS, UNVERIFIED),
            Contender("tensorbundle: view", opened, OURS, UNVERIFIED),
            Contender("numpy.memmap, place known", memmap, checksum=UNVERIFIED),
            Contender(
                "TensorFlow reader (a copy)", get_tensor, checksum=VERIFIED, needs=("tensorflow",)
            ),
        ],
        check=_is_table,
        weigh=True,
    )


def _v1(nbytes: int) -> Case:
    rows = nbytes // (4 * DIM)
    out = Destination(rows, DIM)

    @contextmanager
    def ours() -> Iterator[Run]:
        path, into = data.v1(rows), out.array

        def run() -> Any:
            with tb.open(path) as ck:
                return ck["table"].read(out=into)

        yield run

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, path = rivals.tensorflow(), str(data.v1(rows))
        yield lambda: tf.train.load_checkpoint(path).get_tensor("table")

    return Case(
        key=f"read V1/{binary(nbytes)}",
        title=f"open a V1 file and read its tensor of {binary(nbytes)} into a given buffer",
        contenders=[
            Contender("tensorbundle", ours, OURS, VERIFIED),
            Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
        ],
        check=_is_table,
        unit="bytes",
        amount=nbytes,
        destination=out,
        weigh=True,
    )
