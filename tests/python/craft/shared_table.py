# SPDX-License-Identifier: Apache-2.0
"""The work of a process that serves rows of a table: spawned processes import this module."""

from __future__ import annotations

import os
import re
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np

_state: dict[str, Any] = {}


def start(table: Any, barrier: Barrier) -> None:
    """Stores what ``serve`` uses; the table's handle has been pickled."""
    _state.update(table=table, barrier=barrier)


def requests(seed: int, rows: int) -> np.ndarray:
    """Returns the rows that a process is asked for."""
    return np.random.default_rng(seed).integers(0, rows, 100)


def serve(seed: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Reads all rows, then some, when all processes have done so.

    Returns the rows, and the bytes of the mapped data file that are in memory: all of them, and the
    share of this process.
    """
    table, barrier = _state["table"], _state["barrier"]
    table.take(np.arange(len(table)))
    ids = requests(seed, len(table))
    rows = table[ids]
    barrier.wait(timeout=100)  # each process serves one request
    sizes = _mapped_bytes(os.path.realpath(table.slices[0].file))
    barrier.wait(timeout=100)
    return ids, rows, *sizes


def _mapped_bytes(file: str) -> tuple[int, int]:
    """Returns the resident and the proportional size of the mappings of a file."""
    with open("/proc/self/smaps", encoding="utf-8") as smaps:
        text = smaps.read()
    sizes = {"Rss": 0, "Pss": 0}
    is_mapping = False
    for line in text.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_mapping = line.endswith(file)
        elif is_mapping and (found := re.match(r"(Rss|Pss): +(\d+) kB", line)):
            sizes[found[1]] += int(found[2]) << 10
    return sizes["Rss"], sizes["Pss"]
