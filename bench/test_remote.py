# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on an HTTP server on this machine: a whole table, and some of its rows.

The limit is what the same server gives to 16 threads that request ranges.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import data
from bench.case import BASELINE, COMPETITOR, NONE, OURS, VERIFIED, Case, Contender, Destination, Run
from bench.data import DIM, Array, Table, binary

ROWS = {"smoke": 1 << 12, "256MB": 1 << 20}
IDS = 1000
THREADS = 16
PART = 4 << 20
NEEDS = ("requests", "fsspec")

_SERVER = """
import sys
from pathlib import Path
from craft.range_server import serve
with serve(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_remote(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in ROWS:
        return []
    table = Table(ROWS[size])
    rng = np.random.default_rng(0)
    ids = rng.integers(0, table.rows, min(IDS, table.rows // 4))
    return [_whole(table), _rows(table, ids)]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder by another process. Yields its URL."""
    command = [sys.executable, "-c", _SERVER, str(folder)]
    path = {"PYTHONPATH": str(Path(__file__).parents[1] / "tests" / "python")}
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.communicate()


@contextmanager
def served_table(table: Table) -> Iterator[str]:
    """Yields the URL of the checkpoint of a table."""
    prefix = table.warmed()
    with served(prefix.parent) as url:
        yield f"{url}/{prefix.name}"


@contextmanager
def requested(url: str, ranges: list[tuple[int, memoryview]]) -> Iterator[Run]:
    """Yields a function that requests ranges of a file by 16 threads, and fills the buffers."""
    import requests

    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))

    def get(wanted: tuple[int, memoryview]) -> None:
        offset, buffer = wanted
        header = {"Range": f"bytes={offset}-{offset + len(buffer) - 1}"}
        with session.get(url, headers=header, stream=True) as response:
            done = 0
            while done < len(buffer):
                done += response.raw.readinto(buffer[done : done + (1 << 18)])

    with session, ThreadPoolExecutor(THREADS) as pool:
        yield lambda: list(pool.map(get, ranges))


def _downloaded(url: str, read: Callable[[tb.Checkpoint], Any]) -> Any:
    """Downloads a checkpoint to the disk, and reads from it."""
    import fsspec

    with tempfile.TemporaryDirectory(dir=data.root()) as folder:
        for suffix in (".index", ".data-00000-of-00001"):
            fsspec.filesystem("http").get_file(url + suffix, f"{folder}/c{suffix}")
        with tb.open(f"{folder}/c") as checkpoint:
            return read(checkpoint)


def _contenders(
    table: Table,
    destination: Destination,
    read: Callable[[tb.Tensor], Any],
    ranges: list[tuple[int, int]],
    name: str,
    checksum: str,
) -> list[Contender]:
    """Returns tensorbundle, threads that request ranges, and a download.

    Args:
        table: The table.
        destination: Where they write.
        read: Reads from a tensor into the destination.
        ranges: The (offset in the table, size) of the requests that fill the destination, in order.
        name: The name of the threads.
        checksum: Whether `read` compares checksums.
    """

    @contextmanager
    def ours() -> Iterator[Run]:
        with served_table(table) as url, tb.open(url) as checkpoint:
            tensor = checkpoint["table"]
            tensor[0]
            yield lambda: read(tensor)

    @contextmanager
    def in_parallel() -> Iterator[Run]:
        with served_table(table) as url:
            buffer = memoryview(destination.array).cast("B")
            wanted, begin = [], 0
            for offset, size in ranges:
                wanted.append((table.offset + offset, buffer[begin : begin + size]))
                begin += size
            with requested(f"{url}.data-00000-of-00001", wanted) as run:
                yield lambda: (run(), destination.array)[1]

    @contextmanager
    def downloaded() -> Iterator[Run]:
        with served_table(table) as url:
            yield lambda: _downloaded(url, lambda checkpoint: read(checkpoint["table"]))

    return [
        Contender("tensorbundle", ours, OURS, checksum, ("requests",)),
        Contender(name, in_parallel, BASELINE, NONE, ("requests",)),
        Contender("download, then read", downloaded, COMPETITOR, checksum, (*NEEDS, "aiohttp")),
    ]


def _whole(table: Table) -> Case:
    destination = Destination(table.rows, DIM)
    ranges = [(at, min(PART, table.nbytes - at)) for at in range(0, table.nbytes, PART)]
    return Case(
        key=f"remote/whole table of {binary(table.nbytes)}",
        title=f"read a table of {binary(table.nbytes)} from an HTTP server on this machine",
        contenders=_contenders(
            table,
            destination,
            lambda tensor: tensor.read(out=destination.array),
            ranges,
            "16 threads that request 4 MiB",
            VERIFIED,
        ),
        check=data.require_table,
        unit="bytes",
        amount=table.nbytes,
        destination=destination,
    )


def _rows(table: Table, ids: Array) -> Case:
    destination = Destination(ids.size, DIM)

    @contextmanager
    def zarr_chunks() -> Iterator[Run]:
        import zarr

        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=data.root())))
            array = zarr.create_array(
                folder / "z", shape=(table.rows, DIM), chunks=(4096, DIM), dtype="f4"
            )
            for at in range(0, table.rows, 1 << 16):
                end = min(at + (1 << 16), table.rows)
                array[at:end] = data.elements(at * DIM, end * DIM).reshape(-1, DIM)
            url = stack.enter_context(served(folder))
            store = zarr.storage.FsspecStore.from_url(f"{url}/z")
            remote = zarr.open_array(store, mode="r")

            def run() -> Array:
                destination.array[...] = remote.oindex[ids]
                return destination.array

            yield run

    def check(result: Array) -> None:
        data.require_rows(result, ids)

    return Case(
        key=f"remote/{ids.size} rows of {binary(table.nbytes)}",
        title=f"read {ids.size} random rows of 256 bytes of a table of {binary(table.nbytes)} "
        "from an HTTP server on this machine",
        contenders=[
            *_contenders(
                table,
                destination,
                lambda tensor: tensor.take(ids, out=destination.array),
                [(int(row) * DIM * 4, DIM * 4) for row in ids],
                "16 threads, a request per row",
                NONE,
            ),
            Contender("zarr, chunks of 1 MiB", zarr_chunks, COMPETITOR, NONE, ("zarr", *NEEDS)),
        ],
        check=check,
        unit="rows",
        amount=ids.size,
        destination=destination,
    )
