# SPDX-License-Identifier: Apache-2.0
"""Puts files out of the page cache, and says what of them is in it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def resident(path: Path) -> int:
    """Bytes of the file that the page cache holds."""
    size = path.stat().st_size
    if not size:
        return 0
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        start = np.frombuffer(mapping, np.uint8)
        address = ctypes.c_void_p(start.ctypes.data)
        del start  # the mapping cannot be closed while an array shows it
        failed = libc.mincore(address, ctypes.c_size_t(size), pages.ctypes.data_as(ctypes.c_void_p))
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore of {path.name}")
    return int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE


def drop(paths: Iterable[Path]) -> None:
    """Puts the files out of the page cache.

    Raises:
        OSError: More than a hundredth of one stays in it, as on a file system in memory.
    """
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
        left, size = resident(path), path.stat().st_size
        if left > max(size // 100, 16 * mmap.PAGESIZE):
            raise OSError(f"{left} of {size} bytes of {path.name} stay in the page cache")


def warm(paths: Iterable[Path]) -> None:
    """Reads the files, so that the page cache holds them."""
    buffer = bytearray(1 << 23)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
