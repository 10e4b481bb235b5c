# SPDX-License-Identifier: Apache-2.0
"""Test data: a float32 table with computed elements, and files that are written once.

Files are in ``$TENSORBUNDLE_BENCH_DATA`` or ``bench/data``, in one folder per writer and
arguments. ``craft``, the checkpoint writer of the tests, writes the indexes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from craft.bundle import Bundle, index_path, shard_path
from craft.checksum import mask
from craft.ordered_code import slice_key

Array = np.ndarray[Any, Any]

KIB, MIB = 1 << 10, 1 << 20
DIM = 64
"""Columns of the tables, unless stated otherwise: rows of 256 bytes."""
FLOAT = 1
"""The number of float32 in TensorFlow's DataType."""
STEP = np.array(1000, np.int64)
"""The tensor "global_step", which Estimator stores before all other tensors."""

_VERSION = 2
"""Must be increased when the output of a writer changes."""
_BLOCK = 1 << 22
"""The number of elements that are computed at a time."""


def root() -> Path:
    """Returns the folder of all data, which exists."""
    chosen = os.environ.get("TENSORBUNDLE_BENCH_DATA")
    folder = Path(chosen) if chosen else Path(__file__).parent / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stored(write: Callable[..., None]) -> Callable[..., Path]:
    """Decorates ``write(folder, ...)``: the first call writes the folder; all calls return it."""

    @functools.wraps(write)
    def find(*arguments: int) -> Path:
        name = "-".join(map(str, (write.__name__.strip("_"), *arguments, f"v{_VERSION}")))
        if not (root() / name).exists():
            unfinished = root() / f".{name}.{os.getpid()}"
            unfinished.mkdir(parents=True)
            try:
                write(unfinished, *arguments)
                # The page cache cannot drop dirty pages.
                for path in [*unfinished.rglob("*"), unfinished]:
                    file = os.open(path, os.O_RDONLY)
                    os.fsync(file)
                    os.close(file)
                unfinished.rename(root() / name)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return root() / name

    return find


def _cells(numbers: Array) -> Array:
    """Returns float32 in [1, 2) for element numbers (uint32, wrapping)."""
    bits = numbers * np.uint32(2654435761)
    bits ^= bits >> np.uint32(15)
    bits &= np.uint32(0x007FFFFF)
    bits |= np.uint32(0x3F800000)
    return bits.view(np.float32)


def elements(start: int, stop: int) -> Array:
    """Returns elements [start, stop) of a table in row-major order; `stop` is below 2**32."""
    return _cells(np.arange(start, stop, dtype=np.uint32))


def rows(ids: Array, dim: int = DIM, fill: float = 0) -> Array:
    """Returns rows of a table with `dim` columns; for the id -1, a row of `fill`."""
    first = (ids.astype(np.uint64) * np.uint64(dim)).astype(np.uint32)
    result = _cells(first[:, None] + np.arange(dim, dtype=np.uint32))
    result[ids < 0] = fill
    return result


def require_table(array: Any, start: int = 0) -> None:
    """Raises AssertionError unless `array` contains the elements of a table from `start` on."""
    flat = np.asarray(array).reshape(-1)
    for at in range(0, flat.size, _BLOCK):
        block = flat[at : at + _BLOCK]
        same = np.array_equal(block, elements(start + at, start + at + block.size))
        assert same, f"wrong values among elements {at} to {at + block.size}"


