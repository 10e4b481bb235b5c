# SPDX-License-Identifier: Apache-2.0
"""The functions of ``baseline.c``, which is compiled for this processor at first use."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from bench import data
from bench.data import Array

_SOURCE = Path(__file__).with_name("baseline.c")
_FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-pthread"]


def compiler() -> str | None:
    """Returns the C compiler, or None."""
    return next(filter(None, map(shutil.which, [os.environ.get("CC", "cc"), "gcc", "clang"])), None)


@functools.cache
def library() -> ctypes.CDLL:
    """Compiles the source if it changed, and loads the library."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    built = data.root() / f"baseline-{digest}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        unfinished = built.with_name(f".{built.name}.{os.getpid()}")
        command = [compiler() or "cc", *_FLAGS, str(_SOURCE), "-o", str(unfinished)]
        subprocess.run(command, check=True)
        unfinished.rename(built)
    return ctypes.CDLL(str(built))


def call(name: str, *arguments: int | Array | None) -> int:
    """Calls a function that takes int64 numbers and pointers and returns an int64.

    Raises:
        OSError: The function returned -1: a file is too short, or has another number of lines.
    """
    function = getattr(library(), name)
    function.restype = ctypes.c_int64
    values = (each.ctypes.data if isinstance(each, np.ndarray) else each for each in arguments)
    result: int = function(*(ctypes.c_int64(value or 0) for value in values))
    if result < 0:
        raise OSError("the file ends early, or has another number of lines")
    return result


def new_memory(shape: tuple[int, ...], *, huge: bool = False) -> Array:
    """Returns a float32 array whose pages are not allocated yet."""
    private = mmap.mmap(-1, math.prod(shape) * 4, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(private, np.float32).reshape(shape)


def pread(file: int, offset: int, out: Array, threads: int) -> Array:
    call("baseline_pread", file, offset, out, out.nbytes, threads)
    return out


def gather(
    out: Array, slices: list[Array], ids: Array, threads: int, *, streaming: bool = False,
    fill: Array | None = None,
) -> Array:  # fmt: skip
    """Copies rows of a table with equal slices; for the id -1, copies the row `fill`."""
    addresses = np.array([each.ctypes.data for each in slices])
    row_bytes = out.nbytes // max(1, ids.size)
    call("baseline_gather", out, addresses, slices[0].shape[0], ids, ids.size, row_bytes, fill,
         streaming, threads)  # fmt: skip
    return out


def join(new: Array, old: Array, slots: int, ids: Array, threads: int) -> Array:
    """Sets `ids` to the line of `old`, or -1, for every line of `new`, by a table of `slots`."""
    table = new_memory((slots, 2), huge=True).view(np.uint64)
    call("baseline_join", new, new.nbytes, old, old.nbytes, table, slots, ids, ids.size, threads)
    return ids


def pread_checked(file: int, offset: int, nbytes: int, out: Array | None, threads: int) -> None:
    """Reads and computes a CRC-32C of every block; `out` is optional."""
    call("baseline_pread_checked", file, offset, out, nbytes, threads)
