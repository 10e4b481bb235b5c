# SPDX-License-Identifier: Apache-2.0
"""The stored table, as contenders get at it: its files, its raw bytes, its other formats."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import data
from bench.content import Array
from bench.sizes import DIM

_STEP_BYTES = 8
"""What lies before the table in its first data file."""


@dataclass(frozen=True)
class Table:
    """A float32 table of random access.

    Attributes:
        rows: How many rows there are.
        dim: Elements per row; all tables of as many elements share their stored bytes.
        parts: Row partitions, each in a data file of its own.
    """

    rows: int
    dim: int = DIM
    parts: int = 1

    @classmethod
    def of_bytes(cls, nbytes: int) -> Table:
        return cls(nbytes // (4 * DIM))

    @property
    def nbytes(self) -> int:
        return self.rows * self.dim * 4

    @property
    def prefix(self) -> Path:
        if self.dim != DIM:
            return data.reshaped(self.rows * self.dim // DIM, DIM, self.dim)
        return data.table(self.rows, self.dim, self.parts)

    @property
    def safetensors(self) -> Path:
        return data.safetensors(self.rows, self.dim)

    @property
    def zarr(self) -> Path:
        return data.zarr(self.rows, self.dim)

    def files(self) -> list[Path]:
        """The data files."""
        name, count = self.prefix, self.parts
        return [name.with_name(f"ckpt.data-{i:05d}-of-{count:05d}") for i in range(count)]

    def maps(self) -> list[Array]:
        """One ``numpy.memmap`` per partition."""
        count = self.rows // self.parts
        return [
            np.memmap(path, np.float32, "r", 0 if i else _STEP_BYTES, (count, self.dim))
            for i, path in enumerate(self.files())
        ]

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[tuple[int, int]]:
        """(file, offset) of a table in one part, for reads without a mapping."""
        file = os.open(self.files()[0], os.O_RDONLY)
        try:
            yield file, _STEP_BYTES
        finally:
            os.close(file)

    def tensorstore(self) -> Any:
        """An open TensorStore array."""
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(self.zarr)}}
        return tensorstore.open(spec, open=True).result()


def binary(nbytes: float) -> str:
    """``"256 MiB"`` and the like."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.4g} GiB"
