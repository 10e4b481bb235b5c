# SPDX-License-Identifier: Apache-2.0
"""Eight processes serve rows of one table, whose pages are in memory once."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import shared_table

import tensorbundle as tb

PROCESSES = 8
ROWS, COLUMNS = 1 << 16, 64  # 16 MiB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_processes_share_the_pages_of_a_table(tmp_path: Path, method: str) -> None:
    table = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    tb.save(tmp_path / "ck", {"t": table})
    context: Any = multiprocessing.get_context(method)
    barrier: Barrier = context.Barrier(PROCESSES)
    with tb.open(tmp_path / "ck") as checkpoint:
        handle = checkpoint["t"]
        (part,) = handle.slices
        with context.Pool(PROCESSES, shared_table.start, (handle, barrier)) as pool:
            answers = pool.map(shared_table.serve, range(PROCESSES), chunksize=1)
    sizes = []
    for seed, (ids, rows, resident, proportional) in enumerate(answers):
        np.testing.assert_array_equal(ids, shared_table.requests(seed, ROWS))
        np.testing.assert_array_equal(rows, table[ids])
        sizes.append((resident, proportional))
    # Every process has touched every page, and is counted for its share of it. The parent may have
    # its own share, and the file a page of the index of other tensors.
    resident = sum(size for size, _ in sizes)
    proportional = sum(size for _, size in sizes)
    assert resident >= 0.95 * PROCESSES * part.nbytes
    assert 0.8 * part.nbytes < proportional < 1.1 * part.nbytes
