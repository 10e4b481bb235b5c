# SPDX-License-Identifier: Apache-2.0
"""The preloaded library of ``tests/faults``, which makes system calls fail, and its controls."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "faults" / "shim.cc"
# The modes and the groups of functions, in the order of shim.cc.
OFF, FAIL, FAIL_FROM, SHORT, INTERRUPT, SLOW_START = range(6)
_NAMES = (
    "open", "read", "map", "stat", "write", "sync", "name", "remove", "size", "memory", "thread",
    "list", "close", "lock", "seek",
)  # fmt: skip
_GROUPS = {name: 1 << bit for bit, name in enumerate(_NAMES)}


def build(folder: Path) -> Path:
    """Compiles the library, which a child process preloads; skips the test without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C++ compiler and Linux")
    library = folder / "shim.so"
    options = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", library, SOURCE, "-ldl"], check=True)
    return library


class Shim:
    """The variables of the preloaded library. Allocations count by the core and libstdc++ only."""

    def __init__(self, library: str, folder: Path | None = None) -> None:
        """Takes the library and, for faults of files, the folder in which they are counted."""
        shim = ctypes.CDLL(library)
        self._mode = ctypes.c_int.in_dll(shim, "fault_mode")
        self._groups = ctypes.c_uint32.in_dll(shim, "fault_groups")
        self._at = ctypes.c_int64.in_dll(shim, "fault_at")
        self._errno = ctypes.c_int.in_dll(shim, "fault_errno")
        self._count = ctypes.c_int64.in_dll(shim, "fault_count")
        if folder is not None:
            (ctypes.c_char * 4096).in_dll(shim, "fault_folder").value = os.fsencode(folder)
        code = (ctypes.c_size_t * 16).in_dll(shim, "fault_code")
        code[:4] = [*_code_range("/_core."), *_code_range("/libstdc++")]

    @property
    def count(self) -> int:
        """The number of calls that were counted since the last ``faults``."""
        return self._count.value

    @contextmanager
    def faults(self, groups: Sequence[str], mode: int, number: int, at: int) -> Iterator[None]:
        """Injects the error `number` into call `at` of groups, in the ``with`` statement."""
        self._groups.value = sum(_GROUPS[group] for group in groups)
        self._errno.value, self._at.value, self._count.value = number, at, 0
        self._mode.value = mode
        try:
            yield
        finally:
            self._mode.value = OFF


def _code_range(library: str) -> tuple[int, int]:
    """Returns the address range of a mapped library."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if library in line]
    return int(ranges[0][0], 16), int(ranges[-1][1], 16)
