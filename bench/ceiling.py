# SPDX-License-Identifier: Apache-2.0
"""The floor of time in C: ``ceiling.c``, compiled for this processor and loaded by ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import mmap
import os
import shutil
import subprocess
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from bench import data
from bench.content import Array

_SOURCE = Path(__file__).with_name("ceiling.c")
_FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-pthread"]
_SIGNATURES = {
    "ceiling_memcpy": (None, [c_void_p, c_void_p, c_int64, c_int]),
    "ceiling_pread": (c_int, [c_int, c_int64, c_void_p, c_int64, c_int]),
    "ceiling_pread_sequential": (c_int, [c_int, c_int64, c_int64, c_void_p, c_int64]),
    "ceiling_pread_checked": (c_int, [c_int, c_int64, c_void_p, c_int64, c_int]),
    "ceiling_gather": (
        None,
        [c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_int, c_int],
    ),
    "ceiling_probe_lines": (c_int64, [c_void_p, c_int64, c_void_p, c_int64, c_int]),
    "memory_sampler_start": (c_int, []),
    "memory_sampler_stop": (c_int64, []),
}


def compiler() -> str | None:
    """The C compiler, or None."""
    return next(filter(None, map(shutil.which, [os.environ.get("CC", "cc"), "gcc", "clang"])), None)


def unavailable() -> str | None:
    """Why there is no floor, or None."""
    return None if compiler() else "no C compiler"


@functools.cache
def library() -> Any:
    """The compiled functions. A change to the source compiles it anew."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    built = data.root() / f"ceiling-{digest}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        unfinished = built.with_name(f".{built.name}.{os.getpid()}")
        command = [compiler() or "cc", *_FLAGS, str(_SOURCE), "-o", str(unfinished)]
        subprocess.run(command, check=True)
        unfinished.rename(built)
    loaded = ctypes.CDLL(str(built))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def memcpy(out: Array, source: Array, threads: int) -> Array:
    library().ceiling_memcpy(out.ctypes.data, source.ctypes.data, out.nbytes, threads)
    return out


def pread(file: int, offset: int, out: Array, threads: int) -> Array:
    if library().ceiling_pread(file, offset, out.ctypes.data, out.nbytes, threads):
        raise OSError("the file ends early")
    return out


def pread_sequential(file: int, offset: int, nbytes: int, buffer: Array) -> None:
    if library().ceiling_pread_sequential(file, offset, nbytes, buffer.ctypes.data, buffer.nbytes):
        raise OSError("the file ends early")


def fresh(shape: tuple[int, ...], *, huge: bool = False) -> Array:
    """A float32 array in memory that the system has yet to give."""
    private = mmap.mmap(-1, math.prod(shape) * 4, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(private, np.float32).reshape(shape)


def pread_checked(file: int, offset: int, nbytes: int, out: Array | None, threads: int) -> None:
    """Reads with a CRC-32C of every block while the caches hold it; without `out`, only that."""
    to = None if out is None else out.ctypes.data
    if library().ceiling_pread_checked(file, offset, to, nbytes, threads):
        raise OSError("the file ends early")


def gather(
    out: Array,
    parts: list[Array],
    ids: Array,
    *,
    threads: int,
    streaming: bool = False,
    fill: Array | None = None,
) -> Array:
    """Copies rows of a table in equal parts; with a `fill`, that row for id -1."""
    row_bytes = out.nbytes // max(1, ids.size)
    addresses = (c_void_p * len(parts))(*(part.ctypes.data for part in parts))
    library().ceiling_gather(
        out.ctypes.data, addresses, parts[0].shape[0], ids.ctypes.data, ids.size, row_bytes,
        None if fill is None else fill.ctypes.data, int(streaming), threads,
    )  # fmt: skip
    return out


def probe_lines(text: Array, table: Array, threads: int) -> int:
    """Counts the lines, with one access to a random slot of `table` for each."""
    return int(
        library().ceiling_probe_lines(
            text.ctypes.data, text.nbytes, table.ctypes.data, table.size, threads
        )
    )
