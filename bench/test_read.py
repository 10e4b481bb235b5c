# SPDX-License-Identifier: Apache-2.0
"""Reading a whole tensor, with a warm and a cold page cache, as a view, and from a V1 file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from craft.v1 import V1File

import tensorbundle as tb
from bench import baseline, data
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
from bench.data import DIM, MIB, Table, binary

SIZES = {"smoke": 2 * MIB, "256MB": 256 * MIB, "1GB": 1024 * MIB}
V1_SIZES = {"smoke": MIB, "256MB": 64 * MIB}


def test_read(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    found = []
    if size in SIZES:
        table = Table(SIZES[size] // (4 * DIM))
        found += [_whole(table), _whole_cold(table), _view(table)]
    return found + ([_v1(V1_SIZES[size])] if size in V1_SIZES else [])


def _tensorbundle(table: Table, out: Destination, **options: Any) -> Callable[[], Any]:
    @contextmanager
    def start() -> Iterator[Run]:
        into, prefix = out.array, table.prefix

        def run() -> Any:
            # An open checkpoint compares a checksum only once, so every run opens it again.
            with tb.open(prefix, **options) as ck:
                return ck["table"].read(out=into)

        yield run

    return start


def _contenders(table: Table, out: Destination) -> list[Contender]:
    """Returns the contenders that run warm and cold; they keep no file open between two runs."""

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
        yield lambda: tf.train.load_checkpoint(prefix).get_tensor("table")

    @contextmanager
    def restore() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
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
            with table.descriptor() as file:
                return baseline.pread(file, table.offset, into, THREADS)

        yield run

    return [
        Contender("tensorbundle", _tensorbundle(table, out), OURS, VERIFIED),
        Contender("tensorbundle, 1 thread", _tensorbundle(table, out, threads=1), OURS, VERIFIED),
        Contender(
            "tensorbundle, verify=none", _tensorbundle(table, out, verify="none"), OURS, UNVERIFIED
        ),
        Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("TensorFlow RestoreV2", restore, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("numpy.memmap, copyto", memmap, checksum=UNVERIFIED),
        Contender(f"C: pread, {THREADS} threads", pread, BASELINE, UNVERIFIED),
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

        array = zarr.open_array(table.zarr, mode="r")
        yield lambda: array[...]

    @contextmanager
    def memcpy() -> Iterator[Run]:
        into, source = out.array, table.maps()[0]

        def run() -> Any:
            baseline.call("baseline_memcpy", into, source, into.nbytes, THREADS)
            return into

        yield run

    return [
        Contender("safetensors get_tensor", safetensors, needs=("safetensors",)),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr")),
        Contender("zarr, Zarr 3", zarr, needs=("zarr",)),
        Contender(f"C: memcpy, {THREADS} threads", memcpy, BASELINE, UNVERIFIED),
    ]


def _whole(table: Table) -> Case:
    out, size = Destination(table.rows, DIM), binary(table.nbytes)
    return Case(
        key=f"read/{size}, warm",
        title=f"read a tensor of {size} into a given buffer, page cache warm",
        contenders=_contenders(table, out) + _other_formats(table, out),
        check=data.require_table,
        unit="bytes",
        amount=table.nbytes,
        destination=out,
        memory=True,
    )


def _whole_cold(table: Table) -> Case:
    out, size = Destination(table.rows, DIM), binary(table.nbytes)
    direct = _tensorbundle(table, out, io="direct")
    return Case(
        key=f"read/{size}, cold",
        title=f"open and read a tensor of {size} into a given buffer, page cache cold",
        contenders=[
            *_contenders(table, out),
            Contender("tensorbundle, io=direct", direct, OURS, VERIFIED),
        ],
        check=data.require_table,
        unit="bytes",
        amount=table.nbytes,
        destination=out,
        cold_files=table.files,
    )


def _view(table: Table) -> Case:
    @contextmanager
    def tensorbundle() -> Iterator[Run]:
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
        table.files()  # writes missing files
        yield lambda: table.maps()[0]

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        reader = tensorflow().train.load_checkpoint(str(table.prefix))
        yield lambda: reader.get_tensor("table")

    tf_reader = "TensorFlow reader (a copy)"
    return Case(
        key=f"view/{binary(table.nbytes)}",
        title=f"a tensor of {binary(table.nbytes)} as a NumPy array that can be indexed",
        contenders=[
            Contender("tensorbundle: open and view", tensorbundle, OURS, UNVERIFIED),
            Contender("tensorbundle: view", opened, OURS, UNVERIFIED),
            Contender("numpy.memmap, place known", memmap, checksum=UNVERIFIED),
            Contender(tf_reader, get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
        ],
        check=data.require_table,
        memory=True,
    )


@data.stored
def _v1_table(folder: Path, rows: int) -> None:
    """Writes a V1 checkpoint with a table."""
    file = V1File()
    file.add("table", data.FLOAT, data.elements(0, rows * DIM).reshape(-1, DIM))
    file.write(folder / "ckpt")


def _v1(nbytes: int) -> Case:
    rows = nbytes // (4 * DIM)
    out = Destination(rows, DIM)

    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        path, into = _v1_table(rows) / "ckpt", out.array

        def run() -> Any:
            with tb.open(path) as ck:
                return ck["table"].read(out=into)

        yield run

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, path = tensorflow(), str(_v1_table(rows) / "ckpt")
        yield lambda: tf.train.load_checkpoint(path).get_tensor("table")

    @contextmanager
    def pread() -> Iterator[Run]:
        path, into = _v1_table(rows) / "ckpt", out.array
        with tb.open(path) as ck:
            ((_, offset, size),) = ck["table"].byte_ranges()

        def run() -> Any:
            with path.open("rb", buffering=0) as file:
                baseline.pread_checked(file.fileno(), offset, size, into, THREADS)
            return into

        yield run

    return Case(
        key=f"read V1/{binary(nbytes)}",
        title=f"open a V1 file and read its tensor of {binary(nbytes)} into a given buffer",
        contenders=[
            Contender("tensorbundle", tensorbundle, OURS, VERIFIED),
            Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
            Contender(f"C: pread and CRC-32C, {THREADS} threads", pread, BASELINE, UNVERIFIED),
        ],
        check=data.require_table,
        unit="bytes",
        amount=nbytes,
        destination=out,
        memory=True,
    )