def require_rows(array: Any, ids: Array, expected: Callable[[Array], Array] = rows) -> None:
    """Raises AssertionError unless `array` is ``expected(ids)``."""
    array = np.asarray(array)
    assert array.shape[0] == ids.size, array.shape
    for at in range(0, ids.size, _BLOCK // DIM):
        block = ids[at : at + _BLOCK // DIM]
        same = np.array_equal(array[at : at + block.size], expected(block))
        assert same, f"wrong rows among {at} to {at + block.size}"


@dataclass(frozen=True)
class Table:
    """A float32 table, stored in a checkpoint as the tensor "table".

    Attributes:
        rows: The number of rows.
        dim: The number of columns.
        slices: The number of stored slices, all with the same number of rows, one per data file.
        offset: The offset of the table in its first data file.
    """

    rows: int
    dim: int = DIM
    slices: int = 1
    offset: int = STEP.nbytes

    @property
    def nbytes(self) -> int:
        return self.rows * self.dim * 4

    @property
    def prefix(self) -> Path:
        return _table(self.rows, self.dim, self.slices, self.offset) / "ckpt"

    def warmed(self) -> Path:
        """Returns the prefix, after reading the checkpoint into the page cache."""
        warm(self.prefix.parent.iterdir())
        return self.prefix

    def files(self) -> list[Path]:
        """Returns the data files."""
        return [shard_path(self.prefix, i, self.slices) for i in range(self.slices)]

    def maps(self) -> list[Array]:
        """Returns one ``numpy.memmap`` per slice."""
        shape = self.rows // self.slices, self.dim
        return [
            np.memmap(path, np.float32, "r", 0 if i else self.offset, shape)
            for i, path in enumerate(self.files())
        ]

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """Opens the first data file, for reads without a mapping."""
        with self.files()[0].open("rb", buffering=0) as file:
            yield file.fileno()

    @property
    def safetensors(self) -> Path:
        """The same table in a safetensors file."""
        return _safetensors(self.rows, self.dim) / "table.safetensors"

    @property
    def zarr(self) -> str:
        """The same table as a Zarr 3 array: 16 MiB chunks, neither compressed nor checksummed."""
        return str(_zarr(self.rows, self.dim) / "table.zarr")

    def tensorstore(self) -> Any:
        """Opens the Zarr array with TensorStore."""
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": self.zarr}}
        return tensorstore.open(spec, open=True).result()


def warm(paths: Iterable[Path]) -> None:
    """Reads files into the page cache."""
    buffer = bytearray(1 << 23)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


@stored
def _table(folder: Path, rows: int, dim: int, slices: int, offset: int) -> None:
    prefix, bundle, count = folder / "ckpt", Bundle(slices), rows // slices
    bundle.add("global_step", STEP)
    bundle.write_shards(prefix)
    boxes = [((i * count, count), (0, dim)) for i in range(slices)]
    for i, box in enumerate(boxes):
        key = slice_key(b"table", box) if slices > 1 else b"table"
        start, first = 0 if i else offset, i * count * dim
        crc = write_elements(shard_path(prefix, i, slices), start, first, first + count * dim)
        add_entry(bundle, key, (count, dim), start, crc, i)
    if slices > 1:
        bundle.add_full("table", FLOAT, (rows, dim), boxes)
    write_index(bundle, prefix)


def write_elements(path: Path, offset: int, start: int, stop: int) -> int:
    """Writes elements [start, stop) of a table at an offset; returns their stored checksum."""
    crc = 0
    with path.open("r+b") as file:
        file.seek(offset)
        for at in range(start, stop, _BLOCK):
            block = elements(at, min(at + _BLOCK, stop)).tobytes()
            crc = google_crc32c.extend(crc, block)
            file.write(block)
    return mask(crc)


def add_entry(
    bundle: Bundle, key: str | bytes, shape: tuple[int, int], offset: int, crc: int, shard: int = 0
) -> None:
    """Adds an entry for float32 data that is written separately."""
    entry = bundle.add_payload(key, FLOAT, shape, b"", crc=crc, shard=shard)
    entry.offset, entry.size = offset, 4 * shape[0] * shape[1]


def write_index(bundle: Bundle, prefix: Path) -> None:
    index_path(prefix).write_bytes(bundle.table().encode().data)


@stored
def _safetensors(folder: Path, rows: int, dim: int) -> None:
    from safetensors.numpy import save_file

    save_file({"table": elements(0, rows * dim).reshape(-1, dim)}, folder / "table.safetensors")


@stored
def _zarr(folder: Path, rows: int, dim: int) -> None:
    import zarr

    zarr.create_array(
        str(folder / "table.zarr"), data=elements(0, rows * dim).reshape(-1, dim),
        chunks=(min(rows, (16 << 20) // (dim * 4)), dim), compressors=None, filters=None,
    )  # fmt: skip


def binary(nbytes: float) -> str:
    """Formats as ``"256 MiB"``."""
    power = min(3, (int(nbytes).bit_length() - 1) // 10)
    return f"{nbytes / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
